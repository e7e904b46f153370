"""The retrosplenial area in an atlas: its volume, and two sections through it. Needs no atlaszarr.

    python examples/retrosplenial_plain.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/retrosplenial_plain.py s3://BUCKET/.../annotation.ome.zarr --storage-options '{"anon": true}'

pandas reads the terminology next to the annotation, ngff-zarr reads the annotation, and dask counts voxels chunk by
chunk. With `--picture PATH` Pillow draws the counted voxels: see two_sections.py.
"""

import argparse
import json
import math

import dask.array as da
import pandas as pd
from ngff_zarr import from_ngff_zarr


def main(url: str, storage_options: dict | None, picture: str | None) -> None:
    terminology = pd.read_csv(url.rpartition("/")[0] + "/terminology.csv", storage_options=storage_options)
    region = terminology[terminology["abbreviation"].str.startswith("RSP")]
    name = region.loc[region["abbreviation"] == "RSP", "name"].item()
    ids = region["annotation_value"].to_numpy()  # the values of the voxels
    print(f"{name}: {len(ids)} structures, ids {', '.join(map(str, ids))}")

    image = from_ngff_zarr(url, validate=True, storage_options=storage_options).images[0]
    orientations = {axis: orientation.value.value for axis, orientation in image.axes_orientations.items()}
    print("axes:", *image.dims, image.data.shape)
    print("orientations:", orientations)
    print("units:", image.axes_units)
    print("scale:", image.scale)

    inside = da.isin(image.data, ids)
    voxels = int(inside.sum().compute())
    if set(image.axes_units.values()) != {"millimeter"}:
        raise SystemExit("the scale is not in millimetres")
    voxel_mm3 = math.prod(image.scale.values())
    print(f"{voxels} voxels of {voxel_mm3:g} mm3")
    print(f"{name}: {voxels * voxel_mm3:.2f} mm3")

    if picture:
        from two_sections import draw

        draw(image, inside, orientations, name).save(picture)
        print("picture:", picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotation", help="path or URL")
    parser.add_argument("--storage-options", type=json.loads, metavar="JSON", help="options of the store of a URL")
    parser.add_argument("--picture", metavar="PATH", help="a .png file to draw")
    given = parser.parse_args()
    main(given.annotation, given.storage_options, given.picture)
