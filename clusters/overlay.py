"""Constants of one's own: a kernels file, as `podscale calibrate gemm` writes it, laid over the shipped one.

``PODSCALE_KERNELS=mine.yaml`` names the file. Where it is not set, a `kernels.yaml` in the folder that
``PODSCALE_CATALOGUE`` names is taken. What the file measured replaces the shipped constants of the same accelerator
and precision; everything else stays.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clusters.figures import own_file, own_part
from topo.errors import Fault, SpecError

REMEDY = "write the file with podscale calibrate gemm FILE --out F"


def kernels_path() -> str:
    """Return the path of the reader's own kernels file, empty where there is none."""
    return own_file("PODSCALE_KERNELS", "kernels.yaml")


def overlaid(shipped: Mapping[str, Any], file: str, constants: Iterable[str]) -> dict[str, Any]:
    """Return the shipped table with the entries of a file over it, precision by precision.

    Parameters
    ----------
    shipped
        The table of `data/kernels.yaml`.
    file
        Path of the reader's own; empty for none.
    constants
        Names that every entry must hold as numbers.

    Raises
    ------
    SpecError
        The file cannot be read or an entry lacks a constant; every fault at once.

    Examples
    --------
    >>> overlaid({"measured": {"x": 1}}, "", ())
    {'measured': {'x': 1}}
    """
    if not file:
        return dict(shipped)
    own = own_part(file, "PODSCALE_KERNELS", "measured", REMEDY)
    if found := list(_faults(own, file, tuple(constants))):
        raise SpecError(found)
    measured = {name: {**shipped["measured"].get(name, {}), **entry} for name, entry in own.items()}
    return {**shipped, "measured": {**shipped["measured"], **measured}}


def _faults(measured: Mapping[str, Any], file: str, constants: tuple[str, ...]) -> Iterator[Fault]:
    """Yield what is wrong with the entries."""
    for name, entry in measured.items():
        if not isinstance(entry, dict):
            yield Fault(f"measured.{name}", entry, "holds no precisions", REMEDY, file)
            continue
        if not _number(entry.get("multiprocessors")):
            yield Fault(f"measured.{name}.multiprocessors", entry.get("multiprocessors"), "is no count", REMEDY, file)
        for precision, held in ((key, value) for key, value in entry.items() if isinstance(value, dict)):
            yield from (
                Fault(f"measured.{name}.{precision}.{key}", held.get(key), "is no number", REMEDY, file)
                for key in constants
                if not _number(held.get(key))
            )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
