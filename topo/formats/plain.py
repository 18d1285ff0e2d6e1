"""Attribute values and node names as JSON: what JSON has no word for is tagged, so that it comes back as it was."""

import math
from collections.abc import Mapping
from typing import Any

from topo.errors import Fault, SpecError

_TUPLE, _DICT, _FLOAT = "__tuple__", "__dict__", "__float__"


def encoded(value: Any, where: str) -> Any:  # noqa: PLR0911 - one line for each type
    """Return a value as JSON holds it: tuples, dicts with other keys than text, NaN and infinities are tagged.

    Raises
    ------
    SpecError
        When it is none of None, bool, int, float, text, list, tuple, dict (or a NumPy number).

    Examples
    --------
    >>> encoded((0, None, {"a": [1.5]}), "x")
    {'__tuple__': [0, None, {'a': [1.5]}]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if isinstance(value, tuple):
        return {_TUPLE: [encoded(one, where) for one in value]}
    if isinstance(value, list):
        return [encoded(one, where) for one in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and not value.keys() & {_TUPLE, _DICT, _FLOAT}:
            return {key: encoded(one, where) for key, one in value.items()}
        return {_DICT: [[encoded(key, where), encoded(one, where)] for key, one in value.items()]}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return encoded(value.item(), where)
    raise SpecError([Fault(where, None, f"holds a {type(value).__name__}, which JSON cannot", "remove or convert it")])


def decoded(value: Any) -> Any:
    """Return what `encoded` was given.

    Examples
    --------
    >>> decoded({"__tuple__": [0, 1]})
    (0, 1)
    """
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    match dict(value):
        case {"__tuple__": [*items], **rest} if not rest:
            return tuple(decoded(one) for one in items)
        case {"__float__": "nan" | "inf" | "-inf" as text, **rest} if not rest:
            return float(text)
        case {"__dict__": [*pairs], **rest} if not rest and all(isinstance(p, list) and len(p) == 2 for p in pairs):
            return {_hashable(decoded(key)): decoded(one) for key, one in pairs}
    return {key: decoded(one) for key, one in value.items()}


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
