"""`write_multiscales` on a cluster, and resumed by another process."""

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from counted_images import computations, counted


@pytest.mark.parametrize("scheduler", [None, pytest.param("cluster", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((60, 50, 70), (20, 20, 20)),
        ((60, 50, 70), (32, 64, 64)),
        ((60, 50, 70), ((7, 25, 28), (50,), (30, 40))),
        ((3, 60, 50, 70), (1, 20, 50, 24)),
        ((3, 90, 70), (3, 20, 30)),
    ],
    ids=str,
)
def test_a_chunk_is_computed_once_whether_or_not_it_ends_with_a_block(request, tmp_path, shape, chunks, scheduler):
    image = counted(shape, chunks, "uint8", tmp_path / "computed")
    label = (image if len(shape) == 3 else image[0]) // 50
    if len(shape) == 3 and shape[0] == 3:
        image, label = xr.DataArray(image, dims=("c", "y", "x")), image[0] // 50
    options = {"labels": {"quarter": label}, "chunk": 16, "levels": 2, "identity": "it"}
    if scheduler is not None:
        options["scheduler"] = request.getfixturevalue(scheduler).scheduler_address
    write_multiscales(image, tmp_path / "x.ome.zarr", **options)
    found = computations(tmp_path / "computed")
    assert len(found) == np.prod(getattr(image, "data", image).numblocks)
    assert set(found.values()) == {1}
    for path, values in (("", image), ("labels/quarter/", label)):
        written = zarr.open_array(tmp_path / f"x.ome.zarr/{path}0", mode="r")[:]
        np.testing.assert_array_equal(written, np.asarray(values))
    assert verify(tmp_path / "x.ome.zarr", deep=True).ok


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (3, 40, 30, 50)).astype("uint8")


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(image, cluster, tmp_path, contents):
    source = da.from_array(image, chunks=(3, 16, 16, 16)).map_blocks(lambda block: block // 2)
    write_multiscales(source, tmp_path / "a.ome.zarr", chunk=8, scheduler=cluster.scheduler_address)
    write_multiscales(source, tmp_path / "b.ome.zarr", chunk=8)
    assert contents(tmp_path / "a.ome.zarr") == contents(tmp_path / "b.ome.zarr")


@pytest.mark.slow
def test_the_scheduler_never_holds_all_tasks_of_a_large_image(tmp_path):
    """Blocks are started as others finish, so only few of them are unfinished at a time."""
    script = """
import sys
import dask.array as da
import numpy as np
from atlaszarr.engine import schedulers
from atlaszarr.writing import write_multiscales

most = 0
class Watched(schedulers.Threads):
    def wait(self, futures):
        global most
        most = max(most, len(futures))
        return super().wait(futures)

schedulers.Threads = Watched
write_multiscales(da.zeros((64, 128, 128), chunks=8, dtype="uint8"), sys.argv[1], chunk=4, workers=2, levels=2)
print(most)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.ome.zarr")], check=True, capture_output=True, text=True
    )
    assert int(ran.stdout) <= 32 < 8 * 16 * 16


@pytest.fixture
def source(tmp_path):
    array = zarr.create_array(tmp_path / "source.zarr", shape=(20, 30, 40), chunks=(16, 16, 16), dtype="u2")
    array[:] = np.arange(array.size).reshape(array.shape) % 997
    return array


def test_an_unfinished_target_is_resumed_by_another_process(tmp_path, source):
    class StopError(Exception):
        pass

    def stop(done, *_):
        if done >= 3:
            raise StopError

    target = tmp_path / "x.ome.zarr"
    with pytest.raises(StopError):
        # Of 400 blocks, more than the 128 that may be under way are left.
        write_multiscales(source, target, chunk=[(2, 4, 8)], levels=1, workers=1, progress=stop)
    script = """
import sys, zarr
from atlaszarr.writing import write_multiscales
report = write_multiscales(zarr.open_array(sys.argv[1], mode="r"), sys.argv[2], chunk=[(2, 4, 8)], levels=1)
print(report.state, report.tasks_done)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "source.zarr", target], check=True, capture_output=True, text=True
    )
    state, count = ran.stdout.split()
    assert state == "resumed"
    assert 0 < int(count) <= 396
    np.testing.assert_array_equal(zarr.open_array(target / "0", mode="r")[:], source[:])
