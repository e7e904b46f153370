"""The examples run unchanged."""

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import boto3
import numpy as np
import pytest
import simplejpeg
import zarr
from moto.server import ThreadedMotoServer
from PIL import Image

from atlaszarr import Terminology, build_atlas
from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
REAL = DATA / "ccf" / "annotation_50_ccf2017.nrrd", DATA / "ontology" / "structure_graph_1.json"
ANNOTATION = "annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr"
RSP = {254, 894, 879, 886}  # the structures of the phantom in the retrosplenial area


def run(example, *arguments, **environment):
    command = [sys.executable, "-X", "faulthandler", ROOT / "examples" / example, *arguments]
    ran = subprocess.run(command, env={**os.environ, **environment}, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_lazy_slice_fetches_only_the_images_that_it_needs(tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        printed = run("lazy_slice.py", "74272479", tmp_path / "slice.jpg", **environment)
        fetched = emulator.count("section_image_download")
    assert printed.startswith("p = 7")
    assert 0 < fetched < 25
    assert simplejpeg.decode_jpeg((tmp_path / "slice.jpg").read_bytes()).shape == (160, 228, 3)


@pytest.mark.slow
def test_a_step_of_the_user_between_a_dataset_and_its_ome_zarr(tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        printed = run("your_own_step.py", "69289763", tmp_path / "stain.ome.zarr", **environment).splitlines()
        assert emulator.count("section_image_download") == 18
    assert printed == [
        f"{tmp_path}/stain.ome.zarr: built, sound",
        "{'c': 1, 'z': 132, 'y': 80, 'x': 114} float32 0.1 mm",
        "{'c': 1, 'z': 66, 'y': 40, 'x': 57} float32 0.2 mm",
        "{'c': 1, 'z': 33, 'y': 20, 'x': 29} float32 0.4 mm",
    ]
    assert zarr.open_array(tmp_path / "stain.ome.zarr/0", mode="r")[:].max() > 50


@pytest.mark.slow
def test_the_classic_getting_started_page_runs_in_bounded_steps(tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        printed = run("getting_started.py", tmp_path / "sections", **environment).splitlines()
        fetched = [request for request in emulator.requests if request.kind == "section_image_download"]
    assert printed[:2] == ["(2656, 2856, 3)", "8 coronal sections"]
    assert len(fetched) == len({(request.path, str(request.query)) for request in fetched}) == 1 + 2 * 8
    assert printed[2] == "909100 at 10622 um: (550, 750, 3) to (320, 456, 3), mask mean 0.1"
    pictures = [simplejpeg.decode_jpeg(path.read_bytes()) for path in sorted((tmp_path / "sections").iterdir())]
    assert [picture.shape for picture in pictures] == [(320, 456, 3)] * 8
    # 909220 lies at p = 7622 um where its corner does, and at 7500 in the middle of the brain: purple, not background.
    assert np.ptp(pictures[3][160, 228].astype(int)) > 20


@dataclass(frozen=True)
class Brain:
    """The sources of an atlas, and the known size of its retrosplenial area."""

    annotation: Path
    ontology: Terminology
    shape: tuple[int, int, int]
    voxels: int
    mm3: str
    regions: int


@pytest.fixture(params=["invented", pytest.param("real", marks=pytest.mark.slow)])
def brain(request, tmp_path):
    if request.param == "real":
        if not all(path.exists() for path in REAL):
            pytest.skip("the shared data (../shared/data) is missing")
        # Figures: README of the data, but for the number of regions, which has one less than at 25 um.
        return Brain(REAL[0], Terminology.read(REAL[1]), (264, 160, 228), 83846, "10.48", 838)
    labels = default_phantom().annotation(100)
    (tmp_path / "annotation.nrrd").write_bytes(annotation_nrrd(default_phantom(), 100))
    ontology = Terminology.from_structure_graph(structure_graph()["msg"])
    voxels = int(np.isin(labels, list(RSP)).sum())
    present = set(np.unique(labels).tolist())
    nonempty = {id for structure in ontology for id in structure.path if structure.id in present}
    return Brain(tmp_path / "annotation.nrrd", ontology, labels.shape, voxels, f"{voxels / 1000:.2f}", len(nonempty))


@pytest.fixture(scope="module")
def s3():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(port=0)
    moto.start()
    key = {"key": "the-access-key", "secret": "the-secret-access-key"}
    endpoint = "http://{}:{}".format(*moto.get_host_and_port())
    names = {"aws_access_key_id": key["key"], "aws_secret_access_key": key["secret"], "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **names).create_bucket(Bucket="atlas")
    yield {**key, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    moto.stop()


@pytest.fixture
def atlas(brain, made_once):
    """The atlas of a brain, on a local disk."""
    name = f"atlas of {brain.annotation.stem}"
    return made_once(name, lambda path: build_atlas(path, annotation=brain.annotation, ontology=brain.ontology))


def compare_examples(brain, target, options=None):
    """Compare the output of all examples for an atlas with the known values."""
    url = f"{target}/{ANNOTATION}"
    # ngff-zarr opens a store over plain http only with this setting.
    environment = {"AWS_ALLOW_HTTP": "true"} if options else {}
    given = [json.dumps(options)] if options else []

    named = ["--storage-options", *given] if given else []
    plain = run("retrosplenial_plain.py", url, *named, **environment).splitlines()
    z, y, x = brain.shape
    assert f"axes: z y x ({z}, {y}, {x})" in plain
    assert "orientations: {'z': 'anterior-to-posterior', 'y': 'superior-to-inferior', 'x': 'left-to-right'}" in plain
    assert "units: {'z': 'millimeter', 'y': 'millimeter', 'x': 'millimeter'}" in plain
    assert next(line for line in plain if "voxels of" in line).startswith(f"{brain.voxels} voxels of ")
    assert plain[-1] == f"Retrosplenial area: {brain.mm3} mm3"

    assert run("retrosplenial.py", url, *given, **environment) == f"Retrosplenial area: {brain.mm3} mm3\n"

    table = run("regions_by_hemisphere.py", url, *given, **environment).splitlines()
    assert table[-1].startswith(f"{brain.regions} regions; left is low r (x voxels before {x // 2}), right is high r")
    (row,) = (line.split() for line in table if line.startswith("RSP "))
    both, left, right, share = map(float, row[1:])
    assert f"{both:.2f}" == brain.mm3
    assert left + right == pytest.approx(both, abs=2e-4)
    assert share == pytest.approx(0.5, abs=0.01)


def test_region_volumes_of_an_atlas_on_a_local_disk(brain, atlas):
    compare_examples(brain, atlas)


@pytest.mark.slow
def test_region_volumes_of_an_atlas_in_a_bucket(brain, s3):
    target = f"s3://atlas/{brain.annotation.stem}"
    build_atlas(target, annotation=brain.annotation, ontology=brain.ontology, storage_options=s3)
    compare_examples(brain, target, s3)


@pytest.mark.slow
def test_the_picture_shows_the_region_in_both_sections(atlas, tmp_path):
    printed = run("retrosplenial_plain.py", atlas / ANNOTATION, "--picture", tmp_path / "sections.png")
    assert printed.endswith(f"picture: {tmp_path / 'sections.png'}\n")
    pixels = np.asarray(Image.open(tmp_path / "sections.png"))
    red = (pixels == (205, 45, 60)).all(axis=-1)
    halves = np.split(red, 2, axis=1)
    assert all(2000 < half.sum() < half.size / 4 for half in halves)
    coronal, horizontal = (np.argwhere(half).mean(axis=0) for half in halves)
    middle = pixels.shape[1] / 4
    assert [coronal[1], horizontal[1]] == pytest.approx([middle, middle], abs=25)  # both hemispheres
    assert coronal[0] < pixels.shape[0] / 3  # superior is up


def test_every_example_says_how_it_is_run():
    for path in (ROOT / "examples").glob("*.py"):
        text = path.read_text()
        assert ("__main__" in text) == bool(re.search(rf"^    python examples/{path.name} ", text, re.MULTILINE))
