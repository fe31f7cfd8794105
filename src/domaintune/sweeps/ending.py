"""What ends a sweep before its trials are done: signals, and its own time."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
CAUGHT = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
HANGUP = getattr(signal, "SIGHUP", None)


class Ending:
    """Asked by launchers while they wait.

    Attributes:
        seconds: for the whole sweep, counted from when this object was made.
    """

    def __init__(self) -> None:
        self.seconds = float("inf")
        self._began = time.monotonic()
        self._signals: list[int] = []

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Keeps signals for `told` while the block runs; what is ignored, as SIGHUP under nohup, stays ignored."""

        def receive(number: int, _frame: FrameType | None) -> None:
            if number != HANGUP or number not in self._signals:  # a shell and its terminal send it one after the other
                self._signals.append(number)

        heard = [number for number in CAUGHT if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, receive) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def told(self) -> int | None:
        """The signal that ends the sweep, which is SIGTERM where its time is over; None where it goes on."""
        if self._signals:
            return self._signals[0]
        return signal.SIGTERM if time.monotonic() - self._began >= self.seconds else None

    @property
    def at_once(self) -> bool:
        """Whether a second signal has come."""
        return len(self._signals) > 1

    def words(self) -> str:
        """What ends it."""
        return signal.Signals(self._signals[0]).name if self._signals else "sweep.max_time is over"
