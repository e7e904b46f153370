"""What runs on the active `distributed` client, and what happens where it cannot."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from distributed import Client

from atlaszarr import build, build_atlas, open_sections, open_volume, region_statistics, region_volumes
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales
from codes import raises
from ran_on_workers import counted_tasks

DATASET = 69289763
TERMINOLOGY = Terminology(
    tuple(Structure(id, f"A{id}", f"Area {id}", "#AABBCC", (1,) if id == 1 else (1, id)) for id in range(1, 6))
)
ORIENTATION = {"z": "anterior-to-posterior", "y": "superior-to-inferior", "x": "left-to-right"}
GEOMETRY = Geometry((0.1, 0.1, 0.1), orientation=ORIENTATION)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 6, (40, 30, 20)).astype("uint32")


@pytest.fixture(scope="module")
def annotation(labels, allen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotation")
    path = folder / "annotation.ome.zarr"
    write_multiscales(labels, path, rule="mode", chunk=8, geometry=GEOMETRY, scheduler="threads")
    (folder / "terminology.csv").write_text(TERMINOLOGY.to_csv())
    build(DATASET, folder / "volume", client=allen, resolution=200, scheduler="threads")
    return path


def working(ran):
    """The tasks that ran, without those that compare versions and share values."""
    return sum(count for name, count in ran.items() if name not in ("eval", "_run_on_worker"))


def atlas(annotation, target, **options):
    ontology = annotation.parent / "terminology.csv"
    return build_atlas(target, annotation=annotation, ontology=ontology, name="little", version="1", **options)


CALLS = {
    "build": lambda allen, _, target, **o: build(DATASET, target, client=allen, resolution=200, **o),
    "build of sections": lambda allen, _, target, **o: build(
        DATASET, target, client=allen, resolution=200, mode="sections", **o
    ),
    "write_multiscales": lambda _, __, target, **o: write_multiscales(
        da.ones((40, 40, 40), chunks=20, dtype="u1"), target, chunk=20, **o
    ),
    "write_multiscales of a Dataset": lambda allen, _, target, **o: write_multiscales(
        open_volume(DATASET, client=allen, resolution=200), target, **o
    ),
    "build_atlas": lambda _, annotation, target, **o: atlas(annotation, target, **o),
    "region_statistics": lambda _, annotation, __, **o: region_statistics(
        annotation.parent / "volume", annotation.parent / "volume/labels/section", TERMINOLOGY, allow_unknown=True, **o
    ),
    "region_volumes of a path": lambda _, annotation, __, **o: region_volumes(annotation, **o),
    "region_volumes of an array": lambda _, annotation, __, **o: region_volumes(
        da.from_zarr(zarr.open_array(annotation / "0")) + np.uint32(0), TERMINOLOGY, voxel_size=100, **o
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:.*not in the terminology")
def test_it_runs_on_the_active_client_and_with_threads_on_none(allen, cluster, annotation, tmp_path, name):
    with Client(cluster):
        with counted_tasks(cluster) as ran:
            CALLS[name](allen, annotation, tmp_path / "active")
        assert working(ran) >= 1
        with counted_tasks(cluster) as ran:
            CALLS[name](allen, annotation, tmp_path / "threads", scheduler="threads")
        assert working(ran) == 0
    with Client(cluster, set_as_default=False) as client:
        with counted_tasks(cluster) as ran:
            CALLS[name](allen, annotation, tmp_path / "none")
        assert working(ran) == 0
        with client.as_current(), counted_tasks(cluster) as ran:
            CALLS[name](allen, annotation, tmp_path / "current")
        assert working(ran) >= 1
        with counted_tasks(cluster) as ran:
            CALLS[name](allen, annotation, tmp_path / "given", scheduler=client)
        assert working(ran) >= 1
    with raises(InputError, "scheduler-unreachable"):
        CALLS[name](allen, annotation, tmp_path / "closed", scheduler=client)
    assert not (tmp_path / "closed").exists()
    if not name.startswith("region"):
        with Client(cluster), raises(InputError, "target-in-memory"):
            CALLS[name](allen, annotation, f"memory://{tmp_path.name}")


@pytest.mark.filterwarnings("ignore:the midline is assumed")
def test_region_volumes_are_the_same_on_every_scheduler(cluster, annotation, labels):
    lazy = xr.DataArray(da.from_array(labels, chunks=16), dims=("z", "y", "x"))
    for given in (annotation, str(annotation / "0"), lazy):
        options = {"by_hemisphere": True, **({} if given is annotation else {"voxel_size": 100})}
        expected = region_volumes(given, TERMINOLOGY, scheduler="threads", **options)
        assert expected.voxels.iloc[0] == np.count_nonzero(labels)
        with Client(cluster):
            pd.testing.assert_frame_equal(region_volumes(given, TERMINOLOGY, **options), expected)
        found = region_volumes(given, TERMINOLOGY, scheduler=cluster.scheduler_address, **options)
        pd.testing.assert_frame_equal(found, expected)


def test_the_command_volumes_counts_on_a_scheduler(cluster, annotation, command):
    here = command("volumes", annotation, "--format", "csv")
    with counted_tasks(cluster) as ran:
        there = command("volumes", annotation, "--format", "csv", "--scheduler", cluster.scheduler_address)
    assert working(ran) >= 1
    assert (there.code, there.out) == (here.code, here.out) == (0, here.out)


def test_an_annotation_in_the_memory_of_this_process_is_counted_here_unless_a_cluster_is_given(cluster, labels):
    url = "memory://annotation-of-clients/annotation.ome.zarr"
    write_multiscales(labels, url, rule="mode", chunk=8, geometry=GEOMETRY, scheduler="threads")
    with Client(cluster), counted_tasks(cluster) as ran:
        assert region_volumes(url, TERMINOLOGY).voxels.iloc[0] == np.count_nonzero(labels)
        assert working(ran) == 0
        with raises(InputError, "target-in-memory"):
            region_volumes(url, TERMINOLOGY, scheduler=cluster.scheduler_address)


@pytest.mark.parametrize("threads", [False, True])
def test_an_array_persisted_on_a_cluster_is_written(cluster, tmp_path, threads):
    values = np.random.default_rng(2).integers(0, 200, (3, 30, 40, 50)).astype("u1")
    with Client(cluster) as client:
        image = (da.from_array(values, chunks=(3, 16, 16, 16)) + np.uint8(1)).persist()
        scheduler = "threads" if threads else None
        write_multiscales(image, tmp_path / "x", chunk=16, identity="persisted", scheduler=scheduler)
        plane = (image[:, 0] // np.uint8(2)).persist()
        write_multiscales(xr.DataArray(plane, dims=("c", "y", "x")), tmp_path / "y", chunk=16, scheduler=scheduler)
        with raises(InputError, "persisted-array"):
            write_multiscales(image, tmp_path / "z", chunk=16, scheduler=client.scheduler.address)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x/0", mode="r")[:], values + 1)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "y/0", mode="r")[:], (values[:, 0] + 1) // 2)
    assert not (tmp_path / "z").exists()


def overlapping(image):
    return image.data.map_overlap(lambda block: block // 2, {1: 2, 2: 2}, boundary="nearest", dtype="u1")


@pytest.mark.first(1)
@pytest.mark.parametrize("how", ["computed", "written as an array"])
@pytest.mark.parametrize("scheduler", ["threads", "cluster"])
@pytest.mark.parametrize("open_", [open_volume, open_sections])
def test_each_image_is_fetched_once_in_a_computation_with_overlaps(
    emulator, allen, cluster, tmp_path, open_, scheduler, how
):
    opened = open_(DATASET, client=allen, resolution=200, chunk=32)
    image = overlapping(opened.image)
    used = len(np.unique(opened.section.values)) - 1 if "section" in opened.data_vars else opened.sizes["section"]
    with Client(cluster, set_as_default=scheduler == "cluster"):
        emulator.reset()
        if how == "computed":
            image.compute()
        elif open_ is open_volume:
            write_multiscales(image, tmp_path / "x", chunk=32)
            np.testing.assert_array_equal(zarr.open_array(tmp_path / "x/0", mode="r")[:], image.compute())
            emulator.reset()
            write_multiscales(image[0], tmp_path / "y", chunk=16)
        else:
            write_multiscales(image[3, :, :, 0], tmp_path / "x", chunk=16)
            used = 1
        assert emulator.count("section_image_download") == used
