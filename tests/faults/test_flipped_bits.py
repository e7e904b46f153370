"""A flipped bit of a cache entry, a target, or a source with a checksum changes nothing, is repaired, or is named."""

import json
import random
import shutil

import numpy as np
import pytest
import zarr
from flips import SILENT, kinds

from atlaszarr.errors import InputError
from atlaszarr.writing import write_multiscales
from codes import raises

#: Of each kind; `tests/fuzz/flips.py` flips as many as it is asked to.
FLIPS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return kinds(tmp_path_factory.mktemp("kinds"))


@pytest.mark.first(30)
@pytest.mark.parametrize("number", range(FLIPS))
@pytest.mark.parametrize(
    "kind",
    [
        "cache",
        "target",
        "unfinished target",
        "OME-Zarr with a ledger",
        "metadata with a ledger",
        "crc32c shards",
        "gzip NRRD",
        "gzip NIfTI",
        "zlib MetaImage",
        "raw MetaImage",
        "raw NRRD",
        "TIFF",
        "OME-Zarr without a ledger",
    ],
)
def test_a_flipped_bit_changes_nothing_or_is_repaired_or_named(made, kind, number, tmp_path):
    outcome, where = made[kind].one(tmp_path, random.Random(f"{kind} {number}"))
    assert outcome != SILENT, where


def test_a_source_is_refused_if_the_metadata_of_its_voxels_differ_from_its_ledger(tmp_path):
    source, target = tmp_path / "source.ome.zarr", tmp_path / "target.ome.zarr"
    write_multiscales(np.arange(768, dtype="uint16").reshape(12, 8, 8), source, chunk=4, workers=1)
    text = (source / "0/zarr.json").read_text()
    (source / "0/zarr.json").write_text(text.replace('"fill_value": 0', '"fill_value": 1'))
    with raises(InputError, "damaged-metadata") as caught:
        write_multiscales(zarr.open_array(source / "0"), target, chunk=4, workers=1)
    assert f"{source}/0/zarr.json" in str(caught.value)
    assert not target.exists()
    shutil.rmtree(source / "atlaszarr")  # what the message proposes
    write_multiscales(zarr.open_array(source / "0"), target, chunk=4, workers=1)


def test_a_source_with_attributes_of_its_user_is_read(tmp_path):
    source, target = tmp_path / "source.ome.zarr", tmp_path / "target.ome.zarr"
    write_multiscales(np.arange(768, dtype="uint16").reshape(12, 8, 8), source, chunk=4, workers=1)
    root = json.loads((source / "zarr.json").read_text())
    root["attributes"]["note"] = "of the user"
    (source / "zarr.json").write_text(json.dumps(root))
    write_multiscales(zarr.open_array(source / "0"), target, chunk=4, workers=1)
