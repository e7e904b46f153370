"""The routes of the emulated service, independent of HTTP.

The answer to an unknown path or image is 404 with a line of text, to an unknown id in a metadata query a success
without rows, to a synchronisation without alignment a failure (`success` false).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .catalogue import Catalogue
from .drawing import Drawing, NotServedError, Painter
from .envelope import Answer, failure, http_error, success
from .grids import QUANTITIES, grid_archive
from .ontology import structure_graph
from .rma import answer as answer_query
from .synchronisation import answer_image_to_image, answer_image_to_reference, answer_reference_to_image

#: Prefix of all paths but that of the expression grids, which the service has at the root of its host.
PREFIX = "/api/v2"
_GRIDS = "/grid_data/download/"

_IMAGES = ("section_image_download", "image_download", "atlas_image_download", "projection_image_download")
_SYNCHRONISATION: dict[str, Callable[[Catalogue, int, Mapping[str, str]], Answer]] = {
    "image_to_reference": answer_image_to_reference,
    "image_to_image": answer_image_to_image,
    "reference_to_image": answer_reference_to_image,
}


def kind_of(path: str) -> str:
    """The kind of a request: ``query`` for metadata, otherwise the first part of the path, or ``unknown``."""
    if path.startswith(_GRIDS):
        return "grid_data"
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
    if kind in ("query", "grid_data"):
        is_query = kind == "query"
        return answer_query(painter.catalogue, rest, parameters) if is_query else _grid(painter, path, parameters)
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


def _grid(painter: Painter, path: str, parameters: Mapping[str, str]) -> Answer:
    """The expression grids of a dataset, as a zip."""
    id = path.removeprefix(_GRIDS)
    include = parameters.get("include", "energy").split(",")
    dataset = painter.catalogue.dataset(int(id)) if id.isdigit() else None
    if dataset is None or not set(include) <= set(QUANTITIES) or len(set(include)) != len(include):
        return http_error(f"no grid of section dataset {id}", 404)
    body = grid_archive(painter.phantom.of_dataset(dataset["id"]), dataset, include)
    return http_error(f"no grid of section dataset {id}", 404) if body is None else Answer(200, "application/zip", body)
