"""build --grey: one channel without an axis c, the mean of the channels that the same build has in colour."""

import json
import math
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import ngff_zarr
import numpy as np
import pytest
import yaozarrs
import zarr

from atlaszarr import AllenClient, build, open_volume, plan, verify
from atlaszarr.dataset_build.layout import grey_of
from atlaszarr.engine.downsampling import reduce
from atlaszarr.errors import InputError
from atlaszarr.testing.emulator import Emulator
from codes import raises

CORONAL, SAGITTAL = 74272479, 69289763
DATA = Path(__file__).parents[3] / "shared" / "data"
#: A real section image, of SAGITTAL.
IMAGE = 69177654


def arrays(target, path=""):
    """The arrays of all levels of an image, or of its label."""
    return [zarr.open_array(level, mode="r")[:] for level in sorted(Path(target, path).glob("[0-9]"))]


def half_even(colour):
    """The mean of the channels, rounded half to even, in floating point numbers."""
    return np.rint(colour.astype(np.float64).mean(axis=0)).astype(np.uint8)


def test_the_mean_of_every_sum_of_three_channels_is_rounded_half_to_even():
    total = np.arange(766)
    colour = np.array([np.clip(total - 255 * k, 0, 255) for k in range(3)], np.uint8)
    assert (colour.sum(axis=0, dtype=int) == total).all()
    np.testing.assert_array_equal(grey_of(colour), [round(math.fsum(values) / 3) for values in colour.T.tolist()])
    np.testing.assert_array_equal(grey_of(colour), half_even(colour))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (CORONAL, {"resolution": 100, "chunk": 32}),
        (CORONAL, {"resolution": 200, "background": 255, "fill": "none", "ome_zarr": "0.4"}),
        (SAGITTAL, {"resolution": 100, "fill": "linear", "shard": 128, "ome_zarr": "0.6"}),
        (SAGITTAL, {"resolution": 100, "view": "expression"}),
    ],
)
def test_a_grey_volume_is_the_mean_of_the_colour_volume_with_the_same_labels(built, dataset, options):
    colour, grey = (built(dataset, grey=grey, **options) for grey in (False, True))
    levels, labels = arrays(grey), arrays(grey, "labels/section")
    assert levels[0].dtype == np.uint8
    assert levels[0].ndim == 3
    np.testing.assert_array_equal(levels[0], half_even(arrays(colour)[0]))
    for one, other in zip(labels, arrays(colour, "labels/section"), strict=True):
        np.testing.assert_array_equal(one, other)
    background = options.get("background", 0)
    for k, (finer, coarser) in enumerate(pairwise(levels)):
        assert (coarser[labels[k + 1] == 0] == background).all()
        expected = reduce(finer, (Fraction(2),) * 3, "mean", mask=labels[k])
        np.testing.assert_array_equal(coarser, expected)
    assert verify(grey, deep=True).ok


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_a_grey_volume_opens_in_other_readers(built, version):
    target = built(CORONAL, resolution=200, grey=True, ome_zarr=version)
    if version != "0.6":  # yaozarrs does not support it
        yaozarrs.validate_zarr_store(str(target))
    image = ngff_zarr.from_ngff_zarr(str(target), validate=True).images[0]
    assert list(image.dims) == ["z", "y", "x"]
    assert image.data.shape == (66, 40, 57)
    assert image.scale == dict.fromkeys("zyx", 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [CORONAL, SAGITTAL])
def test_grey_sections_are_the_mean_of_sections_in_colour(built, dataset):
    options = {"mode": "sections", "resolution": 200, "chunk": 64}
    colour, grey = (built(dataset, grey=grey, **options) for grey in (False, True))
    members = sorted(path.name for path in grey.iterdir() if path.name.isdigit())
    assert members
    for member in members:
        values = arrays(grey / member)
        assert 1 in values[0].shape
        np.testing.assert_array_equal(values[0], half_even(arrays(colour / member)[0]))
        for path in ("", "labels/section"):
            ngff_zarr.from_ngff_zarr(str(grey / member / path), validate=True)
    assert verify(grey, deep=True).ok


def test_a_plan_of_a_grey_build_is_exact_in_objects_and_counts_a_third_of_the_colour_bytes(allen, built):
    (grey,) = plan(CORONAL, client=allen, resolution=200, grey=True)
    (colour,) = plan(CORONAL, client=allen, resolution=200)
    target = built(CORONAL, resolution=200, grey=True)
    assert sum(path.is_file() for path in target.rglob("*")) == grey.objects
    assert grey.uncompressed_bytes * 7 == colour.uncompressed_bytes * 5  # 1 + 4 bytes a voxel, and 3 + 4
    assert grey.tasks == colour.tasks


def test_a_target_in_colour_is_not_resumed_in_grey_nor_the_other_way(allen, built):
    for grey in (False, True):
        target = built(CORONAL, resolution=200, grey=grey)
        with raises(InputError, "different-options") as caught:
            build(CORONAL, target, client=allen, resolution=200, grey=not grey)
        assert "grey True" in str(caught.value)
        assert "no grey" in str(caught.value)
        assert build(CORONAL, target, client=allen, resolution=200, grey=grey).views[0].state == "already finished"


def test_the_request_of_a_target_in_colour_is_as_before_the_option(built):
    for grey, recorded in ((False, None), (True, True)):
        target = built(CORONAL, resolution=200, grey=grey)
        request = json.loads((target / "atlaszarr" / "build.json").read_text())["request"]
        assert request.get("grey") is recorded


def test_a_damaged_grey_target_is_named_and_repaired(allen, built, tmp_path):
    target = tmp_path / "x.ome.zarr"
    shutil.copytree(built(CORONAL, resolution=200, grey=True), target)
    chunk = next(path for path in sorted((target / "0" / "c").rglob("*")) if path.is_file())
    body = chunk.read_bytes()
    chunk.unlink()
    assert not verify(target).ok
    assert build(CORONAL, target, client=allen, resolution=200, grey=True).views[0].state == "resumed"
    assert chunk.read_bytes() == body


def test_grey_is_an_option_of_what_is_written_alone(allen):
    with raises(InputError, "unknown-option"):
        open_volume(CORONAL, client=allen, grey=True)
    with raises(InputError, "invalid-value") as caught:
        plan(CORONAL, client=allen, grey="yes")
    assert "'yes'" in str(caught.value)


def test_the_command_builds_and_plans_in_grey(command, emulator, tmp_path):
    options = ("--resolution", 200, "--grey", "--api-url", emulator.url, "--cache", "none", "--json")
    planned = command("plan", CORONAL, *options)
    built = command("build", CORONAL, tmp_path / "x.ome.zarr", *options)
    assert (planned.code, built.code) == (0, 0)
    assert json.loads(planned.out)[0]["objects"] == json.loads(built.out)["views"][0]["plan"]["objects"]
    assert arrays(tmp_path / "x.ome.zarr")[0].shape == (66, 40, 57)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")
def test_a_real_section_in_grey_is_the_mean_of_its_colours(tmp_path):
    body = (DATA / "sections" / f"{IMAGE}_downsample2.jpg").read_bytes()
    with Emulator(pixels={IMAGE: {2: body}}) as api, AllenClient(api.url, cache="none", rate=1e9) as client:
        for grey in (False, True):
            build(SAGITTAL, tmp_path / str(grey), client=client, resolution=50, grey=grey)
    np.testing.assert_array_equal(arrays(tmp_path / "True")[0], half_even(arrays(tmp_path / "False")[0]))
