"""The label index: what it holds against NumPy's counts, its bytes, and when it may answer for the data."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.engine import ledger
from atlaszarr.engine.label_counts import count_labels
from atlaszarr.engine.label_index import (
    KEY,
    LabelIndex,
    add_index,
    columns_before_midline,
    count_unit,
    defects,
    index_of,
)
from atlaszarr.engine.multiscale import multiscale_of
from atlaszarr.engine.ome import DEFAULT_VERSION
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.engine.pyramid import Pyramid
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from codes import raises

LARGE = 2**31 + 5


def invented():
    """Labels in blocks of five voxels, one of them large, a third of them background."""
    coarse = np.random.default_rng(3).choice([0, 7, 8, LARGE], (8, 6, 9)).astype(np.uint32)
    return np.kron(coarse, np.ones((5, 5, 5), np.uint32))[:, :, :43]


@pytest.fixture(scope="module", params=[DEFAULT_VERSION, "0.4", "shards"])
def written(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("index") / "annotation.ome.zarr"
    kind = {"shard": 32} if request.param == "shards" else {"ome_zarr": request.param}
    write_multiscales(invented(), place, rule="mode", chunk=16, **kind)
    return place


@pytest.fixture
def target(written, tmp_path):
    """A finished target of its own with an index."""
    place = Target(str(tmp_path / "annotation.ome.zarr"))
    for key, body in Target(str(written)).read_all("").items():
        place.write(key, body)
    add_index(place)
    return place


def own(target):
    return StoredImage.at(target).own


def level_of(target, level):
    import zarr

    return zarr.open_array(f"{target.url}/{level}", mode="r")[:]


def recorded(target):
    found = ledger.read(target, finished=True)
    return found, multiscale_of(target, found)


def some_chunk(target, level=0):
    _, multiscale = recorded(target)
    unit = sorted(multiscale.non_empty.units(level))[1]
    return multiscale.key(multiscale.arrays[0], level, unit), unit


# Content


@pytest.mark.parametrize("level", [0, 1, 2])
def test_counts_of_a_level_equal_those_of_numpy(target, level):
    index, reason = index_of(target, own(target), level)
    assert reason == ""
    values = level_of(target, level)
    ids, voxels = np.unique(values[values > 0], return_counts=True)
    found = index.counts(level)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.voxels, voxels)
    # 43 columns: column 21 of level 0 lies on the midline, and is not before it.
    low = values[..., (np.arange(values.shape[-1]) + 0.5) * 2**level < 43 / 2]
    np.testing.assert_array_equal(found.low, [np.count_nonzero(low == one) for one in ids])


def test_the_objects_with_a_label_equal_those_of_numpy(target):
    index, _ = index_of(target, own(target), 0)
    _, multiscale = recorded(target)
    values, at = level_of(target, 0), multiscale.pyramid.levels[0]
    for labels in ([7], [LARGE, 8], [999], []):
        holding = [u for u in multiscale.non_empty.units(0) if np.isin(values[at.region(u)], labels).any()]
        assert index.units(0, labels) == sorted(holding)


def test_pandas_alone_reads_it(target):
    table = pd.read_parquet(f"{target.url}/{KEY}")
    assert list(table.columns) == ["level", "z", "y", "x", "label", "voxels", "voxels_low"]
    assert table[table.level == 0].voxels.sum() == np.count_nonzero(level_of(target, 0))
    assert table.label.max() == LARGE
    assert table.equals(table.sort_values(["level", "z", "y", "x", "label"], ignore_index=True))


# Bytes


def test_given_counts_and_counts_of_the_stored_objects_make_the_same_bytes(target):
    found, multiscale = recorded(target)
    spec, handed = multiscale.arrays[0], {"labels/other/0/c/0/0/0": count_labels(np.ones((1, 1, 1), np.uint8))}
    for level in range(len(multiscale.pyramid.levels)):
        values = level_of(target, level)
        for unit in multiscale.non_empty.units(level):
            part = values[multiscale.pyramid.levels[level].region(unit)]
            handed[multiscale.key(spec, level, unit)] = count_unit(multiscale, level, unit, part)
    some = dict(list(handed.items())[::2])
    bodies = {LabelIndex.of(multiscale, counts, found.digest).to_bytes() for counts in (handed, some, {})}
    assert bodies == {target.read(KEY)}
    assert LabelIndex.from_bytes(target.read(KEY)).to_bytes() == target.read(KEY)


def test_a_changed_byte_is_detected_or_changes_no_row(target):
    body = target.read(KEY)
    index, noticed = LabelIndex.from_bytes(body), 0
    for at in range(0, len(body), 7):
        try:
            found = LabelIndex.from_bytes(body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :])
        except ValueError:
            noticed += 1
        else:
            assert all(np.array_equal(found.columns[name], column) for name, column in index.columns.items())
    assert noticed > len(body) / 7 / 4
    target.write(KEY, body[: len(body) // 2])
    assert index_of(target, own(target), 0) == (None, f"{KEY} is damaged")


@pytest.mark.parametrize("body", [b"", b"PAR1", b"no parquet at all"], ids=repr)
def test_bytes_that_are_not_an_index_are_refused(body):
    with pytest.raises(ValueError, match="not a label index"):
        LabelIndex.from_bytes(body)


def test_an_empty_annotation_has_an_index_without_rows(tmp_path):
    target = Target(str(tmp_path / "x.ome.zarr"))
    write_multiscales(np.zeros((4, 4, 4), np.uint64), target.url, rule="mode")
    add_index(target)
    index, reason = index_of(target, own(target), 0)
    assert (len(index.counts(0).ids), index.units(0, [1]), reason) == (0, [], "")


# The midline


@given(st.integers(1, 300), st.integers(1, 4), st.sampled_from([2, 2.5, 3]))
def test_a_column_is_on_the_side_of_its_centre(n, levels, factor):
    pyramid = Pyramid.over((4, 4, n), 4, 1 if n == 1 else None, [factor] * levels if n > 1 else ())
    for level in range(len(pyramid.levels)):
        size = pyramid.scale(level)[2]
        before = sum((2 * k + 1) * size < n for k in range(pyramid.levels[level].shape[2]))
        assert columns_before_midline(pyramid, level) == before


# When an index is returned


def test_a_target_without_an_index_has_no_reason_and_no_defects(target):
    target.remove(KEY)
    assert index_of(target, own(target), 0) == (None, "")
    assert list(defects(target, recorded(target)[0], deep=True)) == []


@pytest.mark.parametrize("change", ["deleted", "longer", "one bit", "extra"])
def test_an_index_is_not_returned_if_an_object_changed(target, change):
    key, _ = some_chunk(target)
    body = target.read(key)
    if change == "deleted":
        target.remove(key)
    elif change == "extra":
        key = f"{key.rsplit('/', 1)[0]}/77"
        target.write(key, body)
    else:
        target.write(key, body + b"x" if change == "longer" else body[:20] + bytes([body[20] ^ 1]) + body[21:])
    index, reason = index_of(target, own(target), 0)
    assert index is None
    assert reason.startswith(key)
    assert index_of(target, own(target), 1)[1] == ""  # the other levels are as they were


def test_an_index_of_another_ledger_is_not_returned(target):
    other = {**own(target), "ledger": hashlib.blake2b(b"", digest_size=16).hexdigest()}
    assert index_of(target, other, 0)[1].startswith(f"{KEY} was made from other voxels")
    index = LabelIndex.from_bytes(target.read(KEY))
    target.write(KEY, LabelIndex(index.columns, "0" * 32).to_bytes())
    assert index_of(target, own(target), 0)[1].startswith(f"{KEY} was made from other voxels")
    (defect,) = defects(target, recorded(target)[0], deep=False)
    assert (defect.kind, defect.key) == ("index", KEY)


def test_rows_that_differ_from_the_voxels_are_named(target):
    found, _ = recorded(target)
    assert list(defects(target, found, deep=True)) == []
    index = LabelIndex.from_bytes(target.read(KEY))
    columns = {name: column.copy() for name, column in index.columns.items()}
    row = int(np.flatnonzero(columns["level"] == 1)[0])
    voxels, label = int(columns["voxels"][row]), int(columns["label"][row])
    columns["voxels"][row] += 1
    columns["z"][-1] = 99
    target.write(KEY, LabelIndex(columns, index.ledger).to_bytes())
    texts = [defect.text for defect in defects(target, found, deep=True)]
    chunk = "/".join(str(columns[axis][row]) for axis in "zyx")
    assert texts[0].startswith(f"level 1, chunk {chunk}: label {label} has {voxels} voxels")
    assert any("1 rows are outside the image" in text for text in texts)


def test_no_index_is_added_to_a_target_that_is_not_an_annotation(tmp_path):
    with raises(InputError, "not-a-finished-image"):
        add_index(Target(str(tmp_path)))
    target = Target(str(tmp_path / "x.ome.zarr"))
    write_multiscales(np.zeros((4, 4, 4), np.float32), target.url)
    with raises(InputError, "not-labels"):
        add_index(target)
    assert "ledger" in json.dumps(dict(own(target)))


# With the ledger


def test_an_index_can_record_the_ledger_before_it_is_compacted_and_the_ledger_the_index(target):
    found, multiscale = recorded(target)
    records = ledger.compacted(found.header, found.done)
    assert ledger.digest(records) == found.digest
    body = LabelIndex.of(multiscale, {}, ledger.digest(records)).to_bytes()
    target.write(KEY, body)
    ledger.compact(target, records, {KEY: (len(body), ledger.digest(body))})
    assert verify(target.url).ok
    assert index_of(target, own(target), 0)[1] == ""
    target.write(KEY, body[:-1])
    (defect,) = verify(target.url).defects
    assert (defect.kind, defect.key) == ("altered", KEY)


def test_a_target_with_an_added_index_has_no_defects(target):
    assert verify(target.url, deep=True).ok
