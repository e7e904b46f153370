"""What `pyramid.py` measures, each as a process of its own: `pyramid_contenders.py FUNCTION '{"argument": ...}'`.

Heavy imports are inside the functions, so that a process loads what its contender needs and no more.
"""

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

BLOCK = 256  # voxels along a block in which tensorstore writes, and sources are prepared
AXES = ("c", "z", "y", "x")


# Sources. They are zarr arrays under zstd at its fastest sensible level, read alike by all.


def prepare_labels(annotation: str, target: str, chunk: int, tiles: int) -> None:
    """The 25 um annotation, every voxel repeated to 10 um, and that `tiles` times along z."""
    import nrrd
    import numpy as np

    values = np.ascontiguousarray(nrrd.read(annotation)[0])
    z, y, x = (((np.arange(n * 5 // 2) + 0.5) / 2.5).astype(int) for n in values.shape)
    z = np.tile(z, tiles)
    array = _source(target, (len(z), len(y), len(x)), (chunk,) * 3, "uint32")
    for start in range(0, len(z), chunk):
        array[start : start + chunk] = values[np.ix_(z[start : start + chunk], y, x)]


def prepare_original(annotation: str, target: str, chunk: int) -> None:
    """The 25 um annotation itself."""
    import nrrd

    values = nrrd.read(annotation)[0]
    _source(target, values.shape, (chunk,) * 3, "uint32")[:] = values


def prepare_intensity(target: str, chunk: int) -> None:
    """Bright around an ellipsoid, stained unevenly within it, with a grain of two grey levels."""
    import numpy as np
    from scipy.ndimage import zoom

    shape = (528, 320, 456)
    random = np.random.default_rng(1)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    inside = (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2) < 0.8
    array = _source(target, (3, *shape), (3, chunk, chunk, chunk), "uint8")
    for channel, (low, high) in enumerate(((90, 190), (70, 170), (120, 200))):
        coarse = random.uniform(low, high, [n // 16 + 1 for n in shape]).astype(np.float32)
        stain = zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
        grey = np.where(inside, stain, 240) + random.integers(-2, 3, shape)
        array[channel] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _source(target: str, shape: Sequence[int], chunks: Sequence[int], dtype: str) -> Any:
    import zarr

    return zarr.create_array(
        target, shape=shape, chunks=chunks, dtype=dtype, compressors=zarr.codecs.ZstdCodec(level=1), overwrite=True
    )


# Contenders.


def start(library: str) -> None:
    """All that a contender loads, and no work."""
    if library == "ngff-zarr":
        importlib.import_module("zarr")
        importlib.import_module("dask.array")
    importlib.import_module({"atlaszarr": "atlaszarr.writing", "ngff-zarr": "ngff_zarr"}.get(library, library))


def atlaszarr(source: str, target: str, way: str = "stored", report: str | None = None, **options: Any) -> None:
    """The source by its path, opened by zarr-python, or as a dask array.

    `computed`: something is computed for each chunk, if only itself; `sliced`: less a voxel at each side; `memory`, and
    `numpy` without dask: read before.
    """
    from atlaszarr.writing import write_multiscales

    array: Any = source
    if way != "stored":
        import zarr

        array = zarr.open_array(source, mode="r")
    if way in ("memory", "numpy"):
        chunks, array = array.chunks, array[:]
    if way in ("computed", "sliced", "memory"):
        import dask.array as da

        array = da.from_array(array, chunks) if way == "memory" else da.from_zarr(array)
    if way == "computed":
        array = da.map_blocks(lambda block: block, array, dtype=array.dtype)
    elif way == "sliced":
        array = array[..., 1:-1, 1:-1, 1:-1]
    begun = time.perf_counter()
    write_multiscales(array, target, identity=Path(source).name, **options)
    if report:
        Path(report).write_text(json.dumps(time.perf_counter() - begun))


def ngff(source: str, target: str, method: str, levels: int, chunk: int) -> None:
    import dask.array as da
    import ngff_zarr
    from zarr.codecs import ZstdCodec

    array = da.from_zarr(source)
    dims = AXES[-array.ndim :]
    image = ngff_zarr.to_ngff_image(array, dims=list(dims), scale=dict.fromkeys("zyx", 1.0))
    multiscales = ngff_zarr.to_multiscales(
        image,
        scale_factors=[2**level for level in range(1, levels)],
        method=ngff_zarr.Methods[method],
        chunks={dim: array.shape[0] if dim == "c" else chunk for dim in dims},
        cache=False,
    )
    ngff_zarr.to_ngff_zarr(target, multiscales, version="0.5", compressors=[ZstdCodec(level=1)])


def tensorstore(
    source: str,
    target: str,
    method: str,
    levels: int,
    chunk: int,
    way: str,
    memory: bool = False,
    report: str | None = None,
) -> None:
    """Level by level, each in one go (`whole`) or in `blocks`; `memory`: of a source that is read before."""
    import tensorstore as ts

    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})

    def opened(path: str, **more: Any) -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}, **more}
        return ts.open(spec, context=context).result()

    parent = opened(source)
    if memory:
        parent = ts.array(parent.read().result())
    begun = time.perf_counter()
    channels = parent.rank - 3
    factors = [1] * channels + [2] * 3
    codecs = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]
    shape, made = parent.shape, []
    for level in range(levels):
        grid = {"name": "regular", "configuration": {"chunk_shape": [*shape[:channels], *[chunk] * 3]}}
        metadata = {
            "shape": shape,
            "data_type": parent.dtype.name,
            "chunk_grid": grid,
            "codecs": codecs,
            "dimension_names": AXES[-parent.rank :],
        }
        made.append(opened(f"{target}/{level}", create=True, metadata=metadata))
        shape = tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
    for level, array in enumerate(made):
        finer = ts.downsample(made[level - 1], factors, method) if level else parent
        if way == "whole":
            array.write(finer).result()
            continue
        for region in _blocks(array.shape[channels:], (BLOCK,) * 3):
            array[(..., *region)].write(finer[(..., *region)]).result()
    if report:
        Path(report).write_text(json.dumps(time.perf_counter() - begun))


def _blocks(shape: Sequence[int], size: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    corners = product(*(range(0, n, s) for n, s in zip(shape, size, strict=True)))
    return (tuple(slice(c, min(c + s, n)) for c, s, n in zip(at, size, shape, strict=True)) for at in corners)


# The store's own client.


def put(folder: str, bucket: str, endpoint: str, client: str, report: str) -> None:
    """Put the files of a folder, read beforehand, as objects."""
    bodies = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    if client == "s3fs":
        import s3fs

        fs = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=endpoint)
        fs.ls(bucket)
        begun = time.perf_counter()
        for batch in _batches(bodies, 16 * 2**20):
            fs.pipe({f"{bucket}/{key}": body for key, body in batch.items()})
    else:
        from concurrent.futures import ThreadPoolExecutor

        import obstore

        store = obstore.store.S3Store(
            bucket,
            endpoint=endpoint,
            access_key_id="test",
            secret_access_key="test",
            region="us-east-1",
            client_options={"allow_http": True},
        )
        begun = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: obstore.put(store, *one), bodies.items()))
    Path(report).write_text(json.dumps(time.perf_counter() - begun))


