"""Annotation sets and atlases in a bucket and on web servers that list nothing; a preview and an atlas of one."""

import hashlib
import shutil

import numpy as np
import pytest
import s3fs

import institute_assets as institute
import lumps
from atlaszarr import build_atlas, preview, region_mask, region_volumes
from atlaszarr.assets.locate import locate
from atlaszarr.atlas.inputs import terminology_named
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.writing import write_multiscales
from codes import raises
from institute_assets import ATLAS, LABELS, NAME, SET, TERMINOLOGY
from quiet_web import Forbidding, Quiet, web
from s3_server import S3Server

DATASET = 74272479
FORMS = [SET, f"annotation-sets/{NAME}", f"{SET}/manifest.json", ATLAS, f"{ATLAS}/manifest.json", ""]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return institute.write_tree(tmp_path_factory.mktemp("assets") / "tree", masks=True)


@pytest.fixture(scope="module")
def s3(tree):
    """Storage options of a server with the tree in the buckets ``tree`` and, below a prefix, ``other``."""
    moto = S3Server()
    moto.start()
    options = {"key": "test", "secret": "test-secret", "endpoint_url": moto.url}
    store = s3fs.S3FileSystem(**options)
    for bucket, prefix in (("tree", ""), ("other", "in/a/folder/")):
        store.mkdir(bucket)
        files = [path for path in tree.rglob("*") if path.is_file()]
        store.pipe({f"{bucket}/{prefix}{path.relative_to(tree)}": path.read_bytes() for path in files})
    yield options
    moto.stop()


