import os
import signal

import pytest

from domaintune.sweeps.ending import Ending


@pytest.mark.parametrize(("number", "at_once"), [("SIGINT", True), ("SIGTERM", True), ("SIGHUP", False)])
def test_a_second_signal_ends_at_once_unless_a_closed_terminal_sends_both(number: str, at_once: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    ending = Ending()
    try:
        with ending.catching():
            for _ in range(2):
                os.kill(os.getpid(), getattr(signal, number))
            assert ending.told() == getattr(signal, number)
            assert ending.at_once is at_once
    finally:
        signal.signal(signal.SIGHUP, before)
