"""Measures a whole build against atldld on the same emulator, and prints the tables of README.md.

Every measured run is a fresh process. Of its repetitions the fastest counts, and the highest peak of memory. The
section images are drawn before. Linux only; takes some ten minutes.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from measuring import Run, machine_memory, measure, wait_for_quiet
from serving import DATASET, Server, make_peer, served

HERE = Path(__file__).parent
TIER = 4  # the coarsest whose pixel is not larger than 25 um: what atlaszarr takes, and the best for atldld
VOXELS = 528 * 320 * 456 / 1e6
PIXELS = 60 * 320 * 456 / 1e6
OTHERS = 0.1  # cores kept busy by others, beyond which a figure is preliminary

NO_LIMIT = """
import sys
from atlaszarr import AllenClient, build
with AllenClient(cache="none", rate=1e9) as client:
    assert build(int(sys.argv[1]), sys.argv[2], client=client).ok
"""

OURS_PACKAGES = ("numpy", "zarr", "dask", "simplejpeg", "urllib3", "fsspec")
PEER_PACKAGES = ("atldld", "numpy", "opencv-python-headless", "pillow", "requests", "scikit-image")


@dataclass(frozen=True)
class Subject:
    name: str
    command: Sequence[str | Path]
    """With "OUTPUT" where it writes to, if it writes."""

    millions: float
    """Of registered voxels, or pixels of planes, that it makes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep atldld's environment and the drawn images here")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each kind (default: 3)")
    parser.add_argument(
        "--latency",
        type=float,
        default=0.3,
        metavar="SECONDS",
        help="that every answer takes at least, in the second half (default: 0.3; 0: no second half)",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        keep = (arguments.keep or Path(scratch) / "keep").absolute()
        progress("atldld's environment")
        peer = make_peer(keep)
        print_machine(peer)
        bench = Bench(peer, Path(scratch), arguments.repeat)
        tables = {}
        for latency in dict.fromkeys((0.0, arguments.latency)):
            progress("drawing what is not drawn yet")
            with served(keep / "drawn", (0, TIER), latency) as server:
                tables[latency] = bench.table(server, latency)
    print_ratios(tables)
    print_targets(tables[0.0])
    return 0


class Bench:
    """All the runs, in one scratch folder."""

    def __init__(self, peer: Path, scratch: Path, repeat: int) -> None:
        self.scratch, self.repeat = scratch, repeat
        ours = [sys.executable, "-m", "atlaszarr", "build", str(DATASET), "OUTPUT", "--cache", "none", "-q"]
        planes = [peer, HERE / "atldld_planes.py"]
        self.ours = Subject("atlaszarr build", ours, VOXELS)
        self.unlimited = Subject(
            "atlaszarr, no limit of rate", [sys.executable, "-c", NO_LIMIT, str(DATASET), "OUTPUT"], VOXELS
        )
        self.defaults = Subject("atldld, defaults (tier 0)", [*planes, "planes", "0"], PIXELS)
        self.best_tier = Subject(f"atldld, tier {TIER}", [*planes, "planes", str(TIER)], PIXELS)
        self.command = Subject(
            f"atldld download dataset, tier {TIER}", [*planes, "command", str(TIER), "--output", "OUTPUT"], PIXELS
        )

    def table(self, server: Server, latency: float) -> dict[str, Run]:
        """Run everything, print the rows, and return the figures by name."""
        print(f"\n### {f'{latency:g} s an answer' if latency else 'Loopback'}\n")
        print("| | wall s | CPU s | peak GB | Mvoxel/s | makes | server CPU s | others, cores |")
        print("| --- | --: | --: | --: | --: | --- | --: | --: |")
        subjects = [self.ours, self.unlimited, self.defaults, self.best_tier, self.command]
        found = {}
        for subject in subjects:
            runs = [self._undisturbed(subject, server) for _ in range(self.repeat)]
            run = replace(
                min((run for run, _ in runs), key=lambda run: run.wall), peak=max(run.peak for run, _ in runs)
            )
            made = runs[0][1] or "60 planes in memory"
            rate = subject.millions / run.wall
            preliminary = " (preliminary)" if run.others > OTHERS else ""
            print(
                f"| {subject.name} | {run.wall:.2f} | {run.cpu:.2f} | {run.peak:.2f} | {rate:.2f} | {made} "
                f"| {run.server:.2f} | {run.others:.2f}{preliminary} |",
                flush=True,
            )
            found[subject.name] = run
        return found

    def _undisturbed(self, subject: Subject, server: Server) -> tuple[Run, str]:
        """A run that nobody disturbed, or the last of four tries."""
        for _ in range(4):
            run, made = self._run(subject, server)
            if run.others <= OTHERS:
                break
        return run, made

    def _run(self, subject: Subject, server: Server) -> tuple[Run, str]:
        """One run into nothing that was there before, and what it left on disk."""
        output, cache = (self.scratch / name for name in ("output", "cache"))
        for folder in (output, cache):
            shutil.rmtree(folder, ignore_errors=True)
        environment = {
            **os.environ,
            "ATLASZARR_API_URL": server.url,
            "ALLEN_API_URL": server.url,
            "XDG_CACHE_HOME": str(cache),  # where atldld keeps its images
        }
        environment.pop("PYTHONPATH", None)
        wait_for_quiet()
        command = [output if part == "OUTPUT" else part for part in subject.command]
        run = measure(command, environment, server.pid)
        progress(f"{subject.name}: {run.wall:.2f} s, others {run.others:.2f}")
        return run, describe(output)


def describe(output: Path) -> str:
    """What lies there, seen to be whole."""
    if not output.exists():
        return ""
    files = [path for path in output.rglob("*") if path.is_file()]
    size = f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB in {len(files)} files"
    if planes := list(output.glob("*.png")):
        if len(planes) != 60:
            raise RuntimeError(f"{len(planes)} planes were written, not 60")
        return f"60 planes as PNG, {size}"
    ome = json.loads((output / "zarr.json").read_text())["attributes"]["ome"]
    levels = len(ome["multiscales"][0]["datasets"])
    return f"{VOXELS:.0f} M voxels, {levels} levels and section labels, {size}"


def print_machine(peer: Path) -> None:
    def versions(packages: Sequence[str], find: Mapping[str, str]) -> str:
        return ", ".join(f"{package} {find[package]}" for package in packages)

    script = (
        "import importlib.metadata as m, platform, sys; print(platform.python_version(), *map(m.version, sys.argv[1:]))"
    )
    answer = subprocess.run([peer, "-c", script, *PEER_PACKAGES], check=True, capture_output=True, text=True).stdout
    peer_python, *found = answer.split()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    print(
        f"{time.strftime('%Y-%m-%d')}, {cores} cores {platform.machine()}, {machine_memory():.0f} GB, Linux;", end=" "
    )
    print(f"load {load:.2f} at the start.\n")
    ours = versions(OURS_PACKAGES, {package: version(package) for package in OURS_PACKAGES})
    print(f"- atlaszarr {version('atlaszarr')}: Python {platform.python_version()}, {ours}")
    theirs = versions(PEER_PACKAGES, dict(zip(PEER_PACKAGES, found, strict=True)))
    print(f"- {theirs} on Python {peer_python}", flush=True)


def print_ratios(tables: Mapping[float, Mapping[str, Run]]) -> None:
    print("\n### Times as fast as atldld\n")
    print("| |", " | ".join(f"{latency:g} s an answer" if latency else "loopback" for latency in tables), "|")
    print("| --- |", " | ".join("--:" for _ in tables), "|")
    names = list(next(iter(tables.values())))
    ours = [name for name in names if name.startswith("atlaszarr") and "compiled" not in name]
    theirs = [name for name in names if name.startswith("atldld")]
    for mine, peer in itertools.product(ours, theirs):
        ratios = (table[peer].wall / table[mine].wall for table in tables.values())
        print(f"| {mine} : {peer} |", " | ".join(f"{ratio:.2f}" for ratio in ratios), "|")


def print_targets(table: Mapping[str, Run]) -> None:
    print("\n### The targets\n")
    print("| target, on loopback | atlaszarr build | without its limit of rate |")
    print("| --- | --- | --- |")
    for row in targets(table):
        print("|", " | ".join(row), "|")


def targets(table: Mapping[str, Run]) -> Iterator[tuple[str, str, str]]:
    ours = [table["atlaszarr build"], table["atlaszarr, no limit of rate"]]
    defaults, best = table["atldld, defaults (tier 0)"].wall, table[f"atldld, tier {TIER}"].wall

    def judged(value: float, target: float, unit: str = "", at_most: bool = False) -> str:
        met = value <= target if at_most else value >= target
        return f"{value:.2f}{unit}: {'met' if met else 'missed'}, {value / target:.2f} of it"

    yield "at most 10 s", *(judged(run.wall, 10, " s", at_most=True) for run in ours)
    yield "at most 1.5 GB", *(judged(run.peak, 1.5, " GB", at_most=True) for run in ours)
    yield "20 times as fast as atldld's defaults", *(judged(defaults / run.wall, 20) for run in ours)
    yield "3 times as fast as atldld's best tier", *(judged(best / run.wall, 3) for run in ours)


def progress(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
