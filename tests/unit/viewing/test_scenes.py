"""What a page shows of a target: its layers, its contrast, its position and zoom, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr

from atlaszarr.annotation_set.precomputed_folder import write_precomputed
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.errors import InputError, NotFoundError
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Terminology
from atlaszarr.writing import write_multiscales
from codes import raises
from small_annotation import CSV, GEOMETRY, labels, write_annotation

pytest.importorskip("neuroglancer", reason="the package neuroglancer is not installed")

from atlaszarr.viewing.images import ViewedImage
from atlaszarr.viewing.planes import panels
from atlaszarr.viewing.scene import scene

WORDS = {"z": "anterior-to-posterior", "y": "superior-to-inferior", "x": "left-to-right"}
AXES = dict(zip("zyx", range(3), strict=True))


class Served:
    """The sources of a scene by their URLs."""

    def __init__(self):
        self.sources = {}

    def __call__(self, source):
        url = f"http://served/{len(self.sources)}"
        self.sources[url] = source
        return url

    def of(self, source):
        """The source that a layer names."""
        url = source["url"] if isinstance(source, dict) else source
        return self.sources[url.partition("://")[2].rstrip("/")]


def shown(target, over=None, regions=(), options=None):
    """The state of a page, and the sources that it reads."""
    served = Served()
    state = scene(target, over, regions, options, served).state
    json.dumps(state)
    return state, served


def volume(path, shape=(3, 20, 20, 20), geometry=GEOMETRY, **options):
    """Write a volume of random values, and return its path."""
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_multiscales(values, path, geometry=geometry, **options)
    return path


def edit(path, change):
    """Change the attributes of a group."""
    group = zarr.open_group(path, mode="r+")
    attributes = group.attrs.asdict()
    change(attributes)
    group.attrs.put(attributes)


@pytest.fixture
def annotation(tmp_path):
    return write_annotation(tmp_path)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_every_version_is_served_as_one_that_neuroglancer_reads_with_its_lengths_in_um(tmp_path, version):
    geometry = Geometry((0.025, 0.05, 0.01), (0.0075, -0.02, 1.3))
    path = volume(tmp_path / "x.ome.zarr", geometry=geometry, ome_zarr=version, levels=2)
    _, served = shown(path)
    (source,) = served.sources.values()
    for key, body in source.documents.items():
        (tmp_path / "served" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "served" / key).write_bytes(body)
    read, written = (StoredImage.at(Target.of(folder)) for folder in (tmp_path / "served", path))
    assert read.version == ("0.4" if version == "0.4" else "0.5")
    assert read.paths == ("0", "1")
    np.testing.assert_allclose(read.scales, np.array(written.scales) * [1, 1000, 1000, 1000])
    np.testing.assert_allclose(read.translations, np.array(written.translations) * 1000)
    assert [axis.unit for axis in read.axes] == [None, *["micrometer"] * 3]
    assert source.folders["1"].url == f"{path}/1"


def test_coarser_levels_end_where_level_0_does(tmp_path):
    path = volume(tmp_path / "x.ome.zarr", shape=(29, 30, 27), levels=3)
    _, served = shown(path)
    (source,) = served.sources.values()
    shapes = [json.loads(source.documents[f"{level}/zarr.json"])["shape"] for level in range(3)]
    assert shapes == [[29, 30, 27], [14, 15, 13], [7, 7, 6]]
    assert json.loads((path / "2/zarr.json").read_text())["shape"] == [8, 8, 7]


def test_the_page_begins_at_the_middle_voxel_with_all_of_the_image_in_its_panels(tmp_path):
    geometry = Geometry((0.025, 0.025, 0.025), (0.0075, 0.0075, 0.0075), orientation=WORDS)
    state, _ = shown(volume(tmp_path / "x.ome.zarr", shape=(3, 40, 20, 30), geometry=geometry))
    assert state["dimensions"] == {name: [2.5e-5, "m"] for name in "xyz"}
    np.testing.assert_allclose(state["position"], np.array([12, 10, 20]) + 0.3)
    assert state["crossSectionScale"] == pytest.approx(40 / 420)  # voxels along z, pixels down
    # Right, posterior, inferior: right-handed, so that a 3-D view does not exchange left and right.
    assert state["displayDimensions"] == ["x", "z", "y"]
    rows = [row["children"] for row in state["layout"]["children"]]
    assert [len(row) for row in rows] == [2, 1]
    assert all(panel["layers"] == ["image"] for row in rows for panel in row)


def named(image):
    served = Served()
    made = scene(image, None, (), None, served)
    return made.state, panels(made.state, made.ends)


def test_the_planes_of_a_picture_have_the_names_of_their_sides(tmp_path):
    geometry = Geometry((0.025, 0.025, 0.025), (0.0075, 0.0075, 0.0075), orientation=WORDS)
    state, found = named(volume(tmp_path / "x.ome.zarr", geometry=geometry))
    up = ("superior", "inferior")
    assert [(one.name, one.sides) for one in found] == [
        ("coronal", ("left", "right", *up)),
        ("horizontal", ("left", "right", "anterior", "posterior")),
        ("sagittal", ("anterior", "posterior", *up)),
    ]
    assert [(one.left, one.top, one.width, one.height) for one in found] == [
        (0, 0, 0.5, 0.5),
        (0.5, 0, 0.5, 0.5),
        (0, 0.5, 1, 0.5),
    ]
    state["layout"]["children"][0]["children"][0]["crossSectionOrientation"]["value"] = [0, 0, 0.6, 0.8]
    ends = {"z": ("a", "p"), "y": ("s", "i"), "x": ("l", "r")}
    assert [one.name for one in panels(state, ends)] == ["horizontal", "sagittal"]  # the turned one has no names
    assert panels({**state, "layout": "4panel"}, ends) == []
    # neuroglancer leaves out the rotation of a plane that is not turned.
    del state["layout"]["children"][0]["children"][1]["crossSectionOrientation"]["value"]
    assert [one.name for one in panels(state, ends)] == ["horizontal", "sagittal"]


def test_a_section_is_in_the_middle_of_the_page(tmp_path):
    geometry = Geometry((0.025, 0.025, 0.025), (0.0075, 0.0075, 0.0075), orientation=WORDS)
    state, _ = named(volume(tmp_path / "x.ome.zarr", shape=(3, 1, 20, 30), geometry=geometry))
    assert state["position"][0] == pytest.approx(15.3)


def test_sides_are_named_by_the_image_or_not_at_all(tmp_path):
    words = {**WORDS, "x": "right-to-left"}
    other = Geometry((0.025, 0.025, 0.025), orientation=words)
    assert named(volume(tmp_path / "x.ome.zarr", geometry=other))[1][0].sides[:2] == ("right", "left")
    unknown = Geometry((0.025, 0.025, 0.025), orientation={axis: WORDS[axis] for axis in "zy"})
    state, found = named(volume(tmp_path / "y.ome.zarr", geometry=unknown))
    assert found == []
    assert state["position"][0] == 10  # and the middle is not left


def test_an_image_along_other_axes_has_the_panels_of_neuroglancer(tmp_path):
    words = {"z": "inferior-to-superior", "y": "posterior-to-anterior", "x": "left-to-right"}
    state, _ = shown(volume(tmp_path / "x.ome.zarr", geometry=Geometry((1, 1, 1), orientation=words)))
    assert state["layout"] == "4panel"
    assert "displayDimensions" not in state


def test_the_contrast_and_the_colours_are_those_of_omero(tmp_path):
    path = volume(tmp_path / "x.ome.zarr", shape=(2, 20, 20, 20))
    windows = [{"start": 10, "end": 200.5}, {"start": 0, "end": 50}]
    channels = [
        {"label": name, "color": colour, "active": True, "window": window}
        for name, colour, window in zip(("a", "b"), ("FF8000", "0000FF"), windows, strict=True)
    ]
    edit(path, lambda attributes: attributes["ome"].update(omero={"channels": channels}))
    (layer,) = shown(path)[0]["layers"]
    assert "#uicontrol invlerp c0(range=[10, 200.5], channel=0)" in layer["shader"]
    assert "#uicontrol invlerp c1(range=[0, 50], channel=1)" in layer["shader"]
    assert "c0() * vec3(1.0000, 0.5020, 0.0000) + c1() * vec3(0.0000, 0.0000, 1.0000)" in layer["shader"]


@pytest.mark.parametrize(
    "channel",
    [
        {"window": {"start": 5, "end": 5}, "color": "red"},
        {"window": {"start": float("nan"), "end": 1e999}, "color": "#FF0000"},
        {"window": [1, 2], "color": 7},
        {"window": {"start": True, "end": "9"}},
        "no channel",
    ],
    ids=str,
)
def test_a_wrong_contrast_or_colour_is_replaced(tmp_path, channel):
    path = volume(tmp_path / "x.ome.zarr", shape=(1, 20, 20, 20))
    edit(path, lambda attributes: attributes["ome"].update(omero={"channels": [channel]}))
    (layer,) = shown(path)[0]["layers"]
    assert "#uicontrol invlerp c0(range=[0, 255])" in layer["shader"]
    assert "vec3(1.0000, 1.0000, 1.0000)" in layer["shader"]


def test_without_omero_the_brightest_values_give_the_contrast(tmp_path):
    values = np.zeros((20, 20, 20), np.uint16)
    values[5:15] = 300
    values[7, 7, 7] = 60000
    write_multiscales(values, tmp_path / "x.ome.zarr", geometry=GEOMETRY, levels=1)
    (layer,) = shown(tmp_path / "x.ome.zarr")[0]["layers"]
    assert "range=[0, 300]" in layer["shader"]


def test_channels_in_chunks_of_their_own_are_layers_of_their_own(tmp_path):
    group = zarr.open_group(tmp_path / "x.ome.zarr", mode="w")
    group.create_array("0", shape=(2, 8, 8, 8), chunks=(1, 8, 8, 8), dtype="float32")[:] = 1
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "zyx")]
    scale = [{"type": "scale", "scale": [1.0, 2.0, 2.0, 2.0]}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    state, _ = shown(tmp_path / "x.ome.zarr")
    assert [layer["localPosition"] for layer in state["layers"]] == [[0], [1]]
    assert {layer["blend"] for layer in state["layers"]} == {"additive"}


def test_regions_have_the_colours_acronyms_and_names_of_the_terminology(tmp_path, annotation):
    state, served = shown(volume(tmp_path / "x.ome.zarr"), annotation)
    assert [layer["name"] for layer in state["layers"]] == ["image", "regions"]
    regions = state["layers"][1]
    assert regions["segmentColors"] == {"1": "#FFFFFF", "2": "#00FF00", "3": "#0000FF", "4": "#0000FF"}
    names = json.loads(served.of(regions["source"][1]).documents["info"])["inline"]
    found = dict(zip(names["ids"], names["properties"][0]["values"], strict=True))
    assert found == {
        "1": "root",
        "2": "CTX Cortex, all of it [bold]",
        "3": "RSP Retrosplenial area",
        "4": "NIL Nothing",
    }


def test_without_a_terminology_the_colours_are_those_of_the_image_label(tmp_path, annotation):
    (tmp_path / "terminology.csv").unlink()
    colours = [{"label-value": 2, "rgba": [1, 2, 255, 9]}, {"label-value": 3, "rgba": [1, 2]}, {"rgba": [1, 2, 3, 4]}]
    edit(annotation, lambda attributes: attributes["ome"].update({"image-label": {"colors": colours}}))
    state, _ = shown(annotation)
    assert state["layers"][0]["segmentColors"] == {"2": "#0102ff"}
    assert len(state["layers"][0]["source"]) == 1


def test_a_region_is_selected_with_its_descendants_that_occur_and_the_page_begins_in_it(tmp_path, annotation):
    state, _ = shown(volume(tmp_path / "x.ome.zarr"), annotation, ["CTX"])
    assert state["layers"][-1]["segments"] == ["2", "3"]
    z, y, x = (round(at) for at in state["position"][::-1])
    assert labels()[z, y, x] in (2, 3)
    whole = shown(tmp_path / "x.ome.zarr", annotation)[0]
    narrow, _ = shown(tmp_path / "x.ome.zarr", annotation, ["Retrosplenial area"])
    assert narrow["layers"][-1]["segments"] == ["3"]
    z, y, x = (round(at) for at in narrow["position"][::-1])
    assert labels()[z, y, x] == 3
    assert narrow["projectionScale"] == whole["projectionScale"]


def test_a_region_of_two_halves_is_begun_in_one_of_them(tmp_path):
    (tmp_path / "terminology.csv").write_text(CSV)
    values = np.zeros((20, 20, 20), np.uint32)
    values[4:8, 4:8, 1:4] = values[4:8, 4:8, 16:19] = 3
    write_multiscales(values, tmp_path / "a.ome.zarr", rule="mode", geometry=GEOMETRY)
    state, _ = shown(tmp_path / "a.ome.zarr", regions=["RSP"])
    z, y, x = (round(at) for at in state["position"][::-1])
    assert values[z, y, x] == 3


def test_a_region_across_the_midline_is_begun_in_the_left_hemisphere_where_sagittal_sections_are(tmp_path):
    (tmp_path / "terminology.csv").write_text(CSV)
    values = np.zeros((20, 20, 20), np.uint32)
    values[4:8, 4:8, 2:18] = 3
    write_multiscales(values, tmp_path / "a.ome.zarr", rule="mode", geometry=replace(GEOMETRY, orientation=WORDS))
    state, _ = shown(tmp_path / "a.ome.zarr", regions=["RSP"])
    z, y, x = (round(at) for at in state["position"][::-1])
    assert 4 <= x <= 7  # of 2 to 9
    assert values[z, y, x] == 3


def test_a_small_region_of_a_large_annotation_is_found_at_a_finer_level(tmp_path):
    (tmp_path / "terminology.csv").write_text(CSV)
    values = np.zeros((257, 256, 257), np.uint32)  # regions are first looked for at level 1
    values[:64] = 2
    values[201, 31, 33] = 4
    write_multiscales(values, tmp_path / "a.ome.zarr", rule="mode", geometry=GEOMETRY, levels=2)
    state, _ = shown(tmp_path / "a.ome.zarr", regions=["NIL"])
    np.testing.assert_allclose(state["position"], [33, 31, 201])
    everything, _ = shown(tmp_path / "a.ome.zarr", regions=["root"])
    assert everything["layers"][-1]["segments"] == ["2", "4"]  # also what level 1 lacks


def test_a_level_is_shown_at_its_own_resolution(tmp_path):
    path = volume(tmp_path / "x.ome.zarr", levels=3)
    state, served = shown(path / "1")
    (source,) = served.sources.values()
    assert {key: target.url for key, target in source.folders.items()} == {"0": f"{path}/1"}
    assert state["dimensions"]["z"] == [pytest.approx(2e-4), "m"]


def test_an_expression_grid_or_a_plain_array_is_shown(tmp_path):
    zarr.create_array(tmp_path / "plain.zarr", shape=(6, 7, 8), chunks=(6, 7, 8), dtype="float32")[:] = 2
    state, _ = shown(tmp_path / "plain.zarr")
    assert state["dimensions"] == {name: [1.0, ""] for name in "xyz"}
    assert state["position"] == [4, 3, 3]


def test_meshes_lie_on_the_voxels_and_a_shell_around_them(tmp_path):
    (tmp_path / "terminology.csv").write_text(CSV)
    geometry = Geometry((0.1, 0.1, 0.1), (1.33, 0.92, -2.15), orientation=WORDS)
    write_multiscales(labels(), tmp_path / "annotation.ome.zarr", rule="mode", levels=1, geometry=geometry)
    target = Target.of(tmp_path / "annotations.precomputed")
    terminology = Terminology.read(tmp_path / "terminology.csv")
    write_precomputed(Finished.at(Target.of(tmp_path / "annotation.ome.zarr")), target, terminology)
    state, served = shown(volume(tmp_path / "x.ome.zarr", geometry=geometry), tmp_path / "annotation.ome.zarr", ["RSP"])
    regions, shell = state["layers"][1:]
    _, meshes, names = regions["source"]
    assert [row[3] for row in meshes["transform"]["matrix"]] == pytest.approx([-22.0, 8.7, 12.8])
    assert meshes["enableDefaultSubsources"] is False
    assert meshes["subsources"] == {"mesh": True, "properties": False}
    assert (
        served.sources[meshes["url"].removeprefix("precomputed://").removesuffix("/meshes")].folders["meshes"] == target
    )
    assert "info" in served.of(names).documents
    assert (shell["source"], shell["segments"]) == ([meshes], ["1"])
    assert [len(row["children"]) for row in state["layout"]["children"]] == [2, 2]


REFUSED = {
    "a dtype that is not drawn": "unsupported-dtype",
    "more axes": "wrong-dimensions",
    "two dimensions": "missing-axis",
    "no image": "not-an-image",
    "a region without an annotation": "missing-annotation",
    "an annotation over an annotation": "contradictory-options",
    "no terminology to find a region": "file-not-found",
    "a region without voxels": "region-without-voxels",
    "another orientation": "orientations-differ",
    "another unit": "different-units",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_shown_is_refused(tmp_path, annotation, case):
    image, over, regions = volume(tmp_path / "x.ome.zarr"), None, []
    match case:
        case "a dtype that is not drawn":
            write_multiscales(np.zeros((8, 8, 8)), tmp_path / "y.ome.zarr", geometry=GEOMETRY)
            image = tmp_path / "y.ome.zarr"
        case "more axes":
            group = zarr.open_group(tmp_path / "y.ome.zarr", mode="w")
            group.create_array("0", shape=(2, 8, 8, 8), chunks=(1, 8, 8, 8), dtype="uint8")
            axes = [{"name": name} for name in "tzyx"]
            scale = [{"type": "scale", "scale": [1.0] * 4}]
            entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
            group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
            image = tmp_path / "y.ome.zarr"
        case "two dimensions":
            write_multiscales(np.zeros((8, 8), np.uint8), tmp_path / "y.ome.zarr", geometry=GEOMETRY)
            image = tmp_path / "y.ome.zarr"
        case "no image":
            image = tmp_path / "missing.ome.zarr"
        case "a region without an annotation":
            regions = ["RSP"]
        case "an annotation over an annotation":
            image, over = annotation, annotation
        case "no terminology to find a region":
            (tmp_path / "terminology.csv").unlink()
            over, regions = annotation, ["RSP"]
        case "a region without voxels":
            over, regions = annotation, ["NIL"]
        case "another orientation":
            other = replace(GEOMETRY, orientation={**WORDS, "z": "posterior-to-anterior"})
            write_multiscales(labels(), tmp_path / "b.ome.zarr", rule="mode", geometry=other)
            image, over = volume(tmp_path / "y.ome.zarr", geometry=replace(GEOMETRY, orientation=WORDS)), None
            over = tmp_path / "b.ome.zarr"
        case "another unit":
            image, over = volume(tmp_path / "y.ome.zarr", geometry=Geometry((1, 1, 1), unit=None)), annotation
    with raises(InputError, REFUSED[case]):
        shown(image, over, regions)


def test_an_unknown_region_is_named(annotation):
    with raises(NotFoundError, "structure-not-found") as caught:
        shown(annotation, regions=["rsp"])
    assert "RSP" in str(caught.value)


def test_an_image_of_the_two_names_of_the_sides_lies_under_an_annotation_of_the_other(tmp_path):
    other = replace(GEOMETRY, orientation={**WORDS, "x": "right-to-left"})
    write_multiscales(labels(), tmp_path / "b.ome.zarr", rule="mode", geometry=other)
    (tmp_path / "terminology.csv").write_text(CSV)
    image = volume(tmp_path / "x.ome.zarr", geometry=replace(GEOMETRY, orientation=WORDS))
    assert len(shown(image, tmp_path / "b.ome.zarr")[0]["layers"]) == 2


def test_what_is_an_annotation(tmp_path, annotation):
    assert ViewedImage.at(Target.of(annotation)).is_annotation
    assert not ViewedImage.at(Target.of(volume(tmp_path / "x.ome.zarr", shape=(20, 20, 20)))).is_annotation
