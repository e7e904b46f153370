"""A view in Chromium that resolves 127.0.0.1 alone: what it picks is what the arrays hold, and what it draws."""

import io
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import zarr

import atlaszarr
from atlaszarr import AllenClient, Terminology, build
from atlaszarr.annotation_set.precomputed_folder import write_precomputed
from atlaszarr.cli.commands import main
from atlaszarr.engine.finished_image import Finished
from atlaszarr.stores.target import Target
from page import WITH_CHROMIUM, browsing
from small_annotation import write_annotation

pytest.importorskip("neuroglancer", reason="the package neuroglancer is not installed")
pytestmark = WITH_CHROMIUM

DATASET = 74272479
#: Where the mouse is held, in pixels of the window: on the coronal plane, and on the plane of section alone.
PLACES = [(220, 200), (250, 220), (300, 240)]


@pytest.fixture(scope="module")
def built(emulator, made_once):
    """A folder with a volume and its expression view, the same as OME-Zarr 0.6 and 0.4, and sections."""

    def make(path):
        path.mkdir()
        with AllenClient(emulator.url, cache="none", rate=1e9) as client:
            views = {"view": ["primary", "expression"], "resolution": 100, "client": client}
            build(DATASET, path / "x.ome.zarr", **views)
            build(DATASET, path / "six.ome.zarr", ome_zarr="0.6", resolution=100, client=client)
            build(DATASET, path / "four.ome.zarr", ome_zarr="0.4", shard=None, resolution=100, client=client)
            build(DATASET, path / "sections.ome.zarr", mode="sections", resolution=100, client=client)

    return made_once("volumes to view", make)


def array(path):
    """Level 0 of an image, and the size and the centre of its first voxel along (z, y, x) in um."""
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs.asdict()
    (entry,) = attributes.get("ome", attributes)["multiscales"]
    steps = entry["datasets"][0]["coordinateTransformations"]
    steps = steps[0]["transformations"] if steps[0]["type"] == "sequence" else steps
    values = group[entry["datasets"][0]["path"]][...]
    return values, *(1000 * np.array(step[step["type"]])[-3:] for step in steps)


def voxel(values, size, centre, point):
    """The value of the voxel of an image that holds a point, (x, y, z) in um."""
    z, y, x = np.round((np.array(point)[::-1] - centre) / size).astype(int)
    return values[..., z, y, x].tolist()


def picked(page, state):
    """Points, (x, y, z) in um, and the values of the layers there, as the page picks them under the mouse."""
    page.wait("typeof viewer !== 'undefined' && viewer.isReady()")
    sizes = np.array([state["dimensions"][name][0] for name in "xyz"]) * 1e6
    found = []
    for x, y in PLACES:
        page.move(x, y)
        page.wait("viewer.mouseState.active")
        layer = "Object.values(viewer.layerSelectedValues.toJSON())"
        page.wait(f"{layer}.length > 0 && {layer}.every(one => one.value !== undefined && one.value !== null)")
        text = "[Array.from(viewer.mouseState.position), viewer.layerSelectedValues.toJSON()]"
        position, values = json.loads(page.run(f"JSON.stringify({text})"))
        found.append((np.array(position) * sizes, {name: one["value"] for name, one in values.items()}))
    return found


def label(value):
    """The label and the name of a picked region."""
    return (int(value["key"]), value["label"]) if isinstance(value, dict) else (int(value), "")


@pytest.mark.parametrize("name", ["x", "six", "four"])
def test_voxels_and_names_of_regions_picked_in_the_page_are_those_of_the_arrays(built, annotation, tmp_path, name):
    path = built / f"{name}.ome.zarr"
    names = {one.value: f"{one.acronym} {one.name}" for one in Terminology.read(annotation.parent / "terminology.csv")}
    with atlaszarr.view(path, annotation) as view:
        state = view.viewer.state.to_json()
        with browsing(view.url, tmp_path) as browser:
            found = picked(browser.page, state)
    image, labels = array(path), array(annotation)
    for point, values in found:
        assert values["image"] == voxel(*image, point)
        id, text = label(values["regions"])
        assert id == voxel(*labels, point)
        assert text == names[id] or id in (0, 997)
    assert any(label(values["regions"])[0] for _, values in found)
    assert len({str(values["image"]) for _, values in found}) == len(PLACES)
    assert all(url.startswith((view.url.partition("/v/")[0], "data:", "blob:")) for url in browser.requests)
    assert len(browser.requests) > 10


