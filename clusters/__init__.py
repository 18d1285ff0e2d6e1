"""What exists and what was measured on it: the catalogue, cluster files, and the clusters built from them.

>>> from clusters import load, with_
>>> from clusters.build import build
>>> build(with_(load("gb200-nvl72"), accelerators=1152)).domains
16
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from clusters.build import Cluster, between, bill, facts, list_rows, pool
    from clusters.catalogue import Accelerator, accelerator, names
    from clusters.spec import ClusterSpec, fingerprint, focus, load, parse, systems, with_
    from clusters.units import format_quantity, parse_quantity

_HOMES: Final = {
    "clusters.build": ("Cluster", "between", "bill", "facts", "list_rows", "pool"),
    "clusters.catalogue": ("Accelerator", "accelerator", "names"),
    "clusters.spec": ("ClusterSpec", "fingerprint", "focus", "load", "parse", "systems", "with_"),
    "clusters.units": ("format_quantity", "parse_quantity"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Accelerator",
    "Cluster",
    "ClusterSpec",
    "accelerator",
    "between",
    "bill",
    "facts",
    "fingerprint",
    "focus",
    "format_quantity",
    "list_rows",
    "load",
    "names",
    "parse",
    "parse_quantity",
    "pool",
    "systems",
    "with_",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'clusters' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
