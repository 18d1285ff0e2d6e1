"""Least cuts and lightest paths on a graph of orbits: a few dozen arcs, on which a graph library takes longest to load."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from heapq import heappop, heappush
from itertools import count, pairwise
from math import inf

from topo.orbits import OrbitGraph, as_graph

_MANY_JOINTS = 2000
"""Where a cut is worth loading NetworkX and SciPy for."""

_TIE_S = 1e-15
"""Added to every link when looking for the lightest path, so that among equal latencies fewer links win."""

Ends = Collection[str]
"""Names of orbits."""


def cut(found: OrbitGraph, left: Ends, right: Ends) -> float:
    """Return the maximum flow (= minimum cut) from one set of orbits to another, in bytes/s.

    Capacities are rounded to whole bytes/s, so it is exact; SciPy takes over where there are many.

    Examples
    --------
    Four switches, to each of which eight accelerators have 225 GB/s.

    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> from topo.orbits import orbit_graph
    >>> found = orbit_graph(cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None))
    >>> accelerators, switches = found.members
    >>> cut(found, [accelerators], [switches]) / 1e9
    7200.0
    """
    if len(found.joints) > _MANY_JOINTS:
        from topo.flows import max_flow

        return max_flow(as_graph(found), left, right)
    return float(_flow({ends: round(joint.bandwidth_Bps) for ends, joint in found.joints.items()}, left, right))


def _flow(capacity: Mapping[tuple[str, str], int], left: Ends, right: Ends) -> int:
    """Fill the shortest path that has room until none has (Edmonds and Karp, Journal of the ACM 19, 1972).

    >>> _flow({("a", "b"): 3, ("b", "z"): 2, ("a", "z"): 1}, ["a"], ["z"])
    3
    """
    room: dict[str, dict[str, int]] = defaultdict(dict)
    for (tail, head), most in capacity.items():
        room[tail][head] = room[tail].get(head, 0) + most
        room[head].setdefault(tail, 0)
    total = 0
    while path := _path_with_room(room, left, right):
        least = min(room[tail][head] for tail, head in path)
        for tail, head in path:
            room[tail][head] -= least
            room[head][tail] += least
        total += least
    return total


def _path_with_room(room: Mapping[str, Mapping[str, int]], left: Ends, right: Ends) -> list[tuple[str, str]]:
    """Return the arcs of a path of fewest arcs that all have room, last first; none where there is no such path."""
    came: dict[str, str] = dict.fromkeys(left, "")
    reached, wanted = list(left), set(right)
    for here in reached:
        if here in wanted:
            back = [here]
            while before := came[back[-1]]:
                back.append(before)
            return [(tail, head) for head, tail in pairwise(back)]
        for there, most in room.get(here, {}).items():
            if most and there not in came:
                came[there] = here
                reached.append(there)
    return []


def lightest(found: OrbitGraph, left: Ends, right: Ends) -> list[str]:
    """Return the path of least latency from one set of orbits to another (fewest links among equals): Dijkstra's.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> from topo.orbits import orbit_graph
    >>> box = cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None)
    >>> found = orbit_graph(box, [{"domain": 0, "slot": 0, "rail": 0}])
    >>> [found.members[orbit].node.name for orbit in lightest(found, *([orbit] for orbit in list(found.members)[:2]))]
    ['accelerator', 'scale-up-switch', 'accelerator']
    """
    away: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (tail, head), joint in found.joints.items():
        away[tail].append((head, joint.latency_s + _TIE_S))
    order = count()
    reached = [(0.0, next(order), orbit, "") for orbit in left]
    came: dict[str, str] = {}
    length_s: dict[str, float] = {}
    while reached:
        so_far_s, _, here, before = heappop(reached)
        if here in came:
            continue
        came[here], length_s[here] = before, so_far_s
        for there, step_s in away[here]:
            heappush(reached, (so_far_s + step_s, next(order), there, here))
    path = [min(right, key=lambda orbit: (length_s.get(orbit, inf), orbit))]
    while before := came[path[-1]]:
        path.append(before)
    return path[::-1]
