"""One coronal slice of a registered dataset: only the section images in it are fetched.

    python examples/lazy_slice.py 69289763 slice.jpg

The dataset is never downloaded whole: the slice is computed from the lazy volume, chunk by chunk.
"""

import sys
from pathlib import Path

import numpy as np
import simplejpeg

import atlaszarr


def main(dataset: int, out: str) -> None:
    with atlaszarr.AllenClient() as client:
        volume = atlaszarr.open_volume(dataset, resolution=50, fill="linear", client=client)
        # Coordinates are millimetres from the first 10 um voxel; p_um is in the reference space.
        plane = volume.sel(z=7.0, method="nearest").compute()
    sections = np.unique(plane.section)
    print(f"p = {float(plane.p_um):.0f} um, from {np.count_nonzero(sections)} section images")
    pixels = np.ascontiguousarray(plane.image.transpose("y", "x", "c").values)
    Path(out).write_bytes(simplejpeg.encode_jpeg(pixels, quality=92))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
