"""What does not fit the schema, in a line: a key that it does not know, a value of another type."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim_exp.config.recorded import as_written
from aim_exp.errors import first_line

KINDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    list: "a list",
    NoneType: "null",
}


def unknown_keys(config: DictConfig) -> list[str]:
    """The keys that `+` added where the schema has none; tables without a schema take any."""
    return [
        unknown_key(node, str(key), f"{group}.{key}" if group else str(key))
        for group, node in {"": config, **_groups(config)}.items()
        if _schema(node)
        for key in sorted({*node} - {*_known(node), "_target_"}, key=str)
    ]


def unreadable_keys(config: DictConfig) -> list[str]:
    """The keys without which nothing can be checked: deleted, or not to be resolved."""
    problems = []
    resolved = _resolved(config)
    for group, node in {"": config, **_groups(config)}.items():
        known = _known(node)
        if resolved and {*known} <= {*node} and (group or MISSING not in resolved.values()):
            continue  # to look at each key takes ten times as long
        for key in known:
            path = f"{group}.{key}" if group else key
            if key not in node or (not group and OmegaConf.is_missing(node, key)):
                problems.append(f"{path}: has no value; set {path}=...")
                continue
            try:
                node.get(key)
            except OmegaConfBaseException as error:
                if not OmegaConf.is_missing(node, key):
                    value = as_written(node, key)
                    reason = first_line(error)
                    problems.append(f"{path}={value}: cannot be resolved ({reason}); give a value")
    return problems


def unknown_key(node: DictConfig, key: str, full_key: str) -> str:
    """The words for a `key` that `node` does not have; `full_key` is its whole path."""
    group = full_key.rpartition(".")[0]
    paths = {name: f"{group}.{name}" if group else name for name in _known(node)}
    if not group:  # the key of an option, perhaps
        inside = {
            name: f"{above}.{name}" for above, it in _groups(node).items() for name in _known(it)
        }
        paths = inside | paths
    if key in ("True", "False"):
        return f"{full_key}: a bare on, off, yes or no is true or false to YAML; write it in quotes"
    if key in _known(node):  # removed with ~
        return f"{full_key}: has no value; set {full_key}=..."
    if close := difflib.get_close_matches(key, paths, n=1, cutoff=0.7):
        return f"{full_key}: there is no such key; did you mean {paths[close[0]]}?"
    if not group:
        return f"{full_key}: there is no such key; see --help"
    schema = _schema(node)
    if not schema:
        return f"{full_key}: there is no such key; +{full_key}=... adds it"
    has = ", ".join(paths) or "none"
    return f"{full_key}: {getattr(schema, 'option', group)} has no such key; it has {has}"


def wrong_type(node: DictConfig, key: str, override: str) -> str | None:
    """The words for an `override` whose value is not of the type of the `key` of `node`."""
    schema = _schema(node)
    hint = get_type_hints(schema).get(key) if schema else None
    kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
    words = [KINDS.get(get_origin(kind) or kind) for kind in kinds]
    return f"{override}: must be {' or '.join(filter(None, words))}" if all(words) else None


def _resolved(config: DictConfig) -> Mapping[Any, Any] | None:
    """All of it; None where something cannot be resolved."""
    try:
        return cast("Mapping[Any, Any]", OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException:
        return None


def _groups(config: DictConfig) -> dict[str, DictConfig]:
    """The nodes of a configuration that are tables."""
    given = [
        key
        for key in map(str, config)
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key)
    ]
    return {key: node for key in given if isinstance(node := config[key], DictConfig)}


def _known(node: DictConfig) -> list[str]:
    """The keys that a node may have; of one without a schema, those that it has."""
    schema = _schema(node)
    if schema is None:
        return [str(key) for key in node]
    return [field.name for field in fields(schema) if field.name != "_target_"]


def _schema(node: DictConfig) -> Any:
    """The dataclass that a node was made from, if it was."""
    made = OmegaConf.get_type(node)
    return made if is_dataclass(made) else None
