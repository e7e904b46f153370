"""The synchronisation services of the emulated API.

They map pixels of section images to the dataset's reference space and back. Each direction uses its own rounded matrix
from the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.spaces import reference_space
from ..transforms import apply, image_to_reference, reference_to_image
from .catalogue import Catalogue
from .envelope import Answer, failure, success
from .records import Record, alignment_matrix, depth


def answer_image_to_reference(catalogue: Catalogue, image_id: int, parameters: Mapping[str, str]) -> Answer:
    """``/image_to_reference/{image}.json?x=&y=``: (p, i, r) in the dataset's space, as x, y, z."""
    try:
        _, pir = _located(catalogue, image_id, parameters)
    except LookupError as error:
        return failure(str(error.args[0]))
    p, i, r = pir.tolist()
    return success({"image_to_reference": {"x": p, "y": i, "z": r}})


def answer_reference_to_image(catalogue: Catalogue, space_id: int, parameters: Mapping[str, str]) -> Answer:
    """``/reference_to_image/{space}.json?x=&y=&z=&section_data_set_ids=``: the nearest section of each dataset.

    A point of space 9 is mirrored (r to 11400 - r) for a dataset of space 10 and vice versa: the service matches
    left-hemisphere sections with a reference atlas that was drawn for the right hemisphere only.
    Beyond the ends of a dataset, the last section is the nearest. Datasets that are unknown or not aligned are omitted.
    """
    try:
        pir = np.array([float(parameters[name]) for name in "xyz"])
        ids = [int(text) for text in parameters["section_data_set_ids"].split(",")]
    except (KeyError, ValueError):
        return failure("x, y and z must be numbers, section_data_set_ids a list of ids")
    synced = (_nearest(catalogue, catalogue.dataset(id), space_id, pir) for id in ids)
    return success([{"image_sync": sync} for sync in synced if sync is not None])


def answer_image_to_image(catalogue: Catalogue, image_id: int, parameters: Mapping[str, str]) -> Answer:
    """``/image_to_image/{image}.json?x=&y=&section_data_set_ids=``: through the reference space of the first image."""
    try:
        space_id, pir = _located(catalogue, image_id, parameters)
    except LookupError as error:
        return failure(str(error.args[0]))
    seed = dict(zip("xyz", map(str, pir.tolist()), strict=True))
    return answer_reference_to_image(catalogue, space_id, {**parameters, **seed})


def _located(catalogue: Catalogue, image_id: int, parameters: Mapping[str, str]) -> tuple[int, NDArray[np.float64]]:
    """Reference space and (p, i, r) of the pixel x, y of an image; LookupError if the image is not aligned."""
    image = catalogue.image(image_id)
    dataset = catalogue.dataset_of(image)
    tsv, tvr = alignment_matrix(image, "tsv"), alignment_matrix(dataset, "tvr")
    if image is None or dataset is None or tsv is None or tvr is None:
        raise LookupError(f"Unable to find an alignment of SectionImage {image_id}")
    try:
        xy = [float(parameters["x"]), float(parameters["y"])]
    except (KeyError, ValueError):
        raise LookupError("x and y must be numbers") from None
    return int(dataset["reference_space_id"]), image_to_reference(xy, depth(image, dataset), tsv, tvr)


def _nearest(catalogue: Catalogue, dataset: Record | None, space_id: int, pir: NDArray[np.float64]) -> Any:
    trv = alignment_matrix(dataset, "trv")
    if dataset is None or trv is None:
        return None
    if space_id != dataset["reference_space_id"]:
        if {space_id, dataset["reference_space_id"]} != {9, 10}:
            return None
        pir = apply(reference_space(space_id).mirror, pir)
    images = [image for image in catalogue.images_of(dataset["id"]) if alignment_matrix(image, "tvs") is not None]
    if not images:
        return None
    at = apply(trv, pir)[2]
    image = min(images, key=lambda image: abs(depth(image, dataset) - at))
    tvs = alignment_matrix(image, "tvs")
    assert tvs is not None
    xy, _ = reference_to_image(pir, tvs, trv)
    return {
        "section_data_set_id": str(dataset["id"]),
        "section_image_id": image["id"],
        "section_number": image["section_number"],
        "x": float(xy[0]),
        "y": float(xy[1]),
    }
