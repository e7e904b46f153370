"""The volume of every region of an atlas on the left and on the right.

    python examples/regions_by_hemisphere.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/regions_by_hemisphere.py s3://BUCKET/.../annotation.ome.zarr '{"anon": true}'

All regions are counted in one pass. The last line says which side of the data is right: see the README.
"""

import json
import sys

import atlaszarr


def main(annotation: str, storage_options: dict | None = None) -> None:
    table = atlaszarr.region_volumes(annotation, by_hemisphere=True, storage_options=storage_options)
    held = table[table["voxels"] > 0].set_index("acronym")
    shown = held[["volume_mm3", "volume_left_mm3", "volume_right_mm3"]].copy()
    shown["left share"] = shown["volume_left_mm3"] / shown["volume_mm3"]
    print(shown.to_string(float_format="{:.4f}".format))
    print(f"{len(held)} regions; {table.attrs['hemispheres']}")


if __name__ == "__main__":
    main(sys.argv[1], *map(json.loads, sys.argv[2:]))
