"""The default records of the emulator, in the API's JSON format, built from tables.

Section datasets 74272479 (Nrp1, coronal, reference space 9) and 69289763 (Prox1, sagittal, space 10) with all their
section images, and image 101321610 at its published size. Values from the Allen Brain API (Allen Institute for Brain
Science, Allen Mouse Brain Atlas). Unknown values have placeholders: the id of a gene is its Entrez id, paths do not
exist. `invented` returns synthetic datasets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.records import PLANE_NAMES
from ..geometry import plane as planes_of_section
from ..geometry.spaces import reference_space
from .ontology import figures

#: A record in the API's format, with associated records under the association's name.
Record = dict[str, Any]

# id, age, anatomy, name
_REFERENCE_SPACES = (
    (1, 5, "Embryo", "E11.5 Embryo"),
    (2, 4, "Embryo", "E13.5 Embryo"),
    (3, 2, "Embryo", "E15.5 Embryo"),
    (4, 71, "Head", "E16.5 Head"),
    (5, 1, "Brain", "E18.5 Brain"),
    (6, 7, "Brain", "P4 Brain"),
    (7, 11, "Brain", "P14 Brain"),
    (8, 14, "Brain", "P28 Brain"),
    (9, 15, "Brain", "P56 Brain"),
    (10, 15, "Brain", "P56 Brain (L/R Flipped)"),
)

# id, abbreviation, name, resource, species
_PRODUCTS = (
    (1, "Mouse", "Mouse Brain", "Allen Mouse Brain Atlas", "Mouse"),
    (3, "DevMouse", "Developing Mouse Brain", "Allen Developing Mouse Brain Atlas", "Mouse"),
    (5, "ConnProj", "Mouse Connectivity Projection", "Allen Mouse Brain Connectivity Atlas", "Mouse"),
    (12, "MouseRef", "Mouse Brain Reference Data", "Allen Mouse Brain Atlas", "Mouse"),
    (18, "NhpISH", "Non-Human Primate ISH", "NIH Blueprint Non-Human Primate (NHP) Atlas", "NHP"),
    (27, "HumanNT", "Human Brain ISH Neurotransmitter Study", "Allen Human Brain Atlas", "Human"),
)
#: Products of `invented_elsewhere`, and what their records lack.
_ELSEWHERE: dict[str, dict[str, Any]] = {
    "HumanNT": {
        "plane_of_section_id": 11,
        "reference_space_id": None,
        "section_thickness": None,
        "alignment3d": None,
        "genes": None,
    },
    "NhpISH": {"plane_of_section_id": 1082279372, "reference_space_id": None, "alignment3d": None},
    "DevMouse": {"plane_of_section_id": 2, "reference_space_id": 4, "alignment3d": None},
}

#: Section thickness of `invented`, in um.
_THICKNESS = 25.0
#: The API's numbers of the matrix entries, by row, of a 2-D and of a 3-D alignment.
_ENTRIES = {2: ((0, 1, 4), (2, 3, 5)), 3: ((0, 1, 2, 9), (3, 4, 5, 10), (6, 7, 8, 11))}
_ISH = {"id": 1, "name": "ISH", "organism_id": 2}
_P56 = {"id": 15, "name": "P56", "embryonic": False, "organism_id": 2}


def reference_space_records() -> list[Record]:
    """All ReferenceSpace records."""
    return [
        {"id": id, "age_id": age, "anatomy": anatomy, "name": name, "organism_id": 2, "storage_directory": None}
        for id, age, anatomy, name in _REFERENCE_SPACES
    ]


def product_records() -> list[Record]:
    """Some Product records: all of the mouse brain, and one each of the primate and the human brain."""
    return [
        {"id": id, "abbreviation": abbreviation, "name": name, "resource": resource, "species": species, "tags": None}
        for id, abbreviation, name, resource, species in _PRODUCTS
    ]


def plane_records() -> list[Record]:
    """All PlaneOfSection records."""
    return [{"id": id, "name": name} for id, name in PLANE_NAMES.items()]


def tier_count(width: int, height: int) -> int:
    """The number of tiers of an image: the last one fits in 256 x 256 pixels."""
    return 1 + max(0, math.ceil(math.log2(max(width, height) / 256)))


def dataset_records() -> list[Record]:
    """SectionDataSet records of 74272479 and 69289763 with all associations.

    Returns
    -------
    list of dict
        New objects in every call, which the caller may edit.
    """
    return [_dataset(row) for row in figures("section_datasets")]


def image_records() -> list[Record]:
    """SectionImage records of 74272479 and 69289763 with their `alignment2d`, and image 101321610.

    The dataset of image 101321610 is unknown: its id is 0, and the alignment is null.

    Returns
    -------
    list of dict
        New objects in every call, which the caller may edit.
    """
    records = []
    for row in figures("section_images"):
        alignment: Record = {"id": int(row["alignment2d_id"]), "section_image_id": int(row["id"])}
        alignment |= {key: float(row[key]) for key in row if key.startswith(("tsv", "tvs"))}
        record = image_record(
            int(row["id"]),
            int(row["data_set_id"]),
            int(row["section_number"]),
            (int(row["width"]), int(row["height"])),
            resolution=float(row["resolution"]),
            expression=row["expression"] == "1",
        )
        records.append(record | {"alignment2d": alignment})
    records.append(image_record(101321610, 0, 1, (2856, 2656)))
    return records


def image_record(
    id: int,
    data_set_id: int,
    section_number: int,
    size: tuple[int, int],
    *,
    resolution: float = 1.049,
    expression: bool = False,
) -> Record:
    """A SectionImage record without alignment.

    Parameters
    ----------
    id, data_set_id, section_number : int
        Same as in the record.
    size : tuple of int
        Width and height in pixels.
    resolution : float
        Pixel size in um.
    expression : bool
        Whether the image has an expression mask.
    """
    width, height = size
    return {
        "annotated": False,
        "axes": None,
        "bits_per_component": 8,
        "data_set_id": data_set_id,
        "expression": None,
        "expression_path": f"/emulator/{data_set_id}/{id}_expression.aff" if expression else None,
        "failed": False,
        "height": height,
        "id": id,
        "image_height": height,
        "image_type": "Primary",
        "image_width": width,
        "isi_experiment_id": None,
        "lims1_id": id,
        "number_of_components": 3,
        "ophys_experiment_id": None,
        "path": f"/emulator/{data_set_id}/{id}.aff",
        "projection_function": None,
        "resolution": resolution,
        "section_number": section_number,
        "specimen_id": None,
        "structure_id": None,
        "tier_count": tier_count(width, height),
        "width": width,
        "x": 0,
        "y": 0,
        "alignment2d": None,
    }


def _dataset(row: dict[str, str]) -> Record:
    id, specimen_id = int(row["id"]), int(row["specimen_id"])
    entrez_id = int(row["entrez_id"])
    alignment: Record = {"aligned_id": id, "aligned_type": "DataSet", "id": int(row["alignment3d_id"])}
    alignment |= {key: float(row[key]) for key in row if key.startswith(("trv", "tvr"))}
    gene = {
        "acronym": row["gene"],
        "entrez_id": entrez_id,
        "id": entrez_id,
        "name": row["gene_name"],
        "organism_id": 2,
        "original_symbol": row["gene"],
    }
    # The mice of the atlas are male (Lein et al. 2007).
    donor = {"id": specimen_id, "name": row["specimen"], "organism_id": 2, "age_id": _P56["id"], "age": dict(_P56)}
    donor |= {"sex": "M", "sex_full_name": "Male"}
    return {
        "blue_channel": None,
        "delegate": row["delegate"] == "1",
        "expression": row["expression"] == "1",
        "failed": False,
        "failed_facet": int(row["failed_facet"]),
        "green_channel": None,
        "id": id,
        "name": None,
        "plane_of_section_id": int(row["plane_of_section_id"]),
        "qc_date": row["qc_date"],
        "red_channel": None,
        "reference_space_id": int(row["reference_space_id"]),
        "rnaseq_design_id": None,
        "section_thickness": float(row["section_thickness"]),
        "specimen_id": specimen_id,
        "sphinx_id": int(row["sphinx_id"]),
        "storage_directory": f"/emulator/{id}/",
        "weight": int(row["weight"]),
        "alignment3d": alignment,
        "genes": [gene],
        "products": product_records()[:1],
        "specimen": {"id": specimen_id, "name": row["specimen"], "donor_id": specimen_id, "donor": donor},
        "treatments": [dict(_ISH)],
    }


def invented(
    id: int = 909,
    plane: str = "coronal",
    numbers: Iterable[int] = range(100, 420, 40),
    size: tuple[int, int] = (6000, 4400),
    resolution: float = 1.9,
    space: int = 9,
    turned: float = 3.0,
    tilted: float = 1.0,
) -> tuple[Record, list[Record]]:
    """A synthetic section dataset with images centred on the reference space, and its section images.

    Parameters
    ----------
    id : int
        Image ids are 1000 times this id plus the section number.
    plane : str
        ``coronal``, ``sagittal`` or ``transverse``.
    numbers : iterable of int
        Section numbers; a section is 25 um thick. Coronal ones increase from posterior to anterior.
    size : tuple of int
        Width and height of every image in pixels.
    resolution : float
        Size of a pixel in um.
    space : int
        Reference space.
    turned, tilted : float
        Rotation of the images in their plane, and tilt of the plane about the image rows, in degrees.
    """
    axes, extent = planes_of_section.PLANES[plane], np.array(reference_space(space).extent)
    tvr = np.zeros((3, 4))
    slope = math.sin(math.radians(tilted))
    tvr[axes.columns, 0] = tvr[axes.rows, 1] = 1.0
    tvr[axes.fixed] = [0.0, slope, -1.0 if plane == "coronal" else 1.0, -slope * extent[axes.rows] / 2]
    tvr[axes.fixed, 3] += extent[axes.fixed] if plane == "coronal" else 0.0
    angle = math.radians(turned)
    linear = resolution * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([(side - 1) / 2 for side in size])
    shift = extent[[axes.columns, axes.rows]] / 2 - linear @ middle
    tsv = np.column_stack([linear, shift])
    record = {
        "blue_channel": None,
        "delegate": False,
        "expression": True,
        "failed": False,
        "green_channel": None,
        "id": id,
        "name": "invented: not the alignment of any real dataset",
        "plane_of_section_id": next(id for id, name in PLANE_NAMES.items() if name == plane),
        "qc_date": None,
        "red_channel": None,
        "reference_space_id": space,
        "section_thickness": _THICKNESS,
        "specimen_id": None,
        "sphinx_id": id,
        "alignment3d": alignment_values("tvr", tvr) | alignment_values("trv", _inverse(tvr)),
        "genes": [],
        "products": product_records()[:1],
        "specimen": None,
        "treatments": [],
    }
    images = []
    for number in numbers:
        image = image_record(1000 * id + number, id, number, size, resolution=resolution, expression=True)
        images.append(image | {"alignment2d": alignment_values("tsv", tsv) | alignment_values("tvs", _inverse(tsv))})
    return record, images


def invented_elsewhere(product: str, id: int = 910) -> tuple[Record, list[Record]]:
    """A synthetic section dataset of another brain, without alignments, and its section images.

    Parameters
    ----------
    product : str
        ``HumanNT``, ``NhpISH`` or ``DevMouse``.
    id : int
        Same as in `invented`.
    """
    record, images = invented(id)
    record |= {"name": "invented: not a real dataset", **_ELSEWHERE[product]}
    record["products"] = [other for other in product_records() if other["abbreviation"] == product]
    return record, [image | {"alignment2d": None} for image in images]


def _inverse(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(affine[:, :-1])
    return np.column_stack([linear, -linear @ affine[:, -1]])


def alignment_values(name: str, matrix: NDArray[np.float64]) -> dict[str, float]:
    """The inverse of `alignment_matrix`: the matrix entries by their names in the API."""
    entries = _ENTRIES[len(matrix)]
    return {
        f"{name}_{entry:02d}": float(matrix[row, column])
        for row, columns in enumerate(entries)
        for column, entry in enumerate(columns)
    }


def alignment_matrix(record: Mapping[str, Any] | None, name: str) -> NDArray[np.float64] | None:
    """An alignment matrix of a record.

    Parameters
    ----------
    record : mapping or None
        A SectionDataSet or SectionImage record with its alignment under `alignment3d` or `alignment2d`.
    name : str
        ``tsv`` or ``tvs`` (2-D), ``tvr`` or ``trv`` (3-D).

    Returns
    -------
    ndarray, float64, shape (2, 3) or (3, 4), or None
        None if the record has no alignment, or an incomplete one.
    """
    size = 3 if "r" in name else 2
    alignment = (record or {}).get(f"alignment{size}d") or {}
    values = [[alignment.get(f"{name}_{entry:02d}") for entry in row] for row in _ENTRIES[size]]
    if any(value is None for row in values for value in row):
        return None
    return np.array(values, dtype=np.float64)


def depth(image: Record, dataset: Record) -> float:
    """Section number times section thickness, in um."""
    return float(image["section_number"]) * float(dataset["section_thickness"])
