"""The registered sections of a dataset, as atlaszarr's users make them: one measured process of `sections.py`.

    sections_ours.py WAY UM [--section ID] [--centre] [--no-limit] [--work FILE] [--output FILE.npz]

WAY is `dataset`, `loop` or `build`; `--no-limit` lifts the limit of rate. See `atldld_planes.py` for the rest.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from atlaszarr import AllenClient, build, iter_sections, open_sections

DATASET = 74272479


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("dataset", "loop", "build"))
    parser.add_argument("voxel", type=float)
    parser.add_argument("--section", type=int, metavar="ID")
    parser.add_argument("--centre", action="store_true")
    parser.add_argument("--no-limit", action="store_true")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    options = {"resolution": arguments.voxel, "detection_xy": "centre" if arguments.centre else (0, 0)}
    start = time.perf_counter()
    with (
        AllenClient(cache="none", **({"rate": 1e9} if arguments.no_limit else {})) as client,
        tempfile.TemporaryDirectory(prefix="sections-") as scratch,
    ):
        record = client.section_dataset(DATASET)
        if arguments.section:
            only = tuple(section for section in record.sections if section.image_id == arguments.section)
            record = replace(record, sections=only)
        ids, coordinates = [], []
        if arguments.way == "dataset":
            planes = open_sections(record, client=client, **options).image.values
        elif arguments.way == "loop":
            planes = []
            for image_id, coordinate, image, _, field in iter_sections(record, client=client, **options):
                ids.append(image_id)
                coordinates.append(coordinate)
                planes.append(field.warp(image, constant=image[0, 0].tolist()))
        else:
            target = Path(scratch, "sections.ome.zarr")
            if not build(record, target, mode="sections", client=client, **options).ok:
                raise RuntimeError("the build is not whole")
            planes = Built(target, len(record.sections))
        if len(planes) != (1 if arguments.section else 60):
            raise RuntimeError(f"{len(planes)} planes are not what was to be measured")
        if arguments.work:
            arguments.work.write_text(str(time.perf_counter() - start))
        if arguments.output:
            if not ids:
                opened = open_sections(record, client=client, **options)
                ids, coordinates = opened.image_id.values, opened.coordinate.values
            np.savez(arguments.output, ids=ids, coordinates=coordinates, planes=list(planes), voxel=arguments.voxel)
    return 0


class Built:
    """The planes of a collection on disk, read when they are asked for."""

    def __init__(self, target: Path, count: int) -> None:
        self._target, self._count = target, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, section: int) -> np.ndarray:
        import zarr

        if section >= self._count:
            raise IndexError
        return np.moveaxis(zarr.open_array(self._target / f"{section}" / "0", mode="r")[:, 0], 0, -1)


if __name__ == "__main__":
    sys.exit(main())
