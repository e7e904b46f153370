"""neuroglancer in Chromium: where it draws labels and meshes of an atlas. Everything is served from this machine."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from atlaszarr.annotation_set.precomputed import layer_source, segment_properties
from atlaszarr.annotation_set.precomputed_folder import write_precomputed
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH (Debian's package chromium)"),
]

TERMINOLOGY = Terminology(
    (Structure(1, "root", "Everything", "#FFFFFF", (1,)), Structure(30, "box", "A box", "#FF0000", (1, 30)))
)
#: The voxels of the box along (z, y, x), and the position of its centre in neuroglancer, where voxel k is centred on
#: its translation: in voxels, along (x, y, z).
BOX = (slice(5, 17), slice(4, 21), slice(40, 57))
GEOMETRY = Geometry((0.1, 0.1, 0.1), (1.33, 0.92, -2.15))
CENTRE = [
    translation / 0.1 + (axis.start + axis.stop - 1) / 2
    for axis, translation in zip(BOX[::-1], GEOMETRY.translation[::-1], strict=True)
]
#: Panels, the orientation of the 3-D view that looks in the same direction, and the lengths of the box from left to
#: right and from top to bottom.
VIEWS = {"xy": ([0, 0, 0, 1], (17, 17)), "yz": ([0, 2**-0.5, 0, 2**-0.5], (12, 17))}
#: Pixels of a voxel in a panel.
ZOOM = 10
#: Seconds to wait for a picture, many times what one takes.
PATIENCE = 120
#: Images of the box in every form that neuroglancer opens, see docs/reading.md.
FORMS = {
    "0.4": {"ome_zarr": "0.4"},
    "0.5": {"ome_zarr": "0.5"},
    "0.5 in shards": {"ome_zarr": "0.5", "chunk": 16, "shard": 32},
}


class Browser:
    """Chromium that shows a viewer of neuroglancer."""

    def __init__(self, folder, profile):
        import neuroglancer
        from neuroglancer.static_file_server import StaticFileServer

        neuroglancer.set_server_bind_address("127.0.0.1")
        self._stop = neuroglancer.stop
        self._files = StaticFileServer(str(folder), bind_address="127.0.0.1", daemon=True)
        self.url, self.viewer, self._shown = self._files.url, neuroglancer.Viewer(), 0
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader"]
        options += ["--enable-unsafe-swiftshader", "--window-size=700,700", f"--user-data-dir={profile}"]
        options.append("--remote-debugging-port=0")  # any that is free
        options.append("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        command = [CHROMIUM, *options, self.viewer.get_viewer_url()]
        self._profile = Path(profile)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self):
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._files.stop()
        self._stop()

    def text(self, source, tab, expected):
        """The text of the page once it has a word, with a tab of the layer of a source at its side."""
        layer = {"type": "segmentation", "name": "labels", "source": source, "tab": tab}
        self.viewer.set_state({"layers": [layer], "selectedLayer": {"visible": True, "layer": "labels"}})
        return asyncio.run(self._text(expected))

    async def _text(self, expected):
        from tornado.websocket import websocket_connect

        end = time.monotonic() + PATIENCE
        while not (port := self._profile / "DevToolsActivePort").exists() or not port.read_text():
            assert time.monotonic() < end, "Chromium does not start"
            await asyncio.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json") as pages:
            (page,) = (page for page in json.load(pages) if page["type"] == "page")
        connection, found = await websocket_connect(page["webSocketDebuggerUrl"]), ""
        question = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": "document.body.innerText"}}
        while expected not in found:
            assert time.monotonic() < end, f"the page has no {expected!r}: {found}"
            await connection.write_message(json.dumps(question))
            found = json.loads(await connection.read_message())["result"]["result"]["value"]
            await asyncio.sleep(0.2)
        connection.close()
        while await connection.read_message() is not None:  # None: it is closed
            pass
        return found

    def drawn(self, source, layout, orientation, lengths):
        """The centre of the drawn box, in pixels right and down, and the pixels of a voxel."""
        # Every picture has a colour of its own, so that an earlier one is not taken for it.
        colour = self._shown % 3
        self._shown += 1
        layer = {
            "type": "segmentation",
            "name": "labels",
            "source": source,
            "segments": ["30"],
            "segmentColors": {"30": "#" + "".join("ff" if k == colour else "00" for k in range(3))},
            "selectedAlpha": 1,
            "objectAlpha": 1,
        }
        hidden = ("showSlices", "showAxisLines", "showScaleBar", "showDefaultAnnotations")
        state = {
            "dimensions": {name: [1e-4, "m"] for name in "xyz"},
            "position": CENTRE,
            "crossSectionScale": 1 / ZOOM,
            "projectionScale": 60,
            "projectionOrientation": orientation,
            "layers": [layer],
            "layout": layout,
            "crossSectionBackgroundColor": "#000000",
            "projectionBackgroundColor": "#000000",
            **dict.fromkeys(hidden, False),
        }
        self.viewer.set_state(state)
        end, before = time.monotonic() + PATIENCE, np.zeros((0, 2))
        while True:
            picture = self._picture()[..., :3].astype(int)
            others = np.delete(picture, colour, axis=2).max(axis=2)
            drawn = np.argwhere((picture[..., colour] > 60) & (2 * others < picture[..., colour]))
            if drawn.size and np.array_equal(drawn, before):
                break
            before = drawn
            assert time.monotonic() < end, "the box is not drawn"
        starts, stops = drawn.min(axis=0)[::-1], drawn.max(axis=0)[::-1] + 1
        zoom = (stops - starts) / lengths
        assert zoom[0] == pytest.approx(zoom[1], rel=0.05)  # the whole box, undistorted
        return (starts + stops) / 2, zoom

    def _picture(self):
        taken, arrived = [], threading.Event()

        def take(reply):
            taken.append(reply.screenshot.image_pixels)
            arrived.set()

        self.viewer.async_screenshot(take)
        assert arrived.wait(PATIENCE), "Chromium does not answer"
        return taken[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("neuroglancer", reason="the package neuroglancer is not installed")
    folder = tmp_path_factory.mktemp("served")
    labels = np.zeros((24, 28, 96), np.uint32)  # next to the box is a precomputed chunk that is not written
    labels[BOX] = 30
    image = folder / "annotation.ome.zarr"
    write_multiscales(labels, image, rule="mode", levels=1, geometry=GEOMETRY)
    for name, options in {**FORMS, "0.6": {"ome_zarr": "0.6"}}.items():
        write_multiscales(labels, folder / f"{name}.ome.zarr", rule="mode", levels=1, geometry=GEOMETRY, **options)
    (folder / "segment_properties").mkdir()
    (folder / "segment_properties/info").write_bytes(segment_properties(TERMINOLOGY))
    write_precomputed(Finished.at(Target.of(image)), Target.of(folder / "annotations.precomputed"), TERMINOLOGY)
    assert len(list((folder / "annotations.precomputed/100000_100000_100000").iterdir())) == 1
    browser = Browser(folder, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize("panel", VIEWS)
def test_a_mesh_and_the_precomputed_labels_lie_on_the_annotation_once_their_source_is_shifted(browser, panel):
    # The viewer looks at the centre of the box: what lies there is drawn in the middle of the window at any zoom.
    orientation, lengths = VIEWS[panel]
    folder = f"{browser.url}/annotations.precomputed"
    meshes, annotation = layer_source(folder, GEOMETRY), [f"zarr://{browser.url}/annotation.ome.zarr"]
    middle, zoom = browser.drawn(annotation, {"type": panel}, orientation, lengths)
    np.testing.assert_allclose(zoom, ZOOM, rtol=0.02)
    view = {"type": "3d", "orthographicProjection": True}
    centre, zoom = browser.drawn([meshes], view, orientation, lengths)
    np.testing.assert_allclose((centre - middle) / zoom, 0, atol=0.2)
    labels = {**meshes, "subsources": {"default": True}}
    centre, zoom = browser.drawn([labels], {"type": panel}, orientation, lengths)
    np.testing.assert_allclose((centre - middle) / zoom, 0, atol=0.2)
    unshifted = {name: value for name, value in meshes.items() if name != "transform"}
    centre, zoom = browser.drawn([unshifted], view, orientation, lengths)
    shift = np.array([row[3] for row in meshes["transform"]["matrix"]])
    right = {"xy": shift[0], "yz": -shift[2]}[panel]  # z runs to the left
    np.testing.assert_allclose((middle - centre) / zoom, [right, shift[1]], atol=0.2)


def form(browser, name):
    return [f"zarr://{browser.url}/{name}.ome.zarr".replace(" ", "%20")]


@pytest.mark.parametrize("name", FORMS)
def test_the_box_is_drawn_at_its_place_from_every_form_that_neuroglancer_opens(browser, name):
    for panel, (orientation, lengths) in VIEWS.items():
        centre, zoom = browser.drawn(form(browser, name), {"type": panel}, orientation, lengths)
        middle, _ = browser.drawn(form(browser, "0.5"), {"type": panel}, orientation, lengths)
        np.testing.assert_allclose(zoom, ZOOM, rtol=0.02)
        np.testing.assert_allclose((centre - middle) / zoom, 0, atol=0.2)


def test_names_next_to_an_annotation_are_those_of_its_segments(browser):
    sources = [*form(browser, "0.5"), f"precomputed://{browser.url}/segment_properties"]
    assert "\n1\nroot\n" in browser.text(sources, "segments", "\n30\nbox")
    orientation, lengths = VIEWS["xy"]
    _, zoom = browser.drawn(sources, {"type": "xy"}, orientation, lengths)
    np.testing.assert_allclose(zoom, ZOOM, rtol=0.02)


def test_ome_zarr_0_6_is_refused(browser):
    browser.text(form(browser, "0.6"), "source", 'OME multiscale metadata version "0.6" is not supported')
