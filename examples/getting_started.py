"""The two examples of the classic getting-started page, of atldld: one image, and a loop that registers a dataset.

    python examples/getting_started.py FOLDER

saves every registered section as a JPEG. Without a network, `atlaszarr emulator` serves both; its alignment of
dataset 909 is invented.
"""

import sys
from pathlib import Path

import numpy as np
import simplejpeg

from atlaszarr import AllenClient, iter_sections, open_sections


def main(folder: Path) -> None:
    with AllenClient() as client:
        image = client.image(101321610)
        print(image.shape)  # (2656, 2856, 3)

        folder.mkdir(exist_ok=True)
        dataset = open_sections(909, resolution=25, view=("primary", "expression"), client=client)
        print(f"{dataset.sizes['section']} {dataset.plane_of_section} sections")
        for image_id, coordinate, image, expression, displacement in iter_sections(dataset):
            registered = displacement.warp(image)
            masked = displacement.warp(expression)
            print(
                f"{image_id} at {coordinate:.0f} um: {image.shape} to {registered.shape}, mask mean {masked.mean():.1f}"
            )
            jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(registered), quality=92)
            (folder / f"{image_id}.jpg").write_bytes(jpeg)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
