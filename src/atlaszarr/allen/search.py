"""Search section datasets by what they are, as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .records import PLANES, plane_name
from .rma import literal
from .values import Record

if TYPE_CHECKING:
    from pandas import DataFrame

#: `rma.query` on one API: the records, and how many there are.
Query = Callable[..., tuple[list[dict[str, Any]], int]]


def search(
    query: Query,
    *,
    gene: str | None,
    plane: str | None,
    product: str | None,
    specimen: int | None,
    id: int | None,
    images: bool,
    limit: int | None,
) -> DataFrame:
    """See `AllenClient.search`."""
    import pandas as pd

    if plane is not None and (plane := plane_name(plane)) not in PLANES.values():
        raise InputError(f"plane {plane!r} is not known; choose from coronal, sagittal, transverse")
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} must be at least 1")
    where = {key: value for key, value in (("id", id), ("specimen_id", specimen)) if value is not None}
    criteria = []
    if plane is not None:
        criteria.append(f"plane_of_section[name$eq{literal('plane', plane)}]")
    if product is not None:
        criteria.append(f"products[abbreviation$eq{literal('product', product)}]")
    if gene is not None:
        criteria.append(f"genes[acronym${'li' if '*' in gene else 'eq'}{literal('gene', gene)}]")
    found, _ = query("SectionDataSet", criteria, ["genes", "products"], limit, where=where)
    if images:
        rows = [
            _image_row(record, image)
            for record in found
            for image in query("SectionImage", where={"data_set_id": record["id"]})[0]
        ]
        columns = list(_image_row({"id": None}, {}))
    else:
        rows = [_dataset_row(record) for record in found]
        columns = list(_dataset_row({}))
    return pd.DataFrame(rows, columns=columns).set_index("id")


def _dataset_row(record: Record) -> dict[str, Any]:
    plane = record.get("plane_of_section_id")
    return {
        "id": record.get("id"),
        "gene": " ".join(str(gene["acronym"]) for gene in record.get("genes") or ()),
        "plane": PLANES.get(plane, str(plane)) if isinstance(plane, int) else "",
        "product": " ".join(str(product["abbreviation"]) for product in record.get("products") or ()),
        "reference_space": record.get("reference_space_id"),
        "thickness_um": record.get("section_thickness"),
        "specimen": record.get("specimen_id"),
        "failed": bool(record.get("failed")),
    }


def _image_row(record: Record, image: Record) -> dict[str, Any]:
    return {
        "id": image.get("id"),
        "dataset": record["id"],
        "section_number": image.get("section_number"),
        "width": image.get("width"),
        "height": image.get("height"),
        "resolution_um": image.get("resolution"),
        "tiers": image.get("tier_count"),
        "expression": image.get("expression_path") is not None,
        "failed": bool(image.get("failed")),
    }
