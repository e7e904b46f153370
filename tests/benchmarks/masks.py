"""Measures the masks of all structures against BrainGlobe's own generator, and prints the table of README.md.

Both make one level of an invented annotation of 256^3 voxels and a tree with 64 regions in fresh processes, from
arrays in memory to an OME-Zarr on disk. They take turns; the fastest of each counts, with the highest peak of memory.
Linux only; takes some minutes, and an environment for brainglobe-atlasapi[atlasgen], of 1 GB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import dask.array as da
import numpy as np
from measuring import Run, measure, wait_for_quiet

HERE = Path(__file__).parent
GENERATOR = "brainglobe-atlasapi[atlasgen]==3.0.2"
SIDE, REGIONS = 256, 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, metavar="FILE", help=f"of an environment that has {GENERATOR}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (default: 3)")
    parser.add_argument("--quiet", type=float, default=180, metavar="SECONDS", help="to wait for a quiet machine")
    parser.add_argument("--ours", nargs=2, type=Path, metavar="DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        write_ours(*arguments.ours)
        return 0
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        python = arguments.python or _environment(folder / "environment")
        prepare(folder / "source")
        commands = {
            "atlaszarr": [sys.executable, HERE / "masks.py", "--ours", folder / "source"],
            "brainglobe-atlasapi": [python, HERE / "masks_generator.py", folder / "source"],
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for number in range(-1, arguments.repeat):  # the first compiles the kernels
            for name, command in commands.items():
                wait_for_quiet(arguments.quiet)
                output = folder / f"{name}-{number}"
                run = measure([*command, output], _environment_of(name, folder), os.getpid())
                if number >= 0:
                    runs[name].append(run)
        print(f"atlaszarr {version('atlaszarr')}, {GENERATOR}; {SIDE}^3 voxels, {REGIONS} regions\n")
        print("| | wall s | CPU s | peak GB | others, cores |\n| --- | --: | --: | --: | --: |")
        for name, some in runs.items():
            best = min(some, key=lambda run: run.wall)
            peak = max(run.peak for run in some)
            print(f"| {name} | {best.wall:.2f} | {best.cpu:.2f} | {peak:.2f} | {best.others:.2f} |")
        ratio = min(run.wall for run in runs["brainglobe-atlasapi"]) / min(run.wall for run in runs["atlaszarr"])
        print(f"\n{ratio:.1f} times as fast")
        compare(*(folder / f"{name}-0" for name in commands))
    return 0


def prepare(source: Path) -> None:
    """Labels in an ellipsoid of 64 patches, and a tree: the root, eight parents, eight regions of each."""
    source.mkdir()
    axis = np.arange(SIDE)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    distance = sum(((a - SIDE / 2) / (0.48 * SIDE)) ** 2 for a in (z, y, x))
    wave = (8 * np.sin(z / 17)).astype(int) + (8 * np.cos(x / 13)).astype(int)
    patch = (z + wave) // 64 % 4 * 16 + (y + wave) // 64 % 4 * 4 + x // 64
    np.save(source / "labels.npy", np.where(distance < 1, 100 + patch, 0).astype(np.uint32))
    paths = {1: [1], **{10 + i: [1, 10 + i] for i in range(8)}}
    paths |= {100 + i: [1, 10 + i // 8, 100 + i] for i in range(REGIONS)}
    structures = [
        {"id": id, "acronym": "root" if id == 1 else f"S{id}", "name": f"The {id}", "structure_id_path": path}
        for id, path in paths.items()
    ]
    (source / "structures.json").write_text(json.dumps(structures))


def write_ours(source: Path, output: Path) -> None:
    """The annotation, which its masks are made of, and the masks."""
    from atlaszarr.brainglobe.mask_writing import write_masks
    from atlaszarr.brainglobe.post_order import PostOrder
    from atlaszarr.finished import Finished
    from atlaszarr.ome import Geometry
    from atlaszarr.store import Target
    from atlaszarr.terminology import Structure, Terminology
    from atlaszarr.writing import write_multiscales

    tree = json.loads((source / "structures.json").read_text())
    terminology = Terminology(
        tuple(Structure(s["id"], s["acronym"], s["name"], "#FFFFFF", tuple(s["structure_id_path"])) for s in tree)
    )
    labels = da.from_array(np.load(source / "labels.npy"), chunks=128)
    annotation = Target.of(output / "annotation.ome.zarr")
    write_multiscales(labels, annotation.url, rule="mode", levels=1, geometry=Geometry((0.025,) * 3), identity="labels")
    write_masks(Finished.at(annotation), Target.of(output / "annotations.ome.zarr"), PostOrder.of(terminology))


def compare(ours: Path, theirs: Path) -> None:
    """Hold the masks of both to be the same."""
    import zarr

    one, other = (zarr.open_group(folder / "annotations.ome.zarr", mode="r") for folder in (ours, theirs))
    (level,) = (name for name, array in other.arrays() if array.ndim == 4)
    for channel in range(one["0"].shape[0]):
        np.testing.assert_array_equal(one["0"][channel], other[level][channel])
    print("the masks of both are the same")


def _environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", GENERATOR, "pandas<3.1"], check=True)
    return python


def _environment_of(name: str, folder: Path) -> dict[str, str]:
    kept = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kernels" / name), "PYTHONWARNINGS": "ignore"}
    if name != "atlaszarr":
        kept.pop("PYTHONPATH", None)
    return kept


if __name__ == "__main__":
    sys.exit(main())
