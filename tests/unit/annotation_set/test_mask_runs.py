"""Masks of many structures: several runs a level, each with its own entry in the ledger."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr

from atlaszarr.annotation_set.masks import write_masks
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.assets.names import COMPRESSED, MASKS
from atlaszarr.engine import ledger
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales

#: A large annotation is written for each.
pytestmark = pytest.mark.slow

#: More than the chunks of a run: every structure counts as one at least.
COUNT = 560
ROOT = 1000
TERMINOLOGY = Terminology(
    (
        Structure(ROOT, "root", "The root", "#FFFFFF", (ROOT,)),
        *(Structure(id, f"S{id}", f"The {id}", "#00FF7F", (ROOT, id)) for id in range(1, COUNT + 1)),
    )
)
ORDER = PostOrder.of(TERMINOLOGY)


def annotated(folder, labels):
    """A finished annotation of two levels, where `verify` looks for it."""
    target = Target.of(f"{folder}/{COMPRESSED}")
    options = {"rule": "mode", "levels": 2, "chunk": 16, "geometry": Geometry((0.01,) * 3)}
    write_multiscales(labels.astype(np.uint32), target.url, **options)
    return Finished.at(target)


@pytest.fixture(scope="module")
def labels():
    """Cubes of 2 voxels, each of one of 550 structures; ten do not occur."""
    cubes = np.random.default_rng(0).permutation(np.arange(20 * 15 * 12) % (COUNT - 10) + 1).reshape(20, 15, 12)
    return cubes.repeat(2, 0).repeat(2, 1).repeat(2, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory, labels):
    """A folder with masks next to their annotation."""
    folder = tmp_path_factory.mktemp("masks")
    report = write_masks(annotated(folder, labels), Target.of(folder / MASKS), ORDER)
    assert (report.state, report.tasks_done) == ("built", 4)
    return folder


@pytest.fixture
def masks(made, tmp_path):
    """An annotation and its masks, to be damaged."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Finished.at(Target.of(tmp_path / COMPRESSED)), Target.of(tmp_path / MASKS)


def test_runs_hold_every_structure_that_occurs_once(masks, labels):
    _, target = masks
    recorded = ledger.read(target, finished=True)
    written = [key for entry in recorded.done.values() for key in entry.written]
    assert len(written) == len(set(written)) == 2 * (COUNT - 10 + 1)
    values = zarr.open_array(f"{target.url}/annotation_values", mode="r")[:].tolist()
    assert values == [*range(1, COUNT + 1), ROOT]
    array = zarr.open_array(f"{target.url}/0", mode="r")
    for value in (1, 255, 550, 551, 560):
        np.testing.assert_array_equal(array[values.index(value)], labels == value)
    assert array[values.index(ROOT)].all()
    assert verify(target.url, deep=True).ok


def test_the_bytes_do_not_depend_on_the_number_of_workers(masks, tmp_path, contents):
    annotation, target = masks
    write_masks(annotation, Target.of(tmp_path / "one.ome.zarr"), ORDER, workers=1)
    assert contents(tmp_path / "one.ome.zarr") == contents(target.url)


def test_only_runs_that_are_left_are_made_again(masks):
    annotation, target = masks
    target.remove("1/c/540")
    assert [defect.key for defect in verify(target.url).defects] == ["1/c/540/0/0/0"]
    report = write_masks(annotation, target, ORDER)
    assert (report.state, report.tasks_done) == ("resumed", 1)
    assert verify(target.url, deep=True).ok


def flipped(body):
    return body[:10] + bytes([body[10] ^ 1]) + body[11:]


def test_damaged_shards_are_named_and_repaired(masks):
    annotation, target = masks
    missing, truncated, altered, swapped = "0/c/3/0/0/0", "0/c/560/0/0/0", "1/c/540/0/0/0", "1/c/4/0/0/0"
    target.remove(missing)
    target.write(truncated, target.read(truncated)[:-1])
    target.write(altered, flipped(target.read(altered)))
    target.write(swapped, target.read("1/c/560/0/0/0"))
    found = {defect.key: defect.kind for defect in verify(target.url).defects}
    assert found == {missing: "missing", truncated: "truncated", altered: "altered", swapped: "truncated"}
    assert write_masks(annotation, target, ORDER).tasks_done == 4
    assert verify(target.url, deep=True).ok


