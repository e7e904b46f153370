"""The structures of an atlas: ids, acronyms, names, colours and their tree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

from ..errors import InputError, NotFoundError
from ..stores.locations import local_path, shown
from ..stores.target import Target
from . import formats
from .formats import Row

if TYPE_CHECKING:
    from pandas import DataFrame

#: The most bytes that are read of a file; the largest known terminologies have about one megabyte.
_LARGEST = 64 * 2**20


@dataclass(frozen=True)
class Structure:
    """One structure of an ontology.

    Attributes
    ----------
    id : int
        The label of its voxels in an annotation: 1 to 4294967295.
    acronym, name : str
    colour : str
        ``#RRGGBB``.
    path : tuple of int
        Ids from the root to this structure.
    """

    id: int
    acronym: str
    name: str
    colour: str
    path: tuple[int, ...]

    @property
    def parent_id(self) -> int | None:
        """The id of the parent; None for a root."""
        return self.path[-2] if len(self.path) > 1 else None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue

    @property
    def row(self) -> tuple[int, int | None, int, str, str, str, str]:
        """The values of the structure's row in terminology.csv."""
        return self.id, self.parent_id, self.id, self.name, self.acronym, self.colour, str(list(self.path))


@dataclass(frozen=True)
class Terminology:
    """The structures of an ontology in the order of its graph: each structure precedes its descendants.

    A key is an id (an int), or a text: an acronym, a name or an id, matched in this order. Acronyms are
    case-sensitive: in the adult mouse, ``CM`` and ``cm`` are two structures, as are ``IPF`` and ``ipf``.
    """

    structures: tuple[Structure, ...]

    @classmethod
    def from_structure_graph(cls, roots: Sequence[Mapping[str, Any]]) -> Terminology:
        """From the nodes of a structure graph of the Allen API.

        Parameters
        ----------
        roots : sequence of mapping
            The ``msg`` of the API's answer: nodes with id, acronym, name, color_hex_triplet and children.

        Raises
        ------
        RecordError
            If an id or an acronym occurs twice, or a node lacks a value.
        """
        return cls._of(formats.rows_of_graph(roots))

    @classmethod
    def from_frame(cls, frame: DataFrame) -> Terminology:
        """From a table with the columns of terminology.csv; other columns are ignored, and rows may be in any order.

        Raises
        ------
        RecordError
            If a column or a value is missing, an id or an acronym occurs twice, a parent is not in the table, the
            parents form a cycle, or a path differs from the one that the parents form.
        """
        records: Any = frame.to_dict("records")
        return cls._of(formats.rows_of_table(map(str, frame), records))

    @classmethod
    def read(cls, uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Terminology:
        """From a terminology.csv, or from a structure graph of the Allen API in JSON.

        Parameters
        ----------
        uri : str or path-like
            A local path, or any URL that fsspec opens.
        storage_options : mapping, optional
            Options for fsspec, if `uri` is a URL.

        Raises
        ------
        InputError
            If the URL or an option is invalid, or the file is larger than 64 MiB.
        NotFoundError
            If the file does not exist.
        SourceError
            If the file cannot be read.
        RecordError
            If the file has neither format, or for the reasons of `from_frame` and `from_structure_graph`.
        """
        from ..stores.input_file import InputFile

        with InputFile.open(uri, storage_options) as file:
            body = file.read(_LARGEST)
        return cls._of(formats.rows_of_file(body, file.name))

    @classmethod
    def _of(cls, rows: Iterable[Row]) -> Terminology:
        tree = formats.tree(rows)
        return cls(tuple(Structure(row.id, row.acronym, row.name, row.colour, path) for row, path in tree))

    def to_frame(self) -> DataFrame:
        """A table with the columns of terminology.csv, in the order of the graph.

        Returns
        -------
        DataFrame
            identifier (int64), parent_identifier (Int64, missing for a root), annotation_value (int64, equal to
            identifier), name, abbreviation, color_hex_triplet (``#RRGGBB``), root_identifier_path (text such as
            ``[997, 8]``).
        """
        import pandas as pd

        frame = pd.DataFrame([structure.row for structure in self.structures], columns=list(formats.COLUMNS))
        whole = {"identifier": "int64", "parent_identifier": "Int64", "annotation_value": "int64"}
        return frame.astype(whole)

    def to_csv(self) -> str:
        """The text of a terminology.csv in BrainGlobe's format; `read` restores the terminology from it.

        A plain ``pandas.read_csv`` reads it too, except for the values that `remarks` lists.
        """
        return formats.csv_text(structure.row for structure in self.structures)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Warnings of acronyms and names that a plain ``pandas.read_csv`` reads as missing."""
        return tuple(
            f"the {what} {text!r} of structure {structure.id} is read as missing by a plain pandas.read_csv; "
            "read terminology.csv with keep_default_na=False"
            for structure in self.structures
            for what, text in (("acronym", structure.acronym), ("name", structure.name))
            if text in formats.MISSING_TO_PANDAS
        )

    def __getitem__(self, key: str | int) -> Structure:
        return self.structures[self._position(key)]

    def __contains__(self, key: object) -> bool:
        if isinstance(key, Structure):
            return key in self.structures
        try:
            self._position(key)  # type: ignore[arg-type]
        except (InputError, NotFoundError):
            return False
        return True

    def __len__(self) -> int:
        return len(self.structures)

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    @property
    def roots(self) -> tuple[Structure, ...]:
        """The structures without a parent."""
        return tuple(structure for structure in self.structures if len(structure.path) == 1)

    def descendants(self, key: str | int) -> tuple[Structure, ...]:
        """A structure and all its descendants, in the order of the graph."""
        first = self._position(key)
        depth = len(self.structures[first].path)
        last = first + 1
        while last < len(self.structures) and len(self.structures[last].path) > depth:
            last += 1
        return self.structures[first:last]

    def children(self, key: str | int) -> tuple[Structure, ...]:
        """The children of a structure."""
        depth = len(self[key].path)
        return tuple(structure for structure in self.descendants(key) if len(structure.path) == depth + 1)

    def parent(self, key: str | int) -> Structure | None:
        """The parent of a structure; None for a root."""
        id = self[key].parent_id
        return None if id is None else self[id]

    def ancestors(self, key: str | int) -> tuple[Structure, ...]:
        """All ancestors of a structure, the root first."""
        return tuple(self[id] for id in self[key].path[:-1])

    def _position(self, key: str | int) -> int:
        if isinstance(key, Integral):
            if (position := self._by_id.get(int(key))) is None:
                raise NotFoundError(f"no structure has the id {key}", code="structure-not-found")
            return position
        if not isinstance(key, str):
            raise InputError(f"structure {key!r} must be an id, an acronym or a name", code="wrong-type")
        if (position := self._by_acronym.get(key)) is not None:
            return position
        named = [position for position, structure in enumerate(self.structures) if structure.name == key]
        if len(named) > 1:
            ids = ", ".join(str(self.structures[position].id) for position in named)
            raise NotFoundError(
                f"the name {key!r} belongs to structures {ids}; give an id or an acronym", code="ambiguous-name"
            )
        if named:
            return named[0]
        if key.isascii() and key.isdigit() and int(key) in self._by_id:
            return self._by_id[int(key)]
        near = self._near(key)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise NotFoundError(
            f"no structure has the acronym {key!r} (acronyms are case-sensitive){hint}", code="structure-not-found"
        )

    def _near(self, key: str) -> list[str]:
        """Acronyms that differ from a key in case, or whose names do; else acronyms of similar spelling."""
        from difflib import get_close_matches

        words = key.casefold()
        folded = {s.acronym.casefold(): s.acronym for s in self.structures}
        same = [s.acronym for s in self.structures if words in (s.acronym.casefold(), s.name.casefold())]
        return same or [folded[acronym] for acronym in get_close_matches(words, folded, 5, 0.5)]

    @cached_property
    def _by_acronym(self) -> dict[str, int]:
        return {structure.acronym: position for position, structure in enumerate(self.structures)}

    @cached_property
    def _by_id(self) -> dict[int, int]:
        return {structure.id: position for position, structure in enumerate(self.structures)}


def terminology_of(given: Any, annotation: Any = None, storage_options: Mapping[str, Any] | None = None) -> Terminology:
    """The given terminology, or the one next to an annotation.

    Parameters
    ----------
    given : Terminology, str, path-like or None
        A terminology, or the path or URL of a ``terminology.csv`` or a structure graph.
    annotation : optional
        If `given` is None: the path or URL of an annotation with a ``terminology.csv`` next to it.
    storage_options : mapping, optional
        Options for fsspec, if the terminology is at a URL.

    Raises
    ------
    InputError
        If the terminology does not exist, or `given` is None and `annotation` is not a path or URL.
    SourceError
        If the file cannot be read.
    RecordError
        If the file is not a valid terminology.
    """
    if isinstance(given, Terminology):
        return given
    if given is not None:
        source, options = given, None if local_path(given) else storage_options
    elif isinstance(annotation, str | os.PathLike):
        folder = Target.of(annotation, storage_options).url.rpartition("/")[0]
        source, options = f"{folder}/terminology.csv", storage_options
    else:
        raise InputError(
            "an annotation in memory has no terminology.csv next to it; give the terminology",
            code="missing-terminology",
        )
    try:
        return Terminology.read(source, options)
    except NotFoundError:
        raise InputError(
            f"the terminology {shown(source)} does not exist; give one (--terminology)", code="file-not-found"
        ) from None
