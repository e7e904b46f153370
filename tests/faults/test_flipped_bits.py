"""A flipped bit of a cache entry, a target, or a source with a checksum changes nothing, is repaired, or is named."""

import random

import pytest
from flips import SILENT, kinds

#: Of each kind; `tests/fuzz/flips.py` flips as many as it is asked to.
FLIPS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return kinds(tmp_path_factory.mktemp("kinds"))


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
    ],
)
def test_a_flipped_bit_changes_nothing_or_is_repaired_or_named(made, kind, number, tmp_path):
    outcome, where = made[kind].one(tmp_path, random.Random(f"{kind} {number}"))
    assert outcome != SILENT, where
