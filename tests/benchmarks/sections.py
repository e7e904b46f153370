"""Measures registered sections against atldld on the same emulator, and prints the tables of README.md.

One section and sixty, at 25 um and at 10 um: time, bytes fetched, peak memory, and how far off the phantom they are.
Every measured run is a fresh process. Linux only; takes some ten minutes.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from build import print_machine, progress
from measuring import Run, measure, wait_for_quiet
from serving import Server, Traffic, make_own, make_peer, served

HERE = Path(__file__).parent
SECTION = 74081211  # in mid-brain
TIERS = {25: 4, 10: 3}  # the coarsest whose pixel is not larger than one of the plane: what atlaszarr takes
PARTS = ("one-25", "sixty-25", "one-10", "sixty-10", "errors")
MID_IMAGE = ("4198", "3071")  # the mean one; ours takes that of each
LOOP = "iter_sections, and warp, no limit of rate"
DEFAULTS = "atldld, defaults (tier 0)"
SAME_TIER = "atldld, the tier that ours takes"


@dataclass(frozen=True)
class Measured:
    run: Run
    """The fastest, with the highest peak of all."""

    work: float
    """Seconds without the start of the process and its imports, of the fastest."""

    peak: float
    traffic: Traffic


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="as of build.py")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each kind (default: 3)")
    parser.add_argument(
        "--quiet", type=float, default=180, metavar="S", help="wait for a quiet machine so long (default: 180)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sections-") as scratch:
        keep = (arguments.keep or Path(scratch) / "keep").absolute()
        bench = Bench(make_own(keep), make_peer(keep), Path(scratch), arguments.repeat, arguments.quiet)
        print_machine(bench.peer)
        progress("drawing what is not drawn yet")
        with served(keep / "drawn", (0, *TIERS.values())) as server:
            tables = {}
            for voxel, count in itertools.product(TIERS, ("one", "sixty")):
                if f"{count}-{voxel}" in arguments.only:
                    tables[voxel, count] = bench.table(server, voxel, SECTION if count == "one" else None)
            print_ratios(tables)
            if "errors" in arguments.only:
                print_errors(bench, server)
    return 0


class Bench:
    """All the runs, in one scratch folder."""

    def __init__(self, own: Path, peer: Path, scratch: Path, repeat: int, quiet: float) -> None:
        self.own, self.peer, self.scratch, self.repeat, self.quiet = own, peer, scratch, repeat, quiet

    def subjects(self, voxel: int) -> dict[str, list[str | Path]]:
        ours = [self.own, HERE / "sections_ours.py"]
        cluster = [sys.executable, HERE / "sections_ours.py"]
        theirs = [self.peer, HERE / "atldld_planes.py", "planes"]
        return {
            "open_sections(...).image.values": [*ours, "dataset", str(voxel)],
            "the same, no limit of rate": [*ours, "dataset", str(voxel), "--no-limit"],
            "the same, with distributed installed": [*cluster, "dataset", str(voxel), "--no-limit"],
            "iter_sections, and warp": [*ours, "loop", str(voxel)],
            LOOP: [*ours, "loop", str(voxel), "--no-limit"],
            'build(mode="sections")': [*ours, "build", str(voxel)],
            DEFAULTS: [*theirs, "0", "--voxel", str(voxel)],
            SAME_TIER: [*theirs, str(TIERS[voxel]), "--voxel", str(voxel)],
        }

    def table(self, server: Server, voxel: int, section: int | None) -> dict[str, Measured]:
        """Run everything, print the rows, and return the figures by name."""
        print(f"\n#### {'One section' if section else 'Sixty sections'} at {voxel} um\n")
        print("| | wall s | of it the work s | CPU s | peak GB | requests | MB fetched | others, cores |")
        print("| --- | --: | --: | --: | --: | --: | --: | --: |")
        found = {}
        for name, command in self.subjects(voxel).items():
            one = found[name] = self.measured(command + (["--section", str(section)] if section else []), server)
            print(
                f"| {name} | {one.run.wall:.2f} | {one.work:.2f} | {one.run.cpu:.2f} | {one.peak:.2f} "
                f"| {one.traffic.requests} | {one.traffic.megabytes:.2f} | {one.run.others:.2f} |",
                flush=True,
            )
        return found

    def measured(self, command: Sequence[str | Path], server: Server) -> Measured:
        runs = []
        for _ in range(self.repeat):
            wait_for_quiet(self.quiet)
            work = self.scratch / "work.txt"
            run, traffic = self.run([*command, "--work", work], server)
            runs.append((run, float(work.read_text()), traffic))
            progress(f"{run.wall:.2f} s, others {run.others:.2f}")
        assert all(traffic.images == traffic.distinct for _, _, traffic in runs), "an image was fetched twice"
        run, work, traffic = min(runs, key=lambda entry: entry[0].wall)
        return Measured(run, work, max(run.peak for run, _, _ in runs), traffic)

    def run(self, command: Sequence[str | Path], server: Server) -> tuple[Run, Traffic]:
        """One run, atldld's with an empty cache, atlaszarr's without one."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as cache:
            environment = {
                **os.environ,
                "ATLASZARR_API_URL": server.url,
                "ALLEN_API_URL": server.url,
                "XDG_CACHE_HOME": cache,
                "TMPDIR": str(self.scratch),
            }
            if command[0] == self.peer:
                environment.pop("PYTHONPATH", None)
            server.traffic()
            run = measure(command, environment, server.pid)
            return run, server.traffic()


def print_ratios(tables: dict[tuple[int, str], dict[str, Measured]]) -> None:
    print("\n#### What atldld takes, in times of ours\n")
    print("| | wall, to its defaults | work | bytes | peak | wall, to the same tier | work |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for (voxel, count), table in tables.items():
        defaults, same_tier = table[DEFAULTS], table[SAME_TIER]
        for name, one in table.items():
            if not name.startswith("atldld"):
                bytes_fetched = defaults.traffic.megabytes / one.traffic.megabytes
                ratios = [defaults.run.wall / one.run.wall, defaults.work / one.work, bytes_fetched]
                ratios += [defaults.peak / one.peak, same_tier.run.wall / one.run.wall, same_tier.work / one.work]
                print(f"| {count} at {voxel} um, {name} |", " | ".join(f"{ratio:.2f}" for ratio in ratios), "|")


def print_errors(bench: Bench, server: Server) -> None:
    print("\n#### Phantom error\n", flush=True)
    files = []
    for voxel in TIERS:
        for name, command in bench.subjects(voxel).items():
            theirs = name.startswith("atldld")
            centre = ["--detection", *MID_IMAGE] if theirs else ["--centre"]
            points = {} if "--no-limit" in command else {"detection point (0, 0)": [], "mid-image": centre}
            for point, options in points.items():
                progress(f"{name}, {voxel} um, {point}, for its error")
                file = bench.scratch / f"{len(files)}.npz"
                bench.run([*command, *options, "--output", file], server)
                files += [f"{name}, {point}, {voxel} um", file]
    subprocess.run([sys.executable, HERE / "sections_errors.py", *map(str, files)], check=True)


if __name__ == "__main__":
    sys.exit(main())
