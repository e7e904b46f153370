"""The routes of the emulated service, independent of HTTP.

The answer to an unknown path or image is 404 with a line of text, to an unknown id in a metadata query a success
without rows, to a synchronisation without alignment a failure (`success` false).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .catalogue import Catalogue
from .drawing import Drawing, NotServedError, Painter
from .envelope import Answer, failure, http_error, success
from .ontology import structure_graph
from .rma import answer as answer_query
from .synchronisation import answer_image_to_image, answer_image_to_reference, answer_reference_to_image

#: Prefix of all paths.
PREFIX = "/api/v2"

_IMAGES = ("section_image_download", "image_download", "atlas_image_download", "projection_image_download")
_SYNCHRONISATION: dict[str, Callable[[Catalogue, int, Mapping[str, str]], Answer]] = {
    "image_to_reference": answer_image_to_reference,
    "image_to_image": answer_image_to_image,
    "reference_to_image": answer_reference_to_image,
}


def kind_of(path: str) -> str:
    """The kind of a request: ``query`` for metadata, otherwise the first part of the path, or ``unknown``."""
    name = path.removeprefix(PREFIX).strip("/").partition("/")[0]
    if not path.startswith(PREFIX):
        return "unknown"
    if name == "data":
        return "query"
    return name if name in (*_IMAGES, *_SYNCHRONISATION, "structure_graph_download") else "unknown"


def answer(painter: Painter, path: str, parameters: Mapping[str, str]) -> Answer:
    """The answer to a path and its decoded parameters, from the records and images of a painter."""
    kind = kind_of(path)
    rest = path.removeprefix(PREFIX).strip("/").partition("/")[2]
    if kind == "query":
        return answer_query(painter.catalogue, rest, parameters)
    id, _, format = rest.partition(".")
    if kind == "unknown" or not id.isdigit() or format not in ("", "json", "jpg"):
        return http_error(f"no route matches {path}")
    if kind in _IMAGES:
        try:
            return Answer(200, "image/jpeg", painter.image(int(id), Drawing.from_parameters(parameters)))
        except NotServedError as error:
            return http_error(str(error), error.status)
    if kind == "structure_graph_download":
        graph = structure_graph()
        return success(graph["msg"]) if id == "1" else failure(f"StructureGraph {id} was not found")
    return _SYNCHRONISATION[kind](painter.catalogue, int(id), parameters)
