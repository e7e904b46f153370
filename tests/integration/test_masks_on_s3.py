"""Masks next to an annotation in a bucket."""

import numpy as np
import pytest

from atlaszarr.annotation_set.masks import write_masks
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.assets.names import COMPRESSED, MASKS
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.label_index import add_index
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales

TERMINOLOGY = Terminology(
    (
        Structure("X:1", "same", "A root without a label", "#00FF7F", ("X:1",), None),
        Structure("X:2", "same", "A parent", "#00FF7F", ("X:1", "X:2"), 200),
        Structure("X:3", "same", "A child", "#00FF7F", ("X:1", "X:2", "X:3"), 300),
        Structure("X:4", "same", "Another root", "#00FF7F", ("X:4",), 400),
    )
)


def written(folder, options=None):
    """Masks of any terminology, and what they were made from."""
    target = Target.of(f"{folder}/{COMPRESSED}", options)
    labels = np.repeat(np.array([200, 0, 300], np.uint32), 150)[:, None, None].repeat(20, 1).repeat(20, 2)
    geometry = Geometry((0.01,) * 3)
    write_multiscales(labels, target.url, rule="mode", levels=2, chunk=16, geometry=geometry, storage_options=options)
    add_index(target)
    masks = Target.of(f"{folder}/{MASKS}", options)
    write_masks(Finished.at(target), masks, PostOrder.of(TERMINOLOGY))
    return Finished.at(target), masks


@pytest.mark.slow
def test_masks_in_a_bucket_are_the_same_bytes_and_are_verified_and_repaired(remote, tmp_path, contents):
    annotation, masks = written(f"s3://atlas/{tmp_path.name}", remote.options)
    written(tmp_path)
    found = {key: masks.read(key) for key in masks.list_keys() if not key.startswith("atlaszarr/")}
    assert found == contents(tmp_path / MASKS)
    assert [key for key in found if key.startswith("0/c/")] == ["0/c/0/0/0/0", "0/c/1/0/0/0"]
    assert verify(masks.url, deep=True, storage_options=remote.options).ok
    masks.remove("0/c/1")
    assert [defect.key for defect in verify(masks.url, storage_options=remote.options).defects] == ["0/c/1/0/0/0"]
    assert write_masks(annotation, masks, PostOrder.of(TERMINOLOGY)).tasks_done == 1
    assert verify(masks.url, deep=True, storage_options=remote.options).ok
