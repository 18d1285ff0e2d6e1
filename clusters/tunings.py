"""Tunings: the constants of an operation on a kind of link under a software regime, as `LinkModel`s of `collectives`.

A regime is the software that moves the bytes:

* ``nccl``: NCCL launched from the host, the default of training and of eager serving;
* ``nccl-2.29`` and ``nccl-2.28``: NCCL from 2.29 on, and before, on links where the two disagree; else they are ``nccl``;
* ``graph``: vLLM's all-reduce kernels, and SGLang's before 0.5.14 that are made from them, inside a CUDA graph; ``vllm``
  and ``vllm-0.14``: the same with the rules and the symmetric memory of vLLM since 0.18, and with those of before;
  ``sglang``: SGLang's own from 0.5.14; ``trtllm``, ``trtllm-1.2``: TensorRT-LLM's from 1.3 on, and before. Which kernel
  runs is in `clusters.dispatch`; beyond its sizes, or across nodes, and for other operations it is NCCL;
* ``low-latency`` and ``normal``: DeepEP's two kinds of MoE exchange;
* ``one-sided`` and ``two-sided``: TensorRT-LLM's MoE exchange over NVLink, by stores or through queues; ``mnnvl`` is what
  came before them;
* names with an engine or version behind them (``normal-vllm``, ``low-latency-v2``): the same kernels as that engine has.

The constants, four at most for each link, operation and regime and shared by all group sizes, are fitted by
`clusters.calibration.links` and stored with their residuals in `data/tunings.yaml`; those of the MoE exchanges, five at
most, by `clusters.calibration.exchanges`, in `data/exchanges.yaml`. Where none were measured, the nearest are borrowed
and the note says from where.

A file of one's own, as `podscale calibrate collectives` writes it, replaces the shipped entries of the same link,
operation and regime, versions included: ``PODSCALE_TUNINGS`` names it, or a cluster file for itself (`tunings`), else a
`tunings.yaml` in the folder that ``PODSCALE_CATALOGUE`` names is taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.catalogue import key_of, read_yaml
from clusters.dispatch import DISPATCH, dispatch_of, kernels_of
from clusters.figures import own_file, own_part
from clusters.sections import OwnFile
from collectives.algorithms import ALGORITHMS, NCCL, best
from collectives.moe_kernel import WORK, ExchangeModel
from collectives.path import LinkModel
from collectives.path import Path as Road
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

DATA: Final = Path(__file__).parent / "data" / "tunings.yaml"
EXCHANGES: Final = DATA.with_name("exchanges.yaml")
CONSTANTS: Final = ("base_s", "step_s", "efficiency", "ramp_s")
SHAPE: Final = ("bulk_s", "own_piece")
"""What an entry may hold besides: the filling of the bulk protocol in place of the ramp, the weight of the own piece."""
LIBRARY: Final = "nccl-2.28"
"""What engines hand over to beyond their kernels: the NCCL that their PyTorch brings, as their tables show."""
REMEDY: Final = "write the file with podscale calibrate collectives FILE --out F"

#: Regime -> the regimes that stand in for it, nearest first.
REGIMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "nccl": (),
        "nccl-2.28": ("nccl",),
        "nccl-2.29": ("nccl",),
        "graph": ("nccl",),
        "vllm": ("graph", "nccl"),
        "vllm-0.14": ("graph", "nccl"),
        "sglang": ("graph", "nccl"),
        "trtllm": ("graph", "nccl"),
        "trtllm-1.2": ("trtllm", "graph", "nccl"),
        "low-latency": ("normal", "nccl"),
        "normal": ("low-latency", "nccl"),
        "one-sided": ("low-latency", "normal", "nccl"),
        "two-sided": ("one-sided", "low-latency", "normal", "nccl"),
        "mnnvl": ("two-sided", "one-sided", "low-latency", "normal", "nccl"),
        **{f"low-latency-{who}": ("low-latency", "normal", "nccl") for who in ("vllm", "trtllm", "v2")},
        **{f"normal-{who}": ("normal", "low-latency", "nccl") for who in ("vllm", "trtllm", "v2")},
    }
)

#: Operation -> the operations that stand in for it, nearest first.
OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "all_reduce": (),
        "all_gather": ("reduce_scatter", "all_reduce"),
        "reduce_scatter": ("all_gather", "all_reduce"),
        "all_to_all": ("all_reduce",),
        "send_recv": ("all_to_all", "all_reduce"),
        "moe_dispatch": ("moe_combine", "all_to_all", "all_reduce"),
        "moe_combine": ("moe_dispatch", "all_to_all", "all_reduce"),
        "moe_combine_low_precision": ("moe_combine", "moe_dispatch", "all_to_all", "all_reduce"),
        "moe_prepare": ("moe_dispatch", "moe_combine", "all_to_all", "all_reduce"),
    }
)

#: Link -> the links that stand in for it, nearest first. One plane never stands in for the other.
LINKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "nvlink3": ("nvlink4", "nvlink5"),
        "nvlink4": ("nvlink5", "nvlink3"),
        "nvlink5": ("nvlink4", "nvlink3"),
        "efa": ("efa-4", "efa-2", "roce-400", "ib-ndr", "ib-hdr"),
        **{f"efa-{generation}": ("efa-4", "efa-2", "roce-400", "ib-ndr", "ib-hdr") for generation in (1, 2, 3, 4)},
        "ib-hdr": ("ib-ndr", "roce-400"),
        "ib-ndr": ("ib-hdr", "roce-400"),
        "ib-xdr": ("ib-ndr", "ib-hdr"),
        "roce-400": ("ib-ndr", "ib-hdr"),
    }
)

#: Start of a link's name -> the link that stands in for those the table above does not know.
FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "nvlink": "nvlink5",
        "ualink": "nvlink5",
        "xgmi": "nvlink4",
        "infinity-fabric": "nvlink4",
        "ici": "nvlink4",
        "neuronlink": "nvlink4",
        "unified-bus": "nvlink4",
        "gaudi": "nvlink4",
        "lpu": "nvlink4",
        "pcie": "nvlink3",
        "ib": "ib-ndr",
        "infiniband": "ib-ndr",
        "roce": "roce-400",
        "ethernet": "roce-400",
        "spectrum": "roce-400",
        "efa": "efa",
    }
)

#: Regime -> the one whose constants it has unless it has its own: the same kernels by other rules, or versions that agree.
SAME: Final[Mapping[str, str]] = MappingProxyType(
    {"nccl-2.28": "nccl", "nccl-2.29": "nccl", "vllm-0.14": "graph", "trtllm-1.2": "trtllm"}
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Constants and how far to trust them.

    Parameters
    ----------
    link, op, regime
        What was asked for.
    model
        The constants: base, step, efficiency and either the ramp or the bulk protocol's filling.
    note
        Empty where they were fitted for exactly this, else whose they are.
    residuals
        `n`, `median` and `p90` of |predicted/measured - 1|, `low` and `high` of measured/predicted (a 90 % band); empty
        where nothing was measured.
    ranks
        Smallest and largest group measured; beyond it a price extrapolates.
    source
        Whose measurements.
    entry
        Whose constants: link, operation and regime of the data file.
    """

    link: str
    op: str
    regime: str
    model: LinkModel
    note: str
    residuals: Mapping[str, float]
    ranks: tuple[int, int] | None
    source: str
    entry: str = ""


