"""What a process uses, for measuring."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def peak_memory(interval: float = 0.005) -> Iterator[list[float]]:
    """MiB of anonymous memory above the start, at the most; sampled every `interval` seconds."""
    start, peak, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            peak[0] = max(peak[0], anonymous_mib() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def anonymous_mib() -> float:
    """Memory that no file backs; where the system does not tell, the largest resident size."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
