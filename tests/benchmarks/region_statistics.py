"""Measures `region_statistics` against just reading the same arrays with tensorstore, at 25 um over the whole CCF.

The volume is the phantom brain in colour with a section label, without and with an expression view. Every contender is
a fresh process that does its work once, to have it compiled and the files in the page cache, and then as often as
`--repeat` says; the fastest counts. They take turns. Processor seconds count, since other processes may be running.
Linux only; some three minutes and 1 GB of disk.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import peak_memory

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
PACKAGES = ("numpy", "numcodecs", "pandas", "tensorstore")
ROUNDS = 2
_MIB = 2**20


def prepare(folder: Path, annotation: str) -> None:
    """The annotation, the volume and its expression view, as atlaszarr writes them."""
    import dask.array as da
    import nrrd
    import numpy as np

    from atlaszarr import Grid
    from atlaszarr.dataset_build.records import geometry
    from atlaszarr.geometry.spaces import reference_space
    from atlaszarr.testing.phantom import default_phantom
    from atlaszarr.writing import write_multiscales

    grid = Grid(reference_space(9), 25)
    labels = np.ascontiguousarray(nrrd.read(annotation)[0])
    options = {"geometry": geometry(grid), "levels": 1}
    write_multiscales(labels, folder / "annotation.ome.zarr", rule="mode", **options)
    phantom, (planes, rows, columns) = default_phantom(), grid.shape

    def draw(block_info, expression):
        slabs = []
        for k in range(*block_info[None]["array-location"][1]):
            plane = [[0, 0, (k + 0.5) * 25], [0, 25, 12.5], [25, 0, 12.5]]
            slabs.append(np.moveaxis(phantom.draw(plane, (rows, columns), expression), -1, 0))
        return np.stack(slabs, axis=1)

    depth = np.arange(planes, dtype=np.uint32)[:, np.newaxis, np.newaxis] // 8 + 1
    section = da.from_array(np.broadcast_to(depth, grid.shape), chunks=(64, rows, columns))
    chunks = ((3,), section.chunks[0], (rows,), (columns,))
    for name, expression in (("x", False), ("x.expression", True)):
        image = da.map_blocks(draw, expression=expression, chunks=chunks, dtype=np.uint8, meta=np.empty((0,) * 4, "u1"))
        target = folder / f"{name}.ome.zarr"
        write_multiscales(image, target, labels={"section": section}, identity=name, **options)
    alone = folder / "alone"
    alone.mkdir()
    (alone / "x.ome.zarr").symlink_to(folder / "x.ome.zarr")


def reading(folder: Path, arrays: list[str]) -> Callable[[], object]:
    import tensorstore

    stores = [{"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / path)}} for path in arrays]
    opened = [tensorstore.open(store, read=True).result() for store in stores]

    def read() -> None:
        for array in opened:
            array.read().result()

    return read


def measuring(folder: Path, volume: str) -> Callable[[], object]:
    from atlaszarr import Terminology, region_statistics

    graph = json.loads((DATA / "ontology" / "structure_graph_1.json").read_text())["msg"]
    terminology = Terminology.from_structure_graph(graph)
    return lambda: region_statistics(folder / volume, folder / "annotation.ome.zarr", terminology, True)


PRIMARY = ["annotation.ome.zarr/0", "x.ome.zarr/0", "x.ome.zarr/labels/section/0"]
BOTH = [*PRIMARY, "x.expression.ome.zarr/0", "x.expression.ome.zarr/labels/section/0"]
CONTENDERS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "tensorstore reads volume and annotation": lambda folder: reading(folder, PRIMARY),
    "region_statistics": lambda folder: measuring(folder, "alone/x.ome.zarr"),
    "tensorstore reads both views and annotation": lambda folder: reading(folder, BOTH),
    "region_statistics with expression view": lambda folder: measuring(folder, "x.ome.zarr"),
}


def run(name: str, folder: Path, repeat: int) -> None:
    """Measure a contender in this process."""
    work = CONTENDERS[name](folder)
    work()
    found = []
    for _ in range(repeat):
        begun, cpu = time.perf_counter(), time.process_time()
        work()
        found.append((time.process_time() - cpu, time.perf_counter() - begun))
    cpu, wall = (min(column) for column in zip(*found, strict=True))
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak_memory.peak() / _MIB}))


def compare(folder: Path, repeat: int) -> None:
    best = {name: (float("inf"), float("inf"), 0.0) for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, (cpu, wall, peak) in best.items():
            command = [sys.executable, __file__, "--contender", name, "--folder", str(folder), "--repeat", str(repeat)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            best[name] = min(cpu, found["cpu"]), min(wall, found["wall"]), max(peak, found["peak"])
    print("| | CPU s | wall s | peak MiB |\n| --- | --: | --: | --: |")
    for name, (cpu, wall, peak) in best.items():
        print(f"| {name} | {cpu:.2f} | {wall:.2f} | {peak:.0f} |")
    read, measured, read_both, measured_both = (cpu for cpu, _, _ in best.values())
    print("\n| aim: at most 1.5 times reading by tensorstore | measured |\n| --- | --- |")
    for text, ratio in (("one view", measured / read), ("with the expression view", measured_both / read_both)):
        print(f"| {text} | {ratio:.2f}: {'met' if ratio <= 1.5 else 'missed'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotation", default=str(DATA / "ccf" / "annotation_25_ccf2017.nrrd"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.folder, arguments.annotation)
        return
    if arguments.contender:
        run(arguments.contender, arguments.folder, arguments.repeat)
        return
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    cores = len(os.sched_getaffinity(0))
    print(f"{time.strftime('%Y-%m-%d')}, {cores} cores, Python {platform.python_version()}, {versions}; ", end="")
    print(f"load {os.getloadavg()[0]:.2f} at the start\n")
    with tempfile.TemporaryDirectory() as folder:
        # Prepared by another process: a process takes its starter's peak of memory for its own.
        prepared = [sys.executable, __file__, "--prepare", "--folder", folder, "--annotation", arguments.annotation]
        subprocess.run(prepared, check=True)
        compare(Path(folder), arguments.repeat)


if __name__ == "__main__":
    main()