def tunings_path() -> str:
    """Return the path of the reader's own tunings file, empty where there is none."""
    return own_file("PODSCALE_TUNINGS", "tunings.yaml")


def table(own: OwnFile | None = None) -> Mapping[str, Any]:
    """Return `data/tunings.yaml` with the reader's own file over it, and that of a cluster over both.

    Raises
    ------
    SpecError
        An own file cannot be read or is no tunings file; every fault at once.
    """
    return _table(tunings_path(), own)


def own_constants(file: str, variable: str = "PODSCALE_TUNINGS") -> dict[str, Any]:
    """Return the `constants` of a tunings file of the reader's own, checked; `variable` names what names it.

    Raises
    ------
    SpecError
        It cannot be read or is no tunings file; every fault at once.
    """
    held = own_part(file, variable, "constants", REMEDY)
    if faults := list(_own_faults(held, file)):
        raise SpecError(faults)
    return held


def own_entries(own: OwnFile) -> list[tuple[str, str, str]]:
    """Return (link, operation, regime) of each entry of a cluster's own file."""
    return [_checked(*names) for *names, _ in _entries(own_constants(own.file, "tunings"))]


def _shipped() -> Mapping[str, Any]:
    """Return the constants of the collectives with those of the MoE exchanges beside them."""
    links, exchanges = (read_yaml(file.read_text("utf-8")) for file in (DATA, EXCHANGES))
    constants: dict[str, Any] = {link: dict(ops) for link, ops in links["constants"].items()}
    for link, ops in exchanges["constants"].items():
        constants.setdefault(link, {}).update(ops)
    return {**links, "constants": constants}


