"""Measures the masks of all structures against BrainGlobe's own generator, and prints the table of README.md.

Both make one level of an annotation in fresh processes, from an array on disk to an OME-Zarr: of an invented one of
256^3 voxels and a tree with 64 regions, or of a given NRRD and ontology. They take turns; the fastest of each counts,
with the highest peak of memory. Linux only; takes some minutes, and an environment for the generator, of 1 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from measuring import Run, measure, wait_for_quiet

HERE = Path(__file__).parent
GENERATOR = "brainglobe-atlasapi==3.0.3"
#: What its generator of masks imports, at versions known to work with it; it needs Python 3.12.
REQUIREMENTS = [
    "DracoPy==2.2.0",
    "aiobotocore==3.10.0",
    "brainglobe-space==1.0.4",
    "click==8.5.1",
    "dask",
    "meshio==5.3.5",
    "ngff-zarr==0.50.0",
    "numba==0.68.1",
    "ome-zarr<0.17",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "requests==2.34.2",
    "rich==15.0.0",
    "s3fs==2026.9.0",
    "scikit-image",
    "tifffile==2026.11.8",
    "tqdm==4.70.1",
    "treelib==1.8.0",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, metavar="FILE", help=f"of an environment that has {GENERATOR}")
    parser.add_argument("--base", default="python3.12", help="the Python 3.12 to make one with (default: %(default)s)")
    parser.add_argument("--annotation", type=Path, metavar="FILE", help="an NRRD of 25 um (default: an invented one)")
    parser.add_argument("--ontology", type=Path, metavar="FILE", help="of the annotation")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (default: 3)")
    parser.add_argument("--quiet", type=float, default=180, metavar="SECONDS", help="to wait for a quiet machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        python = arguments.python or _environment(folder / "environment", arguments.base)
        ours = [sys.executable, HERE / "masks_contenders.py"]
        given = [one for one in (arguments.annotation, arguments.ontology) if one]
        subprocess.run([*ours, "read" if given else "prepare", folder / "source", *given], check=True)
        commands = {
            "atlaszarr": [*ours, "ours", folder / "source"],
            "brainglobe-atlasapi": [python, HERE / "masks_generator.py", folder / "source"],
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        inner: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(-1, arguments.repeat):  # the first compiles the kernels
            for name, command in commands.items():
                wait_for_quiet(arguments.quiet)
                output = folder / f"{name}-{number}"
                run = measure([*command, output], _environment_of(name, folder), os.getpid())
                if number >= 0:
                    runs[name].append(run)
                    inner[name].append(float((output / "seconds.txt").read_text()))
        what = arguments.annotation.name if arguments.annotation else "256^3 voxels, 64 regions"
        print(f"atlaszarr {version('atlaszarr')}, {GENERATOR}; {what}\n")
        print(
            "| | wall s | of it the work s | CPU s | peak GB | others, cores |\n| --- | --: | --: | --: | --: | --: |"
        )
        for name, some in runs.items():
            best = min(some, key=lambda run: run.wall)
            peak = max(run.peak for run in some)
            figures = (best.wall, min(inner[name]), best.cpu, peak, best.others)
            print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
        atlaszarr, generator = commands
        walls = {name: [run.wall for run in some] for name, some in runs.items()}
        for word, seconds in (("whole processes", walls), ("the work", inner)):
            print(f"{min(seconds[generator]) / min(seconds[atlaszarr]):.1f} times as fast ({word})")
        subprocess.run([*ours, "compare", *(folder / f"{name}-0" for name in commands)], check=True)
        print("the masks of both are the same")
    return 0


def _environment(folder: Path, base: str) -> Path:
    python = folder / "bin" / "python"
    subprocess.run([base, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*install, *REQUIREMENTS], check=True)
    subprocess.run([*install, "--no-deps", GENERATOR], check=True)
    return python


def _environment_of(name: str, folder: Path) -> dict[str, str]:
    # The peer's kernels are compiled once.
    kept = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kernels"), "PYTHONWARNINGS": "ignore"}
    if name != "atlaszarr":
        kept.pop("PYTHONPATH", None)
    return kept


if __name__ == "__main__":
    sys.exit(main())
