"""Measures what a task costs in addition to its work, on threads and on a cluster: what bounds a build on many workers.

The image is of chunks so small that their work is next to nothing, and lies in memory as its target does. Linux only;
half a minute.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import zarr
from distributed import LocalCluster

from atlaszarr.writing import write_multiscales

SIDE, CHUNK = 256, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    print("| | blocks | ms a block | driver's CPU, ms a block |\n| --- | --: | --: | --: |")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder, cluster:
        source = zarr.create_array(f"{folder}/source.zarr", shape=(SIDE,) * 3, chunks=(2 * CHUNK,) * 3, dtype="u1")
        source[:] = 1
        # The scheduler of the cluster runs in this process, so that its CPU is the driver's.
        for name, address in (("threads", None), ("distributed, two workers", cluster.scheduler_address)):
            best = min(once(source, f"{folder}/image.ome.zarr", address) for _ in range(arguments.repeat))
            blocks, wall, cpu = best[1], *best[0]
            print(f"| {name} | {blocks} | {1e3 * wall / blocks:.2f} | {1e3 * cpu / blocks:.2f} |")


def once(source: zarr.Array, target: str, scheduler: str | None) -> tuple[tuple[float, float], int]:
    """Wall and CPU seconds of this process, and blocks."""
    shutil.rmtree(target, ignore_errors=True)
    wall, cpu = time.perf_counter(), time.process_time()
    report = write_multiscales(source, target, chunk=CHUNK, levels=2, scheduler=scheduler, workers=2)
    return (time.perf_counter() - wall, time.process_time() - cpu), report.tasks_done


if __name__ == "__main__":
    main()
