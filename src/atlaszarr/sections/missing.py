"""The section images that are missing when values of a lazy Dataset are computed: listed, and warned of.

Images are fetched when values are computed, in this process or on the workers of a `distributed` cluster. A worker logs
a missing image as an event of its scheduler, from which the list in the attributes of the Dataset reads it.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from ..allen.client import AllenClient
from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..engine.schedulers import active_client
from ..errors import AtlaszarrWarning, InputError

_ON_MISSING = ("raise", "fill")


class MissingImages(list[int]):
    """The SectionImage ids that were missing in any computation of a Dataset, in the order in which they were noticed.

    It is complete when a computation ends. Pickled copies within a process are one list.

    Parameters
    ----------
    name : str
        Unique name of the list.
    ids : iterable of int
    """

    def __init__(self, name: str, ids: Iterable[int] = ()) -> None:
        super().__init__(ids)
        self.name = name
        _OPENED[name] = self

    def note(self, id: int) -> None:
        """Append an id unless it is in the list."""
        with _LOCK:
            if not super().__contains__(id):
                self.append(id)

    def _read_events(self) -> None:
        """Note the images that were missing on workers of the active `distributed` client."""
        if (client := active_client()) is None:
            return
        with suppress(OSError):  # the cluster was closed
            for _, id in client.get_events(_topic(self.name)):
                self.note(id)

    def __len__(self) -> int:
        self._read_events()
        return super().__len__()

    def __iter__(self) -> Iterator[int]:
        self._read_events()
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self._read_events()
        return super().__getitem__(index)

    def __contains__(self, id: object) -> bool:
        self._read_events()
        return super().__contains__(id)

    def __eq__(self, other: object) -> bool:
        self._read_events()
        return super().__eq__(other)

    __hash__ = None

    def __repr__(self) -> str:
        self._read_events()
        return super().__repr__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.name, list(self))


#: The lists of this process by name.
_OPENED: WeakValueDictionary[str, MissingImages] = WeakValueDictionary()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Fetcher:
    """Fetches the images of a lazy Dataset; the tasks of its graph that fetch call it. Picklable.

    Attributes
    ----------
    client : AllenClient
    missing : str or None
        Name of the list of missing images; None if a missing image is an error.
    """

    client: AllenClient
    missing: str | None = None

    def __call__(self, request: ImageRequest) -> SectionImage | MissingImage:
        """Fetch an image; a MissingImage is noted in the list, with a warning.

        Raises
        ------
        ImageError, ServiceError
            If the image is missing and there is no list.
        """
        if self.missing is None:
            return self.client.fetch(request)
        image = self.client.try_fetch(request)
        if isinstance(image, MissingImage):
            self.note(image)
        return image

    def note(self, image: MissingImage) -> None:
        """Note a missing image in the list, if there is one, in this process and in that of the client, and warn."""
        if self.missing is not None:
            _report(self.missing, image)


def fetches_of(tasks: Mapping[Any, Any]) -> dict[Any, tuple[Fetcher, ImageRequest]]:
    """The tasks of a graph that fetch section images, by key."""
    fetches = {}
    for key, task in tasks.items():
        call = task if isinstance(task, tuple) else (getattr(task, "func", None), *getattr(task, "args", ()))
        if len(call) == 2 and isinstance(call[0], Fetcher) and isinstance(call[1], ImageRequest):
            fetches[key] = (call[0], call[1])
    return fetches


def fetching(client: AllenClient, on_missing: str) -> tuple[Fetcher, MissingImages | None]:
    """How a lazy Dataset fetches images.

    Parameters
    ----------
    client : AllenClient
    on_missing : str
        ``raise``, or ``fill``: missing images are listed and warned of.

    Returns
    -------
    fetch : Fetcher
        From an ImageRequest to a SectionImage or, with ``fill``, a MissingImage.
    missing : MissingImages or None
        Empty; None for ``raise``.

    Raises
    ------
    InputError
        If `on_missing` is another value.
    """
    if on_missing not in _ON_MISSING:
        raise InputError(
            f"on_missing {on_missing!r} is not known; choose from {', '.join(_ON_MISSING)}", code="unknown-value"
        )
    if on_missing == "raise":
        return Fetcher(client), None
    missing = MissingImages(uuid4().hex)
    return Fetcher(client, missing.name), missing


def _report(name: str, image: MissingImage) -> None:
    """Note a missing image in the list of a name, in this process and in that of the client, and warn there."""
    id = image.request.image_id
    if (missing := _OPENED.get(name)) is not None:
        missing.note(id)
    text = f"section image {id} is missing, and its pixels are filled: {image.reason}"
    if (worker := _worker()) is None:
        warnings.warn(text, AtlaszarrWarning, stacklevel=2)
        return
    from distributed import warn

    worker.log_event(_topic(name), id)
    warn(text, AtlaszarrWarning)


def _worker() -> Any:
    """The `distributed` worker that runs this task; None outside of workers."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with suppress(ValueError):
            return get_worker()
    return None


def _topic(name: str) -> str:
    return f"atlaszarr-missing-{name}"


def _opened(name: str, ids: list[int]) -> MissingImages:
    """The list of a name in this process, made if there is none."""
    missing = _OPENED.get(name)
    if missing is None:
        return MissingImages(name, ids)
    for id in ids:
        missing.note(id)
    return missing
