"""How far planes are off the phantom; see `sections.py`, which runs it so that its own memory stays small.

sections_errors.py NAME FILE.npz [NAME FILE.npz ...]
"""

import sys
from itertools import pairwise

import numpy as np
from accuracy import Figures, Samples

from atlaszarr.testing.phantom import default_phantom

ONE = 74081211  # the section that is also looked at alone
APART = 200.0  # um between the pixels that are looked at


def main() -> int:
    print("| | compared at | grey levels | displaced, um (p, i, r) | one section: grey levels | displaced, um |")
    print("| --- | --- | --: | --: | --: | --: |")
    figures, phantom = Figures.read(), default_phantom()
    for name, file in list(pairwise(sys.argv[1:]))[::2]:
        # A pixel of ours stands for the centre of a voxel; by its `sync`, one of atldld's for the corner.
        offset = 0.0 if name.startswith("atldld") else 0.5
        with np.load(file) as saved:
            ids, coordinates, planes, voxel = (saved[key] for key in ("ids", "coordinates", "planes", "voxel"))
        step = round(APART / voxel)
        part = planes[:, step // 2 :: step, step // 2 :: step]
        index = np.indices(part.shape[:3]).reshape(3, -1)
        down, across = (voxel * (index[axis] * step + step // 2 + offset) for axis in (1, 2))
        named = np.stack([coordinates[index[0]], down, across], axis=-1)
        depths = np.array([figures.depths[id] for id in ids.tolist()])[index[0]]
        samples = Samples(part.reshape(-1, 3).astype(float), named, figures.onto_plane(named, depths))
        only = ids[index[0]] == ONE
        one = Samples(samples.grey[only], named[only], samples.own_plane[only])
        for (where, _, errors, shift), (_, _, alone, moved) in zip(
            samples.figures(phantom), one.figures(phantom), strict=True
        ):
            cells = (f"{errors.mean():.2f}", micrometres(shift), f"{alone.mean():.2f}", micrometres(moved))
            print("|", " | ".join((name, where, *cells)), "|", flush=True)
    return 0


def micrometres(shift: np.ndarray) -> str:
    return " ".join(f"{um + 0.0:.1f}" for um in shift)


if __name__ == "__main__":
    sys.exit(main())
