"""Volumes and sections from slides of an image source, against the phantom's closed form."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import zarr

import written_slides
from atlaszarr import build
from conftest import DATASET


@pytest.fixture
def source(serve, connect, tmp_path):
    """Writes a bucket of the six sections to a folder: ``source(tiers, ...)`` -> (client, emulator, folder)."""

    def start(tiers, images=None, lacking=(), **options):
        emulator = serve(images=images)
        folder = written_slides.write(
            written_slides.bucket(emulator, DATASET, tiers, lacking=lacking, **options), tmp_path / "bucket"
        )
        return connect(emulator, image_source=folder), emulator, folder

    return start


def rows(target, name="sections"):
    return list(csv.DictReader(io.StringIO(Path(target, f"atlaszarr/{name}.csv").read_text())))


def differences(emulator, dataset, image, section, resolution):
    """Grey levels (n, 3) off the closed form at the section's own plane, and its gradients a um (n, 3, 3)."""
    index = np.argwhere(section)
    index = index[:: max(1, len(index) // 60_000)]
    pir = (index + 0.5) * resolution
    tvr, trv = (np.asarray(matrix) for matrix in dataset.alignment)
    depths = {s.image_id: s.depth for s in dataset.sections}
    plane = pir @ trv[:, :3].T + trv[:, 3]
    plane[:, 2] = [depths[id] for id in section[tuple(index.T)].tolist()]
    at = plane @ tvr[:, :3].T + tvr[:, 3]
    phantom = emulator.phantom
    inside = (phantom.distance_to_edge(at) > 100) & (phantom.labels(at) > 0)
    assert inside.sum() > 1500
    at, values = at[inside], image[(slice(None), *index[inside].T)].T.astype(float)
    gradient = np.stack([phantom.rgb(at + d) - phantom.rgb(at - d) for d in np.eye(3)], -1) / 2
    return values - phantom.rgb(at), gradient


def misplacement(difference, gradient):
    """The least-squares fit of a shift (p, i, r) in um to the differences."""
    return np.linalg.lstsq(gradient.reshape(-1, 3), difference.reshape(-1), rcond=None)[0]


@pytest.mark.parametrize(("resolution", "tier"), [(50, 5), (25, 4)])
def test_a_volume_from_slides_is_the_phantom_at_the_planes_of_the_sections(source, tmp_path, resolution, tier):
    client, emulator, _ = source([tier])
    dataset = client.section_dataset(DATASET)
    target = tmp_path / "x.ome.zarr"
    assert build(dataset, target, client=client, resolution=resolution).ok
    image, section = (zarr.open_array(target / path, mode="r")[:] for path in ("0", "labels/section/0"))
    difference, gradient = differences(emulator, dataset, image, section, resolution)
    assert np.abs(difference).max() <= 1
    assert np.abs(misplacement(difference, gradient)[1:]).max() < 0.5
    assert np.abs(misplacement(difference, gradient)).max() < 2
    assert emulator.count("section_image_download") == 0
    assert all(int(row["tier"]) == tier for row in rows(target))
