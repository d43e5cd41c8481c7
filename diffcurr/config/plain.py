"""Configs as plain values."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def to_json(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty section is a value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict) and len(value):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = {} if isinstance(value, ConfigDict) else value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, key = path.split(".")
        holder = nested
        for name in outer:
            holder = holder.setdefault(name, {})
        holder[key] = value
    return nested


def without(config: Mapping[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    """The flattened config without some keys and what lies below them."""
    return {k: v for k, v in flatten(config).items() if not any(k == f or k.startswith(f + ".") for f in free)}
