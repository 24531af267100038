"""A configuration as it is recorded: whole, resolved, and without what is nobody's business."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

HIDDEN = "***"
USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
"""Of a URI: what stands before the host."""


def recorded(config: DictConfig) -> dict[str, Any]:
    """Plain data: resolved but for what comes from the environment, which is `***`.

    So is user info in URIs. What cannot be resolved stands as it was written.
    """
    with _hidden_environment():
        return _plain(config)


def without_user_info(text: str) -> str:
    """`postgres://***@host/db`."""
    return USER_INFO.sub(f"{HIDDEN}@", text)


def hide_user_info(*folders: Path | None) -> None:
    """Do so in what Hydra has written there of a configuration, or of a sweep's."""
    for path in (path for folder in folders if folder for path in folder.glob("*.yaml")):
        written = path.read_text(encoding="utf-8")
        if (hidden := without_user_info(written)) != written:
            path.write_text(hidden, encoding="utf-8")


def as_written(node: Any, key: Any) -> Any:
    """The value of a node's key with its interpolations, which may be wrong."""
    values: Any = OmegaConf.to_container(node, resolve=False)
    return values[key]


def _plain(node: DictConfig | ListConfig) -> Any:
    if isinstance(node, ListConfig):
        return [_value(node, index) for index in range(len(node))]
    return {str(key): _value(node, key) for key in node}


def _value(node: Any, key: Any) -> Any:
    try:
        value = node[key]
    except OmegaConfBaseException:
        value = as_written(node, key)
    if isinstance(value, DictConfig | ListConfig):
        return _plain(value)
    if isinstance(value, float) and value - value != 0:  # JSON has no NaN and no infinity
        return str(value)
    return without_user_info(value) if isinstance(value, str) else value


@contextmanager
def _hidden_environment() -> Iterator[None]:
    def hidden(name: str, default: Any = None) -> Any:
        return HIDDEN if name in os.environ else default

    resolver = "oc.env"
    OmegaConf.register_new_resolver(resolver, hidden, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver(resolver, oc.env, replace=True)
