"""How far what atlaszarr builds, and what atldld registers, is from the phantom's closed form: prints README's table.

Both read the same section images of the same emulator. The closed form is evaluated with the figures of the
dataset alone, multiplied out here, not with either's geometry.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import zarr
from serving import DATASET, make_peer, served

from atlaszarr import AllenClient, build
from atlaszarr.testing.phantom import Phantom, default_phantom

TIER = 4
VOXEL = 25.0
STEP = 8  # every so many voxels, or pixels of a plane, along an axis


@dataclass(frozen=True)
class Figures:
    """Of the dataset, as recorded: section images to the reference space (r = tvr v) and back (v = trv r), in um."""

    trv: np.ndarray
    tvr: np.ndarray
    depths: dict[int, float]
    centre: tuple[float, float]
    """Of the mean section image, in pixels."""

    @classmethod
    def read(cls) -> "Figures":
        folder = files("atlaszarr.testing") / "figures"

        def rows(name: str, key: str) -> list[dict[str, str]]:
            lines = (folder / name).read_text().splitlines()
            found = csv.DictReader(line for line in lines if not line.startswith("#"))
            return [row for row in found if int(row[key]) == DATASET]

        (record,) = rows("section_datasets.csv", "id")
        images = rows("section_images.csv", "data_set_id")

        def matrix(name: str) -> np.ndarray:
            figures = [float(record[f"{name}_{k:02d}"]) for k in range(12)]
            return np.column_stack([np.reshape(figures[:9], (3, 3)), figures[9:]])

        thickness = float(record["section_thickness"])
        depths = {int(row["id"]): thickness * int(row["section_number"]) for row in images}
        centre = tuple(np.mean([float(row[side]) for row in images]) / 2 for side in ("width", "height"))
        return cls(matrix("trv"), matrix("tvr"), depths, centre)

    def to_sections(self, pir: np.ndarray) -> np.ndarray:
        return pir @ self.trv[:, :3].T + self.trv[:, 3]

    def onto_plane(self, pir: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The points of a section's own plane that are straight above or below some points."""
        point = self.to_sections(pir)
        point[:, 2] = depth
        return point @ self.tvr[:, :3].T + self.tvr[:, 3]


