"""What the emulated service answers to a path: its routes, without a network.

Unknown paths and unknown images are answered with 404 and a line of text; unknown ids in metadata
queries with an empty, successful answer; synchronisation of what is not aligned with `success` false.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from .catalogue import Catalogue
from .drawing import ImageRequest, NotServedError, Painter
from .envelope import Answer, found, missing, refused
from .ontology import structure_graph
from .rma import answer as answer_query
from .synchronisation import answer_image_to_image, answer_image_to_reference, answer_reference_to_image


class DrawnImages:
    """Encoded images by key; safe to use from many threads.

    Parameters
    ----------
    directory : path, optional
        Where images are kept between runs.
    limit : int
        Bytes kept in memory; the least recently used go first.
    """

    def __init__(self, directory: str | Path | None = None, limit: int = 256 * 1024**2) -> None:
        self._directory = None if directory is None else Path(directory)
        self._limit = limit
        self._size = 0
        self._images: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, draw: Callable[[], bytes]) -> bytes:
        """The image of a key (a file name), drawn now if it never was."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        image = self._read(key)
        if image is None:
            image = draw()
            self._write(key, image)
        with self._lock:
            if key not in self._images:
                self._images[key] = image
                self._size += len(image)
            while self._size > self._limit:
                self._size -= len(self._images.popitem(last=False)[1])
        return image

    def _read(self, key: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / key).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, key: str, image: bytes) -> None:
        """Whole or not at all: another process may read the same directory."""
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f"{key}.{os.getpid()}-{threading.get_ident()}"
        partial.write_bytes(image)
        partial.replace(self._directory / key)


#: What every path begins with.
PREFIX = "/api/v2"

_IMAGES = ("section_image_download", "image_download", "atlas_image_download", "projection_image_download")
_SYNCHRONISATION: dict[str, Callable[[Catalogue, int, Mapping[str, str]], Answer]] = {
    "image_to_reference": answer_image_to_reference,
    "image_to_image": answer_image_to_image,
    "reference_to_image": answer_reference_to_image,
}


class Service:
    """The Allen Brain API without a network.

    Parameters
    ----------
    catalogue : Catalogue
        Its records.
    painter : Painter
        Draws its images.
    draw_cache : path, optional
        Directory in which drawn images are kept between runs.
    """

    def __init__(self, catalogue: Catalogue, painter: Painter, draw_cache: str | Path | None = None) -> None:
        self.catalogue = catalogue
        self.painter = painter
        self._drawn = DrawnImages(draw_cache)
        self._phantom = repr(painter.phantom)

    @staticmethod
    def kind(path: str) -> str:
        """The kind of a request: ``query`` for metadata, else the first part of the path, or ``unknown``."""
        name = path.removeprefix(PREFIX).strip("/").partition("/")[0]
        if not path.startswith(PREFIX):
            return "unknown"
        if name == "data":
            return "query"
        return name if name in (*_IMAGES, *_SYNCHRONISATION, "structure_graph_download") else "unknown"

    def answer(self, path: str, parameters: Mapping[str, str]) -> Answer:
        """The answer to a path and its decoded parameters."""
        kind = self.kind(path)
        rest = path.removeprefix(PREFIX).strip("/").partition("/")[2]
        if kind == "query":
            return answer_query(self.catalogue, rest, parameters)
        id, _, format = rest.partition(".")
        if kind == "unknown" or not id.isdigit() or format not in ("", "json", "jpg"):
            return missing(f"no route matches {path}")
        if kind in _IMAGES:
            try:
                return Answer(200, "image/jpeg", self.image(int(id), ImageRequest.from_parameters(parameters)))
            except NotServedError as error:
                return missing(str(error), error.status)
        if kind == "structure_graph_download":
            graph = structure_graph()
            return found(graph["msg"]) if id == "1" else refused(f"StructureGraph {id} was not found")
        return _SYNCHRONISATION[kind](self.catalogue, int(id), parameters)

    def image(self, image_id: int, request: ImageRequest) -> bytes:
        """An image as a JPEG: kept, or drawn now.

        Raises
        ------
        NotServedError
            If there is no such image, view or region.
        """
        if self.painter.is_own(image_id):
            return self.painter.jpeg(image_id, request)
        record = self.catalogue.image(image_id)
        dataset = self.catalogue.dataset_of(record)
        content = repr((request, self.painter.quality, record, dataset, self._phantom))
        key = f"{image_id}-{request.downsample}-{hashlib.sha256(content.encode()).hexdigest()[:24]}.jpg"
        return self._drawn.get(key, lambda: self.painter.jpeg(image_id, request))
