"""A batch whose datasets are registered as templates of one atlas, several at a time."""

import json

import pytest

from atlaszarr import build_atlas, build_many, verify
from atlaszarr.errors import InputError
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from codes import raises
from copied_datasets import copies

IDS = (11, 12, 13, 14)
SMALL = {"resolution": 200, "chunk": 32}


@pytest.fixture
def client(records, serve, connect):
    return connect(serve(*copies(records, IDS)))


@pytest.fixture
def root(client, tmp_path):
    """The root of an atlas of the layout assets."""
    (tmp_path / "x.nrrd").write_bytes(annotation_nrrd(default_phantom(), 200))
    build_atlas(tmp_path / "tree", annotation=tmp_path / "x.nrrd", chunk=32, client=client, layout=["assets"])
    return tmp_path / "tree"


@pytest.mark.slow
def test_all_datasets_are_listed_in_the_manifest_and_measured(client, root):
    annotation = next(root.glob("annotation-sets/*/*/annotation.ome.zarr"))
    report = build_many(IDS, root, client=client, atlas=root, measure=annotation, workers=2, **SMALL)
    assert report.states == {"built": 4}
    (manifest,) = root.glob("atlases/*/*/manifest.json")
    listed = json.dumps(json.loads(manifest.read_text()))
    assert [f"ish-nrp1-{id}-template" in listed for id in IDS] == [True] * 4
    assert not list(root.glob("*.ome.zarr"))
    assert verify(root).ok
    assert build_many(IDS, root, client=client, atlas=root, measure=annotation, **SMALL).states == {
        "finished before": 4
    }


@pytest.mark.slow
def test_an_atlas_elsewhere_is_refused_and_nothing_is_written(client, root, tmp_path):
    with raises(InputError, "not-a-template-path") as caught:
        build_many(IDS, tmp_path / "other", client=client, atlas=root, **SMALL)
    assert f"give {root}" in str(caught.value)
    assert not (tmp_path / "other").exists()
