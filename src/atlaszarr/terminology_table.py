"""A terminology from where it is stored: the ``terminology.csv`` of an atlas."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from .errors import InputError, NotFoundError, TargetError
from .store import Target
from .terminology import Structure, Terminology

#: As of BrainGlobe; what else there is is passed over.
_COLUMNS = ("identifier", "parent_identifier", "name", "abbreviation", "color_hex_triplet")
#: Beside an annotation.
NAME = "terminology.csv"


def terminology_of(given: Any, annotation: Any = None, storage_options: Mapping[str, Any] | None = None) -> Terminology:
    """A terminology as it is given, or found beside an annotation.

    Parameters
    ----------
    given : Terminology, str, path-like or None
        A path or URL is of a ``terminology.csv``.
    annotation : optional
        Where None is given: a path or URL that a ``terminology.csv`` lies next to.
    storage_options : mapping, optional
        To fsspec, for a URL.

    Raises
    ------
    InputError
        If there is none, or it is not one tree or several.
    """
    if isinstance(given, Terminology):
        return given
    if given is not None:
        remote = "://" in os.fspath(given)
        place = Target.of(given, storage_options if remote else None)
    elif isinstance(annotation, str | os.PathLike):
        beside = Target.of(annotation, storage_options)
        place = Target(f"{beside.url.rpartition('/')[0]}/{NAME}", beside.storage_options)
    else:
        raise InputError("the annotation has no place to look for a terminology in; give the terminology")
    folder, _, name = place.url.rpartition("/")
    try:
        body = Target(folder, place.storage_options).read(name)
    except TargetError as error:
        raise InputError(str(error)) from None
    if body is None:
        raise InputError(f"there is no terminology at {place.url}; give one (--terminology)")
    return _parsed(body, place.url)


def chosen(terminology: Terminology, acronyms: list[str]) -> list[Structure]:
    """The structures of some acronyms.

    Raises
    ------
    NotFoundError
        If there is none; it names acronyms that are near.
    """
    return [_named(terminology, acronym) for acronym in acronyms]


def _named(terminology: Terminology, acronym: str) -> Structure:
    try:
        return terminology[acronym]
    except NotFoundError:
        known = {structure.acronym: structure for structure in terminology}
        words = acronym.casefold()
        alike = [name for name, one in known.items() if words in (name.casefold(), one.name.casefold())]
        folded = {name.casefold(): name for name in known}
        alike += [folded[near] for near in get_close_matches(words, folded, 5, 0.5)]
        hint = f"; did you mean {', '.join(dict.fromkeys(alike))}?" if alike else "; acronyms are as in the terminology"
        raise NotFoundError(f"no structure has the acronym {acronym!r}{hint}") from None


def _parsed(body: bytes, url: str) -> Terminology:
    try:
        rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"))))
        children: dict[int | None, list[Mapping[str, str]]] = {}
        for row in rows:
            parent = row["parent_identifier"].strip()
            children.setdefault(int(float(parent)) if parent else None, []).append(row)

        def walk(parent: int | None, path: tuple[int, ...]) -> Iterator[Structure]:
            for row in children.get(parent, ()):
                _, _, name, acronym, colour = (row[column] for column in _COLUMNS)
                here = (*path, int(row["identifier"]))
                yield Structure(here[-1], acronym, name, colour, here)
                yield from walk(here[-1], here)

        structures = tuple(walk(None, ()))
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(f"{url} cannot be read as a terminology ({error!r}); it needs {', '.join(_COLUMNS)}") from None
    if len(structures) != len(rows) or not rows:
        raise InputError(f"{url} has {len(structures)} of {len(rows)} structures in a tree; mend parent_identifier")
    if len({structure.id for structure in structures}) != len(structures):
        raise InputError(f"{url} has an identifier more than once; mend it")
    return Terminology(structures)
