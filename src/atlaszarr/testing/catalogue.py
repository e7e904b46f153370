"""The records of the emulated service by model, with their associations.

Any SectionDataSet and SectionImage records are accepted, including invalid ones; missing associations are taken from
the built-in record with the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .many_datasets import ManyImages
from .records import (
    Record,
    dataset_records,
    image_records,
    invented,
    plane_records,
    product_records,
    reference_space_records,
)
from .rma_syntax import Filter

# The associations of each model: the associated model, and whether a record can have several.
_ASSOCIATIONS: dict[str, dict[str, tuple[str, bool]]] = {
    "SectionDataSet": {
        "alignment3d": ("Alignment3d", False),
        "equalization": ("Equalization", False),
        "genes": ("Gene", True),
        "products": ("Product", True),
        "plane_of_section": ("PlaneOfSection", False),
        "reference_space": ("ReferenceSpace", False),
        "section_images": ("SectionImage", True),
        "specimen": ("Specimen", False),
        "treatments": ("Treatment", True),
    },
    "SectionImage": {
        "alignment2d": ("Alignment2d", False),
        "data_set": ("SectionDataSet", False),
        "section_data_set": ("SectionDataSet", False),
    },
    "Equalization": {"section_data_set": ("SectionDataSet", False)},
    "Specimen": {"donor": ("Donor", False)},
    "Donor": {"age": ("Age", False)},
}


class Catalogue:
    """Records by model.

    Parameters
    ----------
    datasets, images : iterable of dict, optional
        SectionDataSet and SectionImage records in the API's format, with associations (`alignment3d`, `genes`, ...)
        under their names. Default the built-in records. The records are copied, but for images that are `ManyImages`.
    """

    def __init__(
        self, datasets: Iterable[Mapping[str, Any]] | None = None, images: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        built_in = {record["id"]: record for record in dataset_records()}
        synthetic, synthetic_images = invented()
        datasets = [*built_in.values(), synthetic] if datasets is None else datasets
        images = [*image_records(), *synthetic_images] if images is None else images
        self._datasets = [_completed(dict(record), built_in.get(record.get("id"), {})) for record in datasets]
        self._images = images if isinstance(images, ManyImages) else _ListedImages(images)
        self._datasets_by_id = {record.get("id"): record for record in reversed(self._datasets)}
        genes = {gene.get("id"): gene for record in self._datasets for gene in _records_of(record["genes"])}
        self.models: dict[str, list[Record] | _ListedImages | ManyImages] = {
            "SectionDataSet": self._datasets,
            "SectionImage": self._images,
            "Equalization": [
                {**record["equalization"], "data_set_id": record.get("id")}
                for record in self._datasets
                if record.get("equalization")
            ],
            "Gene": list(genes.values()),
            "PlaneOfSection": plane_records(),
            "Product": product_records(),
            "ReferenceSpace": reference_space_records(),
        }

    def dataset_of(self, image: Mapping[str, Any] | None) -> Record | None:
        """The first SectionDataSet record that a SectionImage record belongs to."""
        return self.dataset((image or {}).get("data_set_id"))

    def dataset(self, id: int | None) -> Record | None:
        """The first SectionDataSet record with an id."""
        return self._datasets_by_id.get(id)

    def image(self, id: int) -> Record | None:
        """The first SectionImage record with an id."""
        return self._images.get(id)

    def images_of(self, dataset_id: int | None) -> list[Record]:
        """The SectionImage records of a section dataset, in the order given."""
        return list(self._images.of(dataset_id))

    def candidates(self, model: str, filters: Iterable[Filter]) -> Iterable[Record]:
        """The records of a model among which are all that pass filters, in the order given.

        Of `ManyImages` only those of the datasets or with the id that a filter names: the others are not made.
        """
        if model == "SectionImage" and isinstance(self._images, ManyImages):
            for item in filters:
                if item.operator in ("eq", "in") and all(value.isdecimal() for value in item.values):
                    values = sorted({int(value) for value in item.values})
                    if item.attribute == "data_set_id":
                        return [image for value in values for image in self._images.of(value)]
                    if item.attribute == "id":
                        return [image for value in values if (image := self._images.get(value))]
        return self.models[model]

    def aligned_datasets(self) -> list[int]:
        """Ids of the section datasets with an alignment of their own and one of every image."""
        return [
            record["id"]
            for record in self._datasets
            if record.get("alignment3d")
            and (images := self.images_of(record["id"]))
            and all(image.get("alignment2d") for image in images)
        ]

    def image_ids(self) -> list[int]:
        """Ids of all section images, in the order given."""
        return [record["id"] for record in self._images]

    def attributes(self, model: str, record: Record) -> Record:
        """The attributes of a record, without its associations."""
        associations = _ASSOCIATIONS.get(model, {})
        return {key: value for key, value in record.items() if key not in associations}

    def has_attribute(self, model: str, name: str) -> bool:
        """Whether a record of a model has an attribute; True for models without records."""
        records = self.models.get(model)
        return not records or any(name in self.attributes(model, record) for record in records)

    def associated(self, model: str, record: Record, name: str) -> tuple[str, bool, list[Record]] | None:
        """The records of an association.

        Returns
        -------
        tuple or None
            The associated model, whether a record can have several, and the records; None if `model` has no
            association of that name.
        """
        association = _ASSOCIATIONS.get(model, {}).get(name)
        if association is None:
            return None
        target, many = association
        return target, many, self._related(record, name, target)

    def _related(self, record: Record, name: str, target: str) -> list[Record]:
        if name == "section_images":
            return self.images_of(record.get("id"))
        if target == "SectionDataSet":
            return [dataset for dataset in self._datasets if dataset["id"] == record.get("data_set_id")]
        if target in ("PlaneOfSection", "ReferenceSpace"):
            return [other for other in self.models[target] if other["id"] == record.get(f"{name}_id")]
        return _records_of(record.get(name))

    def invalid(self, record: Record, name: str) -> Any:
        """What a record has under the name of an association, if that is no record or list of records; else None."""
        value = record.get(name)
        rows = value if isinstance(value, list) else [value]
        return None if all(row is None or isinstance(row, Mapping) for row in rows) else value


def _records_of(value: Any) -> list[Record]:
    """The records of an association, which is a record, a list of records or null."""
    return [dict(row) for row in (value if isinstance(value, list) else [value]) if isinstance(row, Mapping)]


class _ListedImages:
    """Section images that are given."""

    def __init__(self, images: Iterable[Mapping[str, Any]]) -> None:
        self._images = [dict(record) for record in images]
        self._by_id = {record.get("id"): record for record in reversed(self._images)}
        self._of: dict[Any, list[Record]] = {}
        for record in self._images:
            self._of.setdefault(record.get("data_set_id"), []).append(record)

    def of(self, dataset_id: int | None) -> list[Record]:
        """The images of a dataset, in the order given."""
        return self._of.get(dataset_id, [])

    def get(self, id: int) -> Record | None:
        """The first image with an id."""
        return self._by_id.get(id)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._images)

    def __bool__(self) -> bool:
        return bool(self._images)


def _completed(record: Record, built_in: Record) -> Record:
    """The record, with missing genes, products, treatments and specimen from a built-in record."""
    for name in ("genes", "products", "treatments"):
        record.setdefault(name, built_in.get(name, []))
    record.setdefault("specimen", built_in.get("specimen"))
    return record
