"""What other programs make of the sections of `refinement.py`: prints a table of error and time.

Each gets the section and the means of its regions at the recorded registration, over the same grid; a template would
not have the greys of the drawn sections. Programs are found in the environments that are given, which pip makes:
`--python simpleitk=ENV/bin/python dipy=... elastix=...`; those that are not given are left out.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from refinement import DEPTHS, KINDS, RESOLUTION, SEEDS, brain_of, draw, errors
from refinement_peer import RECIPES

from atlaszarr.geometry.plane import PLANES
from atlaszarr.refinement.darkness import darkness
from atlaszarr.refinement.regions import PlaneRegions
from atlaszarr.refinement.section import refine_section

PEER = Path(__file__).with_name("refinement_peer.py")
OURS, START = "atlaszarr, both fits", "recorded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotation", help="a file of the whole space; default: the brain-like phantom")
    parser.add_argument("--seeds", choices=SEEDS, default="judging")
    parser.add_argument("--python", nargs="+", default=[], metavar="PROGRAM=PYTHON")
    given = parser.parse_args()
    pythons = dict(item.split("=", 1) for item in given.python)
    found: dict[str, list[tuple[float, ...]]] = {}
    with brain_of(given.annotation) as brain, tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        for plane in DEPTHS:
            for kind in KINDS:
                for seed in SEEDS[given.seeds]:
                    image, labels, truth, there = draw(brain, PLANES[plane], kind, seed)
                    inside = np.ones(labels.shape, bool)
                    start = errors(np.zeros(truth.shape), truth, there)
                    found.setdefault(START, []).append((*start, *start, 0.0))
                    begun = time.process_time()
                    refined = refine_section(image, inside, labels, RESOLUTION)
                    seconds = time.process_time() - begun
                    found.setdefault(OURS, []).append((*start, *errors(refined.field, truth, there), seconds))
                    dark = darkness(image, inside)
                    regions = PlaneRegions.of(labels, RESOLUTION)
                    fixed = regions.means(dark, regions.near)
                    section, field = Path(scratch) / "section.npz", Path(scratch) / "field.npy"
                    moving = dark.astype(np.float32)
                    np.savez(section, fixed=fixed.astype(np.float32), moving=moving, mask=regions.near, um=RESOLUTION)
                    for recipe in RECIPES:
                        python = pythons.get(recipe.split(",")[0].lower())
                        if python is None:
                            continue
                        command = [python, str(PEER), recipe, str(section), str(field)]
                        done = subprocess.run(command, capture_output=True, text=True, check=False)
                        if done.returncode:
                            print(
                                f"{recipe}, {plane} {kind} {seed}: {done.stderr.strip().splitlines()[-1]}", flush=True
                            )
                            continue
                        seconds = float(done.stdout.split()[-1])
                        ends = errors(np.load(field), truth, there)
                        found.setdefault(recipe, []).append((*start, *ends, seconds))
    print(
        "| | sections | displaced: median, um | 95th percentile, um | median at most 0.4 of the start "
        "| 95th percentile worse than the start | already right: median, um | CPU s |\n"
        "| --- | --: | --: | --: | --: | --: | --: | --: |"
    )
    for name, rows in found.items():
        table = np.array(rows)
        moved = table[:, 0] > 0
        before, after = table[moved], table[~moved]
        print(
            f"| {name} | {len(rows)} | {np.median(before[:, 2]):.0f} | {np.median(before[:, 3]):.0f} "
            f"| {(before[:, 2] <= 0.4 * before[:, 0]).mean():.0%} | {(before[:, 3] > before[:, 1]).mean():.0%} "
            f"| {np.median(after[:, 2]):.0f}, at most {after[:, 2].max():.0f} | {np.median(table[:, 4]):.1f} |"
        )


if __name__ == "__main__":
    main()