@lru_cache
def _table(reader: str, own: OwnFile | None) -> Mapping[str, Any]:
    if own:
        return _over(_table(reader, None), own_constants(own.file, "tunings"), own.file, own.sha256)
    return _over(_table("", None), own_constants(reader), reader) if reader else _shipped()


def _over(below: Mapping[str, Any], held: Mapping[str, Any], file: str, digest: str = "") -> Mapping[str, Any]:
    """Return a table with the entries of a file in place of those of the same link, operation and regime."""
    constants = {link: dict(ops) for link, ops in below["constants"].items()}
    for link, op, regime, entry in _entries(held):
        name, kind, how = _checked(link, op, regime)
        ops = constants.setdefault(name, {})
        versions = [version for version, same in SAME.items() if same == how]
        kept = {other: entries for other, entries in ops.get(kind, {}).items() if other not in versions}
        ops[kind] = {**kept, how: {"source": file, **entry, "digest": digest}}
    return {**below, "constants": constants}


def _entries(constants: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Yield (link, operation, regime, entry); what is not nested so far gives an entry that is no mapping."""
    for link, ops in constants.items():
        for op, regimes in (ops if isinstance(ops, dict) else {"": ops}).items():
            for regime, entry in (regimes if isinstance(regimes, dict) else {"": regimes}).items():
                yield str(link), str(op), str(regime), entry


def _own_faults(constants: Mapping[str, Any], file: str) -> Iterator[Fault]:
    """Yield what is wrong with the entries: their names, and constants that make no `LinkModel`."""
    for link, op, regime, entry in _entries(constants):
        where = ".".join(("constants", link, op, regime)).rstrip(".")
        if not isinstance(entry, dict):
            yield Fault(where, entry, "holds no constants by operation and regime", REMEDY, file)
            continue
        try:
            _checked(link, op, regime)
            _model(key_of(op), {**dict.fromkeys(CONSTANTS, "nan"), **entry})
            _stated(entry)
        except SpecError as error:
            yield from (Fault(f"{where}: {f.field}", f.value, f.problem, f.remedy, file) for f in error.faults)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            yield Fault(where, None, "holds what is no number", REMEDY, file)


def _stated(entry: Mapping[str, Any]) -> tuple[dict[str, float], tuple[int, int] | None]:
    """Return the residuals and the group sizes of an entry, as numbers."""
    stated = {key: float(value) for key, value in entry.get("residuals", {}).items()}
    if stated:
        stated = {"n": int(stated["n"]), **{key: stated[key] for key in ("median", "p90", "low", "high")}}
    return stated, (int(entry["ranks"][0]), int(entry["ranks"][1])) if "ranks" in entry else None


def lookup(link: str, op: str, regime: str = "nccl", own: OwnFile | None = None) -> tuple[LinkModel, str]:
    """Return the constants of an operation on a link, and a note where they are borrowed, or of a cluster's own file.

    Raises
    ------
    SpecError
        The link's family, the operation or the regime is unknown.

    Examples
    --------
    >>> model, note = lookup("nvlink4", "all_gather")
    >>> 0 < model.efficiency < 1, note
    (True, '')
    >>> lookup("ib-xdr", "all_reduce")[1].split(";")[0]
    'no measurement of ib-xdr all_reduce nccl: constants of ib-ndr all_reduce nccl'
    """
    found = tuning(link, op, regime, own)
    return found.model, found.note


def tuning(link: str, op: str, regime: str = "nccl", own: OwnFile | None = None) -> Tuning:
    """Return the constants of an operation on a link with their residuals; see `lookup`. `own` is what a cluster names.

    The nearest is sought first over links of the plane, then over regimes, then over operations: the same kernel on
    another generation is closer than another kernel on this one.
    """
    return _tuning(link, op, regime, tunings_path(), own)


@lru_cache(maxsize=1024)
def _tuning(link: str, op: str, regime: str, reader: str, own: OwnFile | None) -> Tuning:
    asked = _checked(link, op, regime)
    for kind, how, where in _nearest(*asked):
        held = _table(reader, own)["constants"].get(where, {}).get(kind, {})
        whose = how if how in held else SAME.get(how, how)
        if (entry := held.get(whose)) is not None:
            break
    else:
        raise SpecError([Fault("link", link, "has no constants, nor has a neighbour", "calibrate it")])
    got, want, named = f"{where} {kind} {how}", " ".join(asked), f"{where} {kind} {whose}"
    notes = [] if got == want else [f"no measurement of {want}: constants of {named}"]
    notes += [entry["note"]] if entry.get("note") else []
    notes += (
        [f"{named}: constants of {Path(own.file).name}, as the cluster says"]
        if own and entry.get("digest") == own.sha256
        else []
    )
    stated, ranks = _stated(entry)
    return Tuning(
        *asked,
        model=_with_rules(_model(kind, entry), asked[2], kind, where, reader, own),
        note="; ".join(notes),
        residuals=stated,
        ranks=ranks,
        source=entry["source"],
        entry=named,
    )


def _with_rules(model: LinkModel, regime: str, op: str, link: str, reader: str, own: OwnFile | None) -> LinkModel:
    """Return a model with the rules of a regime that has kernels of its own, and NCCL's constants for where they end."""
    rules = dispatch_of(regime, link) if op == "all_reduce" else ()
    if not rules:
        return model
    return replace(model, dispatch=rules, beyond=_tuning(link, op, LIBRARY, reader, own).model)


def _model(op: str, entry: Mapping[str, Any]) -> LinkModel:
    """Return the constants of an entry; an exchange has those of its kernel beside them, 0 where left out."""
    exchange = op.startswith("moe")
    known = (*CONSTANTS, *(WORK if exchange else SHAPE))
    held: dict[str, Any] = {key: float(entry[key]) for key in known if key in entry}
    return ExchangeModel(**{"base_s": 0.0, "step_s": 0.0, "efficiency": 1.0, **held}) if exchange else LinkModel(**held)


def _checked(link: str, op: str, regime: str) -> tuple[str, str, str]:
    """Canonical names, or every fault at once."""
    name, kind, how = key_of(link), key_of(op).replace("-", "_"), key_of(regime)
    faults = []
    if name not in LINKS and not any(name.startswith(start) for start in FAMILIES):
        faults.append(Fault("link", link, "is of no known family", f"use one of {', '.join(LINKS)}"))
    if kind not in OPERATIONS:
        faults.append(Fault("op", op, "is no known operation", f"use one of {', '.join(OPERATIONS)}"))
    if how not in REGIMES:
        faults.append(Fault("regime", regime, "is no known regime", f"use one of {', '.join(REGIMES)}"))
    if faults:
        raise SpecError(faults)
    return name, kind, how


def _nearest(link: str, op: str, regime: str) -> Iterator[tuple[str, str, str]]:
    """Yield (operation, regime, link), nearest first."""
    first = link if link in LINKS else next(like for start, like in FAMILIES.items() if link.startswith(start))
    for kind in (op, *OPERATIONS[op]):
        for how in (regime, *REGIMES[regime]):
            for where in dict.fromkeys((link, first, *LINKS[first])):
                yield kind, how, where


def reduction_efficiency(link: str) -> float:
    """Share of its efficiency that a link keeps when the switches add: NCCL's nvlsEfficiency, 1 where unpublished.

    Those of NVLink 4 and of NDR are fitted to what was published of 5 to 8 H100, and of the one system with SHARP.

    >>> reduction_efficiency("nvlink4"), reduction_efficiency("nvlink5"), reduction_efficiency("roce-400")
    (0.81, 0.74, 1.0)
    """
    return float(table()["reduction_efficiency"].get(key_of(link), 1.0))


def offered(op: str, regime: str = "nccl") -> tuple[str, ...]:
    """Names of the algorithms that a regime chooses from for an operation.

    >>> offered("all_gather"), offered("all_gather", "graph")
    (('ring',), ('ring',))
    """
    _, kind, how = _checked("nvlink5", op, regime)
    own = {name for rows in DISPATCH.get(how, {}).values() for _, row in rows for _, names in row for name in names}
    names = tuple(name for name in ALGORITHMS[kind] if name in own) if own and kind == "all_reduce" else NCCL.get(kind)
    if names is None:
        remedy = "take its kernel from clusters.exchanges.KERNELS"
        raise SpecError([Fault("op", op, "is priced by collectives.moe_exchange", remedy)])
    return names


def collective_s(op: str, size_bytes: ColumnLike, members: ColumnLike, path: Road, regime: str = "nccl") -> Column:
    """Seconds of an operation by the fastest algorithm that the regime offers.

    A regime with all-reduce kernels of its own runs them by its rules inside a domain (`LinkModel.dispatch`); else it is
    NCCL.

    Parameters
    ----------
    op, size_bytes, members, path
        As for `collectives.best`; the path's models should be those of the same operation and regime.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{collective_s('all_gather', 800e6, [8], (Hop(100e9, 0.0, IDEAL),)):.4f}")  # 7/8 of 800 MB, 100 GB/s
    0.0070
    """
    kind, how = key_of(op).replace("-", "_"), key_of(regime)
    rules = path[0].model.dispatch if path and kind == "all_reduce" and how in DISPATCH else ()
    if not rules:
        return best(kind, size_bytes, members, path, among=offered(op, regime))[0]
    sizes, groups = column(size_bytes), column(members)
    kernels, runs = kernels_of(rules, sizes, np.where(_crosses(groups, path), np.inf, groups[-1]))
    prices = [
        best(kind, sizes, groups, path, among=names)[0]
        if names
        else best(kind, sizes, groups, _beyond(path), NCCL[kind])[0]
        for names in kernels
    ]
    return column(prices[0]) if len(prices) == 1 else np.choose(runs, prices)


def _crosses(groups: Column, path: Road) -> npt.NDArray[np.bool_]:
    """Return whether a group leaves its scale-up domain."""
    inside = sum(hop.plane == "scale-up" for hop in path)
    return np.asarray(groups[-1] > (groups[inside - 1] if inside else 1.0))


@lru_cache(maxsize=1024)
def _beyond(path: Road) -> Road:
    """Return a path with the constants of the library that takes over where the kernels of its models end."""
    return tuple(replace(hop, model=hop.model.beyond or hop.model) for hop in path)
