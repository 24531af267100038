"""lm-eval without its bars and log lines: progress is ours to show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def silence_lm_eval() -> None:
    """Once per process: no progress bar of lm-eval or datasets, no log line below an error.

    lm-eval asks for some bars explicitly, which no environment variable overrides.
    """
    import datasets
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface
    from tqdm import tqdm

    class NoBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    for module in (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface):
        setattr(module, "tqdm", NoBar)  # noqa: B010
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()


TRUNCATING_LOGGER = "lm_eval.models.huggingface"
"""Where a model says that it cut a prompt."""


class TruncationCount(logging.Handler):
    """Counts lm-eval's warnings that it cut a prompt, which it would print one by one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.cuts = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count the record if it tells of a cut."""
        self.cuts += "truncat" in record.getMessage().lower()


@contextmanager
def counted_truncations() -> Iterator[TruncationCount]:
    """How often lm-eval cuts a prompt (log-likelihoods) or a batch of prompts (generation)."""
    logger = logging.getLogger(TRUNCATING_LOGGER)
    counter = TruncationCount()
    logger.addHandler(counter)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield counter
    finally:
        logger.removeHandler(counter)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No warnings of transformers, such as those on generation flags."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
