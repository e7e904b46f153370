"""Measures the pyramid engine against ngff-zarr and tensorstore, and prints its tables of README.md.

Every measured run is a fresh process. Contenders take turns; of the repetitions of each the fastest counts, and the
highest peak of memory. Sources are prepared before. Linux only; takes some twenty minutes, and 1 GB of disk.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import Run, machine_memory, measure, wait_for_quiet

HERE = Path(__file__).parent
ANNOTATION = HERE.parents[1] / ".." / "shared" / "data" / "ccf" / "annotation_25_ccf2017.nrrd"
OTHERS = 0.1  # cores kept busy by others, beyond which a figure is preliminary
LEVELS, CHUNK = 4, 64
#: Seconds that the S3 server waits before it takes an object: none, and about what a store on a network takes.
LATENCIES = (0.0, 0.03)
PACKAGES = ("numpy", "zarr", "dask", "numcodecs", "ngff-zarr", "tensorstore", "s3fs", "obstore", "moto")

SIZES = {"labels": 1320 * 800 * 1140 * 4 / 1e6, "intensity": 3 * 528 * 320 * 456 / 1e6}  # MB
OURS, PUBLISHED = "atlaszarr", "atlaszarr, factors 2.5, 2, 2, chunks of 80 and 64"
OPENED = "atlaszarr, opened by zarr-python"
COMPUTED = "atlaszarr, a dask array"
SLICED = "atlaszarr, a slice of a dask array"
NGFF_LABELS = ("DASK_IMAGE_MODE",)
NGFF_INTENSITY = ("DASK_BIN_SHRINK", "ITKWASM_BIN_SHRINK")


@dataclass(frozen=True)
class Subject:
    """A contender at a task: a function of `pyramid_contenders.py` and what it is given."""

    name: str
    function: str
    arguments: Mapping[str, Any]
    millions: float = 0.0
    """Of bytes that it makes a pyramid of."""


@dataclass(frozen=True)
class Outcome:
    run: Run
    stored: float
    """MB that lie in the target."""

    inner: float | None = None
    """Seconds of the work itself, where the process says."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotation", type=Path, default=ANNOTATION, metavar="FILE", help="of 25 um, as NRRD")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the prepared sources here")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="write here, for instance into memory: /dev/shm")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each contender (default: 3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument(
        "--quiet",
        type=float,
        default=180,
        metavar="SECONDS",
        help="to wait for a quiet machine before each run (default: 180; 0: take it as it is)",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.scratch) as scratch:
        keep = (arguments.keep or Path(scratch) / "keep").absolute()
        keep.mkdir(parents=True, exist_ok=True)
        bench = Bench(Path(scratch), prepare(keep, arguments.annotation), arguments.repeat, arguments.quiet)
        print_machine()
        bench.warm_up()
        for part in arguments.only:
            PARTS[part](bench)
        print_aims(bench.aims)
    return 0


