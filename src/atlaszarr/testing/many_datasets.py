"""Invented records for many section datasets of which only an id, gene, age, plane and treatment are known.

A brain is an ellipsoid in its reference space, and each section image is as large as its cross-section and a margin, as
those of the Allen Institute are. Everything is determined by the id. Images are made when they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.records import PLANE_NAMES
from ..geometry.plane import PLANES
from ..geometry.spaces import reference_space
from .records import Record, alignment_values, image_record, product_records

#: Reference space of each age; others have none, and their datasets no alignment.
_SPACES = {"E11.5": 1, "E13.5": 2, "E15.5": 3, "E18.5": 5, "P4": 6, "P14": 7, "P28": 8, "P56": 9}
#: Section images of a dataset: 69289763 (sagittal) has 18, 74272479 (coronal) 60.
_SECTIONS = {"sagittal": 20, "coronal": 60}
#: Part of the reference space across the sections that has sections: all of the brain, or its left hemisphere.
_PARTS = {"coronal": (0.04, 0.92), "sagittal": (0.08, 0.5)}
#: Image ids of one dataset.
_IDS = 100
_FIRST_IMAGE = 1_000_000
_RESOLUTION, _THICKNESS = 1.049, {9: 25.0}
_DEVELOPING = 20.0
#: Part of the images that are missing, marked as failed, and not aligned.
_MISSING, _FAILED, _UNALIGNED = 0.03, 0.01, 0.01


def invented_datasets(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Record], ManyImages]:
    """Invent records in the API's format, for an `Emulator`.

    Parameters
    ----------
    rows : iterable of mapping
        With ``experiment_id`` (the id), ``gene`` (``Nothing`` for none), ``age``, ``plane_of_section`` (``coronal``;
        others are sagittal), ``treatment``, ``sex``, and ``animal_id`` (the id of the specimen).

    Returns
    -------
    datasets : list of dict
        SectionDataSet records, in order of id.
    images : ManyImages
        Their SectionImage records.
    """
    known = sorted(rows, key=lambda row: int(row["experiment_id"]))
    genes = {name: number for number, name in enumerate(sorted({row["gene"] for row in known}), 1)}
    products = {product["abbreviation"]: [product] for product in product_records()}
    specimens: dict[Any, Record] = {}
    treatments: dict[str, list[Record]] = {}
    datasets = [_dataset(row, genes, products, specimens, treatments) for row in known]
    return datasets, ManyImages(datasets)


class ManyImages:
    """The section images of invented datasets, made when they are asked for; the last ones are kept.

    Parameters
    ----------
    datasets : list of dict
        From `invented_datasets`.
    """

    def __init__(self, datasets: list[Record]) -> None:
        self._datasets = datasets
        self._positions = {dataset["id"]: position for position, dataset in enumerate(datasets)}
        self._of = lru_cache(maxsize=256)(self._made)

    def of(self, dataset_id: int | None) -> list[Record]:
        """The images of a dataset, in order of id."""
        position = self._positions.get(dataset_id)
        return [] if position is None else self._of(position)

    def get(self, id: int) -> Record | None:
        """The image with an id."""
        position = (id - _FIRST_IMAGE) // _IDS
        images = self._of(position) if 0 <= position < len(self._datasets) else []
        return next((image for image in images if image["id"] == id), None)

    def __iter__(self) -> Iterator[Record]:
        for position in range(len(self._datasets)):
            yield from self._of(position)

    def __bool__(self) -> bool:
        return bool(self._datasets)

    def _made(self, position: int) -> list[Record]:
        return _images(self._datasets[position], _FIRST_IMAGE + _IDS * position)


def _dataset(
    row: Mapping[str, Any],
    genes: Mapping[str, int],
    products: Mapping[str, list[Record]],
    specimens: dict[Any, Record],
    treatments: dict[str, list[Record]],
) -> Record:
    id, age = int(row["experiment_id"]), str(row["age"])
    plane = "coronal" if row["plane_of_section"] == "coronal" else "sagittal"
    space = _SPACES.get(age)
    specimen_id = int(row["animal_id"])
    if specimen_id not in specimens:
        donor = {"id": specimen_id, "age": {"id": 1, "name": age}, "sex_full_name": str(row["sex"])}
        specimens[specimen_id] = {"id": specimen_id, "donor_id": specimen_id, "donor": donor}
    treatment = str(row["treatment"])
    gene = {"id": genes[row["gene"]], "acronym": row["gene"], "name": f"gene {row['gene']}", "entrez_id": None}
    return {
        "id": id,
        "blue_channel": None,
        "delegate": id % 2 == 0,
        "expression": treatment == "ISH",
        "failed": id % 211 == 0,
        "failed_facet": 734881840,
        "green_channel": None,
        "name": None,
        "plane_of_section_id": next(key for key, name in PLANE_NAMES.items() if name == plane),
        "qc_date": "2009-05-02T22:45:57Z",
        "red_channel": None,
        "reference_space_id": 10 if space == 9 and plane == "sagittal" else space,
        "rnaseq_design_id": None,
        "section_thickness": _THICKNESS.get(space or 9, _DEVELOPING),
        "specimen_id": specimen_id,
        "sphinx_id": id,
        "storage_directory": f"/emulator/image_series_{id}/",
        "weight": 5470,
        "alignment3d": None if space is None else {"id": id, **_alignment(id, space, plane)},
        "genes": [] if row["gene"] == "Nothing" else [gene],
        "products": products["Mouse" if age == "P56" else "DevMouse"],
        "specimen": specimens[specimen_id],
        "treatments": treatments.setdefault(treatment, [{"id": len(treatments) + 1, "name": treatment}]),
    }


def _alignment(id: int, space: int, plane: str) -> dict[str, float]:
    """An alignment that tilts and scales the sections a little about the centre of the reference space."""
    random = np.random.default_rng(id)
    axes, centre = PLANES[plane], np.array(reference_space(space).extent) / 2
    linear = np.zeros((3, 3))
    linear[axes.columns, 0] = linear[axes.rows, 1] = 1.0
    linear[axes.fixed, 2] = -1.0 if plane == "coronal" else 1.0
    linear = linear + random.normal(0.0, 0.02, (3, 3))
    middle = np.array([centre[axes.columns], centre[axes.rows], centre[axes.fixed]])
    tvr = np.column_stack([linear, centre + random.normal(0.0, 60.0, 3) - linear @ middle])
    return _rounded(alignment_values("tvr", tvr) | alignment_values("trv", _inverse(tvr)))


def _images(dataset: Record, first: int) -> list[Record]:
    id = dataset["id"]
    random = np.random.default_rng([id, 1])
    plane = PLANE_NAMES[dataset["plane_of_section_id"]]
    axes, space = PLANES[plane], dataset["reference_space_id"]
    extent = np.array(reference_space(9 if space is None else space).extent)
    thickness = dataset["section_thickness"]
    low, high = (part * extent[axes.fixed] for part in _PARTS[plane])
    count = _SECTIONS[plane] + int(random.integers(-3, 4))
    step = max(1, round((high - low) / thickness / count))
    numbers = round(low / thickness) + step * np.arange(count)
    numbers = numbers[random.random(count) >= _MISSING]
    angle = random.normal(0.0, 0.03) + random.normal(0.0, 0.01, len(numbers))
    shift = random.normal(0.0, 100.0, (len(numbers), 2))
    margin = random.uniform(1.05, 1.35, (len(numbers), 2))
    failed, unaligned = random.random(len(numbers)) < _FAILED, random.random(len(numbers)) < _UNALIGNED
    images = []
    for k, number in enumerate(numbers.tolist()):
        across = 2.0 * number * thickness / extent[axes.fixed] - 1.0
        part = math.sqrt(max(1.0 - across**2, 0.15))
        sides = 0.85 * part * extent[[axes.columns, axes.rows]] * margin[k] / _RESOLUTION
        size = (16 * int(sides[0] // 16) + 1, 16 * int(sides[1] // 16) + 1)
        image = image_record(
            first + k, id, number, size, resolution=_RESOLUTION, expression=bool(dataset["expression"])
        )
        if failed[k]:
            image["failed"] = True
        if space is not None and not unaligned[k]:
            centre = extent[[axes.columns, axes.rows]] / 2 + shift[k]
            image["alignment2d"] = {"id": first + k, **_placed(size, float(angle[k]), centre.tolist())}
        images.append(image)
    return images


def _placed(size: tuple[int, int], angle: float, centre: list[float]) -> dict[str, float]:
    """The alignment of an image that is turned about its middle, which lies at `centre` in um."""
    a, b = _RESOLUTION * math.cos(angle), _RESOLUTION * math.sin(angle)
    x, y = (size[0] - 1) / 2, (size[1] - 1) / 2
    e, f = centre[0] - a * x + b * y, centre[1] - b * x - a * y
    c, d = math.cos(angle) / _RESOLUTION, math.sin(angle) / _RESOLUTION
    tsv = {"tsv_00": a, "tsv_01": -b, "tsv_02": b, "tsv_03": a, "tsv_04": e, "tsv_05": f}
    tvs = {"tvs_00": c, "tvs_01": d, "tvs_02": -d, "tvs_03": c, "tvs_04": -c * e - d * f, "tvs_05": d * e - c * f}
    return _rounded(tsv | tvs)


def _inverse(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(affine[:, :3])
    return np.column_stack([linear, -linear @ affine[:, 3]])


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Six digits, as the API has them."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
