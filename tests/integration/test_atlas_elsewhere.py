"""An atlas on S3, from sources on S3, and built by a cluster."""

import json

import pandas as pd
import pytest
import s3fs
from distributed import LocalCluster

from atlaszarr import Terminology, build_atlas, region_volumes, verify
from s3_server import S3Server
from tiny_atlas import GRAPH, SET, files, write_sources


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path / "sources")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "atlas"


@pytest.fixture(scope="module")
def s3():
    moto = S3Server()
    moto.start()
    options = {"key": "test", "secret": "test-secret", "endpoint_url": moto.url}
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


LAYOUTS = {"both": {"layout": ["assets", "brainglobe"]}, "strict": {"layout": "assets", "strict": True}}


@pytest.fixture(params=LAYOUTS)
def given(request, sources):
    """The options of an atlas in a layout of the standard."""
    ontology = Terminology.from_structure_graph(json.loads(json.dumps(GRAPH).replace('"a1"', '"A2"')))
    return {**sources, "version": "2026", "ontology": ontology, "chunk": 32, **LAYOUTS[request.param]}


def undated(found):
    """Files by key, without those that have the time of a build, and without locks."""
    times = ("data_description.json", "processing.json", "ledger.jsonl", "atlas.json", "tiny-2026.json")
    return {key: body for key, body in found.items() if not key.endswith(times)}


@pytest.mark.slow
def test_every_layout_is_the_same_on_s3_and_its_copies_are_repaired(given, target, s3, request):
    build_atlas(target, **given)
    url = f"s3://atlases/{request.node.callspec.params['given']}"
    build_atlas(url, **given, storage_options=s3)
    report = build_atlas(url, **given, storage_options=s3)
    assert {image.state for image in report.images} == {"already finished"}
    assert verify(url, deep=True, storage_options=s3).ok
    store, folder = s3fs.S3FileSystem(**s3), url.removeprefix("s3://")
    remote = {path.removeprefix(f"{folder}/"): store.cat(path) for path in store.find(folder)}
    here = files(target)
    if not (copies := [key for key in remote if "annotations_compressed.ome.zarr/" in key and key not in here]):
        assert undated(remote) == undated(here)
        return
    assert undated({key: body for key, body in remote.items() if key not in copies}) == undated(here)
    for key in copies:
        path = f"{folder}/{key}"
        if key.endswith(("label_index.parquet", "/0/c/0/0/0")):
            store.pipe(path, b"x" * len(remote[key]))
            assert key in [defect.key for defect in verify(url, storage_options=s3).defects]
            build_atlas(url, **given, storage_options=s3)
            assert store.cat(path) == remote[key]
    assert verify(url, deep=True, storage_options=s3).ok


@pytest.mark.slow
def test_a_cluster_builds_the_same_bytes_in_every_layout(given, target, tmp_path):
    build_atlas(target, **given)
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
        build_atlas(tmp_path / "other", **given, scheduler=cluster.scheduler_address)
    assert undated(files(target)) == undated(files(tmp_path / "other"))
    assert verify(tmp_path / "other", deep=True).ok


def test_a_source_may_lie_on_s3_while_the_target_is_a_path(sources, target, s3):
    store = s3fs.S3FileSystem(**s3)
    store.put(str(sources["annotation"]), "atlases/sources/annotation.nrrd")
    build_atlas(target, **{**sources, "annotation": "s3://atlases/sources/annotation.nrrd"}, storage_options=s3)
    assert verify(target).ok


@pytest.mark.slow
def test_a_cluster_builds_the_same_bytes(sources, target, cluster, tmp_path):
    build_atlas(target, **sources, chunk=16)
    build_atlas(tmp_path / "other", **sources, chunk=16, scheduler=cluster.scheduler_address)
    one, other = files(target), files(tmp_path / "other")
    assert {key for key in {*one, *other} if one.get(key) != other.get(key)} <= {"atlaszarr/tiny-1.json"}