class Bench:
    """All the runs, in one scratch folder."""

    def __init__(self, scratch: Path, sources: Path, repeat: int, quiet: float) -> None:
        self.scratch, self.sources, self.repeat, self.quiet = scratch, sources, repeat, quiet
        self.output = scratch / "output.ome.zarr"
        self.aims: list[tuple[str, str]] = []
        self.environment = {**os.environ, "PYTHONWARNINGS": "ignore"}

    def ours(self, kind: str, name: str = OURS, **options: Any) -> Subject:
        rule = "mean" if kind.startswith("intensity") else "mode"
        options = {"levels": LEVELS, "chunk": CHUNK, **options}
        return self._subject(kind, name, "atlaszarr", rule=rule, **options)

    def ngff(self, kind: str, method: str) -> Subject:
        return self._subject(kind, f"ngff-zarr {method}", "ngff", method=method, levels=LEVELS, chunk=CHUNK)

    def tensorstore(self, kind: str, way: str, **options: Any) -> Subject:
        method = "mean" if kind.startswith("intensity") else "mode"
        name = "tensorstore, whole levels" if way == "whole" else "tensorstore, blocks of a level"
        return self._subject(kind, name, "tensorstore", method=method, levels=LEVELS, chunk=CHUNK, way=way, **options)

    def _subject(self, kind: str, name: str, function: str, **arguments: Any) -> Subject:
        given = {"source": str(self.sources / f"{kind}.zarr"), "target": str(self.output), **arguments}
        size = SIZES.get(kind.partition("-")[0], 0.0) * (2 if kind.endswith("-twice") else 1)
        return Subject(name, function, given, size)

    def warm_up(self) -> None:
        """Read the sources once, so that the system holds them in memory."""
        for file in self.sources.rglob("*"):
            if file.is_file():
                file.read_bytes()

    def table(self, title: str, subjects: Sequence[Subject], repeat: int | None = None) -> dict[str, Outcome]:
        """Run everything in turns, print the rows, and return the best by name."""
        found: dict[str, list[Outcome]] = {subject.name: [] for subject in subjects}
        for _ in range(repeat or self.repeat):
            for subject in subjects:
                found[subject.name].append(self.undisturbed(subject))
        best = {name: best_of(some) for name, some in found.items()}
        print(f"\n### {title}\n")
        print("| | wall s | CPU s | peak MB | source MB/s | stored MB | times ours | others, cores |")
        print("| --- | --: | --: | --: | --: | --: | --: | --: |")
        for subject in subjects:
            one = best[subject.name]
            rate = f"{subject.millions / one.run.wall:.0f}" if subject.millions else ""
            ratio = f"{one.run.wall / best[OURS].run.wall:.2f}" if OURS in best else ""
            print(
                f"| {subject.name} | {one.run.wall:.2f} | {one.run.cpu:.2f} | {one.run.peak * 1e3:.0f} | {rate} "
                f"| {one.stored:.0f} | {ratio} | {others(one.run)} |",
                flush=True,
            )
        return best

    def undisturbed(self, subject: Subject) -> Outcome:
        """A run that nobody disturbed, or the last of four tries."""
        for _ in range(4 if self.quiet else 1):
            outcome = self.once(subject)
            if outcome.run.others <= OTHERS:
                break
        return outcome

    def once(self, subject: Subject, server: int | None = None) -> Outcome:
        shutil.rmtree(self.output, ignore_errors=True)
        report = self.scratch / "report.json"
        report.unlink(missing_ok=True)
        if self.quiet:
            wait_for_quiet(self.quiet)
        with watched(server) as seen:
            run = measure(command(subject.function, subject.arguments), self.environment, server or os.getpid())
        run = replace(run, peak=max(run.peak, *seen))
        progress(f"{subject.name}: {run.wall:.2f} s, {run.peak * 1e3:.0f} MB, others {run.others:.2f}")
        sizes = [path.stat().st_size for path in self.output.rglob("*") if path.is_file()]
        return Outcome(run, sum(sizes) / 1e6, json.loads(report.read_text()) if report.exists() else None)

    def drift(self) -> list[dict[str, Any]]:
        """What became of the labels that the last run wrote."""
        report = self.scratch / "drift.json"
        subprocess.run(command("drift", {"target": str(self.output), "report": str(report)}), check=True)
        return json.loads(report.read_text())

    def aim(self, text: str, value: float, target: float, unit: str = "", at_most: bool = False) -> None:
        met = value <= target if at_most else value >= target
        self.aims.append((text, f"{value:.2f}{unit}: {'met' if met else 'missed'}"))


def starting(bench: Bench) -> None:
    """Start-up, which counts in all that follows."""
    names = ("atlaszarr", "ngff-zarr", "tensorstore")
    bench.table("Start-up alone", [Subject(name, "start", {"library": name}) for name in names])


def labels(bench: Bench) -> None:
    best = bench.table(
        "Labels",
        [
            bench.ours("labels"),
            bench.ours("labels", COMPUTED, way="computed"),
            bench.ours("labels-for-2.5", PUBLISHED, factors=[2.5, 2, 2], chunk=[80, 64]),
            *(bench.ngff("labels", method) for method in NGFF_LABELS),
            *(bench.tensorstore("labels", way) for way in ("whole", "blocks")),
        ],
    )
    judge(bench, "labels", best, 4)


def intensity(bench: Bench) -> None:
    best = bench.table(
        "Intensity",
        [
            bench.ours("intensity"),
            bench.ours("intensity", OPENED, way="opened"),
            bench.ours("intensity", COMPUTED, way="computed"),
            bench.ours("intensity", SLICED, way="sliced"),
            *(bench.ngff("intensity", method) for method in NGFF_INTENSITY),
            *(bench.tensorstore("intensity", way) for way in ("whole", "blocks")),
        ],
    )
    judge(bench, "intensity", best, 3)


def from_memory(bench: Bench) -> None:
    """Intensity that lies in memory: the work alone, without start-up and reading."""
    report = str(bench.scratch / "report.json")
    subjects = [
        bench.ours("intensity", f"{OURS}, a dask array in memory", way="memory", report=report),
        bench.ours("intensity", f"{OURS}, a NumPy array", way="numpy", report=report),
        *(bench.tensorstore("intensity", way, memory=True, report=report) for way in ("whole", "blocks")),
    ]
    best = bench.table("Intensity in memory", subjects)
    work = {name: one.inner or 0.0 for name, one in best.items()}
    print("\nThe work alone: " + "; ".join(f"{name} {seconds:.2f} s" for name, seconds in work.items()))
    ours, *_, whole, blocks = work.values()
    bench.aim("a dask array in memory: as fast as tensorstore's best", min(whole, blocks) / ours, 1)


