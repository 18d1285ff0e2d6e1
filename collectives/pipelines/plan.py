"""An order as a dependency graph: arrays, sorted into levels that the executor sweeps one after another.

A node is what a device does at one time: an action, or two overlapped ones. It waits for the node before it on its
device, and for what it needs from other devices. What a device did itself (a micro-batch's forward before its
backward, the input's gradient before the weights') is in the device's order already; `plan` refuses an order that has
it the wrong way round, and one that waits for itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from collectives.pipelines.actions import BACKWARD, FORWARD, INPUT, WEIGHT, Action
from topo.errors import Fault, SpecError

Ints = npt.NDArray[np.intp]
Where = tuple[str, int, int, int]

KINDS = (FORWARD, BACKWARD, INPUT, WEIGHT)
FLOW = {FORWARD: FORWARD, BACKWARD: BACKWARD, INPUT: BACKWARD, WEIGHT: WEIGHT}
"""Kind → the stream it stands in: a whole backward and the gradient of the input pass the same message on."""
NEEDS = {FORWARD: (), BACKWARD: (FORWARD,), INPUT: (FORWARD,), WEIGHT: (FORWARD, INPUT)}
"""Kind → what the same device must have done before, for the same micro-batch."""


@dataclass(frozen=True)
class Plan:
    """The graph of an order: n nodes in level order (a node's predecessors stand before it), d devices.

    Attributes
    ----------
    levels
        (first, last + 1) node of each level.
    before
        Node before each on its device; n where there is none (row n of the executor's tables stays 0).
    after
        (n, k) nodes on other devices (or through the other virtual stage of the same device) that each waits for; n for
        none.
    hop
        (n, k) boundary over which that comes; the row after the last boundary costs nothing.
    back
        (n, k) whether it is a gradient.
    work
        (n, 2) kind · virtuals + virtual of the node's actions; 4 · virtuals for none.
    sent, sent_back
        (n, 2) boundary over which the node's results leave, as in `hop`, and whether they are gradients.
    first_use, last_use, opens, closes
        (n, 2) virtual stage whose parameters the node is the first to use, whose gradients it is the last to add to; the
        same per uninterrupted run on one virtual stage. `virtuals` for none.
    node
        Node of each action, actions listed device by device.
    device
        Device of each node.
    first, last
        First and last node of each device.
    """

    levels: tuple[tuple[int, int], ...]
    before: Ints
    after: Ints
    hop: Ints
    back: npt.NDArray[np.bool_]
    work: Ints
    sent: Ints
    sent_back: npt.NDArray[np.bool_]
    first_use: Ints
    last_use: Ints
    opens: Ints
    closes: Ints
    node: Ints
    device: Ints
    first: Ints
    last: Ints


def plan(actions: Sequence[Sequence[Action]], device: Sequence[Sequence[int]], loop: int) -> Plan:
    """Return the dependency graph of an order; raise `SpecError` with every fault where it cannot run."""
    pipes, virtuals = len(device), len(device[0])
    slots = [slot for listed in actions for slot in _slots(listed)]
    faults = list(_faults(actions, device))
    if faults:
        raise SpecError(faults)
    owner = [d for d, listed in enumerate(actions) for _ in _slots(listed)]
    slot_of = [i for i, slot in enumerate(slots) for _ in slot]
    messages = arrivals([a for slot in slots for a in slot], device, loop)
    free = pipes * (virtuals - 1) + (loop > 0)
    count = len(slots)
    before = [i - 1 if i and owner[i - 1] == owner[i] else count for i in range(count)]
    comes: list[list[tuple[int, int, bool]]] = [[] for _ in slots]
    leaves: list[list[tuple[int, bool]]] = [[] for _ in slots]
    for sender, taker, boundary, back in messages:
        comes[slot_of[taker]].append((slot_of[sender], boundary, back))
        leaves[slot_of[sender]].append((boundary, back))
    level = _levels(before, [[node for node, _, _ in wait] for wait in comes], slots)
    order = np.argsort(level, kind="stable")
    rank = np.append(np.argsort(order, kind="stable"), count)
    sizes = np.bincount(level)
    ends = np.cumsum(sizes)
    width = max(1, *map(len, comes))
    wait = np.array([c + [(count, free, False)] * (width - len(c)) for c in comes], dtype=np.intp)[order]
    sent = np.array([out + [(free, False)] * (2 - len(out)) for out in leaves], dtype=np.intp)[order]
    work = [[KINDS.index(a.kind) * virtuals + a.virtual for a in slot] for slot in slots]
    uses = _uses(slots, owner, virtuals)
    of = np.array(owner, dtype=np.intp)[order]
    starts = np.searchsorted(owner, np.arange(len(actions)))
    stops = np.searchsorted(owner, np.arange(len(actions)), side="right") - 1
    return Plan(
        levels=tuple(zip((ends - sizes).tolist(), ends.tolist(), strict=True)),
        before=rank[np.array(before, dtype=np.intp)[order]],
        after=rank[wait[:, :, 0]],
        hop=wait[:, :, 1],
        back=wait[:, :, 2].astype(bool),
        work=_padded(work, len(KINDS) * virtuals)[order],
        sent=sent[:, :, 0],
        sent_back=sent[:, :, 1].astype(bool),
        first_use=uses[0][order],
        last_use=uses[1][order],
        opens=uses[2][order],
        closes=uses[3][order],
        node=rank[slot_of],
        device=of,
        first=rank[starts],
        last=rank[stops],
    )


def arrivals(listed: Sequence[Action], device: Sequence[Sequence[int]], loop: int) -> list[tuple[int, int, int, bool]]:
    """Return the messages of a list of actions: (row that sends, row that waits for it, boundary, gradient?).

    The boundary is a row of `Costs.hop_s`, or one past the last where both rows are of the same device.

    >>> arrivals([Action("F", 0, 0), Action("F", 1, 0), Action("B", 1, 0), Action("B", 0, 0)], [[0, 1]], 0)
    [(0, 1, 0, False), (2, 3, 0, True)]
    """
    inner = len(device[0]) - 1
    free = len(device) * inner + (loop > 0)
    row = {(FLOW[a.kind], a.pipe, a.virtual, a.microbatch): i for i, a in enumerate(listed) if a.kind != WEIGHT}
    messages = []
    for i, a in enumerate(listed):
        held, low = device[a.pipe], a.virtual - 1 if a.kind == FORWARD else a.virtual
        boundary = a.pipe * inner + low if 0 <= low < inner and held[low] != held[low + 1] else free
        if a.kind == FORWARD and a.virtual:
            messages.append((row[FORWARD, a.pipe, low, a.microbatch], i, boundary, False))
        elif a.kind == FORWARD and loop and a.microbatch >= loop:
            home = free if held[inner] == held[0] else free - 1
            messages.append((row[FORWARD, a.pipe, inner, a.microbatch - loop], i, home, False))
        elif a.kind in (BACKWARD, INPUT) and low < inner:
            messages.append((row[BACKWARD, a.pipe, low + 1, a.microbatch], i, boundary, True))
    return messages


def _slots(listed: Sequence[Action]) -> list[list[Action]]:
    """Return a device's actions with the overlapped ones together."""
    slots: list[list[Action]] = []
    for action in listed:
        if action.paired and slots:
            slots[-1].append(action)
        else:
            slots.append([action])
    return slots


def _padded(rows: list[list[int]], filler: int) -> Ints:
    """Return rows of one or two numbers as (n, 2)."""
    return np.array([row + [filler] * (2 - len(row)) for row in rows], dtype=np.intp)


def _faults(actions: Sequence[Sequence[Action]], device: Sequence[Sequence[int]]) -> Iterator[Fault]:
    """Yield what is wrong with an order, short of a deadlock."""
    seen: Counter[Where] = Counter()
    batches: dict[int, set[int]] = defaultdict(set)
    for d, listed in enumerate(actions):
        if not listed:
            yield Fault(f"actions[{d}]", None, "the device has nothing to do", "use fewer stages")
        for i, a in enumerate(listed):
            here = f"actions[{d}][{i}]"
            if a.kind not in NEEDS:
                yield Fault(here, a.kind, "is no kind of work", "write F, B, I or W")
                continue
            if device[a.pipe][a.virtual] != d:
                yield Fault(here, a, "sits on another device", f"list it on device {device[a.pipe][a.virtual]}")
            if a.paired and (i == 0 or listed[i - 1].paired):
                yield Fault(here, a, "has nothing to overlap with", "pair two actions at most")
            for kind in NEEDS[a.kind]:
                if not seen[kind, a.pipe, a.virtual, a.microbatch]:
                    yield Fault(here, a, f"comes before its {kind}", "list it later")
            seen[a.kind, a.pipe, a.virtual, a.microbatch] += 1
            batches[a.pipe].add(a.microbatch)
    yield from _missing(seen, batches, device)


def _missing(seen: Counter[Where], batches: dict[int, set[int]], device: Sequence[Sequence[int]]) -> Iterator[Fault]:
    """Yield what is not done exactly once: every virtual stage takes every micro-batch of its pipe."""
    backward = any(kind != FORWARD for kind, *_ in seen)
    for pipe, members in batches.items():
        for virtual in range(len(device[pipe])):
            for k in sorted(members):
                f, b, i, w = (seen[kind, pipe, virtual, k] for kind in KINDS)
                if f != 1 or i != w or b + i != int(backward):
                    counts = {"F": f, "B": b, "I": i, "W": w}
                    name = f"pipe {pipe}, virtual stage {virtual}, micro-batch {k}"
                    yield Fault(name, counts, "is not done exactly once", "list F once, and B once or I and W once")


def _levels(before: list[int], after: list[list[int]], slots: list[list[Action]]) -> Ints:
    """Return each node's level: one more than the highest it waits for. Raises `SpecError` where some wait in a ring."""
    count = len(before)
    waits = [[n for n in {before[i], *after[i]} if n < count] for i in range(count)]
    followers: list[list[int]] = [[] for _ in range(count)]
    for i, on in enumerate(waits):
        for n in on:
            followers[n].append(i)
    left = [len(on) for on in waits]
    level = np.zeros(count, dtype=np.intp)
    ready = [i for i in range(count) if not left[i]]
    for node in ready:
        for follower in followers[node]:
            level[follower] = max(level[follower], level[node] + 1)
            left[follower] -= 1
            if not left[follower]:
                ready.append(follower)
    if len(ready) < count:
        stuck = next(slots[i][0] for i in range(count) if left[i])
        raise SpecError([Fault("actions", stuck, "waits for itself through other devices", "list it later")])
    return level


def _uses(slots: list[list[Action]], owner: list[int], virtuals: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Return, per node, the virtual stages at their first use and last backward, in all and per run (see `Plan`)."""
    tables: list[list[list[int]]] = [[[] for _ in slots] for _ in range(4)]
    placed = [(owner[i], i, a) for i, slot in enumerate(slots) for a in slot]
    for _, own in groupby(placed, key=lambda x: x[0]):
        listed = list(own)
        first = {(a.pipe, a.virtual): i for _, i, a in reversed(listed)}
        last = {(a.pipe, a.virtual): i for _, i, a in listed if a.kind != FORWARD}
        for (_, virtual), i in first.items():
            tables[0][i].append(virtual)
        for (_, virtual), i in last.items():
            tables[1][i].append(virtual)
        for (_, virtual), run in groupby(listed, key=lambda x: (x[2].pipe, x[2].virtual)):
            members = list(run)
            tables[2][members[0][1]].append(virtual)
            gradients = [i for _, i, a in members if a.kind in (BACKWARD, WEIGHT)]
            if gradients:
                tables[3][gradients[-1]].append(virtual)
    forward_use, backward_use, opened, closed = (_padded(table, virtuals) for table in tables)
    return forward_use, backward_use, opened, closed
