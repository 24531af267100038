"""The global random generators, borrowed and given back."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_rng() -> Iterator[None]:
    """Python's, numpy's and torch's generators, seeded as lm-eval seeds them; restored after."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        random.seed(0)
        np.random.seed(1234)
        torch.manual_seed(1234)
        _seed_langdetect()
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _seed_langdetect() -> None:
    """What IFEval tells languages with would draw anew each time, and on short texts waver."""
    if langdetect := sys.modules.get("langdetect"):
        langdetect.DetectorFactory.seed = 0
