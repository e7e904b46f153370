"""The volume of the retrosplenial area in an atlas, in three lines.

    python examples/retrosplenial.py ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr
    python examples/retrosplenial.py s3://BUCKET/.../annotation.ome.zarr '{"anon": true}'

The volume of a structure includes its descendants in the terminology, which is next to the annotation.
"""

import json
import sys

import atlaszarr


def main(annotation: str, storage_options: dict | None = None) -> None:
    volumes = atlaszarr.region_volumes(annotation, storage_options=storage_options).set_index("acronym")
    region = volumes.loc["RSP"]
    print(f"{region['name']}: {region['volume_mm3']:.2f} mm3")


if __name__ == "__main__":
    main(sys.argv[1], *map(json.loads, sys.argv[2:]))
