"""lm-eval without its bars and log lines: progress is ours to show."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRUNCATING_LOGGER = "lm_eval.models.huggingface"
"""Where a model says that it cut a prompt."""


class Truncations(logging.Handler):
    """Counts the prompts (log-likelihoods) or batches of them (generation) that lm-eval cuts.

    It would print a warning for each.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count the record if it tells of a cut."""
        self.count += "truncat" in record.getMessage().lower()


TRUNCATIONS = Truncations()
"""Of this process, since lm-eval was silenced."""


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
    truncating = logging.getLogger(TRUNCATING_LOGGER)
    truncating.setLevel(logging.WARNING)
    truncating.propagate = False
    truncating.addHandler(TRUNCATIONS)
    datasets.disable_progress_bars()


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
