"""What atldld's users run to register a dataset, against the emulator: in an environment that has atldld.

    atldld_planes.py planes TIER [--output FILE.npz] [--detection X Y] [--voxel UM] [--section ID]
    atldld_planes.py command TIER --output FOLDER

`planes` takes DatasetDownloader and warps each image as it comes; the planes stay in memory, or go into FILE with
their coordinates; `--section` is for one of them alone, and `--work FILE` takes the seconds from the first call to the
last plane. `command` is `atldld download dataset`: a PNG a plane.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from transport import Redirect

DATASET = 74272479


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("planes", "command"))
    parser.add_argument("tier", type=int)
    parser.add_argument("--output")
    parser.add_argument("--detection", type=float, nargs=2, default=(0, 0), metavar=("X", "Y"))
    parser.add_argument("--voxel", type=int, default=25, metavar="UM")
    parser.add_argument("--section", type=int, metavar="ID")
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    Redirect(os.environ["ALLEN_API_URL"])
    if arguments.what == "command":
        from atldld.cli.root import root_cmd

        command = ["download", "dataset", str(DATASET), arguments.output, "--downsample-img", str(arguments.tier)]
        root_cmd(command, standalone_mode=False)
        return

    from atldld.sync import DatasetDownloader

    start = time.perf_counter()
    voxel = arguments.voxel
    options = {"downsample_ref": voxel, "downsample_img": arguments.tier, "detection_xy": tuple(arguments.detection)}
    downloader = DatasetDownloader(DATASET, **options)
    downloader.fetch_metadata()
    if arguments.section:
        (only,) = (image for image in downloader.metadata["images"] if image["id"] == arguments.section)
        downloader.metadata["images"] = [only]
    ids, coordinates, planes = [], [], []
    for image_id, coordinate, image, _, field in downloader.run():
        ids.append(image_id)
        coordinates.append(coordinate)
        planes.append(field.warp(image, c=image[0, 0].tolist()))  # as atldld's own command does
    expected = 1 if arguments.section else 60
    if len(planes) != expected or {plane.shape for plane in planes} != {(8000 // voxel, 11400 // voxel, 3)}:
        raise RuntimeError(f"{len(planes)} planes are not what was to be measured")
    if arguments.work:
        arguments.work.write_text(str(time.perf_counter() - start))
    if arguments.output:
        import numpy as np

        np.savez(arguments.output, ids=ids, coordinates=coordinates, planes=planes, voxel=downloader.downsample_ref)


if __name__ == "__main__":
    main()
