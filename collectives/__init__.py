"""What it costs to talk: collectives, expert exchange and pipeline schedules as closed forms over tiers.

A group of ranks becomes members per tier (`members`), a cluster becomes a `Path` of `Hop`s, and every price is a
function of bytes, members and path on columns. This floor knows no model and no vendor: constants are arguments.

>>> from collectives import IDEAL, Hop, best, members
>>> path = (Hop(450e9, 1e-6, IDEAL), Hop(50e9, 5e-6, IDEAL, plane="scale-out"))
>>> seconds, winner, names = best("all_reduce", 1e9, members(64, 1, (8, 64)), path)
>>> names[winner]
'tree'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collectives.algorithms import ALGORITHMS, NCCL, Algorithm, best
    from collectives.bounds import lower_bound
    from collectives.direct import mesh_shares, torus_shares
    from collectives.groups import members
    from collectives.moe import COPIES, expected_groups, moe_exchange
    from collectives.path import IDEAL, Hop, LinkModel, Path
    from collectives.pipelines import SCHEDULES, Schedule
    from collectives.point_to_point import send_recv

__all__ = [
    "ALGORITHMS",
    "COPIES",
    "IDEAL",
    "NCCL",
    "SCHEDULES",
    "Algorithm",
    "Hop",
    "LinkModel",
    "Path",
    "Schedule",
    "best",
    "expected_groups",
    "lower_bound",
    "members",
    "mesh_shares",
    "moe_exchange",
    "send_recv",
    "torus_shares",
]

_HOME = {
    "ALGORITHMS": "algorithms",
    "Algorithm": "algorithms",
    "NCCL": "algorithms",
    "best": "algorithms",
    "lower_bound": "bounds",
    "mesh_shares": "direct",
    "torus_shares": "direct",
    "members": "groups",
    "COPIES": "moe",
    "expected_groups": "moe",
    "moe_exchange": "moe",
    "IDEAL": "path",
    "Hop": "path",
    "LinkModel": "path",
    "Path": "path",
    "SCHEDULES": "pipelines",
    "Schedule": "pipelines",
    "send_recv": "point_to_point",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use, so that importing the package is cheap."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
