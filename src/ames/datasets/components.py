"""Connected components: what belongs together because pairs of it do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of a graph of nodes 0 ... ``count`` - 1, single nodes included.

    Members ascend; components are in the order of their first members.
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    groups = defaultdict(list)
    for node in range(count):
        groups[root(node)].append(node)
    return list(groups.values())