@pytest.mark.first(2)
@pytest.mark.parametrize("root", ["s3://tree", "s3://other/in/a/folder"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_in_a_bucket(s3, root, form):
    found = locate(f"{root}/{form}", s3)
    assert found.annotation == f"{root}/{LABELS}"
    assert found.terminology == f"{root}/{TERMINOLOGY}/terminology.csv"
    assert "test-secret" not in repr(found)


@pytest.mark.slow
def test_regions_of_an_annotation_set_in_a_bucket_are_measured(s3, tmp_path):
    table = region_volumes("s3://tree", by_hemisphere=True, storage_options=s3)
    assert table.loc["MBA:10", "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    assert int(region_mask(f"s3://tree/{ATLAS}", None, "LL", storage_options=s3).sum().compute()) == 480
    assert region_volumes(f"s3://tree/{LABELS}", storage_options=s3).loc["MBA:10", "voxels"] == 480
    with open_annotation(f"s3://tree/{ATLAS}", tmp_path, storage_options=s3) as volume:
        np.testing.assert_array_equal(np.asarray(volume.array) == 1, lumps.labels() == 10)
    with raises(InputError, "masks-not-labels"):
        region_volumes(f"s3://tree/{institute.MASKS}", storage_options=s3)


def test_a_version_that_a_bucket_lacks_is_refused_with_those_that_it_has(s3):
    with raises(InputError, "version-not-found") as caught:
        locate(f"s3://tree/annotation-sets/{NAME}/2016", s3)
    assert "has the versions 2020" in str(caught.value)


def test_a_bucket_that_does_not_exist_is_named(s3):
    with raises(InputError, "bucket-not-found") as caught:
        region_volumes(f"s3://missing/{SET}", storage_options=s3)
    assert "test-secret" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("handler", [Quiet, Forbidding])
def test_a_web_server_that_lists_nothing_needs_the_version(tree, handler, command):
    with web(tree, handler) as url:
        for form in (SET, f"{SET}/manifest.json", ATLAS, f"{ATLAS}/manifest.json"):
            assert locate(f"{url}/{form}").terminology == f"{url}/{TERMINOLOGY}/terminology.csv"
        ran = command("volumes", f"{url}/{ATLAS}", "--region", "LL")
        assert (ran.code, ran.out) == (0, "Left lump: 3.84 mm3\n")
        with raises(InputError, "missing-version") as caught:
            locate(f"{url}/annotation-sets/{NAME}")
        assert f"{url}/annotation-sets/{NAME}/2017" in str(caught.value)
        ran = command("volumes", f"{url}/annotation-sets/missing-annotation/2020")
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1


@pytest.mark.slow
def test_a_preview_of_an_asset_is_that_of_its_voxels_along_the_axes_of_the_space(tree, serve, connect, tmp_path):
    voxels = np.ascontiguousarray(institute.labels()[::-1, ::-1].transpose(1, 0, 2))
    annotations = {
        "plain": write_plain(tmp_path / "plain.ome.zarr", voxels),
        "asset": tree,
        "mirrored": write_plain(tmp_path / "other.ome.zarr", np.ascontiguousarray(voxels[:, :, ::-1])),
    }
    shutil.copy(tree / TERMINOLOGY / "terminology.csv", tmp_path)  # of the plain ones, whose acronyms are drawn too
    pictures, client, link = {}, connect(serve()), tmp_path / "annotation"
    for name, annotation in annotations.items():
        link.unlink(missing_ok=True)
        link.symlink_to(annotation)  # a picture names its annotation
        report = preview(DATASET, tmp_path / f"{name}.png", client=client, annotation=link)
        assert report.annotation == str(link)
        pictures[name] = hashlib.sha256((tmp_path / f"{name}.png").read_bytes()).hexdigest()
    assert pictures["asset"] == pictures["plain"] != pictures["mirrored"]


def write_plain(path, voxels):
    """Labels along the axes of the reference space, from its corner on."""
    geometry = Geometry((0.2,) * 3, (0.095,) * 3, "millimeter", ORIENTATION)
    write_multiscales(voxels, path, rule="mode", geometry=geometry)
    return path


OPTIONS = {"name": "other", "version": "2020", "citation": "Invented", "species": "Mus musculus"}


@pytest.mark.parametrize("form", [SET, f"{ATLAS}/manifest.json"])
def test_an_atlas_is_built_of_an_asset(tree, form, tmp_path):
    ontology = terminology_named([tree / form], tmp_path / "atlas", None)
    report = build_atlas(tmp_path / "atlas", annotation=tree / form, ontology=ontology, **OPTIONS)
    built = tmp_path / "atlas/annotation-sets/other-annotation/2020"
    assert report.images[0].target == f"{built}/annotation.ome.zarr"
    table = region_volumes(built, by_hemisphere=True)
    assert table.loc["MBA:10", "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    with open_annotation(built, tmp_path) as volume:
        np.testing.assert_array_equal(np.asarray(volume.array) == 1132, lumps.labels() == 20)


def test_the_terminology_of_an_asset_is_the_default_ontology_of_its_atlas(tree, tmp_path, command):
    ran = command("atlas", tmp_path / "atlas", "--annotation", tree / ATLAS, "--name", "other", "--version", "2020")
    assert ran.code == 0, ran.err
    assert region_volumes(tmp_path / "atlas").loc["MBA:10", "voxels"] == 480


def test_an_atlas_is_not_built_into_the_tree_that_it_is_read_from(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "tree")
    ontology = terminology_named([root / ATLAS], root, None)
    given = OPTIONS | {"name": "allen-adult-mouse", "ontology": ontology, "layout": "assets", "strict": True}
    for annotation in (root / SET, root / ATLAS):
        with raises(InputError, "target-overlaps-source"):
            build_atlas(root, annotation=annotation, **given)


def test_the_newest_version_of_an_asset_is_a_remark_of_its_atlas(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "tree")
    shutil.copytree(root / SET, root / SET.replace("2020", "2017"))
    ontology = terminology_named([root], tmp_path / "atlas", None)
    report = build_atlas(tmp_path / "atlas", annotation=root, ontology=ontology, **OPTIONS)
    assert any("2020 is used" in remark for remark in report.remarks)
    with pytest.warns(AtlaszarrWarning, match="2020 is used"):
        region_volumes(root)
