"""Measures the core-seconds of a build of the phantom, and fits the constants of `atlaszarr.dataset_build.estimate`.

The processor time of this process, the least of three builds, after a first build that imports what is imported late;
the emulator is another process. The fit has no negative constants, and weighs relative errors.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from serving import served

DATASETS = (74272479, 69289763)
RESOLUTIONS = (25.0, 35.0, 50.0, 100.0)


def main(keep: str) -> None:
    from atlaszarr import AllenClient, build

    rows, seconds = [], []
    with served(Path(keep)) as server, AllenClient(server.url, "none", rate=1e9) as client:
        for dataset, resolution in ((DATASETS[0], 100.0), *((d, r) for d in DATASETS for r in RESOLUTIONS)):
            took = []
            for _ in range(3):
                with tempfile.TemporaryDirectory() as folder:
                    began, target = time.process_time(), f"{folder}/x.ome.zarr"
                    (view,) = build(dataset, target, client=client, resolution=resolution, workers=2).views
                    took.append(time.process_time() - began)
            seconds.append(min(took))
            voxels = view.plan.uncompressed_bytes / 7
            rows.append((1.0, view.plan.pixels / 1e6, voxels / 1e6))
            print(dataset, resolution, *(f"{value:.1f}" for value in rows[-1][1:]), f"{seconds[-1]:.2f} s", flush=True)
    fitted, _ = nnls(np.array(rows[1:]) / np.array(seconds[1:])[:, np.newaxis], np.ones(len(rows) - 1))
    print("seconds for a dataset, a million pixels, a million voxels:", fitted)


if __name__ == "__main__":
    main(sys.argv[1])
