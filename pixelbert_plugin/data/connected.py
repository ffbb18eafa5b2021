"""What belongs together because it stands together, or is joined by others that do (union-find)."""

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def connected(rows: Iterable[Sequence[T]]) -> dict[T, T]:
    """Of every member of a row, in the order of their first rows, one that is the same for all that it is connected with."""
    parent: dict[T, T] = {}

    def root(member: T) -> T:
        while (above := parent.setdefault(member, member)) != member:
            parent[member] = member = parent[above]
        return member

    for row in rows:
        first = root(row[0])
        for other in row[1:]:
            parent[root(other)] = first
    return {member: root(member) for member in parent}
