import os
import signal

from domaintune.sweeps.ending import Ending


def test_signals_are_kept_while_it_is_asked() -> None:
    ending = Ending()
    with ending.catching():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert ending.told() == signal.SIGUSR1
        assert not ending.at_once
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.at_once
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ending = Ending()
        with ending.catching():
            os.kill(os.getpid(), signal.SIGHUP)
        assert ending.told() is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_its_time_ends_it_like_sigterm() -> None:
    ending = Ending()
    ending.seconds = 0
    assert (ending.told(), ending.words()) == (signal.SIGTERM, "sweep.max_time is over")
