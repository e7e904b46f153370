"""The structures of an atlas: ids, acronyms, names, colours and their tree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

from ..assets.locate import Located, locate
from ..errors import InputError, NotFoundError
from ..stores.locations import local_path, shown
from . import formats
from .rows import LARGEST_LABEL, Identifier, Notes, Row
from .tree import tree

if TYPE_CHECKING:
    from pandas import DataFrame

#: The most bytes that are read of a file; the largest known terminologies have about three megabytes, and JSON takes up
#: to 25 times its size in memory.
_LARGEST = 16 * 2**20
#: How many candidates the message on an ambiguous acronym or name lists.
_LISTED = 10
#: How many structures the message on an unknown one suggests.
_NEAR = 6
#: Longest text that is taken for an acronym, and not looked for in names.
_STEM = 5


@dataclass(frozen=True)
class Structure:
    """One structure of an ontology.

    Attributes
    ----------
    id : int or str
        The identifier: a whole number from 0, or a text such as ``HOMBA:10154``. It names the structure.
    acronym, name : str
        Several structures may share them.
    colour : str
        ``#RRGGBB``.
    path : tuple of int or str
        Identifiers from the root to this structure.
    value : int or None
        The label of its voxels in an annotation: 1 to 4294967295, or None if no voxel has it. Default, also for 0: the
        identifier, if that is such a number. In ontologies of the Allen API both are equal.
    """

    id: Identifier
    acronym: str
    name: str
    colour: str
    path: tuple[Identifier, ...]
    value: int | None = 0

    def __post_init__(self) -> None:
        if self.value == 0:
            is_label = isinstance(self.id, Integral) and 0 < self.id <= LARGEST_LABEL
            object.__setattr__(self, "value", self.id if is_label else None)

    @property
    def parent_id(self) -> Identifier | None:
        """The id of the parent; None for a root."""
        return self.path[-2] if len(self.path) > 1 else None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue

    @property
    def row(self) -> tuple[Identifier, Identifier | None, int | None, str, str, str, str]:
        """The values of the structure's row in terminology.csv."""
        return self.id, self.parent_id, self.value, self.name, self.acronym, self.colour, str(list(self.path))


