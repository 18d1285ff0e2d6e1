"""The report: one HTML file that needs nothing else, neither the network nor podscale.

Plotly's script is inlined once, the drawings are SVG in the page, the data stand beside them as JSON. A content
security policy in the page forbids the browser to load anything, so the file stays as it was written.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from podscale import __version__, fronts, palette, questionwords, render, reportparts, words
from podscale.door import plain, to_json
from topo.errors import Fault, SpecError

_TEMPLATES = Path(__file__).parent / "templates"


def write(document: Mapping[str, Any], path: str | Path) -> Path:
    """Write the report of a comparison and return where it stands.

    Parameters
    ----------
    document
        The document of ``compare --json``.
    path
        The file to write; its folder is made.

    Raises
    ------
    SpecError
        If the place cannot be written to.
    """
    return write_page(html(document), path)


def write_page(text: str, path: str | Path) -> Path:
    """Write a page and return where it stands; its folder is made.

    Raises
    ------
    SpecError
        If the place cannot be written to.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        fault = Fault("--report", str(target), f"cannot be written ({error.strerror})", "choose another place")
        raise SpecError([fault]) from error
    return target


def html(document: Mapping[str, Any]) -> str:
    """Return the report of a comparison as one HTML text."""
    from plotly.offline import get_plotlyjs

    document = plain(document)
    parts = reportparts.parts(document["rows"])
    loads = reportparts.loads(document["rows"])
    page: str = _template().render(
        version=__version__,
        document=document,
        setting=render.setting(document),
        colours=_by_text(palette.of_wirings(_domains(document))),
        headline=_headline(document, parts),
        wirings=_wirings(document, loads),
        loaded=any(loads.values()),
        phases=_phases(document),
        charts=_charts(document, parts),
        parts=parts,
        phase_names=words.PHASES,
        splits=_splits(document),
        exchange=render.exchange_groups(document.get("exchange") or []),
        checks=render.check_lines(document.get("exchange_checks") or []),
        assumptions=document.get("assumptions") or [],
        constants=_flat(document.get("constants") or {}),
        intervals=render.interval_lines(document["rows"]),
        warnings=list(dict.fromkeys(w for row in document["rows"] for w in row.get("warnings") or ())),
        searched=render.search_line(document.get("search") or {}),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )
    return page


@cache
def _template() -> Any:
    """Load the page, once."""
    return environment(_TEMPLATES).get_template("report.html.j2")


def environment(folder: Path) -> Any:
    """Return Jinja's environment for the templates in a folder, with the words that pages are written in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        figures=words.figures,
        scaled=words.scaled,
        seconds=words.seconds,
        span=lambda ends: words.span(*ends),
        percent=words.percent,
        times=words.times,
        phrase=words.phrase,
        term=words.term,
        sentence=words.sentence,
        split=words.split,
        rest_of=words.rest_of,
        latency=words.latency,
        reason=render.reason,
        about=_about,
        dollars=words.dollars,
        gain=questionwords.gain,
    )
    return found


def _domains(document: Mapping[str, Any]) -> list[int]:
    """Return the domain sizes in the comparison, smallest first."""
    return sorted({int(row["domain"]) for row in document["rows"]} | {int(w["domain"]) for w in document["wirings"]})


def _by_text(colours: Mapping[int, str]) -> dict[str, str]:
    """Key the colours by text, as templates and JSON do."""
    return {str(domain): colour for domain, colour in colours.items()}


def _headline(document: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the speed of every wiring in each phase, for the bars at the top, and what was measured of the whole."""
    whole = {part["phase"]: [group for group in part["backing"] if group["share"] is None] for part in parts}
    shown = []
    for phase in _phases(document):
        rates = [row["tokens_per_s_per_gpu"] if not row.get("infeasible") else None for row in phase["rows"]]
        most = max((rate for rate in rates if rate), default=1.0)
        bars = [
            {"domain": row["domain"], "rate": rate, "ratio": row["ratio"], "share": (rate or 0.0) / most}
            for row, rate in zip(phase["rows"], rates, strict=True)
        ]
        title = words.PHASES[phase["name"]].capitalize()
        shown.append({"title": title, "bars": bars, "backing": whole.get(phase["name"], [])})
    return shown


