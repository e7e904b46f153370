"""A whole atlas for BrainGlobe: every file at the path that its reader opens, manifests last, errors before writing.

The reader itself opens one in tests/peers.
"""

import json
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr
from atlaszarr.brainglobe.write import write

from atlaszarr.annotation_set.meshes import defects
from atlaszarr.assets.names import (
    ANNOTATION,
    COMPRESSED,
    HEMISPHERES,
    MASKS,
    PRECOMPUTED,
    TEMPLATE,
    AtlasNames,
    below,
)
from atlaszarr.atlas.images import hemispheres_image
from atlaszarr.atlas.second_name import give_second_name
from atlaszarr.credit import CCF
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.pyramid import Pyramid
from atlaszarr.engine.schedulers import scheduler_for
from atlaszarr.engine.writer import write as write_image
from atlaszarr.errors import InputError
from atlaszarr.geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from codes import raises

LAYOUT = AtlasNames.of("allen-adult-mouse", "3.0")
TERMINOLOGY = Terminology(
    (
        Structure(997, "root", "root", "#FFFFFF", (997,)),
        Structure(8, "grey", "Grey, basic", "#BFDAE3", (997, 8)),
        Structure(70000, "far", "Far away", "#0A0B0C", (997, 8, 70000)),
    )
)
GEOMETRY = Geometry((0.025,) * 3, (0.0075,) * 3, orientation={**ORIENTATION, "x": BRAINGLOBE_SIDES})


def labels(shape=(60, 40, 44)):
    found = np.zeros(shape, np.uint32)
    found[10:40, 5:30, 5:40] = 8
    found[20:35, 10:20, 10:20] = 70000
    return found


def begun(folder, template=None, dtype=np.uint16, **options):
    """The folder of an atlas with annotation and template."""
    options = {"geometry": GEOMETRY, "levels": 3, "chunk": 32, **options}
    root = Target.of(folder)
    write_multiscales(
        da.from_array(labels()), below(root, f"{LAYOUT.annotation_set}/{ANNOTATION}").url, rule="mode", **options
    )
    template = labels() // 300 + 7 if template is None else template
    write_multiscales(
        da.from_array(template.astype(dtype)), below(root, f"{LAYOUT.template}/{TEMPLATE}").url, **options
    )
    target = below(root, f"{LAYOUT.annotation_set}/{HEMISPHERES}")
    with scheduler_for("threads", 2) as running:
        job = hemispheres_image(Pyramid.over(labels().shape, 32, 3), options["geometry"], target, "0.5", CCF)
        write_image(job, running)
    root.write(f"{LAYOUT.terminology}/terminology.csv", TERMINOLOGY.to_csv().encode())
    return root


@pytest.fixture
def root(tmp_path):
    return begun(tmp_path / "brainglobe-atlasapi")


def test_every_file_is_at_the_path_that_the_reader_opens(root):
    assert [report.state for report in write(root, LAYOUT, TERMINOLOGY, CCF)] == ["built"] * 2
    for resolution, shape in ((25, [60, 40, 44]), (50, [30, 20, 22]), (100, [15, 10, 11])):
        manifest = json.loads(root.read(f"atlases/allen-adult-mouse_{resolution}um/3_0/manifest.json"))
        assert manifest["resolution"] == [resolution] * 3
        assert manifest["shape"] == shape
        assert manifest["version"] == "3.0"
        assert manifest["orientation"] == "asr"
        for part, file in (
            ("annotation_set", f"{COMPRESSED}/zarr.json"),
            ("annotation_set", f"{MASKS}/annotation_values/c/0"),
            ("annotation_set", f"{HEMISPHERES}/zarr.json"),
            ("annotation_set", f"{PRECOMPUTED}/mesh/997"),
            ("terminology", "terminology.csv"),
            ("template", f"{TEMPLATE}/zarr.json"),
            ("coordinate_space", "manifest.json"),
        ):
            location = manifest[part]["location"]
            assert location.startswith("/")
            assert root.read(f"{location[1:]}/{file}") is not None
    space = json.loads(root.read(f"{LAYOUT.coordinate_space}/manifest.json"))
    assert space["template"]["name"] == "allen-adult-mouse-template"
    for name in (COMPRESSED, MASKS, HEMISPHERES):
        assert verify(below(root, f"{LAYOUT.annotation_set}/{name}").url, deep=True).ok
    assert defects(below(root, f"{LAYOUT.annotation_set}/{PRECOMPUTED}")) == []


