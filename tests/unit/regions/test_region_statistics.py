"""`region_statistics` against plain NumPy: on made-up volumes, in all orders of axes, and on damaged ones."""

import pickle
import shutil

import numpy as np
import pytest

from atlaszarr import Terminology, region_statistics, region_volumes
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError, TargetError
from atlaszarr.writing import write_multiscales
from codes import raises
from small_annotation import CSV, GEOMETRY, labels

pytestmark = pytest.mark.filterwarnings("ignore:the midline is assumed")
MIDLINE = 10


@pytest.fixture(scope="module")
def terminology(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminology") / "terminology.csv"
    path.write_text(CSV)
    return Terminology.read(path)


def picture(dtype=np.uint8):
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(dtype).max, (3, 20, 20, 20), dtype, endpoint=True)


def sections():
    values = np.zeros((20, 20, 20), np.uint32)
    values[2:8], values[8:13, :, 3:] = 11, 12
    return values


def write(folder, image=None, section=None, name="volume", chunk=8, **options):
    image = picture() if image is None else image
    given = {"section": sections() if section is None else section} if section is not False else {}
    options = {"geometry": GEOMETRY, "chunk": chunk, "levels": 2} | options
    write_multiscales(image, folder / f"{name}.ome.zarr", labels=given, **options)
    return folder / f"{name}.ome.zarr"


def write_labels(folder, values=None, name="annotation", **options):
    options = {"geometry": GEOMETRY, "chunk": 8, "levels": 2} | options
    write_multiscales(labels() if values is None else values, folder / f"{name}.ome.zarr", rule="mode", **options)
    return folder / f"{name}.ome.zarr"


def expected(values, image, covered, mine):
    """Voxels, covered voxels, and mean and deviation of each channel, by NumPy."""
    where = np.isin(values, mine)
    inside = where & covered
    channels = image[:, inside].astype(np.float64)
    if not inside.any():
        return where.sum(), 0, [np.nan] * len(image), [np.nan] * len(image)
    return where.sum(), inside.sum(), channels.mean(axis=1), channels.std(axis=1)


MEMBERS = {1: (1, 2, 3, 4), 2: (2, 3), 3: (3,), 4: (4,)}


def assert_equal(table, values, image, covered, names, suffix="", columns=slice(None)):
    for id, members in MEMBERS.items():
        for scope, mine in (("", members), ("_direct", (id,))):
            where = (..., columns)
            voxels, inside, means, deviations = expected(values[where], image[where], covered[where], mine)
            row = table.loc[id]
            assert row[f"voxels{scope}{suffix}"] == voxels
            assert row[f"covered{scope}{suffix}"] == inside
            for name, mean, deviation in zip(names, means, deviations, strict=True):
                assert row[f"mean_{name}{scope}{suffix}"] == pytest.approx(mean, rel=1e-12, nan_ok=True)
                assert row[f"std_{name}{scope}{suffix}"] == pytest.approx(deviation, rel=1e-9, nan_ok=True)


CHANNELS = ("channel_0", "channel_1", "channel_2")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_counts_are_exact_and_means_are_those_of_numpy(tmp_path, terminology, dtype):
    image = picture(np.uint16 if np.dtype(dtype).kind == "f" else dtype).astype(dtype)
    table = region_statistics(write(tmp_path, image), write_labels(tmp_path), terminology, True)
    covered = sections() != 0
    assert_equal(table, labels(), image, covered, CHANNELS)
    assert_equal(table, labels(), image, covered, CHANNELS, "_left", slice(MIDLINE))
    assert_equal(table, labels(), image, covered, CHANNELS, "_right", slice(MIDLINE, None))


def test_voxels_are_those_of_region_volumes(tmp_path, terminology):
    annotation = write_labels(tmp_path)
    table = region_statistics(write(tmp_path), annotation, terminology, True)
    volumes = region_volumes(annotation, terminology, by_hemisphere=True)
    same = [name for name in volumes.columns if name in table.columns]
    assert len(same) == 14
    assert (table[same] == volumes[same]).all(axis=None)
    assert table.attrs["sides"] == volumes.attrs["sides"]