def _phases(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows by phase, with each row's speed over the first's and its largest terms."""
    phases = []
    for name in words.PHASES:
        rows = [dict(row) for row in document["rows"] if row["phase"] == name]
        ratios = words.ratios([None if row.get("infeasible") else row["tokens_per_s_per_gpu"] for row in rows])
        for row, ratio in zip(rows, ratios, strict=True):
            row["ratio"] = ratio
            row["where"] = words.shares(row.get("terms") or {})[:3]
            row["time_name"], row["time"] = words.latency(row)
        if rows:
            title = render.phase_title(name, document.get("workload", {}))
            phases.append({"name": name, "title": title, "rows": rows})
    return phases


def _wirings(document: Mapping[str, Any], loads: Mapping[int, Any]) -> list[dict[str, Any]]:
    """Return a drawing per wiring, all on one scale, with what the best strategies put on it."""
    from podscale import draw

    wired = sorted(document["wirings"], key=lambda wiring: int(wiring["domain"]))
    wired = [{**wiring, "busy": loads.get(wiring["domain"], {})} for wiring in wired]
    shared = draw.scale(wired)
    colours = palette.of_wirings(_domains(document))
    gpus = document.get("workload", {}).get("gpus", 0)
    return [
        {
            "domain": wiring["domain"],
            "domains": gpus // wiring["domain"],
            "svg": draw.wiring(wiring, shared, colours[wiring["domain"]], gpus),
        }
        for wiring in wired
    ]


def _splits(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the best rows and every point of a frontier, each split of a wiring once."""
    points = [{**front, **point} for front in document.get("frontiers") or () for point in front.get("points") or ()]
    found: dict[str, dict[str, Any]] = {}
    for row in [*document["rows"], *points]:
        if not row.get("infeasible"):
            name, time = words.latency(row)
            held = {**{key: row[key] for key in ("phase", "domain", "strategy", "tokens_per_s_per_gpu")}, "time": time}
            ends = [end / time for end in row["interval"]] if row.get("interval") and time else row.get("band")
            held["band"] = fronts.said({**row, "band": ends})
            found.setdefault(to_json([row["phase"], row["domain"], row["strategy"]]), {**held, "time_name": name})
    order = list(words.PHASES)
    return sorted(
        found.values(), key=lambda row: (order.index(row["phase"]), row["domain"], -row["tokens_per_s_per_gpu"])
    )


def _charts(document: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures as JSON, by section of the page."""
    from podscale import charts

    rows = document["rows"]
    work = document.get("workload", {})
    weights: Counter[str] = Counter()
    for row in rows:
        weights.update(dict(words.shares(row.get("terms") or {})))
    colours = palette.of_terms(name for name, _ in weights.most_common())
    wirings = palette.of_wirings(_domains(document))
    fronts = document.get("frontiers") or ()
    drawn = {
        "terms": [(words.PHASES[phase].capitalize(), charts.terms(rows, phase, colours)) for phase in words.PHASES],
        "frontier": [
            (words.PHASES[phase].capitalize(), charts.frontier(fronts, phase, wirings, _limit(phase, work)))
            for phase in charts.AXES
        ],
        "memory": [("", charts.memory(rows, work.get("hbm_bytes") or _hbm_bytes(rows)))],
        "roofline": [(_about(part), charts.roofline(part["roofline"])) for part in parts],
    }
    return {
        section: [
            {
                "id": f"{section}-{rank}",
                "title": title,
                "key": charts.key(figure),
                "json": to_json(figure.to_plotly_json()).replace("<", "\\u003c"),
            }
            for rank, (title, figure) in enumerate(figures)
            if figure is not None
        ]
        for section, figures in drawn.items()
    }


def _about(part: Mapping[str, Any]) -> str:
    """Say which row a part is about.

    >>> _about({"phase": "decode", "domain": 72, "strategy": {"tp": 1, "ep": 72, "pp": 1, "dp": 64}})
    'Decode, domain of 72, EP72 TP1 PP1 DP64'
    """
    return f"{words.PHASES[part['phase']].capitalize()}, domain of {part['domain']:,}, {words.split(part['strategy'])}"


def _limit(phase: str, work: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return where a phase's limit lies on the axis of its frontier, and what to write there."""
    if phase == "decode" and work.get("tpot_ms"):
        return 1e3 / work["tpot_ms"], f"TPOT {words.figures(work['tpot_ms'])} ms"
    if phase == "prefill" and work.get("ttft_ms"):
        return work["ttft_ms"], f"TTFT {words.figures(work['ttft_ms'])} ms"
    return None


def _hbm_bytes(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the memory of a GPU, from a row that says which share of it is full.

    >>> _hbm_bytes([{"memory_bytes": {"weights": 6e10}, "memory_share": 0.75}])
    80000000000.0
    """
    full = ((sum((row.get("memory_bytes") or {}).values()), row.get("memory_share")) for row in rows)
    return next((held / share for held, share in full if held and share), None)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested values as dotted names.

    >>> _flat({"a": {"b": 1}, "c": 2})
    [('a.b', 1), ('c', 2)]
    """
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", words.figures(value) if isinstance(value, float) else value))
    return rows
