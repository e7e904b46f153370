"""The tree that rows form: every structure with its path, its label and a colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import RecordError, brief
from .rows import LARGEST_LABEL, MOST_LEVELS, MOST_STRUCTURES, Identifier, Notes, Row

#: The remark on a name for label 0.
BACKGROUND = "has a name for 0, which is background and is left out"
#: Odd, so that its multiples modulo 2**24 are all different; near the golden ratio of 2**24, so that they are spread.
_STEP = 0x9E3779


@dataclass(frozen=True)
class Placed:
    """A row in the tree: the identifiers from the root to it, its label, if it has one, and its colour."""

    row: Row
    path: tuple[Identifier, ...]
    value: int | None
    colour: str


def tree(rows: Iterable[Row], notes: Notes) -> list[Placed]:
    """Rows with their places in the tree, depth first; siblings stay in the order of the rows.

    A row without a parent has the last but one of its path. Where no row is a root, the parents that are missing were
    left out, as from a subtree that was saved alone: their children are roots. A row without a label has its
    identifier, unless other rows have labels that differ from their identifiers: then it has none. A row 0 of no tree
    is left out.

    Raises
    ------
    RecordError
        If there are no rows or too many, an id or a label occurs twice, a parent is missing, the parents form a cycle
        or too many levels, or a path differs from the one that the parents form.
    """
    by_id: dict[Identifier, Row] = {}
    parents: dict[Identifier, Identifier | None] = {}
    for row in rows:
        if (other := by_id.get(row.id)) is not None:
            raise RecordError(
                f"{row.where}the terminology has the id {row.id} more than once: {brief(other.name)} and "
                f"{brief(row.name)}",
                code="duplicate-structure",
            )
        if len(by_id) == MOST_STRUCTURES:
            raise RecordError(
                f"the terminology has more than {MOST_STRUCTURES} structures; give one of at most so many",
                code="too-many-structures",
            )
        by_id[row.id] = row
        parents[row.id] = _parent(row)
    if not by_id:
        raise RecordError("the terminology has no structures", code="empty-terminology")
    if len(by_id) > 1 and 0 in by_id and not by_id[0].value and parents[0] is None and 0 not in parents.values():
        notes.add(BACKGROUND, by_id.pop(0).name)  # as ibllib's table has it
        del parents[0]
    _cut(by_id, parents, notes)
    labels = _labels(by_id)
    ordered = list(_walk(by_id, parents))
    for row, path in ordered:
        _check_path(row, path, by_id[path[0]])
    if len(ordered) < len(by_id):
        placed = {row.id for row, _ in ordered}
        row = next(row for row in by_id.values() if row.id not in placed)
        raise RecordError(
            f"the parents of structure {row.shown} form a cycle; it must descend from a root",
            code="parents-in-a-cycle",
        )
    colours = _colours([row for row, _ in ordered], notes)
    _remark_on_acronyms([row for row, _ in ordered], notes)
    return [Placed(row, path, labels[row.id], colours[row.id]) for row, path in ordered]


def _parent(row: Row) -> Identifier | None:
    """The parent by the row's own field, or by its path."""
    if row.path is None:
        return row.parent_id
    if row.path[-1] != row.id or len(set(row.path)) < len(row.path):
        raise RecordError(
            f"{row.where}structure {row.shown} has the path {_listed(row.path)}, which must lead from a "
            f"root to {row.id}",
            code="inconsistent-path",
        )
    return row.path[-2] if row.parent_id is None and len(row.path) > 1 else row.parent_id


def _cut(by_id: dict[Identifier, Row], parents: dict[Identifier, Identifier | None], notes: Notes) -> None:
    """Make rows whose parent is missing roots, if there is no other root."""
    if orphans := [id for id, parent in parents.items() if parent is not None and parent not in by_id]:
        row = by_id[orphans[0]]
        if None in parents.values():
            raise RecordError(
                f"{row.where}structure {row.shown} has the parent {parents[row.id]}, which is missing",
                code="missing-parent",
            )
        for id in orphans:
            notes.add("lacks the parents of these structures, which are roots", f"{id} (parent {parents[id]})")
            parents[id] = None


