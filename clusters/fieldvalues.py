"""How single fields of a spec file are read: from text or plain values to SI floats, whole numbers and catalogue names.

Every reader returns what it would read again unchanged, and raises `Wrong`, with a remedy, about anything else.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from clusters import catalogue
from clusters.units import EXAMPLES, format_quantity, parse_quantity
from topo.errors import SpecError

Read = Callable[[object], Any]
"""Reads one field."""

WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Wrong(ValueError):  # noqa: N818  (read as a sentence: raise Wrong(problem, remedy))
    """What is wrong with a field, and what to write instead."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}; {remedy}")


# --- numbers ---------------------------------------------------------------------------------------------------------


def parsed(text: object, dimension: str) -> float:
    """Return an SI value, or say which units are accepted."""
    try:
        return parse_quantity(text, dimension)
    except ValueError as error:
        problem, remedy = str(error).split("; ", 1)
        raise Wrong(problem, remedy) from None


def quantity(dimension: str, least: float = 0.0, most: float = float("inf")) -> Callable[[object], float]:
    """Return the reader of a positive quantity; outside [least, most] it was probably meant in another unit.

    >>> quantity("bandwidth")("400Gb/s")
    50000000000.0
    """

    def read(text: object) -> float:
        value = parsed(text, dimension)
        if value < 0 or (value == 0 and dimension != "seconds"):
            raise Wrong("must be positive", f"write for instance {EXAMPLES[dimension]}")
        if not least <= value <= most:
            raise Wrong(f"would be {format_quantity(value, dimension)}", f"write for instance {EXAMPLES[dimension]}")
        return value

    return read


def whole(least: int = 1, most: int | None = None) -> Callable[[object], int]:
    """Return the reader of a count.

    >>> whole()("2_048"), whole(0)("0")
    (2048, 0)
    """

    def read(text: object) -> int:
        value = parsed(text, "count")
        if value < least:
            raise Wrong(f"must be at least {least}", "write a whole number, such as 8")
        if most is not None and value > most:
            raise Wrong(f"must be at most {most}", f"write a whole number from {least} to {most}")
        return int(value)

    return read


def _number(text: object) -> float:
    """Return a number, or a ratio written 2:1, as a float; -1 where it is neither."""
    down, colon, up = str(text).partition(":")
    try:
        return -1.0 if isinstance(text, bool) else float(down) / float(up if colon else 1)
    except (ValueError, ZeroDivisionError):
        return -1.0


def share(text: object) -> float:
    """Read a positive number without a unit."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise Wrong("is not a positive number", "write a number, such as 1, 2 or 0.5")
    return value


def amount(text: object) -> float:
    """Read a number without a unit, 0 or more."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise Wrong("is not a number of 0 or more", "write a number, such as 0, 0.5 or 40")
    return value


def part(text: object) -> float:
    """Read a number above 0 and at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise Wrong("is not a share", "write a number above 0 and at most 1, such as 0.01")
    return value


def ratio(text: object) -> float:
    """Read an oversubscription of 1 or more, written 2 or 2:1."""
    value = _number(text)
    if not 1 <= value < float("inf"):
        raise Wrong("is not a ratio of 1 or more", "write down over up, such as 2 or 2:1; 1 is no oversubscription")
    return value


def any_ratio(text: object) -> float:
    """Read an oversubscription, written 2 or 2:1; below 1 there is more up than down."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise Wrong("is not a ratio", "write down over up, such as 2 or 2:1; 1 is no oversubscription")
    return value


# --- words -----------------------------------------------------------------------------------------------------------


def flag(value: object) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    if str(value).lower() not in WORDS:
        raise Wrong("is neither true nor false", "write true or false")
    return WORDS[str(value).lower()]


def text(value: object) -> str:
    """Read a name: text on one line."""
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) != 1:
        raise Wrong("is not a name", "write text on one line")
    return value.strip()


def label(value: object) -> str:
    """Read the name of a pool or a level, which node names contain."""
    name = text(value)
    if set(name) & set("[]=,. "):
        raise Wrong("is no name of a part of a graph", "write letters, digits and hyphens")
    return name


def choice(*known: str) -> Callable[[object], str]:
    """Return the reader of one of a few words."""

    def read(value: object) -> str:
        word = catalogue.key_of(text(value))
        if word not in known:
            raise Wrong("is unknown", f"write one of {', '.join(known)}")
        return word

    return read


