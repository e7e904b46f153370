"""What atldld's users run to register a dataset, against the emulator: in an environment that has atldld.

    atldld_planes.py planes TIER [FILE.npz] [--detection X Y]
    atldld_planes.py command TIER FOLDER

`planes` takes DatasetDownloader and warps each image as it comes; the planes stay in memory, or go into FILE with
their coordinates. `command` is `atldld download dataset`: a PNG a plane.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from transport import Redirect

DATASET = 74272479


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("planes", "command"))
    parser.add_argument("tier", type=int)
    parser.add_argument("output", nargs="?")
    parser.add_argument("--detection", type=float, nargs=2, default=(0, 0), metavar=("X", "Y"))
    arguments = parser.parse_args()
    Redirect(os.environ["ALLEN_API_URL"])
    if arguments.what == "command":
        from atldld.cli.root import root_cmd

        command = ["download", "dataset", str(DATASET), arguments.output, "--downsample-img", str(arguments.tier)]
        root_cmd(command, standalone_mode=False)
        return

    from atldld.sync import DatasetDownloader

    downloader = DatasetDownloader(
        DATASET, downsample_img=arguments.tier, detection_xy=tuple(arguments.detection)
    )  # the rest, its 25 um among it, by default
    downloader.fetch_metadata()
    ids, coordinates, planes = [], [], []
    for image_id, coordinate, image, _, field in downloader.run():
        ids.append(image_id)
        coordinates.append(coordinate)
        planes.append(field.warp(image, c=image[0, 0].tolist()))  # as atldld's own command does
    if len(planes) != 60 or {plane.shape for plane in planes} != {(320, 456, 3)}:
        raise RuntimeError(f"{len(planes)} planes are not what was to be measured")
    if arguments.output:
        import numpy as np

        np.savez(arguments.output, ids=ids, coordinates=coordinates, planes=planes, voxel=downloader.downsample_ref)


if __name__ == "__main__":
    main()