def test_a_shard_of_a_structure_that_does_not_occur_is_named_and_removed(masks):
    annotation, target = masks
    key = "0/c/555/0/0/0"
    target.write(key, target.read("0/c/5/0/0/0"))
    (defect,) = verify(target.url).defects
    assert (defect.kind, defect.key) == ("extra", key)
    write_masks(annotation, target, ORDER)
    assert target.read(key) is None
    assert verify(target.url, deep=True).ok


def test_masks_that_were_recorded_but_are_not_those_of_the_annotation_are_named(masks, labels, tmp_path):
    annotation, target = masks
    changed = np.where(labels == 7, 8, labels)  # 7 does not occur, and 8 has more voxels
    changed[labels == 540] = 555
    other = annotated(tmp_path / "other", changed)
    # Written from other voxels, under the digest of the annotation.
    write_masks(replace(other, digest=annotation.digest), target, ORDER, overwrite=True)
    found = {(defect.key, defect.text) for defect in verify(target.url, deep=True).defects}
    absent, differs = "is missing, although the annotation has the structure", "differs from the annotation"
    extra = "has a structure that the annotation does not have"
    expected = {("0/c/7/0/0/0", differs), ("0/c/6/0/0/0", absent), ("0/c/539/0/0/0", absent), ("0/c/554/0/0/0", extra)}
    assert {(key, text) for key, text in found if key.startswith("0/")} == expected
    report = write_masks(annotation, target, ORDER)
    assert report.state == "resumed"
    assert verify(target.url, deep=True).ok


def test_an_entry_that_the_ledger_lacks_is_named(masks):
    _, target = masks
    recorded = ledger.read(target, finished=True)
    del recorded.done[1, (0, 0, 0)]
    ledger.compact(target, ledger.compacted(recorded.header, recorded.done), recorded.files)
    kinds = {defect.kind for defect in verify(target.url).defects}
    assert "ledger" in kinds


@pytest.mark.parametrize(
    "masks_of_ledger",
    [
        {"firsts": [10**9] * (COUNT + 1)},
        {"firsts": [0]},
        {"values": [-1] * (COUNT + 1)},
        {"values": ["1"] * (COUNT + 1)},
        {"values": [], "firsts": []},
        {"run_chunks": "many"},
        {"run_chunks": None},
    ],
    ids=lambda changed: ", ".join(f"{name} {str(value)[:20]}" for name, value in changed.items()),
)
def test_a_ledger_that_describes_no_masks_is_named(masks, masks_of_ledger):
    """Although all its digests agree."""
    _, target = masks
    recorded = ledger.read(target, finished=True)
    recorded.header["multiscale"]["masks"] |= masks_of_ledger
    body = ledger.compacted(recorded.header, recorded.done)
    ledger.compact(target, body, recorded.files)
    root = json.loads(target.read("zarr.json"))
    root["attributes"]["atlaszarr"]["ledger"] = ledger.digest(body)
    target.write("zarr.json", json.dumps(root).encode())
    defects = verify(target.url).defects
    assert [(defect.kind, defect.key) for defect in defects] == [("ledger", ledger.COMPACT)]
    assert "does not describe an image" in defects[0].text


def test_masks_of_5000_structures_are_verified(tmp_path):
    rows = (Structure(id, f"S{id}", f"The {id}", "#00FF7F", (id,)) for id in range(1, 5001))
    annotation, target = annotated(tmp_path, np.full((128, 128, 128), 4999)), Target.of(tmp_path / MASKS)
    write_masks(annotation, target, PostOrder.of(Terminology(tuple(rows))))
    assert [key for key in target.list_keys("0") if "/c/" in key] == ["0/c/4998/0/0/0"]
    assert verify(target.url, deep=True).ok
