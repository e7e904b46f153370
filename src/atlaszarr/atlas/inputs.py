"""What an atlas is built from: volumes, kept open for as long as they are read, and a terminology."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import product
from typing import Any

from ..allen.client import AllenClient
from ..errors import InputError
from ..reference_volumes import ReferenceVolume, unknown_labels, unknown_labels_remark
from ..stores.locations import normalize, overlap, protocol_of, shown
from ..stores.target import Target
from ..terminology.terminology import Terminology
from .levels import Levels, levels_of

Uri = str | os.PathLike[str]
#: `open_annotation` or `open_template`.
Opening = Callable[..., AbstractContextManager[ReferenceVolume]]


def uris_of(given: Uri | Sequence[Uri]) -> tuple[Uri, ...]:
    """One or several, as several."""
    return (given,) if isinstance(given, str | os.PathLike) else tuple(given)


def options_for(uri: Uri, target: Uri, storage_options: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The storage options of a source: those given, unless they are of another protocol than its own."""
    own, others = protocol_of(uri), protocol_of(target)
    return storage_options if own and others in ("", own) else None


def refuse_overlaps(sources: Iterable[Uri], targets: Sequence[Target]) -> None:
    """Refuse sources that lie in what is to be written, or the other way round."""
    for source, target in product(map(normalize, sources), targets):
        if overlap(source, target.url):
            raise InputError(f"{shown(source)} lies in what is to be written, {target.url}; choose another place")


def refuse_other_table(ontology: Any, place: Target, files: Mapping[str, bytes]) -> None:
    """Refuse an ontology that lies where its table is to be written, and is another file than that."""
    if not isinstance(ontology, str | os.PathLike):
        return
    for key, body in files.items():
        if overlap(normalize(ontology), f"{place.url}/{key}") and place.read(key) != body:
            raise InputError(f"ontology {shown(ontology)} would be replaced by its table; give a copy of it")


def open_levels(
    stack: ExitStack,
    opening: Opening,
    uris: Sequence[Uri],
    folder: Uri,
    target: Uri,
    storage_options: Mapping[str, Any] | None,
    frame: Mapping[str, Any],
    layout: tuple[int | Sequence[int] | None, int | None, str],
) -> Levels:
    """Open volumes until a stack of contexts ends, and lay out the pyramid over them.

    Parameters
    ----------
    stack : ExitStack
    opening : callable
    uris : sequence of str or path-like
    folder : str or path-like
        For voxels of files that can only be read from their beginning.
    target : str or path-like
        Where they are to go.
    storage_options : mapping, optional
    frame : mapping
        ``orientation`` and ``voxel_size`` where stated, and ``origin``.
    layout : tuple
        Chunk, shard and orientation of x.
    """
    volumes = [
        stack.enter_context(opening(uri, folder, storage_options=options_for(uri, target, storage_options), **frame))
        for uri in uris
    ]
    return levels_of(volumes, *layout)


def terminology_from(
    given: Terminology | Uri | None, client: AllenClient | None, target: Uri, storage_options: Mapping[str, Any] | None
) -> Terminology:
    """A terminology as it is given, read from where it lies, or that of the adult mouse from the Allen API."""
    if isinstance(given, Terminology):
        return given
    if given is not None and not isinstance(given, str | os.PathLike):
        raise InputError(f"the ontology is a {type(given).__name__}; give a Terminology, a path or a URL")
    if given is not None:
        return Terminology.read(given, options_for(given, target, storage_options))
    if client is not None:
        return client.structure_graph(1)
    with AllenClient() as own:
        return own.structure_graph(1)


def labels_of(annotation: Levels, terminology: Terminology, allow_unknown: bool) -> tuple[list[int], list[str]]:
    """The labels that occur at any level that is given, and a remark on those that the terminology lacks.

    Raises
    ------
    InputError
        If it lacks some and that was not allowed, or a volume holds what is no label.
    """
    found: set[int] = set()
    remarks = []
    for volume in annotation.volumes.values():
        labels = volume.find_labels()
        found.update(map(int, labels))
        if unknown := unknown_labels(labels, terminology):
            text = unknown_labels_remark(unknown, volume.uri)
            if not allow_unknown:
                raise InputError(f"{text}; give the ontology they are of, or --allow-unknown to keep them unnamed")
            remarks.append(text)
    return sorted(found), remarks
