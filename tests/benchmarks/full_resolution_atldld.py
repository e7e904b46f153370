"""One section at 1 um, the classic way: one process of `full_resolution.py`, in an environment that has atldld.

    full_resolution_atldld.py DATASET REPORT.txt [--no-limit]

REPORT takes how far it came. `--no-limit` lifts Pillow's limit of pixels.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from atldld.sync import DatasetDownloader
from PIL import Image
from transport import Redirect


def main() -> None:
    Redirect(os.environ["ALLEN_API_URL"])
    if "--no-limit" in sys.argv:
        Image.MAX_IMAGE_PIXELS = None
    report = Path(sys.argv[2])
    downloader = DatasetDownloader(int(sys.argv[1]), downsample_ref=1)
    downloader.fetch_metadata()
    try:
        ((_, _, image, _, field),) = downloader.run()
    except Exception as error:
        report.write_text(f"{type(error).__name__} on reading the image: {error}")
        return
    try:
        plane = field.warp(image, c=image[0, 0].tolist())
    except Exception as error:
        report.write_text(f"{type(error).__name__} on warping: {error}")
        return
    report.write_text(f"a plane of {plane.shape[0]} x {plane.shape[1]} pixels")


if __name__ == "__main__":
    main()
