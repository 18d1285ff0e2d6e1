"""Which frames and which row of a drawing the nodes of a class lie in: blocks in blocks, accelerators at the bottom."""

from itertools import pairwise

from topo.blueprint import Blueprint, NodeClass

Step = tuple[str, tuple[str, ...]]
"""One nesting of frames: its name, and the axes that number its frames."""


def steps(bp: Blueprint) -> dict[str, tuple[Step, ...]]:
    """Return which frames the nodes of each class lie in, outermost first.

    Every level that cuts accelerators is a frame (one for each axis, where the axes hang below one another); a frame of
    one accelerator is none.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = steps(cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib")))
    >>> two["scale-up-switch"], two["leaf"]
    ((('domain', ('domain',)),), ())
    """
    chains = [_chain(bp, node) for node in bp.nodes if node.kind == "accelerator"]
    found = {}
    for node in bp.nodes:
        mine = set(bp.closure(node.axes))
        fits = [tuple(step for step in chain if set(step[1]) <= mine) for chain in chains]
        found[node.name] = max(fits, key=len)
    return found


def _chain(bp: Blueprint, node: NodeClass) -> tuple[Step, ...]:
    """Return the nested frames of one class of accelerators."""
    chain: list[Step] = []
    around: set[str] = set()
    for level in reversed(bp.levels):
        own = bp.own(level, node)
        more = tuple(name for name in own if name not in around)
        if not more or set(own) == set(bp.closure(node.axes)):
            continue
        nested = all(bp.axis[name].within == parent for parent, name in pairwise(more))
        chain += [(name, (name,)) for name in more] if nested else [(level.name, more)]
        around |= set(own)
    return tuple(chain)


def rows(bp: Blueprint) -> dict[str, int]:
    """Return the row of each class: accelerators on 0, scale-out above, what has scale-up links only below.

    A class lies one row further out than every class inside its frames, and than those beside it that it is joined to
    and that are nearer to an accelerator.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> rows(cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib")))
    {'accelerator': 0, 'scale-up-switch': -1, 'nic': 1, 'leaf': 2}
    """
    peers: dict[str, set[str]] = {node.name: set() for node in bp.nodes}
    for link in bp.links:
        peers[link.a].add(link.b)
        peers[link.b].add(link.a)
    away = {node.name: 0 for node in bp.nodes if node.kind == "accelerator"}
    edge = set(away)
    while edge:
        edge = {peer for name in edge for peer in peers[name]} - set(away)
        away |= dict.fromkeys(edge, max(away.values()) + 1)
    within = steps(bp)
    outwards = {
        node.name: (node.kind != "accelerator", -len(within[node.name]), away.get(node.name, 1)) for node in bp.nodes
    }
    above = {end for link in bp.links if link.plane == "scale-out" for end in (link.a, link.b)}
    found: dict[str, int] = {}
    for name in sorted(peers, key=lambda name: outwards[name]):
        inside = {
            peer for peer in found if len(within[peer]) > (n := len(within[name])) and within[peer][:n] == within[name]
        }
        inner = [
            found[peer] for peer in found if peer in inside or (peer in peers[name] and outwards[peer] < outwards[name])
        ]
        if bp.node(name).kind == "accelerator":
            found[name] = 0
        elif name in above:
            found[name] = 1 + max([0, *inner])
        else:
            found[name] = -1 + min([0, *inner])
    for _ in bp.links:  # what joins unlike blocks lies level
        for link in bp.links:
            a, b = within[link.a], within[link.b]
            if a and len(a) == len(b) and a != b and found[link.a] * found[link.b] > 0:
                found[link.a] = found[link.b] = max(found[link.a], found[link.b], key=abs)
    return {node.name: found[node.name] for node in bp.nodes}
