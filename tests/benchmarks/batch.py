"""Measures batches on a cluster: what a dataset costs the driver, and what it costs workers and leaves in them.

`driver` runs 43,818 datasets whose job returns at once, with the real journal and window; `workers` builds copies of a
dataset from a folder of slides and a catalogue, both written before, with one worker and with two. Linux only.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cloudpickle
from distributed import Client
from serving import DATASET

from atlaszarr import AllenClient, build_many
from atlaszarr.dataset_batch.dataset_task import DatasetTask, build_dataset
from atlaszarr.dataset_batch.journal import Journal, Row
from atlaszarr.dataset_batch.rounds import run
from atlaszarr.engine.cluster import Cluster
from atlaszarr.stores.target import Target
from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.open_data import on_slides
from atlaszarr.testing.records import dataset_records, image_records

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
SPAN = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("driver", "workers"))
    parser.add_argument("--datasets", type=int, help="default: 43818 for driver, 60 for workers")
    parser.add_argument("--resolution", type=float, default=100.0, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of one and two workers in turn; default: %(default)s")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        if arguments.part == "driver":
            driver(arguments.datasets or 43_818, Path(folder))
        else:
            workers(arguments.datasets or 60, arguments.resolution, arguments.rounds, Path(folder))


def driver(count: int, folder: Path) -> None:
    """Datasets whose job returns at once, on two workers."""
    print("| datasets | driver's CPU s | ms each | scheduler's CPU s | wall s | driver's MB |")
    print("| --: | --: | --: | --: | --: | --: |")
    with scheduler(folder, 2) as (address, pid), Cluster(address) as cluster:
        folder_target = Target.of(folder / "batch")
        journal = Journal(folder_target)
        cpu, wall, served_before = time.process_time(), time.perf_counter(), _cpu_of(pid)
        for done, _ in enumerate(run(cluster, _return_at_once, range(1, count + 1), journal), 1):
            if done % (count // 4) == 0:
                spent = time.process_time() - cpu
                memory = _memory_of(os.getpid())
                figures = (1e3 * spent / done, _cpu_of(pid) - served_before, time.perf_counter() - wall, memory)
                print(f"| {done:,} | {spent:.1f} | " + " | ".join(f"{figure:.2f}" for figure in figures), "|")
        journal.write_table()
        stored = sum(folder_target.sizes("journal").values())
    root, journal_folder = Target("s3://bucket/root"), Target("s3://bucket/root/batch")
    task = DatasetTask(root, AllenClient(cache="none"), journal_folder, {"resolution": 25.0})
    sent = len(cloudpickle.dumps((partial(build_dataset, task), 74272479)))
    print(f"\n{sent:,} bytes sent and {stored / count:.0f} bytes of journal for each dataset")


def _return_at_once(dataset: int) -> Row:
    return Row(dataset, "built", 5.0, 60, 10_000_000)


def workers(count: int, resolution: float, rounds: int, folder: Path) -> None:
    """Copies of a dataset, built by one worker and by two."""
    slides, catalogue = folder / "slides", folder / "catalogue"
    records = _copies(count)
    tier = int(math.log2(resolution / records["images"][0]["resolution"]))
    with Emulator(**records) as emulator:
        emulator.write_bucket(Target.of(slides), tiers=[tier])
        with AllenClient(emulator.url, "none", rate=1e9) as client:
            client.write_catalogue(catalogue, ids=range(1, count + 1))
    held = "third: MB, files, threads, temporary | last"
    print(f"| workers | core s each | driver's core s each | scheduler's | wall s | peak MB | {held} |")
    print("| --: | --: | --: | --: | --: | --: | --- | --- |")
    costs: dict[int, list[float]] = {1: [], 2: []}
    for turn, number in enumerate((1, 2) * rounds):
        with (
            scheduler(folder / f"{turn}", number) as (address, pid),
            Client(address, set_as_default=False) as observer,
            AllenClient(cache="none", image_source=slides, catalogue=catalogue) as client,
        ):
            options = {"client": client, "scheduler": address, "resolution": resolution}
            root = folder / f"root{turn}"
            assert build_many(range(1, 3 * number + 1), root, **options).ok
            before, driven, wall = observer.run(_held), time.process_time(), time.perf_counter()
            scheduled = _cpu_of(pid)
            assert build_many(range(1, count + 1), root, **options).ok
            wall, driven, after = time.perf_counter() - wall, time.process_time() - driven, observer.run(_held)
            built, scheduled = count - 3 * number, _cpu_of(pid) - scheduled
            cores = sum(after[worker][0] - before[worker][0] for worker in after)
            costs[number].append(cores / built)
            peak = max(held[1] for held in after.values())
            then, last = (max(held[2:] for held in one.values()) for one in (before, after))
            each = " | ".join(f"{seconds / built:.3f}" for seconds in (cores, driven, scheduled))
            print(f"| {number} | {each} | {wall:.0f} | {peak:.0f} | {then} | {last} |")
            shutil.rmtree(root)
    one, two = (statistics.mean(costs[number]) for number in (1, 2))
    print(f"\nmean of {rounds} rounds: {one:.3f} and {two:.3f} core seconds, {two / one:.2f} times")


def _held() -> tuple[float, ...]:
    """In a worker: CPU seconds, peak MB, MB, open files, threads, temporary files of all workers."""
    import gc
    import os
    import resource
    import tempfile
    import threading
    import time
    from pathlib import Path

    gc.collect()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return (
        time.process_time(),
        peak,
        round(resident),
        len([*Path("/proc/self/fd").iterdir()]),
        threading.active_count(),
        sum(path.is_file() for path in Path(tempfile.gettempdir()).rglob("*")),
    )


def _copies(count: int) -> dict[str, list[dict[str, object]]]:
    """Records of so many copies of a dataset, with images of their own, three on a slide."""
    (dataset,) = (record for record in dataset_records() if record["id"] == DATASET)
    images = on_slides(record for record in image_records() if record["data_set_id"] == DATASET)
    ids = range(1, count + 1)
    copied = [{**one, "id": SPAN * id + n, "data_set_id": id} for id in ids for n, one in enumerate(images)]
    return {"datasets": [{**dataset, "id": id} for id in ids], "images": copied}


@contextmanager
def scheduler(folder: Path, count: int) -> Iterator[tuple[str, int]]:
    """A scheduler process with so many worker processes of one thread: its address and its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    command = [
        *dask,
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(file),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, **quiet)]
    try:
        while not (file.exists() and file.read_text()):
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(folder / "scratch")]
        (folder / "temporary").mkdir()
        # The second is what dask's nanny sets, which these workers lack, so that each is one process to measure.
        quiet["env"] = {**os.environ, "TMPDIR": str(folder / "temporary"), "MALLOC_TRIM_THRESHOLD_": "65536"}
        processes += [subprocess.Popen([*dask, "worker", address, *options], **quiet) for _ in range(count)]
        with Client(address, set_as_default=False) as observer:
            observer.wait_for_workers(count)
        yield address, processes[0].pid
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _memory_of(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


if __name__ == "__main__":
    main()
