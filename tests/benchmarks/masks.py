"""Measures the masks of all structures against BrainGlobe's own generator, and prints the table of README.md.

Both make one level of an invented annotation of 256^3 voxels and a tree with 64 regions in fresh processes, from
arrays in memory to an OME-Zarr on disk. They take turns; the fastest of each counts, with the highest peak of memory.
Linux only; takes some minutes, and an environment for brainglobe-atlasapi[atlasgen], of 1 GB.
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
GENERATOR = "brainglobe-atlasapi[atlasgen]==3.0.2"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, metavar="FILE", help=f"of an environment that has {GENERATOR}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (default: 3)")
    parser.add_argument("--quiet", type=float, default=180, metavar="SECONDS", help="to wait for a quiet machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        python = arguments.python or _environment(folder / "environment")
        ours = [sys.executable, HERE / "masks_contenders.py"]
        subprocess.run([*ours, "prepare", folder / "source"], check=True)
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
        print(f"atlaszarr {version('atlaszarr')}, {GENERATOR}; 256^3 voxels, 64 regions\n")
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