# --- parts of the catalogue ------------------------------------------------------------------------------------------


def named(find: Callable[[str], Any]) -> Callable[[object], str]:
    """Return the reader of a part that the catalogue holds, by its canonical name."""

    def read(value: object) -> str:
        try:
            return str(find(text(value)).name)
        except SpecError as error:
            raise Wrong(error.faults[0].problem, error.faults[0].remedy) from None

    return read


def own_name(value: object) -> str:
    """Read the name of an accelerator of one's own: none that the catalogue gives to a part."""
    name = catalogue.key_of(text(value))
    taken = (*catalogue.names(), *catalogue.links(), *catalogue.nics(), *catalogue.switches())
    if name in taken:
        raise Wrong("is a part of the catalogue", f"take another name, or write accelerator: {name} and override it")
    return name


def link(plane: str) -> Callable[[object], str]:
    """Return the reader of a link of the catalogue that belongs to the plane."""

    def read(value: object) -> str:
        name = named(catalogue.link)(value)
        if catalogue.link(name).plane != plane:
            fitting = [key for key in catalogue.links() if catalogue.link(key).plane == plane]
            raise Wrong(f"is no {plane} link", f"write one of {', '.join(fitting)}")
        return name

    return read


def nic(value: object) -> str | float:
    """Read a NIC: a name of the catalogue, or the rate of one NIC, which comes back in bytes per second."""
    if not isinstance(value, str) or value.strip()[:1] in "0123456789+-.":
        return quantity("bandwidth", least=1e6)(value)
    try:
        return catalogue.nic(value).name
    except SpecError as error:
        fault = error.faults[0]
        raise Wrong(fault.problem, f"{fault.remedy}; or write a rate, such as 400Gb/s") from None


# --- several values --------------------------------------------------------------------------------------------------


def several(read: Read, example: str) -> Read:
    """Return the reader of a list.

    >>> several(whole(), "[4, 4, 4]")(["16", "20"])
    (16, 20)
    """

    def read_list(value: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise Wrong("is no list", f"write for instance {example}")
        if not value:
            raise Wrong("is empty", f"write for instance {example}")
        return tuple(map(read, value))

    return read_list


def one_or_several(read: Read, example: str) -> Read:
    """Return the reader of one value, or of a list of them."""
    read_list = several(read, example)
    return lambda value: read_list(value) if isinstance(value, (list, tuple)) else read(value)


def by_name(read: Callable[[object], float], example: str) -> Callable[[object], dict[str, float]]:
    """Return the reader of quantities under words of the user's own."""

    def read_each(value: object) -> dict[str, float]:
        if not isinstance(value, Mapping) or not value:
            raise Wrong("holds no words", f"write for instance {example}")
        return {str(word): read(each) for word, each in value.items()}

    return read_each


def interval(value: object) -> str:
    """Read the values of an axis: one, or a range written 0:4, whose end is not in it.

    >>> interval(3), interval("0:4")
    ('3', '0:4')
    """
    first, colon, end = str(value).partition(":")
    read = whole(0)
    try:
        low = read(first)
        high = read(end) if colon else low + 1
    except Wrong:
        raise Wrong("is no place", "write a whole number, or a range such as 0:4") from None
    if low >= high:
        raise Wrong("is an empty range", f"write {low}:{low + 1} for {low} alone")
    return f"{low}:{high}" if colon else str(low)


def place(value: object) -> dict[str, str]:
    """Read coordinates: a value or a range for each axis that is named."""
    if not isinstance(value, Mapping) or not value:
        raise Wrong("is no place", "write axes and their values, such as {domain: 3, slot: 0:4}")
    return {str(axis): interval(values) for axis, values in value.items()}


def spans(at: Mapping[str, str]) -> tuple[tuple[str, tuple[int, int]], ...]:
    """Return a place that was read, as intervals.

    >>> spans({"rail": "3", "domain": "0:4"})
    (('domain', (0, 4)), ('rail', (3, 4)))
    """
    found = []
    for axis, values in sorted(at.items()):
        low, colon, high = values.partition(":")
        found.append((axis, (int(low), int(high) if colon else int(low) + 1)))
    return tuple(found)