@dataclass(frozen=True)
class Terminology:
    """The structures of an ontology in the order of its graph: each structure precedes its descendants.

    A key is an id (an int), or a text: an acronym, a name or an id, matched in this order. Acronyms are
    case-sensitive: in the adult mouse, ``CM`` and ``cm`` are two structures, as are ``IPF`` and ``ipf``. An acronym or
    a name of several structures is refused with the candidates: in the human brain left and right share acronyms.

    Attributes
    ----------
    structures : tuple of Structure
    notes : tuple of str
        What was replaced or added when a file was read, such as colours that are made up.
    """

    structures: tuple[Structure, ...]
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_structure_graph(cls, roots: Sequence[Mapping[str, Any]]) -> Terminology:
        """From the nodes of a structure graph of the Allen API.

        Parameters
        ----------
        roots : sequence of mapping
            The ``msg`` of the API's answer: nodes with id, acronym, name, color_hex_triplet and children; or, without
            children, with parent_structure_id.

        Raises
        ------
        RecordError
            For the reasons of `read`.
        """
        notes = Notes()
        return cls._of(formats.rows_of_graph(roots, notes), notes)

    @classmethod
    def from_frame(cls, frame: DataFrame) -> Terminology:
        """From a table with the columns of one of the tables that `read` reads; rows may be in any order.

        Raises
        ------
        RecordError
            For the reasons of `read`; and if a name or an acronym is NaN, as which pandas reads ``NA`` and ``null``.
        """
        notes = Notes()
        records = (("", {str(column): value for column, value in each.items()}) for each in frame.to_dict("records"))
        return cls._of(formats.rows_of_table(list(map(str, frame)), records, notes), notes)

    @classmethod
    def read(cls, uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Terminology:
        """From a file in one of these formats, which is recognised by its content.

        - JSON: the structure graph of any age or species (``structure_graph_download`` of the Allen API), with or
          without the API's envelope; rows of its model Structure; ``structures.json`` of BrainGlobe and allensdk; and
          the ontology that ABBA saves (``{"name": ..., "root": {"id": ..., "data": ..., "children": ...}}``, from
          BIOP/ijp-atlas, AtlasHelper).
        - A table with a tree, its cells separated by commas, semicolons or tabs: ``terminology.csv`` (BrainGlobe; the
          Allen Institute's Atlas Asset Organization, such as HOMBA and HMBA), structure-tree CSV (the Allen API,
          allensdk, ibllib, cortex-lab) and BrainGlobe's ``structures.csv``. It needs an identifier, a name or an
          acronym, and a parent or a path. Also as Parquet, such as ``terminology.parquet`` of the standard.
        - A list of labels: ITK-SNAP's label descriptions, FreeSurfer's colour table (also that of 3D Slicer), or a
          table of identifiers and names such as ``dseg.tsv`` of BIDS, perhaps with acronyms and colours; of two columns
          also without header. Its structures get a root with the identifier 0, which is background in an annotation.

        Text is in UTF-8, in UTF-16 with a byte order mark, or in Latin-1. `remarks` says what was replaced: missing or
        shortened colours, missing acronyms, the encoding, parents of a subtree that was saved alone.

        Voxels hold the ``annotation_value``. Where it is empty, they hold the identifier if that is a number, unless
        other rows have an annotation_value that differs from their identifier, or the table has the column
        descendant_annotation_values: then no voxel holds the structure.

        Parameters
        ----------
        uri : str or path-like
            A local path, or any URL that fsspec opens.
        storage_options : mapping, optional
            Options for fsspec, if `uri` is a URL.

        Raises
        ------
        InputError
            If the URL or an option is invalid, or the file is larger than 16 MiB.
        NotFoundError
            If the file does not exist.
        SourceError
            If the file cannot be read.
        RecordError
            If the file has none of the formats; a value is missing or invalid; an identifier or an annotation_value
            occurs twice; a parent is missing, the parents form a cycle, or a path differs from the one that they form;
            or there are more than 100,000 structures or 100 levels.
        """
        from ..stores.input_file import InputFile

        with InputFile.open(uri, storage_options) as file:
            body = file.read(_LARGEST)
        notes = Notes()
        return cls._of(formats.rows_of_file(body, file.name, notes), notes)

    @classmethod
    def _of(cls, rows: Iterable[Row], notes: Notes) -> Terminology:
        structures = tuple(
            Structure(placed.row.id, placed.row.acronym, placed.row.name, placed.colour, placed.path, placed.value)
            for placed in tree(rows, notes)
        )
        return cls(structures, notes.texts())

    def to_frame(self) -> DataFrame:
        """A table with the columns of terminology.csv, in the order of the graph.

        Returns
        -------
        DataFrame
            identifier (int64), parent_identifier (Int64, missing for a root), annotation_value (int64), name,
            abbreviation, color_hex_triplet (``#RRGGBB``), root_identifier_path (text such as ``[997, 8]``).
            identifier and parent_identifier are text if an identifier is. The annotation_value of a structure without a
            label is missing, and the column Int64; it is 0 where a missing one would stand for the identifier.
        """
        import pandas as pd

        frame = pd.DataFrame(list(self._rows()), columns=list(formats.COLUMNS))
        kinds = {"annotation_value": "Int64" if frame["annotation_value"].isna().any() else "int64"}
        if all(isinstance(structure.id, int) for structure in self.structures):
            return frame.astype(kinds | {"identifier": "int64", "parent_identifier": "Int64"})
        for column in ("identifier", "parent_identifier"):
            frame[column] = [None if id is None else str(id) for id in frame[column].tolist()]
        return frame.astype(kinds)

    def to_csv(self, descendants: bool = False) -> str:
        """The text of a terminology.csv in BrainGlobe's format; `read` restores the terminology from it.

        A plain ``pandas.read_csv`` reads it too, except for the values that `remarks` lists.

        Parameters
        ----------
        descendants : bool
            Whether to write the columns descendant_identifiers and descendant_annotation_values of the standard "Atlas
            Asset Organization", before root_identifier_path: lists of each structure and all its descendants, such as
            ``[997, 8]`` or ``['MBA:997', 'MBA:8']``. The annotation_value of a structure without a label is then empty,
            and it is in no list.

        Raises
        ------
        RecordError
            If a list has more than 131,072 characters, the most that Python's csv module reads: that of some 10,000
            descendants.
        """
        if descendants:
            return formats.csv_text(formats.STANDARD_COLUMNS, self._standard_rows())
        return formats.csv_text(formats.COLUMNS, self._rows())

    def to_parquet(self) -> bytes:
        """The columns and values of ``to_csv(descendants=True)`` as a Parquet file, from which `read` restores them.

        Identifiers are int64 (text if one of them is), annotation_value is int64, and the lists are lists. Equal
        terminologies have equal bytes if the version of pyarrow is the same.
        """
        return formats.parquet_bytes(formats.STANDARD_COLUMNS, self._standard_rows())

    def _standard_rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of `formats.STANDARD_COLUMNS`, with lists as lists."""
        ends = list(range(1, len(self.structures) + 1))  # of the subtree of each structure, which is a slice
        for position, structure in reversed(list(enumerate(self.structures))):
            if structure.parent_id is not None:
                parent = self._by_id[structure.parent_id]
                ends[parent] = max(ends[parent], ends[position])
        for position, structure in enumerate(self.structures):
            below = self.structures[position : ends[position]]
            ids, values = [each.id for each in below], [each.value for each in below if each.value is not None]
            yield (*structure.row[:-1], ids, values, list(structure.path))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of terminology.csv."""
        implied = self.has_labels_as_ids  # then an empty annotation_value stands for the identifier
        for structure in self.structures:
            row = structure.row
            is_implied = implied and structure.value is None and isinstance(structure.id, int) and structure.id > 0
            yield (*row[:2], 0, *row[3:]) if is_implied else row

    @property
    def remarks(self) -> tuple[str, ...]:
        """The `notes`, and warnings of acronyms and names that a plain ``pandas.read_csv`` reads as missing."""
        return self.notes + tuple(
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

    def _repr_html_(self) -> str:
        """A tree for notebooks, whose branches open at a click."""
        from .tree_html import tree_html

        return tree_html(self.structures)

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
        return None if id is None else self.structures[self._by_id[id]]

    def ancestors(self, key: str | int) -> tuple[Structure, ...]:
        """All ancestors of a structure, the root first."""
        return tuple(self.structures[self._by_id[id]] for id in self[key].path[:-1])

    def _position(self, key: str | int) -> int:
        if isinstance(key, Integral):
            if (position := self._by_id.get(int(key))) is None:
                raise NotFoundError(f"no structure has the id {key}", code="structure-not-found")
            return position
        if not isinstance(key, str):
            raise InputError(f"structure {key!r} must be an id, an acronym or a name", code="wrong-type")
        if positions := self._by_acronym.get(key, ()):
            return self._only(positions, "acronym", key)
        if named := [position for position, structure in enumerate(self.structures) if structure.name == key]:
            return self._only(named, "name", key)
        if (position := self._by_id.get(key)) is not None:
            return position
        if key.isascii() and key.isdigit() and len(key) < 20 and int(key) in self._by_id:
            return self._by_id[int(key)]
        near = self._near(key)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise NotFoundError(
            f"no structure has the acronym or name {key!r} (acronyms are case-sensitive){hint}",
            code="structure-not-found",
        )

    def _only(self, positions: Sequence[int], what: str, key: str) -> int:
        """The only position; several are refused with the candidates."""
        if len(positions) == 1:
            return positions[0]
        other = {"acronym": "name", "name": "acronym"}[what]
        named = [f"{self.structures[at].id} ({getattr(self.structures[at], other)[:60]})" for at in positions[:_LISTED]]
        more = f" and {len(positions) - _LISTED} more" if len(positions) > _LISTED else ""
        raise NotFoundError(
            f"the {what} {key!r} belongs to structures {', '.join(named)}{more}; give an id", code=f"ambiguous-{what}"
        )

    def _near(self, key: str) -> list[str]:
        """What a key may stand for.

        Acronyms that differ from it in case, or whose names do; else structures whose names contain it, or all but its
        end (hippocampus: hippocampal region), the higher ones of the tree first; else acronyms of similar spelling.
        """
        from difflib import get_close_matches

        words = key.casefold()
        if same := [s.acronym for s in self.structures if words in (s.acronym.casefold(), s.name.casefold())]:
            return same[:_NEAR]
        for stem in (words, words[:-2]) if len(words) > _STEM else ():
            if held := [s for s in self.structures if stem in s.name.casefold()]:
                held.sort(key=lambda s: len(s.path))
                return [f"{s.acronym} ({s.name[:60]})" for s in held[:_NEAR]]
        folded = {s.acronym.casefold(): s.acronym for s in self.structures}
        return [folded[acronym] for acronym in get_close_matches(words, folded, _NEAR, 0.5)]

    @cached_property
    def _by_acronym(self) -> dict[str, list[int]]:
        positions: dict[str, list[int]] = {}
        for position, structure in enumerate(self.structures):
            positions.setdefault(structure.acronym, []).append(position)
        return positions

    @cached_property
    def _by_id(self) -> dict[Identifier, int]:
        return {structure.id: position for position, structure in enumerate(self.structures)}

    @cached_property
    def by_value(self) -> dict[int, Structure]:
        """The structure of each label that an annotation may hold."""
        return {structure.value: structure for structure in self.structures if structure.value is not None}

    @property
    def has_labels_as_ids(self) -> bool:
        """Whether every structure with a label has that label as its identifier."""
        return all(structure.value in (None, structure.id) for structure in self.structures)


def terminology_of(
    given: Any,
    annotation: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    option: str = "--terminology",
) -> Terminology:
    """The given terminology, or the one of an annotation.

    Parameters
    ----------
    given : Terminology, str, path-like or None
        A terminology, or the path or URL of a file that `Terminology.read` reads.
    annotation : optional
        If `given` is None: what `atlaszarr.assets.locate.locate` takes or returns. The terminology is that of the
        manifests, or the ``terminology.csv`` next to the annotation, or next to the image ``*.zarr`` of which it is a
        level or a label group.
    storage_options : mapping, optional
        Options for fsspec, if the terminology is at a URL.
    option : str
        Option of the command line that gives the terminology, for messages.

    Raises
    ------
    InputError
        If the terminology does not exist or is of another type, or `given` is None and `annotation` is not a path or
        URL; for the reasons of `atlaszarr.assets.locate.locate`.
    SourceError
        If the file cannot be read.
    RecordError
        If the file is not a valid terminology.
    """
    if isinstance(given, Terminology):
        return given
    if given is not None and not isinstance(given, str | os.PathLike):
        raise InputError(
            f"the terminology is a {type(given).__name__}; give a Terminology, a path or a URL", code="wrong-type"
        )
    if given is not None:
        sources = iter([(os.fspath(given), "")])
        options = None if local_path(given) else storage_options
    elif isinstance(located := locate(annotation, storage_options), Located):
        sources = located.terminologies()
        options = storage_options
    else:
        raise InputError(
            "an annotation in memory has no terminology.csv next to it; give the terminology",
            code="missing-terminology",
        )
    missing = []
    for source, manifest in sources:
        try:
            return Terminology.read(source, options)
        except NotFoundError:
            missing.append(f"{shown(source)}{f', which {shown(manifest)} names,' if manifest else ''}")
    named = missing[-1] if missing[-1].endswith(",") else missing[0]
    raise InputError(f"the terminology {named} does not exist; give one ({option})", code="file-not-found")


def refuse_other_ontology(unknown: int, labels: int, name: str, option: str) -> None:
    """Refuse a terminology that names under half of the labels of an annotation.

    Parameters
    ----------
    unknown, labels : int
        Number of labels that the terminology lacks, and of all labels.
    name : str
        Name of the annotation, for messages.
    option : str
        Option of the command line that gives the terminology.

    Raises
    ------
    InputError
    """
    if 2 * unknown > labels:
        raise InputError(
            f"the terminology names {labels - unknown} of the {labels} labels of {name}; is this the ontology of this "
            f"annotation? Give the right one ({option}), or allow unknown labels (--allow-unknown)",
            code="other-ontology",
        )
