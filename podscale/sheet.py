"""A sheet to draw on: SVG elements in order, in colours that follow light and dark, with text of known width."""

from html import escape
from itertools import pairwise

SIZES = {"title": 18.0, "big": 13.0, "plain": 12.0, "fact": 11.0, "note": 11.0, "bad": 11.0, "head": 11.0}
"""Font size of each kind of text, in pixels."""

BOLD = frozenset({"title", "big", "head"})
"""Kinds of text in bold."""

STEPS = (0.25, 0.5, 0.75, 0.95)
"""Loads at which the colour changes."""

_SAID = ["up to 25%", *(f"{a:.0%} to {b:.0%}" for a, b in pairwise(STEPS)), "over 95% full"]
LOADS = [(said, f"var(--load{i})") for i, said in enumerate(_SAID)]
"""The key of the loads: text, colour."""

PLANES = {"scale-up": "var(--up)", "scale-out": "var(--out)"}
"""Colour of links where no load is known."""

_STYLE = """
svg.topology{--ink:#1b1f24;--soft:#57606a;--faint:#8c959f;--line:#c9d1d9;--ground:#fff;--panel:#f6f8fa;--deep:#eaeef2;
--bad:#c62f3b;--accelerator:#3f7de0;--nic:#7d8894;--up:#8a7be0;--out:#12a594;--host:#a68a64;--site:#d6549b;
--load0:#5b8def;--load1:#2a9d6f;--load2:#d9a400;--load3:#e4762e;--load4:#c62f3b;
background:var(--ground);font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media screen and (prefers-color-scheme:dark){svg.topology{--ink:#e6edf3;--soft:#a2acb7;--faint:#7d8590;--line:#3d444d;
--ground:#0d1117;--panel:#151b23;--deep:#1f2630;--bad:#ff7b80;--accelerator:#5b95f5;--nic:#8d99a6;--up:#9d8ff0;
--out:#22b8a6;--load0:#6ea0ff;--load1:#39b980;--load2:#e6b820;--load3:#f08a45;--load4:#ff6b70}}
svg.topology text{fill:var(--ink);paint-order:stroke;stroke:var(--ground);stroke-width:3px;stroke-linejoin:round}
svg.topology .in{stroke:none}
svg.topology .fact,svg.topology .head{fill:var(--soft)} svg.topology .note{fill:var(--soft)}
svg.topology .bad{fill:var(--bad)}
.frame{fill:var(--panel);stroke:var(--line)} .frame.odd{fill:var(--ground)}
.ghost{fill:var(--panel);stroke:var(--line);opacity:.6}
.box{fill:var(--deep);stroke:var(--line)} .gone{fill:none;stroke:var(--bad);stroke-dasharray:4 3} .slow{stroke:var(--bad)}
.dot,.square{fill:var(--hue)} .more{fill:var(--soft)}
.bundle{fill:none;stroke:var(--hue);opacity:.55} .bundle.changed{stroke:var(--bad);stroke-dasharray:7 5;opacity:.85}
.bundle.loaded{opacity:.85} .wire{fill:none;stroke:var(--hue);stroke-width:1;opacity:.5}
.wire.changed{stroke:var(--bad);opacity:1}
.mesh{fill:none;stroke:var(--hue);stroke-width:1.2;opacity:.7}
"""


def width_of(said: str, kind: str) -> float:
    """Return about how wide a text is, in pixels; rather too wide than too narrow.

    >>> round(width_of("leaf", "plain"))
    30
    """
    return len(said) * SIZES[kind] * (0.66 if kind in BOLD else 0.62)


def hue_of_load(load: float) -> str:
    """Return the colour of a load over capacity.

    >>> hue_of_load(0.1), hue_of_load(1.2)
    ('var(--load0)', 'var(--load4)')
    """
    return LOADS[step_of(load)][1]


def step_of(load: float) -> int:
    """Return which of the steps of `LOADS` a load is on.

    >>> step_of(0.1), step_of(1.2)
    (0, 4)
    """
    return sum(load > step for step in STEPS)


class Sheet:
    """SVG elements in the order of drawing, the texts above all else."""

    def __init__(self) -> None:
        self._elements: list[str] = []
        self._texts: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, *, radius: float = 4.0, hue: str = ""
    ) -> None:
        """Draw a rounded rectangle."""
        style = f' style="--hue:{hue}"' if hue else ""
        self._elements.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"{style}/>'
        )

    def dots(self, places: list[tuple[float, float]], radius: float, kind: str, hue: str) -> None:
        """Draw dots of one colour."""
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>' for x, y in places)
        self._elements.append(f'<g class="{kind}" style="--hue:{hue}">{marks}</g>')

    def path(self, commands: str, kind: str, hue: str, width: float = 0.0, said: str = "") -> None:
        """Draw lines; what is `said` shows when a pointer rests on them."""
        thick = f";stroke-width:{width:.1f}px" if width else ""
        title = f"<title>{escape(said)}</title>" if said else ""
        self._elements.append(f'<path class="{kind}" d="{commands}" style="--hue:{hue}{thick}">{title}</path>')

    def text(self, x: float, y: float, said: str, kind: str, anchor: str = "start", *, inside: bool = False) -> None:
        """Write a line; `inside` a box it needs no halo."""
        weight = ' font-weight="650"' if kind in BOLD else ""
        self._texts.append(
            f'<text class="{kind}{" in" if inside else ""}" x="{x:.1f}" y="{y:.1f}" font-size="{SIZES[kind]:g}"{weight} '
            f'text-anchor="{anchor}">{escape(said)}</text>'
        )

    def svg(self, width: float, height: float, title: str, description: str) -> str:
        """Return the whole drawing."""
        named = f'<title id="t">{escape(title)}</title><desc id="d">{escape(description)}</desc>'
        return (
            f'<svg class="topology" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="t d">{named}<style>{_STYLE}</style>'
            f'<rect x="0" y="0" width="100%" height="100%" fill="var(--ground)"/>'
            f"{''.join(self._elements)}{''.join(self._texts)}</svg>\n"
        )
