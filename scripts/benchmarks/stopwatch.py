"""Times a run. Apart, since Lightning takes seconds to import, which other ways do without."""

import time
from typing import Any

import lightning as L


class Stopwatch(L.Callback):
    """From the first thing that Lightning is asked to do to the end of the last."""

    first = last = 0.0

    def setup(self, *_: Any, **__: Any) -> None:
        Stopwatch.first = Stopwatch.first or time.perf_counter()

    def teardown(self, *_: Any, **__: Any) -> None:
        Stopwatch.last = time.perf_counter()