def _batches(bodies: dict[str, bytes], limit: int) -> Iterator[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    for key, body in bodies.items():
        batch[key] = body
        if sum(map(len, batch.values())) > limit:
            yield batch
            batch = {}
    yield batch


def serve(latency: float = 0.0) -> None:
    """An S3 server with a bucket `bench` until standard input closes, which waits so many seconds before each put."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication
    from moto.server import ThreadedMotoServer

    answer = DomainDispatcherApplication.__call__

    def late(self, environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            time.sleep(latency)
        return answer(self, environ, start_response)

    DomainDispatcherApplication.__call__ = late

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    import s3fs

    s3fs.S3FileSystem(key="test", secret="test", endpoint_url=endpoint).mkdir("bench")
    print(endpoint, flush=True)
    sys.stdin.read()
    server.stop()


# What became of the labels.


def drift(target: str, report: str) -> None:
    """By level: how much larger the foreground is than at level 0, and how many labels are gone."""
    import numpy as np
    import zarr

    ome = zarr.open_group(target, mode="r")
    datasets = ome.attrs["ome"]["multiscales"][0]["datasets"]
    rows, volume, labels = [], 0.0, set()
    for dataset in datasets:
        array = ome[dataset["path"]]
        scale = next(t["scale"] for t in dataset["coordinateTransformations"] if t["type"] == "scale")
        found, foreground = set(), 0
        for start in range(0, array.shape[0], array.chunks[0]):
            part = array[start : start + array.chunks[0]].reshape(-1)
            foreground += np.count_nonzero(part)
            # Of a run of one label one voxel tells.
            found.update(part[np.flatnonzero(np.diff(part, prepend=part[:1] + 1))].tolist())
        mm3 = foreground * float(np.prod(scale))
        if not rows:
            volume, labels = mm3, found - {0}
        rows.append({"scale": scale[0], "drift": mm3 / volume - 1, "labels": len(labels), "gone": len(labels - found)})
    Path(report).write_text(json.dumps(rows))


FUNCTIONS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        prepare_labels,
        prepare_original,
        prepare_intensity,
        start,
        atlaszarr,
        ngff,
        tensorstore,
        put,
        serve,
        drift,
    )
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("function", choices=FUNCTIONS)
    parser.add_argument("arguments", nargs="?", type=json.loads, default={})
    arguments = parser.parse_args()
    FUNCTIONS[arguments.function](**arguments.arguments)
