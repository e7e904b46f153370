"""The sources of an atlas: reference volumes, which stay open while the atlas is built, and a terminology."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.client import AllenClient
from ..assets.locate import locate
from ..errors import InputError
from ..reference_volumes import ReferenceVolume, unknown_labels, unknown_labels_remark
from ..stores.locations import normalize, options_for, overlap, overlapping, shown
from ..stores.target import Target
from ..terminology.terminology import Terminology, refuse_other_ontology, terminology_of

Uri = str | os.PathLike[str]
#: `open_annotation` or `open_template`.
Opening = Callable[..., AbstractContextManager[ReferenceVolume]]


def uris_of(given: Uri | Sequence[Uri]) -> tuple[Uri, ...]:
    """One URI or several, as a tuple."""
    return (given,) if isinstance(given, str | os.PathLike) else tuple(given)


def refuse_overlaps(sources: Iterable[Uri], targets: Sequence[Target]) -> None:
    """Refuse a source that lies in a target, or a target that lies in a source.

    Raises
    ------
    InputError
    """
    if pair := overlapping(map(normalize, sources), (target.url for target in targets)):
        source, target = pair
        raise InputError(
            f"{shown(source)} overlaps with {target}, which will be written; choose another target",
            code="target-overlaps-source",
        )


def refuse_other_table(ontology: Any, root: Target, files: Mapping[str, bytes]) -> None:
    """Refuse an ontology that its own table would replace.

    Raises
    ------
    InputError
    """
    if not isinstance(ontology, str | os.PathLike):
        return
    for key, body in files.items():
        if overlap(normalize(ontology), f"{root.url}/{key}") and root.read(key) != body:
            raise InputError(
                f"ontology {shown(ontology)} would be replaced by its table; give a copy of it",
                code="target-overlaps-source",
            )


def open_volumes(
    stack: ExitStack,
    opening: Opening,
    uris: Sequence[Uri],
    folder: Uri,
    target: Uri,
    storage_options: Mapping[str, Any] | None,
    frame: Mapping[str, Any],
) -> list[ReferenceVolume]:
    """Open volumes until the exit stack closes.

    Parameters
    ----------
    stack : ExitStack
    opening : callable
        `open_annotation` or `open_template`.
    uris : sequence of str or path-like
    folder : str or path-like
        The spool folder.
    target : str or path-like
        The target of the atlas.
    storage_options : mapping, optional
    frame : mapping
        ``orientation``, ``voxel_size`` and ``origin`` for `opening`.
    """
    return [
        stack.enter_context(opening(uri, folder, storage_options=options_for(uri, target, storage_options), **frame))
        for uri in uris
    ]


def terminology_from(
    given: Terminology | Uri | None, client: AllenClient | None, target: Uri, storage_options: Mapping[str, Any] | None
) -> Terminology:
    """The given terminology, that of a file, or by default that of the adult mouse from the Allen API.

    Raises
    ------
    InputError
    """
    if isinstance(given, Terminology):
        return given
    if given is not None and not isinstance(given, str | os.PathLike):
        raise InputError(
            f"the ontology is a {type(given).__name__}; give a Terminology, a path or a URL", code="wrong-type"
        )
    if given is not None:
        return Terminology.read(given, options_for(given, target, storage_options))
    if client is not None:
        return client.structure_graph(1)
    with AllenClient() as own:
        return own.structure_graph(1)


def terminology_named(
    uris: Sequence[Uri], target: Uri, storage_options: Mapping[str, Any] | None
) -> Terminology | None:
    """The terminology that the manifests of the annotations name, the default of the ontology; None if none does.

    Raises
    ------
    InputError
        For the reasons of `atlaszarr.assets.locate.locate`; if the terminology that a manifest names does not exist.
    """
    for uri in uris:
        options = options_for(uri, target, storage_options)
        located = locate(uri, options)
        if located.terminology is not None:
            return terminology_of(None, located, options, "--ontology")
    return None


def refuse_unknown(found: Mapping[str, NDArray[np.uint32]], terminology: Terminology, allow_unknown: bool) -> list[str]:
    """Remarks on the labels that the terminology lacks.

    Parameters
    ----------
    found : mapping of str to ndarray
        The labels of each annotation, by its path or URL.
    terminology : Terminology
    allow_unknown : bool

    Raises
    ------
    InputError
        If the terminology lacks a label and `allow_unknown` is not set.
    """
    remarks = []
    for uri, labels in found.items():
        if not (unknown := unknown_labels(labels, terminology)):
            continue
        text = unknown_labels_remark(unknown, uri)
        if not allow_unknown:
            refuse_other_ontology(len(unknown), len(labels), uri, "--ontology")
            raise InputError(
                f"{text}; give an ontology with all labels, or --allow-unknown to keep them unnamed",
                code="unknown-label",
            )
        remarks.append(text)
    return remarks
