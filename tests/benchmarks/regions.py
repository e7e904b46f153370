"""Measures region volumes against just reading the data, and against one region as tutorials count it.

Every contender is a fresh process that opens the annotation, does its work once to have it compiled and the files in
the page cache, and then so often as `--repeat` says; the fastest counts. They take turns. Linux only; some two minutes
and 100 MB of disk.
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
PACKAGES = ("numpy", "zarr", "dask", "numcodecs", "pandas", "pyarrow", "ngff-zarr", "tensorstore")
READ, COUNTED, INDEXED, TUTORIAL = (
    "tensorstore reads the array",
    "region_volumes, all regions, no index",
    "region_volumes, all regions, label index",
    "one region: da.isin(...).sum() over from_ngff_zarr",
)
ROUNDS = 3


def prepare(target: str, annotation: str, tiles: int) -> None:
    """The 25 um annotation, so many times along z, as atlaszarr writes it, with its label index."""
    import dask.array as da
    import nrrd
    import numpy as np

    from atlaszarr.engine.label_index import add_index
    from atlaszarr.engine.ome import Geometry
    from atlaszarr.geometry.spaces import ORIENTATION
    from atlaszarr.stores.target import Target
    from atlaszarr.writing import write_multiscales

    values = da.from_array(np.ascontiguousarray(nrrd.read(annotation)[0]), chunks=(66, 64, 64))
    geometry = Geometry((0.025,) * 3, (0.0075,) * 3, "millimeter", ORIENTATION)
    write_multiscales(da.concatenate([values] * tiles), target, rule="mode", geometry=geometry, identity="tiles")
    add_index(Target(target))


def reading(target: str) -> Callable[[], object]:
    import tensorstore

    store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{target}/0"}}
    array = tensorstore.open(store, read=True).result()
    return lambda: array.read().result()


def volumes(target: str) -> Callable[[], object]:
    from atlaszarr import region_volumes

    terminology = read_terminology()
    return lambda: region_volumes(target, terminology)


def counted(target: str) -> Callable[[], object]:
    """The same data under a root next to them, which has no index."""
    bare = Path(f"{target}.bare")
    bare.mkdir(exist_ok=True)
    for part in Path(target).iterdir():
        if part.name != "atlaszarr" and not (bare / part.name).exists():
            (bare / part.name).symlink_to(part.resolve())
    return volumes(str(bare))


def tutorial(target: str) -> Callable[[], object]:
    import dask.array as da
    from ngff_zarr import from_ngff_zarr

    ids = [structure.id for structure in read_terminology().descendants("RSP")]
    array = from_ngff_zarr(target).images[0].data
    return lambda: int(da.isin(array, ids).sum().compute())


CONTENDERS = {READ: reading, COUNTED: counted, INDEXED: volumes, TUTORIAL: tutorial}


def read_terminology():
    from atlaszarr import Terminology

    return Terminology.from_structure_graph(
        json.loads((DATA / "ontology" / "structure_graph_1.json").read_text())["msg"]
    )


def run(name: str, target: str, repeat: int) -> None:
    """Measure a contender in this process."""
    work = CONTENDERS[name](target)
    work()
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": min(times), "peak": peak_memory.peak() / 1e6}))


def compare(target: str, repeat: int, tiles: int) -> None:
    best = {name: (float("inf"), 0.0) for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, (seconds, peak) in best.items():
            command = [sys.executable, __file__, "--contender", name, "--target", target, "--repeat", str(repeat)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            best[name] = min(seconds, found["seconds"]), max(peak, found["peak"])
    print("| | ms | peak MB |\n| --- | --: | --: |")
    for name, (seconds, peak) in best.items():
        print(f"| {name} | {seconds * 1e3:.0f} | {peak:.0f} |")
    (read, counted, indexed, one) = (seconds for seconds, _ in best.values())
    print("\n| aim | measured |\n| --- | --- |")
    aims = [
        ("without the index at most 1.3 times reading by tensorstore", counted <= 1.3 * read, f"{counted / read:.2f}"),
        ("5 times as fast as one region the tutorials' way", one >= 5 * counted, f"{one / counted:.1f}"),
    ]
    if tiles == 1:
        aims.append(("with the index under 50 ms", indexed < 0.05, f"{indexed * 1e3:.0f} ms"))
    for text, met, value in aims:
        print(f"| {text} | {value}: {'met' if met else 'missed'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotation", default=str(DATA / "ccf" / "annotation_25_ccf2017.nrrd"))
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 8], help="how often the annotation is repeated")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.target, arguments.annotation, arguments.prepare)
        return
    if arguments.contender:
        run(arguments.contender, arguments.target, arguments.repeat)
        return
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(
        f"{time.strftime('%Y-%m-%d')}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()},",
        end=" ",
    )
    print(f"{versions}; load {os.getloadavg()[0]:.2f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        for tiles in arguments.tiles:
            target = f"{folder}/annotation-{tiles}.ome.zarr"
            # Prepared by another process: a process takes its starter's peak of memory for its own.
            subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--prepare",
                    str(tiles),
                    "--target",
                    target,
                    "--annotation",
                    arguments.annotation,
                ],
                check=True,
            )
            print(f"\n### {tiles} x 77 M voxels\n")
            compare(target, arguments.repeat, tiles)


if __name__ == "__main__":
    main()