def _walk(
    by_id: dict[Identifier, Row], parents: dict[Identifier, Identifier | None]
) -> Iterator[tuple[Row, tuple[Identifier, ...]]]:
    """The rows that descend from a root, with their paths, depth first."""
    children: dict[Identifier | None, list[Row]] = {}
    for id, parent in parents.items():
        children.setdefault(parent, []).append(by_id[id])
    pending: list[tuple[Row, tuple[Identifier, ...]]] = [(row, (row.id,)) for row in reversed(children.get(None, []))]
    while pending:
        row, path = pending.pop()
        if len(path) > MOST_LEVELS:
            raise RecordError(
                f"{row.where}structure {row.shown} is more than {MOST_LEVELS} levels deep in the tree; "
                "give a terminology of at most so many",
                code="terminology-too-deep",
            )
        yield row, path
        pending.extend((child, (*path, child.id)) for child in reversed(children.get(row.id, [])))


def _check_path(row: Row, path: tuple[Identifier, ...], root: Row) -> None:
    """Refuse a path that differs from the one that the parents form; that of a subtree may begin above its root."""
    if row.path is None or row.path == path:
        return
    if root.path is None and root.parent_id in row.path:
        above = row.path[: -len(path)]
    else:
        above = root.path[:-1] if root.path is not None else ()
    if row.path != above + path:
        raise RecordError(
            f"{row.where}structure {row.shown} has the path {_listed(row.path)}, but its parents form {_listed(path)}",
            code="inconsistent-path",
        )


def _labels(by_id: dict[Identifier, Row]) -> dict[Identifier, int | None]:
    """The label of every structure."""
    differ = any(row.value not in (None, 0, row.id) for row in by_id.values())
    labels: dict[Identifier, int | None] = {}
    owners: dict[int, Row] = {}
    for row in by_id.values():
        value = row.value
        if value is None and not differ and isinstance(row.id, int):
            if row.id > LARGEST_LABEL:
                raise RecordError(
                    f"{row.where}structure {row.shown} has no annotation_value, and its identifier is no "
                    f"label: labels are whole numbers from 1 to {LARGEST_LABEL}",
                    code="invalid-id",
                )
            value = row.id
        labels[row.id] = value or None
        if value and (other := owners.setdefault(value, row)) is not row:
            raise RecordError(
                f"{row.where}structures {other.shown} and {row.shown} have the same "
                f"annotation_value {value}; give each its own",
                code="duplicate-annotation-value",
            )
    return labels


def _colours(rows: list[Row], notes: Notes) -> dict[Identifier, str]:
    """The colour of every structure: its own, or one that no other has; the same rows get the same colours."""
    used = {row.colour.upper() for row in rows}
    colours = {}
    number = 0
    for row in rows:
        colour = row.colour
        if not colour:
            notes.add("has structures without a colour, for which one is made up", row.id)
        while not colour:
            number += 1
            made = f"#{number * _STEP % 2**24:06X}"
            colour = made if made not in used else ""
        colours[row.id] = colour
    return colours


def _remark_on_acronyms(rows: list[Row], notes: Notes) -> None:
    owners: dict[str, list[Identifier]] = {}
    for row in rows:
        owners.setdefault(row.acronym, []).append(row.id)
    for acronym, ids in owners.items():
        if len(ids) > 1:
            notes.add("has acronyms of several structures; ask for these by name or identifier", acronym)


def _listed(path: tuple[Identifier, ...]) -> str:
    """A path, of which a long one is cut in the middle."""
    return str(list(path)) if len(path) <= 20 else f"[{path[0]!r}, ... ({len(path) - 2} more), {path[-1]!r}]"
