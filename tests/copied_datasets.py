"""Records of many small section datasets: copies of one, with ids of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Ids of the section images of a dataset are its id times this, plus their position.
SPAN = 1000

Record = dict[str, Any]


def copies(records: tuple[list[Record], list[Record]], ids: Iterable[int]) -> tuple[list[Record], list[Record]]:
    """Records of datasets with these ids, each like the one dataset of `records`, some sections further on."""
    (dataset,), images = records
    datasets, copied = [], []
    for id in ids:
        datasets.append({**dataset, "id": id})
        for n, image in enumerate(images):
            number = image["section_number"] + id % 50
            copied.append({**image, "id": SPAN * id + n, "data_set_id": id, "section_number": number})
    return datasets, copied
