"""Memory of a measurement. The program's own function would bring Lightning into the classic ways' memory."""

import resource
import sys


def peak_memory_gb() -> float:
    """The most held by this process or, where it was more, by one of those it has started and waited for."""
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9
