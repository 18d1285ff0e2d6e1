"""An accelerator of the user's own, described in the cluster file where it is used.

Silicon is stated: peaks and memory are never taken from another part. What it is wired with (link, NIC, domain, rails)
comes from the part that it is `like`, where the file names one, and so do the constants of its kernels. To change single
figures of a part that exists, a cluster file has `override` instead.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from clusters import catalogue
from clusters.figures import Table

FIGURES: Final = MappingProxyType(
    {
        **catalogue.OVERRIDES,
        "scale_up_bandwidth": "bandwidth",
        "scale_up_links": "count",
        "domain": "count",
        "rails": "count",
        "nics": "count",
    }
)
"""Figures that a file may give its own accelerator -> their dimension."""
LENT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **dict.fromkeys(("year", "scale_up_bandwidth", "scale_up_topology", "domain", "rails", "host_bandwidth"), ()),
        "nics": ("nic",),
        "scale_up_links": ("link", "scale_up_bandwidth", "domain"),
        "switches": ("link", "scale_up_bandwidth", "domain"),
    }
)
"""Figure that the part lends which it is like -> the fields of the file that make it meaningless."""


def own_part(fields: Mapping[str, Any]) -> catalogue.Accelerator:
    """Return the accelerator that a cluster file describes.

    Parameters
    ----------
    fields : mapping
        Checked fields of the section `accelerator`: names, and figures in SI.

    Examples
    --------
    >>> mine = own_part({"name": "my-chip", "like": "h100-sxm", "hbm_capacity": 192e9, "hbm_bandwidth": 8e12})
    >>> mine.hbm_Bps, mine.link, mine.domain, mine.missing
    (8000000000000.0, 'nvlink4', 8, ('peak_bf16',))
    """
    like = catalogue.accelerator(fields["like"]) if "like" in fields else None
    name, nic = str(fields.get("name", "")), fields.get("nic", like.nic if like else "")
    head = {
        "name": name,
        "title": name,
        "vendor": "own",
        "generation": like.generation if like else name,
        "link": fields.get("link", like.link if like else ""),
        "nic": nic if isinstance(nic, str) else catalogue.nic_for(nic).name,
        "like": like.name if like else "",
    }
    lent = {key: like.figures[key] for key in LENT if key in like.figures} if like else {}
    lent = {key: figure for key, figure in lent.items() if not fields.keys() & set(LENT[key])}
    mine = {key: catalogue.stated(value, FIGURES[key]) for key, value in fields.items() if key in FIGURES}
    return catalogue.assemble(head, Table({**lent, **mine}.items()))


def follows(missing: tuple[str, ...], faulty: list[tuple[str, ...]]) -> bool:
    """Whether a missing field follows from a faulty one: itself, its namesake of the file, or the part that lends it.

    >>> follows(("accelerator", "link"), [("accelerator", "like")])
    True
    >>> follows(("accelerator", "peak_bf16"), [("accelerator", "like")])
    False
    """
    lost = ("accelerator", "like") in faulty and missing[-1] not in catalogue.TEMPLATE
    return lost or missing in faulty or missing[1:] in faulty