def judge(bench: Bench, kind: str, best: Mapping[str, Outcome], aim: float) -> None:
    def fastest(library: str) -> float:
        return min(one.run.wall for name, one in best.items() if name.startswith(library))

    ngff, other = fastest("ngff-zarr"), fastest("tensorstore")
    run = best[OURS].run
    bench.aim(f"{kind}: {aim} times as fast as ngff-zarr's best", ngff / run.wall, aim)
    bench.aim(f"{kind}: as fast as tensorstore's best", other / run.wall, 1)
    bench.aim(f"{kind}: peak at most 600 MB", run.peak * 1e3, 600, " MB", at_most=True)


def memory(bench: Bench) -> None:
    best = bench.table(
        "Memory: one volume, and two along z",
        [
            bench.ours("labels"),
            bench.ours("labels-twice", "atlaszarr, twice the volume"),
            bench.ours("labels", "atlaszarr, shards of 256", shard=256),
            bench.ours("labels-twice", "atlaszarr, shards of 256, twice the volume", shard=256),
        ],
        repeat=min(2, bench.repeat),
    )
    peaks = [one.run.peak for one in best.values()]
    for what, one, two in zip(("chunks", "shards"), peaks[::2], peaks[1::2], strict=True):
        bench.aim(f"peak of twice the volume by that of one, {what}", two / one, 1.05, at_most=True)


def workers(bench: Bench) -> None:
    """One and two, which share the machine's cores."""
    start = bench.undisturbed(Subject("start", "start", {"library": "atlaszarr"})).run.wall
    for kind in SIZES:
        subjects = [bench.ours(kind, f"{OURS}, {count} at work", workers=count) for count in (1, 2)]
        best = bench.table(f"Workers: {kind}", subjects)
        one, two = (best[f"{OURS}, {count} at work"].run.wall for count in (1, 2))
        without = (one - start) / (two - start)
        print(f"\nTwo for one: {one / two:.2f} times as fast, {without:.2f} without start-up.")


def drifts(bench: Bench) -> None:
    """Foreground and labels by level."""
    print("\n### Drift\n")
    print("Foreground against that of level 0, and labels that are gone, of those at level 0 without 0.\n")
    print("| | labels | level 1 | level 2 | level 3 |\n| --- | --: | --: | --: | --: |")
    subjects = {
        "10 um, atlaszarr, factor 2": bench.ours("labels"),
        "10 um, ngff-zarr DASK_IMAGE_MODE, factor 2": bench.ngff("labels", "DASK_IMAGE_MODE"),
        "10 um, atlaszarr, factors 2.5, 2, 2": bench.ours("labels-for-2.5", factors=[2.5, 2, 2], chunk=[80, 64]),
        "25 um, atlaszarr, factor 2": bench.ours("original"),
        "25 um, ngff-zarr DASK_IMAGE_MODE, factor 2": bench.ngff("original", "DASK_IMAGE_MODE"),
    }
    for name, subject in subjects.items():
        bench.once(subject)
        first, *coarser = bench.drift()
        cells = [f"{100 * row['drift']:+.3f} %, {row['gone']} gone" for row in coarser]
        print(f"| {name} | {first['labels']} |", " | ".join(cells), "|", flush=True)
        if "atlaszarr" in name:
            limit = 0.5 if "2.5" in name else 0.2
            most = max(abs(100 * row["drift"]) for row in coarser)
            bench.aim(f"{name}: drift at most {limit} %", most, limit, " %", at_most=True)


