"""Where the frames, boxes and labels of a cluster's drawing lie: rows of tiers, frames side by side.

Boxes of one row share their height on the sheet in all frames, so that tiers read across. One frame of each make is
drawn in full, and every one that was changed in a way not yet drawn; the others are cards that say what they hold.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from podscale import words
from podscale.sheet import width_of
from topo.outline import GONE, Box, Bundle, Direct, Frame, Outline

PAD, GAP, TITLE, LINE = 12.0, 16.0, 24.0, 15.0
BOX_HEIGHT, GLYPH, BETWEEN, ARCH = 52.0, 104.0, 26.0, 40.0
GHOST = 30.0
_MOST_FULL, _MOST_CARDS, _MOST_SAID = 2, 2, 4  # drawn in full, and as cards, of one make; lines on what was changed


def short(name: str) -> str:
    """Return a name without its pool, which the frame around it tells.

    >>> short("old.leaf")
    'leaf'
    """
    return name.rpartition(".")[2]


def rate(bandwidth_Bps: float, plane: str) -> str:
    """Write the rate of a link: networks between domains are sold in bits, those inside in bytes.

    >>> rate(50e9, "scale-out"), rate(50e9, "scale-up")
    ('400 Gb/s', '50 GB/s')
    """
    return words.scaled(bandwidth_Bps * 8, "b/s") if plane == "scale-out" else words.scaled(bandwidth_Bps, "B/s")


def many(each: float) -> str:
    """Write how many links a node has; where it is a mean, with three figures.

    >>> many(32.0), many(0.875), many(31.25)
    ('32', '1', '31.2')
    """
    return f"{max(1, each):,.0f}" if each <= 1 or abs(each - round(each)) < 1e-6 else words.figures(each)


def kept_said(kept: float) -> str:
    """Say how much is left of a bandwidth.

    >>> kept_said(1.0), kept_said(0.5), kept_said(0.0)
    ('', ' at 50%', ', cut')
    """
    return "" if kept == 1 else f" at {words.percent(kept)}" if kept else ", cut"


def bundle_lines(bundle: Bundle, ends: tuple[Box, Box], *, name_end: bool) -> list[tuple[str, str]]:
    """Return the label of a bundle: kind of text, text."""
    to = f" to {short(ends[1].name)}" + (f" {ends[1].where}" if ends[1].where else "") if name_end else ""
    load = f", {words.percent(bundle.load)} full" if bundle.load is not None else ""
    first = f"{many(bundle.each)} × {rate(bundle.bandwidth_Bps, bundle.plane)}{kept_said(bundle.kept)}{to}{load}"
    facts = [words.plural(bundle.links, f"{bundle.link} link".strip())]
    facts += [words.seconds(bundle.latency_s)] if bundle.latency_s else []
    return [("plain" if bundle.kept == 1 else "bad", first), ("fact", " · ".join(facts))]


def direct_line(direct: Direct) -> str:
    """Describe links to the like.

    >>> direct_line(Direct(("x",), 16, "ring", 2, 1e11, 1e-6, "ici", "scale-up", 1.0, None))
    'x: ring of 16, 2 × 100 GB/s'
    """
    what = {"set": "each with each of", "ring": "ring of", "line": "line of"}[direct.order]
    load = f", {words.percent(direct.load)} full" if direct.load is not None else ""
    links = f"{direct.ways} × {rate(direct.bandwidth_Bps, direct.plane)}{kept_said(direct.kept)}"
    return f"{', '.join(map(short, direct.axes))}: {what} {direct.size:,}, {links}{load}"


def box_lines(box: Box) -> list[tuple[str, str]]:
    """Return the text in a box: kind of text, text."""
    state = "" if box.kept == 1 else ", gone" if not box.kept else f" at {words.percent(box.kept)}"
    first = f"{short(box.name)} ×{box.each:,}" if box.each > 1 else short(box.name)
    facts = ([f"{box.count:,} in all"] if box.count != box.each else []) + ([box.part] if box.part else [])
    apart = f"{box.where}{state}".strip(", ")
    return [("big", first + (f" · {apart}" if apart else "")), ("fact", " · ".join(facts))]


def title_of(frame: Frame) -> str:
    """Return the heading of a frame."""
    named = ", ".join(map(short, frame.where.split(", "))) or short(frame.name)
    times = f" ×{frame.each:,}" if frame.each > 1 else ""
    return named + times + (f" ({frame.count:,} in all)" if frame.count != frame.each else "")


# --- what is drawn in full -------------------------------------------------------------------------------------------


@dataclass
class Seat:
    """A box with its place: `x` is its middle; its labels stand to the right of what leaves it, `right` of the middle."""

    box: Box
    width: float = 0.0
    right: float = 0.0
    x: float = 0.0
    up: list[Bundle] = field(default_factory=list)
    down: list[Bundle] = field(default_factory=list)
    level: list[Bundle] = field(default_factory=list)

    @property
    def label_from(self) -> float:
        """How far to the right of the middle labels begin: beyond all bands."""
        return 20.0 + (self.width * 0.2 if max(len(self.up), len(self.down)) > 1 else 0.0)


@dataclass
class Card:
    """A frame with its place; where it is not drawn in full, `lines` tell what it holds."""

    frame: Frame
    lines: list[tuple[str, str]] | None
    cards: list["Card"]
    seats: list[Seat]
    x: float = 0.0
    width: float = 0.0
    anchor: float = 0.0  # from the left edge to where the boxes of single file stand
    rows: tuple[int, int] = (0, 0)
    above: int = 0
    below: int = 0

    def walk(self) -> Iterator["Card"]:
        """Yield this card and all inside."""
        yield self
        for card in self.cards:
            yield from card.walk()


def _holds(frame: Frame) -> Counter[str]:
    """Count what is inside a frame, by class, in the order of rows."""
    found = Counter[str]()
    for box in frame.boxes:
        found[short(box.name)] += box.count if box.kept else 0
    for inner in frame.frames:
        found[short(inner.name)] += inner.count
        found += _holds(inner)
    return found


def _brief(frames: Sequence[Frame], bundles: Iterable[Bundle]) -> list[tuple[str, str]]:
    """Say what some frames hold, what was changed in them, and what joins them to the rest."""
    held, changes = Counter[str](), list[str]()
    for frame in frames:
        held += _holds(frame)
        changes += frame.changes
    told = [("fact", f"{count:,} {name}") for name, count in held.items()]
    keys = {box.key for frame in frames for box in _boxes(frame)}
    for bundle in bundles:
        if (bundle.a in keys) != (bundle.b in keys):
            said = f"up: {bundle.links:,} × {rate(bundle.bandwidth_Bps, bundle.plane)}{kept_said(bundle.kept)}"
            told.append(("fact" if bundle.kept == 1 else "bad", said))
    bad = list(dict.fromkeys(changes))
    told += [("bad", line) for line in bad[:_MOST_SAID]]
    return told + ([("bad", f"and {len(bad) - _MOST_SAID} more")] if len(bad) > _MOST_SAID else [])


def _boxes(frame: Frame) -> Iterator[Box]:
    yield from frame.boxes
    for inner in frame.frames:
        yield from _boxes(inner)


def _span(frame: Frame) -> tuple[int, int]:
    rows = [box.row for box in _boxes(frame)]
    return min(rows, default=0), max(rows, default=0)


class _Chooser:
    """Choose what is drawn in full: of each make the first, and what was changed in a way not drawn yet."""

    def __init__(self, outline: Outline) -> None:
        self.bundles = outline.bundles
        self.seen: dict[str, list[frozenset[str]]] = defaultdict(list)

    def full(self, frame: Frame) -> bool:
        seen, mine = self.seen[frame.name], frozenset(frame.changes)
        wanted = len(seen) < _MOST_FULL and mine != {GONE} and not any(mine <= other for other in seen)
        if wanted:
            seen.append(mine)
        return wanted

    def card(self, frame: Frame) -> Card:
        cards, brief = list[Card](), defaultdict[str, list[Frame]](list)
        for inner in frame.frames:
            if self.full(inner):
                cards.append(self.card(inner))
            else:
                brief[inner.name].append(inner)
        for held in brief.values():
            few = held if len(held) <= _MOST_CARDS + 1 else held[:_MOST_CARDS]
            cards += [Card(inner, _brief([inner], self.bundles), [], []) for inner in few]
            rest = held[len(few) :]
            if rest:
                others = f"{sum(inner.each for inner in rest)} more"
                whole = Frame(others, "", 1, 1, 0, (), (), tuple(rest))
                cards.append(Card(whole, _brief(rest, self.bundles), [], []))
        seats = [Seat(box) for box in frame.boxes]
        return Card(frame, None, cards, seats, rows=_span(frame))


# --- sizes -----------------------------------------------------------------------------------------------------------


def widest(lines: Iterable[tuple[str, str]]) -> float:
    """Return the width of the widest line."""
    return max((width_of(said, kind) for kind, said in lines), default=0.0)


def _measure(card: Card, ends: dict[str, Box]) -> None:
    """Set the widths of a card, its seats and cards, and how many frames end on its highest and lowest row."""
    if card.lines is not None:
        card.rows, card.above, card.below = _span(card.frame), 1, 1
        card.width = 2 * PAD + max(widest(card.lines), width_of(title_of(card.frame), "plain") * 1.1)
        return
    for seat in card.seats:
        inside = [*box_lines(seat.box), *(("fact", direct_line(direct)) for direct in seat.box.direct)]
        seat.width = max(2 * 8 + widest(inside), 122.0)
        labels = [line for bundle in (*seat.up, *seat.down) for line in label(seat, bundle, ends)]
        seat.right = max(seat.width / 2, seat.label_from + widest(labels)) if labels else seat.width / 2
    for inner in card.cards:
        _measure(inner, ends)
    pad = PAD if card.frame.name else 0.0
    left, right = _strip(card.cards)
    beside, stacked = _sides(card)
    sides = [_extent(row) for row in stacked.values()]
    heading = width_of(title_of(card.frame), "plain") * 1.1
    card.anchor = pad + max([left, *(side[0] for side in sides), heading + GAP if pad else 0.0])
    inner_right = max([right, *(side[1] for side in sides)])
    card.width = card.anchor + inner_right + pad + sum(seat.width / 2 + seat.right + GAP for seat in beside)
    low, high = card.rows
    card.above = 1 + max((inner.above for inner in card.cards if inner.rows[1] == high), default=0)
    card.below = 1 + max((inner.below for inner in card.cards if inner.rows[0] == low), default=0)


def _strip(cards: Sequence[Card]) -> tuple[float, float]:
    """Return how far frames side by side reach to the left and right of where those drawn in full stand."""
    if not cards:
        return 0.0, 0.0
    anchors, x = list[float](), 0.0
    for card in cards:
        if card.lines is None:
            anchors.append(x + card.anchor)
        x += card.width + ghost(card) + GAP
    middle = sum(anchors) / len(anchors) if anchors else (x - GAP) / 2
    return middle, x - GAP - middle


def _steps(row: Sequence[Seat]) -> list[float]:
    """Return the middles of boxes side by side, from the left edge of the first."""
    places, x = list[float](), 0.0
    for seat in row:
        places.append(x + seat.width / 2)
        x += seat.width / 2 + seat.right + GAP
    return places


def _extent(row: Sequence[Seat]) -> tuple[float, float]:
    """Return how far boxes side by side reach to the left and right of the mean middle of what is there."""
    places = _steps(row)
    living = [place for place, seat in zip(places, row, strict=True) if seat.box.kept] or places
    middle = sum(living) / len(living)
    return middle, places[-1] + row[-1].right - middle


def ghost(card: Card) -> float:
    """Return the width of what suggests that a frame is repeated."""
    return GHOST if card.frame.each > 1 else 0.0


def _sides(card: Card) -> tuple[list[Seat], dict[int, list[Seat]]]:
    """Return the seats beside the inner frames, and those above and below them by row."""
    rows = [row for inner in card.cards for row in inner.rows]
    beside, stacked = list[Seat](), defaultdict[int, list[Seat]](list)
    for seat in card.seats:
        if rows and min(rows) <= seat.box.row <= max(rows):
            beside.append(seat)
        else:
            stacked[seat.box.row].append(seat)
    return beside, stacked


def label(seat: Seat, bundle: Bundle, ends: dict[str, Box]) -> list[tuple[str, str]]:
    """Return the label of a bundle that leaves a seat."""
    several = len(seat.up if bundle in seat.up else seat.down) > 1
    return bundle_lines(bundle, (ends[bundle.a], ends[bundle.b]), name_end=several)


def _place(card: Card, x: float) -> None:
    """Set where a card lies from left to right, and all inside it."""
    card.x, anchor = x, x + card.anchor
    beside, stacked = _sides(card)
    place = anchor - _strip(card.cards)[0]
    for inner in card.cards:
        _place(inner, place)
        place += inner.width + ghost(inner) + GAP
    for row in stacked.values():
        for seat, step in zip(row, _steps(row), strict=True):
            seat.x = anchor - _extent(row)[0] + step
    right = x + card.width - (PAD if card.frame.name else 0.0) - sum(s.width / 2 + s.right + GAP for s in beside)
    for seat, step in zip(beside, _steps(beside), strict=True):
        seat.x = right + GAP + step


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """Heights on the sheet: of labels above and below the boxes, and of the boxes."""

    top: float = 0.0
    up: float = 0.0
    height: float = BOX_HEIGHT
    down: float = 0.0

    @property
    def bottom(self) -> float:
        """Lower edge of the boxes."""
        return self.top + self.height


@dataclass
class Layout:
    """A cluster with every place on the sheet."""

    root: Card
    rows: dict[int, Row]
    seats: dict[str, Seat]
    cards: dict[str, Card]
    ends: dict[str, Box]
    width: float
    bottom: float

    def top_of(self, card: Card) -> float:
        """Return the upper edge of a frame."""
        row = self.rows[card.rows[1]]
        return row.top - row.up - card.above * TITLE

    def bottom_of(self, card: Card) -> float:
        """Return the lower edge of a frame."""
        row = self.rows[card.rows[0]]
        return row.bottom + row.down + card.below * PAD


def _labels_height(seat: Seat, bundles: Sequence[Bundle], ends: dict[str, Box]) -> float:
    return sum(len(label(seat, bundle, ends)) * LINE + 6 for bundle in bundles) + (14 if bundles else 0)


def _rows(root: Card, seats: Iterable[Seat], ends: dict[str, Box], top: float) -> tuple[dict[int, Row], float]:
    """Set the heights of all rows, from the outermost tier down."""
    low, high = _span(root.frame)
    rows = {row: Row() for row in range(high, low - 1, -1)}
    arches = Counter[int]()
    for seat in seats:
        row = rows[seat.box.row]
        row.up = max(row.up, _labels_height(seat, seat.up, ends))
        row.down = max(row.down, _labels_height(seat, seat.down, ends))
        row.height = max(row.height, BOX_HEIGHT + (GLYPH + LINE * len(seat.box.direct) if seat.box.direct else 0))
        arches[seat.box.row] += len(seat.level)
    inside = [card for inner in root.cards for card in inner.walk()]
    for number, row in rows.items():
        above = max((card.above for card in inside if card.rows[1] == number), default=0)
        below = max((card.below for card in inside if card.rows[0] == number), default=0)
        row.top = top + arches[number] * ARCH + above * TITLE + row.up
        top = row.bottom + row.down + below * PAD + BETWEEN
    return rows, top - BETWEEN


def layout(outline: Outline, top: float, left: float) -> Layout:
    """Give everything that an outline holds a place on the sheet."""
    root = _Chooser(outline).card(outline.root)
    seats = {seat.box.key: seat for card in root.walk() for seat in card.seats}
    ends = {box.key: box for box in _boxes(outline.root)}
    for bundle in outline.bundles:
        if bundle.a in seats and bundle.b in seats:
            a, b = seats[bundle.a], ends[bundle.b]
            (a.level if a.box.row == b.row else a.up if b.row > a.box.row else a.down).append(bundle)
    _measure(root, ends)
    _place(root, left)
    rows, bottom = _rows(root, seats.values(), ends, top)
    brief = [card for card in root.walk() if card.lines is not None]
    placed = Layout(root, rows, seats, {}, ends, root.width, bottom)
    need = [TITLE + 8 + LINE * len(card.lines or ()) - placed.bottom_of(card) + placed.top_of(card) for card in brief]
    more = max([0.0, *need])
    if more and 0 in rows:
        rows[0].down += more
        for number, row in rows.items():
            row.top += more if number < 0 else 0
        placed.bottom += more
    placed.cards = {box.key: card for card in brief for box in _boxes(card.frame)}
    return placed


def spread(count: int, middle: float, width: float) -> list[float]:
    """Return so many places around a middle, evenly over a width.

    >>> spread(1, 10, 60), spread(2, 10, 60)
    ([10.0], [-5.0, 25.0])
    """
    return [middle + width * ((i + 0.5) / count - 0.5) for i in range(count)]


def dots(each: int, width: float) -> tuple[int, bool]:
    """Return how many squares stand for so many nodes, and whether dots say that there are more.

    >>> dots(8, 122), dots(4608, 122)
    ((8, False), (7, True))
    """
    fit = max(3, math.floor((width - 16) / 13))
    return (each, False) if each <= fit else (fit - 1, True)
