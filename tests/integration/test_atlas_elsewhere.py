"""An atlas on S3, from sources on S3, and built by a cluster."""

import pandas as pd
import pytest
import s3fs
from distributed import LocalCluster
from moto.server import ThreadedMotoServer

from atlaszarr import build_atlas, region_volumes, verify
from tiny_atlas import SET, files, write_sources


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path / "sources")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "atlas"


@pytest.fixture(scope="module")
def s3():
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    options = {"key": "test", "secret": "test-secret", "endpoint_url": f"http://{host}:{port}"}
    s3fs.S3FileSystem(**options).mkdir("atlases")
    yield options
    moto.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the midline is assumed")
def test_on_s3_it_is_the_same_and_no_key_is_in_it(sources, target, s3):
    build_atlas(target, **sources, brainglobe=True)
    url = "s3://atlases/in/a/folder"
    for _ in range(2):
        report = build_atlas(url, **sources, brainglobe=True, storage_options=s3)
    assert {image.state for image in report.images} == {"already finished"}
    assert verify(url, deep=True, storage_options=s3).ok
    store = s3fs.S3FileSystem(**s3)
    remote = {path.removeprefix("atlases/in/a/folder/"): store.cat(path) for path in store.find("atlases/in/a/folder")}
    assert not any(b"test-secret" in body for body in remote.values())
    # Links on a disk are copies here, and there is no lock file.
    copied = {key for key in remote if "annotations_compressed" in key}
    assert len(copied) == sum("/annotation.ome.zarr/" in key for key in remote)
    here = {key: body for key, body in files(target).items() if "annotations_compressed" not in key}
    dated = {key for key in here if "/atlaszarr/" in key or key.startswith("atlaszarr/")}
    assert {k: v for k, v in remote.items() if k not in copied | dated} == {
        k: v for k, v in here.items() if k not in dated
    }
    image = f"{url}/{SET}/annotation.ome.zarr"
    found = region_volumes(image, by_hemisphere=True, storage_options=s3)
    pd.testing.assert_frame_equal(found, region_volumes(target / SET / "annotation.ome.zarr", by_hemisphere=True))


def test_a_source_may_lie_on_s3_while_the_target_is_a_path(sources, target, s3):
    store = s3fs.S3FileSystem(**s3)
    store.put(str(sources["annotation"]), "atlases/sources/annotation.nrrd")
    build_atlas(target, **{**sources, "annotation": "s3://atlases/sources/annotation.nrrd"}, storage_options=s3)
    assert verify(target).ok


@pytest.mark.slow
def test_a_cluster_builds_the_same_bytes(sources, target, tmp_path):
    build_atlas(target, **sources, chunk=16)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        build_atlas(tmp_path / "other", **sources, chunk=16, scheduler=cluster.scheduler_address)
    one, other = files(target), files(tmp_path / "other")
    assert {key for key in {*one, *other} if one.get(key) != other.get(key)} <= {"atlaszarr/tiny-1.json"}
