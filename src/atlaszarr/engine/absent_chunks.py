"""Count the absent chunks of a zarr array, or raise an error if a ledger records them.

zarr reads an absent chunk as the fill value, whether it is empty or lost. An object is a chunk or a shard.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, TargetError
from ..stores.documents import LARGEST, parse_object
from ..stores.locations import shown
from ..stores.target import Target
from . import ledger
from .array_layout import ArrayLayout
from .ledger import Ledger
from .target_state import FINISHED, read_root

#: Number of folders above an array that may be its image: ``labels/<name>/<level>`` needs 3.
DEEPEST = 3


class AbsentChunks:
    """The absent chunks of an array, found by listing its store or by reading it.

    Thread-safe. A copy in another process starts empty: pass the result of its `take` to `add` here.

    Parameters
    ----------
    array : Target
        Folder of the array.
    layout : ArrayLayout
    """

    def __init__(self, array: Target, layout: ArrayLayout) -> None:
        self._array, self._layout = array, layout
        self._found: dict[str, int] = {}
        self._warned = False
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The URL of the array."""
        return self._array.url

    def list(self) -> None:
        """Find all absent objects, and on a local disk all absent chunks of shards. Does nothing if listing fails.

        Raises
        ------
        InputError
            If the ledger of the image records other metadata of the array, or of the image.
        TargetError
            If the ledger of the image records an absent object.
        """
        layout = self._layout
        self._compare_metadata()
        if self._array.is_plain_http:
            return
        try:
            sizes = self._array.sizes()
        except (TargetError, InputError):  # the store may allow reading only
            return
        if not {"zarr.json", ".zarray"} & sizes.keys():  # the metadata exists, so the listing is incomplete
            return
        for index in np.ndindex(*layout.grid):
            if (key := layout.key(index)) not in sizes:
                self.count(index)
            elif self._array.is_local and layout.index_size:
                with Path(self._array.url, key).open("rb") as file:
                    file.seek(max(sizes[key] - layout.index_size, 0) if layout.index_at_end else 0)
                    self.count_within(index, file.read(layout.index_size))

    def count(self, index: tuple[int, ...], chunks: int | None = None) -> None:
        """Count an absent object, or absent chunks of a shard.

        Parameters
        ----------
        index : tuple of int
            Index of the object.
        chunks : int, optional
            Number of absent chunks. Default: the object is absent.

        Raises
        ------
        TargetError
            If the ledger of the image records the object.
        """
        key = self._layout.key(index)
        with self._lock:
            if self._recorded is None:
                self._found[key] = math.prod(self._layout.chunks_of(index)) if chunks is None else chunks
            elif key in self._recorded:
                lacks = "is missing" if chunks is None else "lacks chunks"
                raise TargetError(
                    f"{shown(self._array.url)}/{key} {lacks}; build or fetch it again", code="missing-chunk"
                )

    def count_within(self, index: tuple[int, ...], body: bytes) -> None:
        """Count the absent chunks of a shard.

        Parameters
        ----------
        index : tuple of int
            Index of the shard.
        body : bytes
            The shard, or at least its index.

        Raises
        ------
        TargetError
            If a chunk is absent and the ledger of the image records the shard.
        """
        try:
            chunks = self._layout.absent_within(index, body)
        except ValueError:  # damaged: reading it raises an error
            return
        if chunks and not self._is_sparse:
            self.count(index, chunks)

    def take(self) -> dict[str, int]:
        """The number of absent chunks found since the last call, by the key of their object."""
        with self._lock:
            taken, self._found = self._found, {}
        return taken

    def add(self, taken: Mapping[str, int]) -> None:
        """Add the result of `take` of a copy."""
        with self._lock:
            self._found.update(taken)

    def first_remark(self, name: str | None = None) -> str | None:
        """Same as `remark`, but None after the first sentence."""
        with self._lock:
            text = None if self._warned else self.remark(name)
            self._warned |= text is not None
        return text

    def remark(self, name: str | None = None) -> str | None:
        """A sentence with the number of absent chunks; None if there are none.

        Parameters
        ----------
        name : str, optional
            Name of the array. Default: its URL.
        """
        if not (absent := sum(self._found.values())):
            return None
        total = math.prod(-(-n // c) for n, c in zip(self._layout.shape, self._layout.chunk, strict=True))
        value = f"the fill value {self._layout.fill:g}" if self._layout.fill else "background"
        name = name or shown(self._array.url)
        return f"{absent} of {total} chunks of {name} are absent and read as {value}"

    def first_loss(self, key: str) -> str | None:
        """A sentence on the lost objects of the array if one is lost: the ledger of the image records it; once.

        Parameters
        ----------
        key : str
            Of an object that the store lacks.
        """
        with self._lock:
            if self._warned or self._recorded is None or key not in self._recorded:
                return None
            self._warned = True
        lost = frozenset((key,))
        if not self._array.is_plain_http:
            with suppress(TargetError, InputError):  # the store may allow reading only
                sizes = self._array.sizes()
                if {"zarr.json", ".zarray"} & sizes.keys():  # else the listing is incomplete
                    lost = self._recorded - sizes.keys()
        counts = f"{len(lost)} of {len(self._recorded)}"
        return f"{counts} objects of {shown(self._array.url)} are missing, the first is {min(lost)}"

    def _compare_metadata(self) -> None:
        """Raise an InputError if metadata that decide voxels or their positions differ from the ledger's."""
        if self._image is None:
            return
        root, prefix, recorded = self._image
        header, folders = recorded.header or {}, ["", *accumulate(prefix.split("/")[:-1], "{}/{}".format)]
        for key, text in {**header["documents"], **header.get("root", {})}.items():
            folder, _, _ = key.rpartition("/")
            if folder in folders and _deciding(text) != _deciding(root.read(key, LARGEST) or b""):
                raise InputError(
                    f"{shown(root.url)}/{key} differs from what atlaszarr wrote; fetch or build it again, or remove "
                    f"{shown(root.url)}/atlaszarr to read it as it is",
                    code="damaged-metadata",
                )

    @cached_property
    def _recorded(self) -> frozenset[str] | None:
        """Keys of the objects of the array in the ledger of its finished image; None if there is no such ledger."""
        if self._image is None:
            return None
        _, prefix, recorded = self._image
        keys = (key for entry in recorded.done.values() for key in entry.written)
        return frozenset(key.removeprefix(prefix) for key in keys if key.startswith(prefix))

    @property
    def _is_sparse(self) -> bool:
        """Whether the ledger of the image records that absent chunks of its shards are empty."""
        return self._image is not None and bool((self._image[2].header or {}).get("multiscale", {}).get("sparse"))

    @cached_property
    def _image(self) -> tuple[Target, str, Ledger] | None:
        """The finished image of the array, the prefix of its keys, and the ledger; None if there is no ledger."""
        for root in self._array.above(DEEPEST):
            try:
                if (own := read_root(root)) is None:
                    continue
                recorded = ledger.read(root, finished=True)
            except (InputError, TargetError):  # not a target of atlaszarr
                continue
            if own["state"] != FINISHED or recorded.damaged:
                return None
            prefix = f"{self._array.url.removeprefix(root.url)}/".lstrip("/")
            if not any(key.startswith(prefix) for key in (recorded.header or {}).get("documents", {})):
                return None
            return root, prefix, recorded
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return AbsentChunks, (self._array, self._layout)


def _deciding(body: bytes | str) -> Any:
    """What decides voxels or their positions in a document: the metadata of an array, or the multiscales of a group."""
    try:
        document = parse_object(body)
        attributes = document.get("attributes", document)
        attributes = attributes.get("ome", attributes)
        if document.get("node_type") == "array":
            return {name: value for name, value in document.items() if name != "attributes"}
        return document if "shape" in document else (attributes.get("multiscales"), attributes.get("version"))
    except (ValueError, AttributeError):
        return None
