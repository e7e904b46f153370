"""The examples run unchanged."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import boto3
import numpy as np
import pytest
import simplejpeg
import zarr
from moto.server import ThreadedMotoServer
from PIL import Image

from atlaszarr import AllenClient, Terminology, build_atlas, open_sections
from atlaszarr.stores.target import Target
from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd, template_nrrd

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
REAL = DATA / "ccf" / "annotation_50_ccf2017.nrrd", DATA / "ontology" / "structure_graph_1.json"
ANNOTATION = "annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr"
RSP = {254, 894, 879, 886}  # the structures of the phantom in the retrosplenial area


@pytest.fixture
def run(tmp_path):
    """Runs an example in `tmp_path`, where it draws its picture."""

    def example(name, *arguments, **environment):
        command = [sys.executable, "-X", "faulthandler", ROOT / "examples" / name, *arguments]
        environment = {**os.environ, "MPLBACKEND": "agg", **environment}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return example


def picture(path):
    """The pixels of a picture, (rows, columns, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.slow
def test_a_lazy_slice_fetches_only_the_images_that_it_needs(run, tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        printed = run("lazy_slice.py", "74272479", **environment)
        fetched = emulator.count("section_image_download")
    assert printed.startswith("p = 7")
    assert 0 < fetched < 25
    assert picture(tmp_path / "slice.png").std() > 20


@pytest.mark.slow
def test_a_lazy_slice_from_a_bucket_fetches_slides_and_no_image_of_the_api(run, s3, tmp_path):
    with Emulator() as emulator:
        emulator.write_bucket(Target.of("s3://atlas/slides", s3), [69289763], tiers=[5])
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        printed = run("lazy_slice.py", "69289763", "s3://atlas/slides", json.dumps(s3), **environment)
        assert emulator.count("section_image_download") == 0
    assert printed == "p = 7025 um, from 18 section images\n"
    assert picture(tmp_path / "slice.png").std() > 20


@pytest.mark.slow
def test_a_step_of_the_user_between_a_dataset_and_its_ome_zarr(run, tmp_path):
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
def test_the_classic_getting_started_page_runs_in_bounded_steps(run, tmp_path):
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


@pytest.fixture
def phantom_atlas(tmp_path, made_once):
    """The annotation of the phantom at 100 um in an atlas, on a local disk."""
    (tmp_path / "annotation.nrrd").write_bytes(annotation_nrrd(default_phantom(), 100))
    ontology = Terminology.from_structure_graph(structure_graph()["msg"])
    make = partial(build_atlas, annotation=tmp_path / "annotation.nrrd", ontology=ontology)
    return made_once("atlas of the phantom", make) / ANNOTATION


def compare_examples(run, brain, target, options=None):
    """Compare the output of all examples for an atlas with the known values."""
    url = f"{target}/{ANNOTATION}"
    given = [json.dumps(options)] if options else []

    plain = run("retrosplenial_plain.py", url, *given).splitlines()
    z, y, x = brain.shape
    assert f"axes: z y x ({z}, {y}, {x})" in plain
    assert "orientations: {'z': 'anterior-to-posterior', 'y': 'superior-to-inferior', 'x': 'left-to-right'}" in plain
    (scale,) = (line for line in plain if line.startswith("scale: ["))
    assert scale.endswith("] millimeter")
    assert next(line for line in plain if "voxels of" in line).startswith(f"{brain.voxels} voxels of ")
    assert plain[-1] == f"Retrosplenial area: {brain.mm3} mm3"

    assert run("retrosplenial.py", url, *given) == f"Retrosplenial area: {brain.mm3} mm3\n"

    table = run("regions_by_hemisphere.py", url, *given).splitlines()
    assert table[-1].startswith(f"{brain.regions} regions; left is low r (x voxels before {x // 2}), right is high r")
    (row,) = (line.split() for line in table if line.startswith("RSP "))
    both, left, right, share = map(float, row[1:])
    assert f"{both:.2f}" == brain.mm3
    assert left + right == pytest.approx(both, abs=2e-4)
    assert share == pytest.approx(0.5, abs=0.01)


def test_region_volumes_of_an_atlas_on_a_local_disk(run, brain, atlas):
    compare_examples(run, brain, atlas)


@pytest.mark.slow
def test_region_volumes_of_an_atlas_in_a_bucket(run, brain, s3):
    target = f"s3://atlas/{brain.annotation.stem}"
    build_atlas(target, annotation=brain.annotation, ontology=brain.ontology, storage_options=s3)
    compare_examples(run, brain, target, s3)


@pytest.mark.slow
def test_the_pictures_show_the_region_where_it_lies(run, atlas, tmp_path):
    run("retrosplenial_plain.py", atlas / ANNOTATION)
    pixels = picture(tmp_path / "retrosplenial_plain.png")
    red = (pixels == (205, 45, 60)).all(axis=-1)
    brain = (pixels != 255).any(axis=-1) & (np.ptp(pixels.astype(int), axis=-1) == 0) & (pixels[..., 0] > 200) | red
    (row, column), (middle, centre) = (np.argwhere(part).mean(axis=0) for part in (red, brain))
    assert 100 < red.sum() < brain.sum() / 4
    assert column == pytest.approx(centre, abs=5)  # both hemispheres
    assert row < middle  # superior is up

    run("retrosplenial.py", atlas / ANNOTATION)
    pixels = picture(tmp_path / "retrosplenial.png").astype(int)
    reddish = pixels[..., 0] - pixels[..., 2] > 60
    front, above = np.array_split(reddish[:, : pixels.shape[1] * 85 // 100], 2, axis=1)  # without the bar of colours
    assert all(100 < half.sum() < half.size / 4 for half in (front, above))


@pytest.mark.slow
def test_the_expression_example_finds_where_the_phantom_expresses(run, phantom_atlas, tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        printed = run("expression_by_region.py", "74272479", tmp_path / "x.ome.zarr", phantom_atlas, **environment)
        again = run("expression_by_region.py", "74272479", tmp_path / "x.ome.zarr", phantom_atlas, **environment)
    assert again == printed
    expressing = {region.acronym for region in default_phantom().regions if region.expression}
    found = [line.split()[0] for line in printed.splitlines()[2:]]
    assert len(found) == 10
    assert set(found) <= expressing
    run("napari_volume.py", tmp_path / "x.ome.zarr", phantom_atlas)
    assert picture(tmp_path / "napari_volume.png").std() > 20


@pytest.mark.slow
def test_fields_of_the_user_move_what_the_alignment_shows(run, tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        assert run("own_fields.py", "69289763", "deformed.ome.zarr", **environment) == "built deformed.ome.zarr\n"
        with AllenClient(emulator.url, cache="none") as client:
            plain = open_sections(69289763, resolution=100, client=client).isel(section=8).image.values.astype(int)
    (path,) = zarr.open_group(tmp_path / "deformed.ome.zarr/2", mode="r").attrs["ome"]["multiscales"][0]["datasets"][:1]
    image = zarr.open_array(tmp_path / "deformed.ome.zarr/2" / path["path"], mode="r")[:]
    deformed = image[..., 0].transpose(2, 1, 0).astype(int)  # (c, z, y, 1) to (y, z, c)
    change = np.abs(deformed - plain).max(axis=-1)
    assert (change[25:55, 45:75] > 0).mean() > 0.9
    assert (change[:, 115:] > 0).mean() < 0.02  # far from the bulge


@pytest.mark.slow
def test_many_datasets_on_a_cluster_become_a_table_of_genes_by_regions(run, phantom_atlas, tmp_path):
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url}
        printed = run("many_datasets.py", tmp_path / "many", phantom_atlas, "74272479", "69289763", **environment)
    first, _, *rows = printed.splitlines()
    assert first == "{'built': 2}"
    assert [row.split() for row in rows] == [["69289763", "built", "Prox1", "36"], ["74272479", "built", "Nrp1", "116"]]
    assert "Prox1" in run("genes_by_regions.py", tmp_path / "many")
    assert picture(tmp_path / "genes_by_regions.png").std() > 20
    assert picture(tmp_path / "many_datasets.png").std() > 20


@pytest.mark.slow
def test_a_volume_in_brainglobe_is_listed_by_its_manifests(run, tmp_path):
    for name, draw in (("annotation.nrrd", annotation_nrrd), ("template.nrrd", template_nrrd)):
        (tmp_path / name).write_bytes(draw(default_phantom(), 100))
    with Emulator() as emulator:
        environment = {"ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
        files = ("brainglobe-atlasapi", "annotation.nrrd", "template.nrrd")
        printed = run("brainglobe_volume.py", *files, "74272479", **environment)
    assert "  atlases/allen-adult-mouse_100um/2017/manifest.json\n" in printed
    assert picture(tmp_path / "brainglobe_volume.png").std() > 20