def test_sections_lie_at_their_places_and_a_turn_of_the_wheel_leads_to_the_next(built, tmp_path):
    with atlaszarr.view(built / "sections.ome.zarr") as view:
        state = view.viewer.state.to_json()
        with browsing(view.url, tmp_path) as browser:
            found = picked(browser.page, state)
            browser.page.run("viewer.position.value[2] += 1; viewer.position.changed.dispatch()")
            next_section = picked(browser.page, state)
    sections = [array(path) for path in built.glob("sections.ome.zarr/[0-9]*")]
    for point, values in [*found, *next_section]:
        (section,) = (one for one in sections if abs(one[2][0] - point[2]) <= one[1][0] / 2 + 1e-3)
        assert values["sections"] == voxel(*section, point)
    assert next_section[0][0][2] - found[0][0][2] == pytest.approx(200, abs=1)


def test_an_expression_view_is_shown_over_its_volume_and_alone(built, tmp_path):
    expression = array(built / "x.expression.ome.zarr")
    for name, layer in (("x", "expression"), ("x.expression", "expression")):
        (tmp_path / name).mkdir()
        with atlaszarr.view(built / f"{name}.ome.zarr") as view:
            state = view.viewer.state.to_json()
            with browsing(view.url, tmp_path / name) as browser:
                found = picked(browser.page, state)
        assert all(values[layer] == voxel(*expression, point) for point, values in found)
        assert ("image" in found[0][1]) == (name == "x")


def test_a_bucket_is_shown_without_credentials_in_the_browser(built, annotation, remote, tmp_path):
    for name, folder in (("v", built / "x.ome.zarr"), ("a", annotation.parent)):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            remote.write(name, str(path.relative_to(folder)), path.read_bytes())
    over = f"{remote.url('a')}/annotation.ome.zarr"
    shown = atlaszarr.view(remote.url("v"), over, storage_options=remote.options)
    with shown as view, browsing(view.url, tmp_path) as browser:
        found = picked(browser.page, view.viewer.state.to_json())
    image, labels = array(built / "x.ome.zarr"), array(annotation)
    for point, values in found:
        assert values["image"] == voxel(*image, point)
        assert label(values["regions"])[0] == voxel(*labels, point)
    assert all(url.startswith((view.url.partition("/v/")[0], "data:", "blob:")) for url in browser.requests)


def test_a_picture_shows_the_regions_in_the_colours_of_the_terminology(annotation, tmp_path):
    from PIL import Image

    picture = tmp_path / "x.png"
    assert main(["view", str(annotation), "--screenshot", str(picture)]) == 0
    pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")).reshape(-1, 3)
    colours = {one.rgb for one in Terminology.read(annotation.parent / "terminology.csv")}
    drawn, counts = np.unique(pixels, axis=0, return_counts=True)
    of_regions = [tuple(map(int, colour)) for colour in drawn[counts > 100] if tuple(map(int, colour)) in colours]
    assert len(of_regions) > 5, drawn[counts > 100]
    assert (pixels.sum(axis=1) > 0).mean() > 0.1


def test_a_picture_names_the_planes_and_changes_nothing_else(annotation, tmp_path):
    from PIL import Image

    from atlaszarr.viewing.planes import panels
    from atlaszarr.viewing.screenshot import picture, with_names

    with atlaszarr.view(annotation) as view:
        bare = picture(view.url, view.viewer, (1600, 1000))
        view.screenshot(tmp_path / "x.png")
        found = panels(view.viewer.state.to_json(), {"z": ("a", "p"), "y": ("s", "i"), "x": ("l", "r")})
    assert [one.name for one in found] == ["coronal", "horizontal", "sagittal"]
    assert with_names(bare, []) == bare
    before, after = (np.asarray(Image.open(body).convert("RGB")) for body in (io.BytesIO(bare), tmp_path / "x.png"))
    assert before.shape == after.shape
    changed = (before != after).any(axis=2)
    assert changed[:60, :300].any()
    assert not changed[100:170, 100:700].any()


def test_a_picture_shows_the_mesh_of_a_chosen_region_in_space(tmp_path):
    from PIL import Image

    image, target = write_annotation(tmp_path), Target.of(tmp_path / "annotations.precomputed")
    write_precomputed(Finished.at(Target.of(image)), target, Terminology.read(tmp_path / "terminology.csv"))
    with atlaszarr.view(image, regions="RSP") as view:
        view.screenshot(tmp_path / "x.png")
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    red, green, blue = pixels[height // 2 :, width // 2 :].reshape(-1, 3).T
    assert ((blue > 60) & (blue > 1.5 * red) & (blue > 1.5 * green)).sum() > 1000


def test_ctrl_c_ends_the_command_quietly_while_the_page_is_loading(built, annotation, tmp_path):
    command = [sys.executable, "-m", "atlaszarr", "view", built / "x.ome.zarr", "--over", annotation, "--no-browser"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        child = subprocess.Popen([*command, "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child, browsing(child.stdout.readline().strip(), tmp_path):
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (0, "", "")