@dataclass(frozen=True)
class Samples:
    """Pixels or voxels, n of them."""

    grey: np.ndarray
    """What they show: (n, 3)."""

    named: np.ndarray
    """The points that they stand for: (p, i, r) in um, (n, 3)."""

    own_plane: np.ndarray
    """Those points moved, along the depth, onto the plane of the section that is shown there: (n, 3)."""

    blended: bool = False
    """Whether they show two sections at once, and so the plane of neither."""

    def rows(self, phantom: Phantom) -> Iterator[tuple[str, ...]]:
        """`figures` as text."""
        for where, count, errors, shift in self.figures(phantom):
            yield where, str(count), *(f"{e:.2f}" for e in errors), *(f"{s + 0.0:.1f}" for s in shift)

    def figures(self, phantom: Phantom) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
        """Where it is compared; how many lie well inside smooth parts of the brain; of these the mean absolute error
        (red, green, blue), and the shift (p, i, r) that would explain the differences best, by least squares."""
        inside = (phantom.distance_to_edge(self.named) > 300) & (phantom.distance_to_edge(self.own_plane) > 100)
        inside &= (phantom.labels(self.named) > 0) & (phantom.labels(self.own_plane) > 0)
        ways = [("the point it stands for", self.named), ("the section's own plane", self.own_plane)]
        for where, points in ways[:1] if self.blended else ways:
            at = points[inside]
            difference = self.grey[inside] - phantom.rgb(at)
            gradient = np.stack([phantom.rgb(at + d) - phantom.rgb(at - d) for d in np.eye(3)], -1) / 2
            errors = np.abs(difference).mean(axis=0)
            shift = np.linalg.lstsq(gradient.reshape(-1, 3), difference.reshape(-1), rcond=None)[0]
            yield where, len(at), errors, shift


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="as of build.py")
    arguments = parser.parse_args()
    print("| | compared at | points | red | green | blue | shift p, um | shift i, um | shift r, um |")
    print("| --- | --- | --: | --: | --: | --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        keep = (arguments.keep or Path(scratch) / "keep").absolute()
        peer = make_peer(keep)
        with served(keep / "drawn", (0, TIER)) as server:
            for name, samples in subjects(peer, server.url, Path(scratch)):
                for row in samples.rows(default_phantom()):
                    print("|", " | ".join((name, *row)), "|", flush=True)
    return 0


def subjects(peer: Path, url: str, scratch: Path) -> Iterator[tuple[str, Samples]]:
    figures = Figures.read()
    for fill in ("nearest", "linear"):
        yield f"atlaszarr, {fill}, tier {TIER}", ours(url, scratch / fill, fill, figures)
    yield f"atldld, tier {TIER}", theirs(peer, url, scratch, figures, TIER)
    at_centre = theirs(peer, url, scratch, figures, TIER, figures.centre)
    yield f"atldld, tier {TIER}, detection point in mid-image", at_centre
    yield "atldld, tier 0 (its default)", theirs(peer, url, scratch, figures, 0)


def ours(url: str, target: Path, fill: str, figures: Figures) -> Samples:
    """Voxels of a volume; voxel k stands for (k + 1/2) 25 um, and shows the section of the nearest depth."""
    with AllenClient(url, cache="none", rate=1e9) as client:
        if not build(DATASET, target, client=client, resolution=VOXEL, downsample=TIER, fill=fill).ok:
            raise RuntimeError("the build is not whole")
    image, section = (zarr.open_array(target / path, mode="r") for path in ("0", "labels/section/0"))
    part = (slice(STEP // 2, None, STEP),) * 3
    ids = section[:][part]
    shown = np.argwhere(ids)
    named = (shown * STEP + STEP // 2 + 0.5) * VOXEL
    depths = np.array([figures.depths[id] for id in ids[tuple(shown.T)].tolist()])
    nearest = np.abs(figures.to_sections(named)[:, 2:] - list(figures.depths.values())).min(axis=1)
    np.testing.assert_array_equal(nearest, np.abs(figures.to_sections(named)[:, 2] - depths))
    grey = image[:][(slice(None), *part)][(slice(None), *shown.T)].T.astype(float)
    return Samples(grey, named, figures.onto_plane(named, depths), blended=fill == "linear")


def theirs(
    peer: Path, url: str, scratch: Path, figures: Figures, tier: int, detection: tuple[float, float] = (0.0, 0.0)
) -> Samples:
    """Pixels of atldld's planes.

    By `get_parallel_transform` of its `sync`, pixel (row, column) of a coronal plane stands for
    (slice coordinate, 25 row, 25 column) um: the corner of what would be a voxel, not its centre.
    """
    output = scratch / "planes.npz"
    script = Path(__file__).with_name("atldld_planes.py")
    environment = {**os.environ, "ALLEN_API_URL": url, "XDG_CACHE_HOME": str(scratch / "cache")}
    environment.pop("PYTHONPATH", None)
    command = [peer, script, "planes", str(tier), "--output", output, "--detection", *map(str, detection)]
    subprocess.run(command, env=environment, check=True)
    with np.load(output) as saved:
        ids, coordinates, planes, voxel = (saved[name] for name in ("ids", "coordinates", "planes", "voxel"))
    assert voxel == VOXEL
    part = planes[:, ::STEP, ::STEP]
    index = np.indices(part.shape[:3]).reshape(3, -1)
    named = np.stack([coordinates[index[0]], index[1] * STEP * VOXEL, index[2] * STEP * VOXEL], axis=-1)
    depths = np.array([figures.depths[id] for id in ids.tolist()])[index[0]]
    return Samples(part.reshape(-1, 3).astype(float), named, figures.onto_plane(named, depths))


if __name__ == "__main__":
    sys.exit(main())
