"""The 90 % band about a front: where measured runs put its points, as the outline that all drawings share.

A run that took f times its price lies at f times the time and at 1/f of the rates. So a point moves along both axes at once,
and the band is what lies between the front at the band's lower end and the front at its upper end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from podscale import words

Place = tuple[float, float]
RATE: Final = "tokens_per_s_per_gpu"


def moved(point: Mapping[str, Any], key: str, end: int) -> Place:
    """Return a point where a run at one end of its `band` lies: `key` is its place across, a time (``…_s``) or a rate.

    >>> point = {"ttft_s": 2.0, "tokens_per_s_per_gpu": 100.0, "band": (0.5, 2.0)}
    >>> moved(point, "ttft_s", 0), moved(point, "ttft_s", 1)
    ((1.0, 200.0), (4.0, 50.0))
    """
    factor = float(point["band"][end])
    across = float(point[key])
    return (across * factor if key.endswith("_s") else across / factor), float(point[RATE]) / factor


def stepped(places: Sequence[Place], between: str) -> list[Place]:
    """Return the corners of a line that steps from place to place: "vh" goes upright first, "hv" level.

    >>> stepped([(1.0, 3.0), (2.0, 1.0)], "vh"), stepped([(1.0, 3.0), (2.0, 5.0)], "hv")
    ([(1.0, 3.0), (1.0, 1.0), (2.0, 1.0)], [(1.0, 3.0), (2.0, 3.0), (2.0, 5.0)])
    """
    corners = [*places[:1]]
    for place in places[1:]:
        last = corners[-1]
        corners += [(last[0], place[1]) if between == "vh" else (place[0], last[1]), place]
    return corners


def around(points: Sequence[Mapping[str, Any]], key: str, between: str) -> list[Place]:
    """Return the outline of the band about a front, its points sorted across; none where a point has no band."""
    if not points or not all(point.get("band") for point in points):
        return []
    ends = [stepped([moved(point, key, end) for point in points], between) for end in (0, 1)]
    return [*ends[0], *reversed(ends[1])]


def said(point: Mapping[str, Any]) -> str:
    """Write the band of a point's rate.

    >>> said({"tokens_per_s_per_gpu": 100.0, "band": (0.5, 2.0)}), said({"tokens_per_s_per_gpu": 100.0, "band": None})
    ('50 to 200', '')
    """
    if not point.get("band"):
        return ""
    low, high = (words.figures(point[RATE] / factor) for factor in reversed(point["band"]))
    return f"{low} to {high}"