def test_a_second_call_changes_nothing(root):
    write(root, LAYOUT, TERMINOLOGY, CCF)
    before = {key: root.read(key) for key in root.list_keys()}
    assert [report.state for report in write(root, LAYOUT, TERMINOLOGY, CCF)] == ["already finished"] * 2
    assert {key: root.read(key) for key in root.list_keys()} == before


def test_metadata_of_the_atlas_is_in_its_manifests(root):
    write(root, LAYOUT, TERMINOLOGY, replace(CCF, symmetric=False))
    manifest = json.loads(root.read("atlases/allen-adult-mouse_25um/3_0/manifest.json"))
    assert manifest["symmetric"] is False


def test_an_annotation_with_the_orientation_of_the_allen_institute_is_refused(tmp_path):
    root = begun(tmp_path / "brainglobe-atlasapi", geometry=replace(GEOMETRY, orientation=ORIENTATION))
    with raises(InputError, "unsupported-orientation") as caught:
        write(root, LAYOUT, TERMINOLOGY, CCF)
    assert "left-to-right" in str(caught.value)


def test_hemispheres_have_the_levels_of_the_annotation_and_for_brainglobe_the_low_half_of_x_is_right(root):
    target = below(root, f"{LAYOUT.annotation_set}/{HEMISPHERES}")
    assert Finished.at(target).resolutions == ((25.0,) * 3, (50.0,) * 3, (100.0,) * 3)
    for level, (shape, middle) in enumerate((((60, 40, 44), 22), ((30, 20, 22), 11), ((15, 10, 11), 5))):
        sides = zarr.open_array(f"{target.url}/{level}", mode="r")[:]
        assert sides.dtype == np.uint8
        assert sides.shape == shape
        assert (sides[..., :middle] == 2).all()
        assert (sides[..., middle:] == 1).all()


def test_the_second_name_of_the_annotation_opens_the_same_image(root, tmp_path):
    image = below(root, f"{LAYOUT.annotation_set}/{ANNOTATION}")
    give_second_name(image, below(root, f"{LAYOUT.annotation_set}/{COMPRESSED}"))
    assert (tmp_path / "brainglobe-atlasapi" / LAYOUT.annotation_set / COMPRESSED).is_symlink()
    remote = Target.of("memory://second-names/a.ome.zarr")
    for key in image.list_keys():
        remote.write(key, image.read(key))
    second = Target.of("memory://second-names/b.ome.zarr")
    second.write("0/c/9/9/9", b"of another image")
    for _ in range(2):
        give_second_name(remote, second)
        assert {key: second.read(key) for key in second.list_keys()} == {
            key: image.read(key) for key in image.list_keys()
        }
    assert verify(second.url).ok
    for target in (remote, second):
        target.remove()


def test_an_atlas_is_written_to_an_object_store_too(tmp_path):
    local = begun(tmp_path / "brainglobe-atlasapi")
    root = Target.of("memory://whole-atlas/brainglobe-atlasapi")
    for key in local.list_keys():
        root.write(key, local.read(key))
    write(root, LAYOUT, TERMINOLOGY, CCF)
    write(local, LAYOUT, TERMINOLOGY, CCF)
    remote = {key for key in root.list_keys() if f"/{COMPRESSED}/" not in key}
    assert remote == {key for key in local.list_keys() if f"/{COMPRESSED}/" not in key}
    for key in remote - {key for key in remote if "/atlaszarr/" in key}:
        assert root.read(key) == local.read(key)
    root.remove()


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"dtype": np.uint8}, "unsupported-dtype", "uint8"),
        ({"template": np.zeros((60, 40, 46))}, "shape-mismatch", "(60, 40, 46)"),
        ({"geometry": Geometry((0.0125,) * 3)}, "fractional-resolution", "12.5 um"),
        ({"geometry": Geometry((25.0,) * 3, unit="micrometer")}, "wrong-axes", "millimetres"),
        ({"ome_zarr": "0.4"}, "damaged-metadata", "0.5"),
    ],
)
def test_what_the_reader_cannot_open_is_refused_before_anything_is_written(tmp_path, options, code, named):
    root = begun(tmp_path / "brainglobe-atlasapi", **options)
    before = root.list_keys()
    with raises(InputError, code) as caught:
        write(root, LAYOUT, TERMINOLOGY, CCF)
    assert named in str(caught.value)
    assert root.list_keys() == before


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("Allen mouse", "3.0", "invalid-name"),
        ("a/b", "3.0", "invalid-name"),
        ("allen", "3.0.1", "invalid-version"),
        ("allen", "v3", "invalid-version"),
    ],
)
def test_names_and_versions_that_the_reader_cannot_find_are_refused(name, version, code):
    with raises(InputError, code):
        AtlasNames.of(name, version)