def object_store(bench: Bench) -> None:
    """Into an S3 server in a process of its own, begun anew for every run."""
    local = bench.scratch / "stored.ome.zarr"
    bench.once(bench.ours("intensity"))
    shutil.rmtree(local, ignore_errors=True)
    shutil.copytree(bench.output, local)
    stored = sum(path.stat().st_size for path in local.rglob("*") if path.is_file()) / 1e6
    objects = sum(path.is_file() for path in local.rglob("*"))
    report = str(bench.scratch / "report.json")

    def subjects(endpoint: str) -> list[Subject]:
        options = {"key": "test", "secret": "test", "endpoint_url": endpoint}
        url = "s3://bench/image.ome.zarr"
        put = {"folder": str(local), "bucket": "bench", "endpoint": endpoint, "report": report}
        return [
            replace(ours, arguments={**ours.arguments, "target": url, "storage_options": options, "report": report})
            for ours in [bench.ours("intensity", f"{OURS}, to S3")]
        ] + [
            Subject("s3fs, pipe of 16 MB at a time", "put", {**put, "client": "s3fs"}),
            Subject("obstore, 8 puts under way", "put", {**put, "client": "obstore"}),
        ]

    print(f"\n### To S3 (moto): {stored:.0f} MB in {objects} objects\n")
    print("The rate is of the work alone; wall and CPU are of the whole process, and the server's CPU not among it.\n")
    print("| | work s | MB/s | wall s | CPU s | server CPU s | others, cores |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for latency in LATENCIES:
        found: dict[str, list[Outcome]] = {}
        for _ in range(bench.repeat):
            for position in range(3):
                with served(latency) as (endpoint, pid):
                    subject = subjects(endpoint)[position]
                    found.setdefault(subject.name, []).append(bench.once(subject, pid))
        rates, late = [], f", {1e3 * latency:.0f} ms an answer" if latency else ""
        for name, some in found.items():
            one = min(some, key=lambda outcome: outcome.inner)
            rates.append(stored / one.inner)
            print(
                f"| {name}{late} | {one.inner:.2f} | {rates[-1]:.1f} | {one.run.wall:.2f} | {one.run.cpu:.2f} "
                f"| {one.run.server:.2f} | {others(one.run)} |"
            )
        bench.aim(f"to S3{late}: 80 % of s3fs's rate", 100 * rates[0] / rates[1], 80, " %")
        bench.aim(f"to S3{late}: 80 % of obstore's rate", 100 * rates[0] / rates[2], 80, " %")


PARTS = {
    "start": starting,
    "labels": labels,
    "intensity": intensity,
    "in-memory": from_memory,
    "memory": memory,
    "workers": workers,
    "drift": drifts,
    "s3": object_store,
}


@contextlib.contextmanager
def served(latency: float) -> Iterator[tuple[str, int]]:
    serve = command("serve", {"latency": latency})
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise RuntimeError("the S3 server did not start")
        try:
            yield endpoint, process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def watched(server: int | None) -> Iterator[list[float]]:
    """What all processes under this one but a server have in memory, in GB, every twentieth of a second.

    A page that two of them share counts twice.
    """
    seen, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            seen.append(sum(map(resident, children(os.getpid()))))

    def resident(pid: int) -> float:
        if pid == server:
            return 0.0
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9 + sum(map(resident, children(pid)))

    def children(pid: int) -> list[int]:
        found = []
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
        return found

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def prepare(keep: Path, annotation: Path) -> Path:
    """The sources, made unless they are there."""
    given = {"annotation": str(annotation)}
    for name, function, arguments in (
        ("labels", "prepare_labels", {**given, "chunk": 128, "tiles": 1}),
        ("labels-twice", "prepare_labels", {**given, "chunk": 128, "tiles": 2}),
        ("labels-for-2.5", "prepare_labels", {**given, "chunk": 160, "tiles": 1}),
        ("original", "prepare_original", {**given, "chunk": 128}),
        ("intensity", "prepare_intensity", {"chunk": 128}),
    ):
        source = keep / f"{name}.zarr"
        if not source.exists():
            progress(f"preparing {name}")
            partial = keep / "partial"
            subprocess.run(command(function, {**arguments, "target": str(partial)}), check=True)
            partial.rename(source)
    return keep


def command(function: str, arguments: Mapping[str, Any]) -> list[str | Path]:
    return [sys.executable, HERE / "pyramid_contenders.py", function, json.dumps(arguments)]


def best_of(some: Sequence[Outcome]) -> Outcome:
    fastest = min(some, key=lambda outcome: outcome.run.wall)
    return replace(fastest, run=replace(fastest.run, peak=max(outcome.run.peak for outcome in some)))


def others(run: Run) -> str:
    return f"{run.others:.2f}{' (preliminary)' if run.others > OTHERS else ''}"


def print_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    print(
        f"{time.strftime('%Y-%m-%d')}, {cores} cores {platform.machine()}, {machine_memory():.0f} GB, Linux;", end=" "
    )
    print(f"load {os.getloadavg()[0]:.2f} at the start.\n")
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"atlaszarr {version('atlaszarr')}: Python {platform.python_version()}, {versions}", flush=True)


def print_aims(aims: Sequence[tuple[str, str]]) -> None:
    print("\n### The aims\n\n| aim | measured |\n| --- | --- |")
    for text, outcome in aims:
        print(f"| {text} | {outcome} |")


def progress(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
