"""The two ways to be wrong: your file (`SpecError`), or a valid wish that cannot run (`InfeasibleError`)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class PodscaleError(Exception):
    """Base of every error that a user can cause and mend."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong in one place: which file and field, what it holds, what to write instead."""

    field: str
    value: Any
    problem: str
    remedy: str = ""
    file: str = ""

    def __str__(self) -> str:
        """One line that a reader can act on."""
        where = f"{self.file}: {self.field}" if self.file else self.field
        held = "" if self.value is None else f" = {self.value!r}"
        return f"{where}{held}: {self.problem}." + (f" {self.remedy}." if self.remedy else "")


class SpecError(PodscaleError, ValueError):
    """A spec, flag or argument is wrong. Carries every fault found, not just the first.

    >>> print(SpecError([Fault("nic", "-4 Gb/s", "bandwidth must be positive", "write 400 Gb/s", file="my.yaml")]))
    my.yaml: nic = '-4 Gb/s': bandwidth must be positive. write 400 Gb/s.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes with the faults, not with their text."""
        return type(self), (self.faults,)


class InfeasibleError(PodscaleError, ValueError):
    """The request is well formed, yet nothing satisfies it: names the limit, the excess and the nearest that fits.

    >>> print(InfeasibleError("decode", "TPOT limit 5 ms", "the fastest split takes 7 ms", "raise --tpot-ms to 7"))
    decode: TPOT limit 5 ms cannot be met: the fastest split takes 7 ms. raise --tpot-ms to 7.
    """

    def __init__(self, what: str, limit: str, by: str, nearest: str = "") -> None:
        self.what, self.limit, self.by, self.nearest = what, limit, by, nearest
        super().__init__(f"{what}: {limit} cannot be met: {by}." + (f" {nearest}." if nearest else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes with the fields, not with their text."""
        return type(self), (self.what, self.limit, self.by, self.nearest)
