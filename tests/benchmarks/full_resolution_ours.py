"""One section at 1 um, as atlaszarr's users make it: one process of `full_resolution.py`.

    full_resolution_ours.py records FILE.json
    full_resolution_ours.py reduce|build|check DATASET

`records` writes what the emulator is to serve: one section of 69289763, and an invented one. `reduce` takes the
Dataset's mean, block by block; `build` writes the collection; `check` says how far off the phantom the planes are.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from atlaszarr import AllenClient, build, open_sections

PUBLISHED, IMAGE = 69289763, 69177654
INVENTED, SIZE, PIXEL = 900000001, (34000, 27000), 0.35
#: Full resolution, also where the rule would take a coarser tier: at 1 um that of 0.7 um pixels.
OPTIONS = {"resolution": 1, "downsample": 0}


def main() -> int:
    what, given = sys.argv[1:]
    if what == "records":
        Path(given).write_text(json.dumps(records()))
        return 0
    with AllenClient(cache="none") as client:
        if what == "build":
            with tempfile.TemporaryDirectory(prefix="full-") as scratch:
                if not build(
                    int(given), Path(scratch, "section.ome.zarr"), mode="sections", client=client, **OPTIONS
                ).ok:
                    raise RuntimeError("the build is not whole")
            return 0
        opened = open_sections(int(given), client=client, **OPTIONS)
        if what == "reduce":
            opened.image.mean(("section", "y", "x")).values  # noqa: B018
        else:
            print(f"{error(opened, client.section_dataset(int(given))):.2f}")
    return 0


def records() -> dict[str, list]:
    """The published dataset with one of its sections, and an invented one that is cut straight through mid-brain.

    Its image is of 34,000 x 27,000 pixels of 0.35 um, lies a degree turned about the phantom's centre, (7000, 4100,
    5700) um, and goes beyond the space's sides.
    """
    from atlaszarr.testing.records import dataset_records, image_record, image_records

    (published,) = (record for record in dataset_records() if record["id"] == PUBLISHED)
    (image,) = (record for record in image_records() if record["id"] == IMAGE)
    turn = np.radians(1)
    to_section = PIXEL * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = to_section @ (np.array(SIZE) / 2)
    tvr = np.array([[0, 0, 1, 0], [0, 1, 0, 4100 - middle[1]], [1, 0, 0, 5700 - middle[0]]])
    trv = np.array([[0, 0, 1, middle[0] - 5700], [0, 1, 0, middle[1] - 4100], [1, 0, 0, 0]])
    alignment = {"aligned_id": INVENTED, "aligned_type": "DataSet", "id": INVENTED}
    for name, matrix in (("tvr", tvr), ("trv", trv)):
        cells = [*matrix[:, :3].reshape(-1), *matrix[:, 3]]
        alignment |= {f"{name}_{k:02d}": float(cell) for k, cell in enumerate(cells)}
    lying = {"id": INVENTED + 1, "section_image_id": INVENTED + 1}
    for name, matrix in (("tsv", to_section), ("tvs", np.linalg.inv(to_section))):
        lying |= {f"{name}_{k:02d}": float(cell) for k, cell in enumerate([*matrix.reshape(-1), 0.0, 0.0])}
    dataset = published | {"id": INVENTED, "plane_of_section_id": 1, "reference_space_id": 9, "alignment3d": alignment}
    invented = image_record(INVENTED + 1, INVENTED, 280, SIZE, resolution=PIXEL) | {"alignment2d": lying}
    return {"datasets": [published, dataset], "images": [image, invented]}


def error(opened, record) -> float:
    """Mean absolute, in grey levels, of every 97th pixel in smooth tissue, at its point on the section's own plane."""
    from atlaszarr.testing.phantom import default_phantom

    phantom, every = default_phantom(), slice(48, None, 97)
    thin = opened.image.isel(section=0, y=every, x=every).compute()
    axes = {"p_um": 0, "i_um": 1, "r_um": 2}
    pir = np.empty((*thin.shape[:2], 3))
    for name, axis in axes.items():
        if name in thin.coords:
            pir[..., axis] = thin[name].values[:, None] if thin[name].dims == ("y",) else thin[name].values
        else:
            pir[..., axis] = float(thin.coordinate)
    points = pir @ np.asarray(record.trv)[:3, :3].T + np.asarray(record.trv)[:3, 3]
    points[..., 2] = record.sections[0].depth
    points = points @ np.asarray(record.tvr)[:3, :3].T + np.asarray(record.tvr)[:3, 3]
    smooth = (phantom.distance_to_edge(points) > 50) & (phantom.labels(points) > 0)
    return float(np.abs(thin.values[smooth] - phantom.rgb(points[smooth])).mean())


if __name__ == "__main__":
    sys.exit(main())
