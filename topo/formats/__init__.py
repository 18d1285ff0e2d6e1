"""Fabrics from the files of other tools, and to them: one table of formats, one reader and one writer for all.

    from topo.formats import read, write
    found = read("topo.txt", rates={"nvlink": 50e9})
    found.graph, found.unused

Nothing is silently dropped: a line that says nothing that the graph holds is in `unused` with the reason, and a file
that is malformed or ends early raises `SpecError` with its name and line. What a format has no figure for (the bytes/s of
a word such as NV18 or PIX) comes from its table of defaults, each with its source, which `rates` (bytes/s per
direction) and `latencies` (s) override.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from topo.errors import Fault, SpecError
from topo.formats import astra_sim, graphml, ibnetdiscover, infragraph, nccl_xml, node_link, nvidia_smi
from topo.formats.base import Figures, Imported, Reader, Source, Unused, Writer, figures, load
from topo.schema import validate

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["FORMATS", "Format", "Imported", "Unused", "guess", "read", "write"]


class Format(NamedTuple):
    """How a format is read, written (None: not at all), recognised, and what figures it lacks."""

    reader: Reader
    writer: Writer | None
    note: str
    endings: tuple[str, ...]
    sign: re.Pattern[str]
    rates: Figures | None
    latencies: Figures | None


def _format(module: Any, note: str, endings: tuple[str, ...], sign: str) -> Format:
    # Link names of infragraph are the user's own, so its reader checks them itself.
    free = module is infragraph
    return Format(
        module.read,
        getattr(module, "write", None),
        note,
        endings,
        re.compile(sign, re.MULTILINE),
        None if free else module.DEFAULT_RATES,
        None if free else module.DEFAULT_LATENCIES,
    )


FORMATS = {
    "nvidia-smi": _format(
        nvidia_smi, "matrix of one host, `nvidia-smi topo -m`", (".txt",), r"^(?:\x1b\[[\d;]*m)*\s*GPU0(?:\s|\x1b)"
    ),
    "nccl-xml": _format(nccl_xml, "NCCL_TOPO_DUMP_FILE and NCCL_TOPO_FILE", (".xml",), r"<system[\s>]"),
    "ibnetdiscover": _format(
        ibnetdiscover,
        "InfiniBand subnet; adapters stand for accelerators",
        (".txt", ".topo"),
        r'^(?:# Topology file:|(?:switch|ca|rt)guid=0x|(?:Switch|Ca|Rt)\s+\d+\s+")',
    ),
    "astra-sim": _format(
        astra_sim, "network of the analytical backend", (".yml", ".yaml"), r"^(?:topology|npus_count)\s*:"
    ),
    "infragraph": _format(
        infragraph,
        "devices, instances and edges",
        (".yaml", ".yml", ".json"),
        r'(?:^|[{,])\s*"?(?:devices|instances)"?\s*:',
    ),
    "node-link": _format(node_link, "NetworkX node-link JSON", (".json",), r'"nodes"\s*:'),
    "graphml": _format(graphml, "GraphML", (".graphml", ".xml"), r"<graphml[\s>]"),
}
"""Every format by name, in the order in which a file is tried."""

_SIGN_CHARACTERS = 2**16


def _unknown(name: str, problem: str, value: str | None = None) -> SpecError:
    known = "; ".join(f"{key} ({one.note}; {', '.join(one.endings)})" for key, one in FORMATS.items())
    return SpecError([Fault("format", value, problem, f"known: {known}", name)])


def guess(source: Source) -> str:
    """Return the format of a text: by its content, else by its ending where only one format has it.

    Raises
    ------
    SpecError
        Listing the formats, when it is none of them.

    Examples
    --------
    >>> guess(Source("x", "topology: [ Ring ]"))
    'astra-sim'
    """
    head = source.text[:_SIGN_CHARACTERS]
    signs = [name for name, one in FORMATS.items() if one.sign.search(head)]
    ending = Path(source.name).suffix.lower()
    endings = [name for name, one in FORMATS.items() if ending in one.endings]
    for names in ([name for name in signs if name in endings], signs, endings if len(endings) == 1 else []):
        if names:
            return names[0]
    raise _unknown(source.name, "is not recognised")


def _source(path_or_text: str | Path) -> Source:
    if isinstance(path_or_text, Path):
        return load(path_or_text)
    if "\n" in path_or_text or path_or_text.lstrip().startswith(("<", "{")):
        return Source("text", path_or_text)
    return load(Path(path_or_text))


def read(
    path_or_text: str | Path,
    format: str | None = None,  # noqa: A002 - the word that every caller expects
    *,
    rates: Figures | None = None,
    latencies: Figures | None = None,
) -> Imported:
    r"""Read a fabric from a file (or its text, of two lines or more) of any of `FORMATS`.

    Parameters
    ----------
    path_or_text
        Path of a file of at most 256 MiB, or the text itself.
    format
        A name of `FORMATS`; None guesses it.
    rates, latencies
        Bytes/s per direction, and seconds, of words that the format has no figure for; see each module's
        ``DEFAULT_RATES`` and ``DEFAULT_LATENCIES`` (for infragraph: of links without figures, by their names).

    Returns
    -------
    The graph, which follows `topo.schema`, and every line that it doesn't hold.

    Raises
    ------
    SpecError
        With the file and line, when it is malformed, ends early or breaks the schema.

    Examples
    --------
    >>> found = read("topology: [ Ring ]\nnpus_count: [ 4 ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n")
    >>> found.graph.number_of_edges(), found.unused
    (4, ())
    """
    source = _source(path_or_text)
    name = guess(source) if format is None else format
    if name not in FORMATS:
        raise _unknown(source.name, "is unknown", name)
    chosen = FORMATS[name]
    given_rates = dict(rates or {}) if chosen.rates is None else figures(rates, chosen.rates, "rates")
    given_latencies = (
        dict(latencies or {}) if chosen.latencies is None else figures(latencies, chosen.latencies, "latencies")
    )
    return chosen.reader(source, given_rates, given_latencies)


def write(graph: "nx.Graph[Any]", path: str | Path, format: str) -> None:  # noqa: A002 - as in `read`
    """Write a graph that follows `topo.schema` in one of `FORMATS`.

    Raises
    ------
    SpecError
        When the format is unknown, isn't written, or can't hold the graph (and why).
    """
    if format not in FORMATS:
        raise _unknown(str(path), "is unknown", format)
    writer = FORMATS[format].writer
    if writer is None:
        able = ", ".join(name for name, one in FORMATS.items() if one.writer)
        raise SpecError([Fault("format", format, "is read, not written", f"write one of {able}", str(path))])
    validate(graph)
    writer(graph, Path(path))
