"""What atldld makes of two datasets, for `registered_sections.py` to judge: run by it where atldld is.

    atldld_registered.py FOLDER

FOLDER holds the fields `ours-*.npy`; `theirs.npz` is written next to them, and the fields that atldld saves.
"""

import os
import sys
from pathlib import Path

import numpy as np
from atldld.base import DisplacementField
from atldld.sync import DatasetDownloader, get_parallel_transform
from atldld.utils import get_image
from transport import Redirect

# Dataset, its plane, and a point well inside of all of its images.
DATASETS = ((74272479, "coronal", (2500.0, 2300.0)), (69289763, "sagittal", (6000.0, 3700.0)))
TIER = 4
EVERY = 6  # of the sections, one in so many


def main(folder: Path) -> None:
    Redirect(os.environ["ALLEN_API_URL"])
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    found = {}
    for dataset, plane, inside in DATASETS:
        for name, point in (("corner", (0.0, 0.0)), ("inside", inside)):
            downloader = DatasetDownloader(dataset, downsample_img=TIER, detection_xy=point)
            downloader.fetch_metadata()
            sections = list(downloader.run())[::EVERY]
            found |= _sections(f"{plane} {name} {TIER}", sections)
            if name == "corner":
                found |= _finer(plane, downloader, sections)
    found |= _files(folder, sections[1])
    np.savez(folder / "theirs.npz", **found)


def _sections(name: str, sections: list) -> dict[str, np.ndarray]:
    """The ids, slice coordinates, fields and registered planes of what the downloader yields."""
    ids, coordinates, images, _, fields = zip(*sections, strict=True)
    return {
        f"{name} ids": np.array(ids),
        f"{name} coordinates": np.array(coordinates),
        f"{name} fields": np.array([field.transformation for field in fields]),
        f"{name} planes": np.array([field.warp(image) for field, image in zip(fields, images, strict=True)]),
    }


def _finer(plane: str, downloader: DatasetDownloader, sections: list) -> dict[str, np.ndarray]:
    """Its fields at tier 0, without the images, and one section in mid-brain at tier 1."""
    images = {image["id"]: image for image in downloader.metadata["images"]}
    to_section = downloader.metadata["dataset"]["affine_trv"]

    def field(section: tuple, tier: int) -> DisplacementField:
        to_image = images[section[0]]["affine_tvs"]
        return get_parallel_transform(section[1], to_image, to_section, plane, downloader.downsample_ref, tier)

    middle = sections[len(sections) // 2]
    fine = (middle[0], middle[1], get_image(middle[0], downsample=1), None, field(middle, 1))
    return {f"{plane} fields at tier 0": np.array([field(section, 0).transformation for section in sections])} | (
        _sections(f"{plane} corner 1", [fine])
    )


def _files(folder: Path, section: tuple) -> dict[str, np.ndarray]:
    """What it saves, what it reads of ours, and one image warped by both in all ways."""
    _, _, image, _, affine = section
    y, x = np.indices(affine.shape) / 40
    bent = DisplacementField(affine.delta_x + 9 * np.sin(x + y), affine.delta_y + 7 * np.cos(x - y))
    found = {"image": image}
    for name, field in (("affine", affine), ("bent", bent)):
        field.save(folder / f"theirs-{name}.npy")
        found[f"{name} deltas"] = np.array([field.delta_x, field.delta_y])
        for way in ("nearest", "linear", "cubic", "lanczos"):
            found[f"{name} {way}"] = field.warp(image, interpolation=way, c=(238, 236, 232))
    for path in folder.glob("ours-*.npy"):
        found[path.stem] = np.array(DisplacementField.from_file(path).transformation)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
