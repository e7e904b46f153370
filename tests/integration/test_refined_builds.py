"""Builds with refined fields against the closed form of the phantom.

A refinement with known fields and known corrections of depth is wrong on purpose: each section of the emulator shows
what its records say, so the builds must show it where the fields put it. The closed form takes the matrices from the
recorded figures, as in `test_volume_truth`.
"""

import csv

import numpy as np
import pytest
import zarr

from atlaszarr import build
from closed_form import figures, misplacement
from refined_folders import wave, write_refinement

CORONAL, SAGITTAL = 74272479, 69289763
#: The axes (p, i, r) along columns and rows of a plane, and across it.
PLANES = {CORONAL: (2, 1, 0), SAGITTAL: (0, 1, 2)}
SHIFT = 130.0


@pytest.fixture(scope="module")
def refined(allen, made_once):
    """FIELDS of a dataset with a wave for each section and a common correction of depth: ``refined(id, **options)``."""

    def folder(id, shift=SHIFT, **options):
        dataset = allen.section_dataset(id)
        ids = [section.image_id for section in dataset.sections]

        def make(path):
            field, _ = wave(dataset, **options)
            write_refinement(path, dataset, dict.fromkeys(ids, shift), dict.fromkeys(ids, field), **options)

        return made_once(f"fields of {id} {shift:g} {sorted(options.items())}", make)

    return folder


def shown_at(dataset, wave_at, pir, shift=SHIFT, depth=None):
    """The points of the specimen that a build shows at points, and the number of the section; from the figures alone.

    `depth` is the corrected depth of the section that is shown, by default that of the nearest one.
    """
    (trv, origin), (tvr, back), thickness, numbers = figures(dataset)
    recorded = thickness * np.array(list(numbers.values()))
    columns, rows, _ = PLANES[dataset]
    corrected = (pir @ trv.T + origin)[:, 2] if depth is None else depth
    nearest = np.abs(np.reshape(corrected, (-1, 1)) - (recorded + shift)).argmin(axis=1)
    moved = pir.copy()
    u, v = wave_at(pir[:, columns], pir[:, rows])
    moved[:, columns] += u
    moved[:, rows] += v
    plane = moved @ trv.T + origin
    plane[:, 2] = recorded[nearest]
    return plane @ tvr.T + back, np.array(list(numbers))[nearest]


def agreement(phantom, image, at):
    """Mean absolute difference in grey levels, and the shift in um that explains it best, where tissue is smooth."""
    inside = (phantom.distance_to_edge(at) > 100) & (phantom.labels(at) > 0) & image.any(axis=1)
    assert inside.sum() > 500
    values, at = image[inside].astype(float), at[inside]
    gradient = np.stack([phantom.rgb(at + d) - phantom.rgb(at - d) for d in np.eye(3)], -1) / 2
    difference = values - phantom.rgb(at)
    return np.abs(difference).mean(axis=0).max(), np.abs(misplacement(difference, gradient)).max()


@pytest.mark.parametrize(
    ("id", "resolution", "options"),
    [
        (CORONAL, 100, {}),
        pytest.param(CORONAL, 25, {}, marks=pytest.mark.slow),
        pytest.param(SAGITTAL, 100, {}, marks=pytest.mark.slow),
        pytest.param(SAGITTAL, 100, {"mirror": True}, marks=pytest.mark.slow),
        pytest.param(CORONAL, 100, {"mirror": True}, marks=pytest.mark.slow),
    ],
)
def test_a_volume_shows_sections_where_fields_and_depths_put_them(
    emulator, allen, refined, tmp_path, id, resolution, options
):
    folder = refined(id)
    target = tmp_path / "x.ome.zarr"
    assert build(id, target, resolution=resolution, fields=folder, client=allen, **options).ok
    image, section = (zarr.open_array(target / path, mode="r")[:] for path in ("0", "labels/section/0"))
    if options:
        image, section = image[..., ::-1], section[..., ::-1]
    step = round((200 if resolution == 25 else 300) / resolution)
    index = np.stack(np.meshgrid(*(np.arange(step // 2, n, step) for n in section.shape), indexing="ij"), -1)
    index = index.reshape(-1, 3)
    index = index[section[tuple(index.T)] > 0]
    pir = (index + 0.5) * resolution
    _, wave_at = wave(allen.section_dataset(id))
    at, ids = shown_at(id, wave_at, pir)
    np.testing.assert_array_equal(section[tuple(index.T)], ids)
    error, shift = agreement(emulator.phantom, image[(slice(None), *index.T)].T, at)
    assert error <= 1.0
    assert shift < (2 if resolution == 25 else 4)


@pytest.mark.parametrize("id", [CORONAL, pytest.param(SAGITTAL, marks=pytest.mark.slow)])
def test_planes_show_sections_where_fields_and_depths_put_them(emulator, allen, refined, tmp_path, id):
    target = tmp_path / "x.ome.zarr"
    options = {"mode": "sections", "resolution": 100, "detection_xy": "centre"}
    assert build(id, target, fields=refined(id), client=allen, **options).ok
    _, _, thickness, numbers = figures(id)
    fixed = PLANES[id][2]
    _, wave_at = wave(allen.section_dataset(id))
    with (target / "atlaszarr/sections.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["state"] == "used"]
    images, shown = [], []
    for row in table[5:-5:3]:
        number = numbers[int(row["image_id"])]
        assert float(row["depth_um"]) == pytest.approx(number * thickness + SHIFT, abs=1e-9)
        image = zarr.open_array(target / row["path"] / "0", mode="r")[:]
        grid = [np.arange(0 if axis == fixed else 1, n, 2) for axis, n in enumerate(image.shape[1:])]
        index = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 3)
        pir = (index + 0.5) * 100.0
        pir[:, fixed] = float(row["coordinate_um"])
        at, ids = shown_at(id, wave_at, pir, depth=number * thickness + SHIFT)
        assert set(ids) == {int(row["image_id"])}
        images.append(image[(slice(None), *index.T)].T)
        shown.append(at)
    error, shift = agreement(emulator.phantom, np.concatenate(images), np.concatenate(shown))
    assert error <= 1.0
    assert shift < 6  # half a pixel of the tier has 17 um; without fields, 4.4 are measured
