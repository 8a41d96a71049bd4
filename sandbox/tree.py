"""A stack's resources as a tree, parents before children, as the Pulumi CLI shows them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Node(NamedTuple):
    urn: str
    parent: str
    type: str
    name: str


def tree(nodes: Iterable[Node]) -> Iterator[str]:
    """One line per resource. A resource whose parent is not among ``nodes`` is a root."""
    nodes = list(nodes)
    urns = {node.urn for node in nodes}
    children: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: (node.type, node.name)):
        children.setdefault(node.parent if node.parent in urns else "", []).append(node)

    def lines(parent: str, indent: str) -> Iterator[str]:
        siblings = children.get(parent, [])
        for node in siblings:
            last = node is siblings[-1]
            branch, below = ("", "") if not parent else ("└─ ", "   ") if last else ("├─ ", "│  ")
            yield f"{indent + branch + node.type:<72}{node.name}"
            yield from lines(node.urn, indent + below)

    return lines("", "")
