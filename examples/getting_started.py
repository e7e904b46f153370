"""
Getting started, as with atldld
===============================

The two examples of the getting-started page of atldld: one image, and a loop that registers a dataset and saves each
section as a JPEG. Without a network, ``atlaszarr emulator`` serves both; its alignment of dataset 909 is invented. ::

    python examples/getting_started.py FOLDER
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import simplejpeg

from atlaszarr import AllenClient, iter_sections, open_sections

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
figure, axes = plt.subplots(2, 4, figsize=(10, 4), layout="constrained")
with AllenClient() as client:
    image = client.image(101321610)
    print(image.shape)  # (2656, 2856, 3)
    dataset = open_sections(909, resolution=25, view=("primary", "expression"), client=client)
    print(f"{dataset.sizes['section']} {dataset.plane_of_section} sections")
    for panel, (image_id, at, image, expression, displacement) in zip(axes.flat, iter_sections(dataset), strict=True):
        registered, masked = displacement.warp(image), displacement.warp(expression)
        print(f"{image_id} at {at:.0f} um: {image.shape} to {registered.shape}, mask mean {masked.mean():.1f}")
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(registered), quality=92)
        (folder / f"{image_id}.jpg").write_bytes(jpeg)
        panel.imshow(registered)
        panel.set_title(f"{at / 1000:.2f} mm")
        panel.set_axis_off()
figure.suptitle("Registered coronal sections, 11.4 mm wide, superior up, left hemisphere on the left; titles: AP")
figure.savefig("getting_started.png")
