"""Pictures of planes: sides are where the words say, borders leave tissue visible, acronyms lie in their regions."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from atlaszarr import Terminology
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_borders import LabelPlane
from atlaszarr.previews.draw import thumbnail_grid, thumbnail_resolution
from atlaszarr.previews.legible_regions import legible_regions
from atlaszarr.previews.paper import DPI, print_page
from atlaszarr.previews.region_bars import volumes_chart
from atlaszarr.previews.section_panel import draw_section
from atlaszarr.previews.three_planes import draw_three_planes
from drawn_words import places_of, words_of

SPACE = reference_space(9)
STEP = 100.0
ROWS = [(1, None, "root"), (2, 1, "A"), (3, 2, "A1"), (4, 2, "A2"), (5, 1, "LONGER")]
ONTOLOGY = Terminology.from_structure_graph(
    [
        {"id": id, "parent_structure_id": parent, "acronym": acronym, "name": acronym, "color_hex_triplet": "00AA00"}
        for id, parent, acronym in ROWS
    ]
)


def chart():
    import pandas as pd

    table = pd.DataFrame({"volume_mm3": [3.0, 2.0, 1.0, 1.0, 1.0]}, index=[id for id, *_ in ROWS])
    return volumes_chart(table, ONTOLOGY)


def page(image, suffix, labels=None):
    """The page of three planes of a volume (p, i, r) of grey levels with a red marker."""
    shown, places = {}, {}
    for plane in PLANES.values():
        places[plane.name] = SPACE.extent[plane.fixed] / 2
        # The marker is seen in every plane: the darkest along the axis across it.
        flat = image.min(axis=plane.fixed)
        flat = flat if plane.rows < plane.columns else flat.T
        shown[plane.name] = np.stack([np.full_like(flat, 255), flat, flat], axis=-1)
    none = dict.fromkeys(PLANES)
    return draw_three_planes(
        "Title", "words", SPACE, places, shown, STEP, labels or none, ONTOLOGY, chart(), "foot", suffix
    )


def panels(svg):
    """The (left, top, right, bottom) of each panel, from its title to those of others, and its words: where they begin.

    In points: {plane: box}, {plane: {word: (x, y)}}.
    """
    places = places_of(svg)
    titles = {name: places[name.capitalize()][0] for name in ("coronal", "sagittal", "horizontal")}
    (left, upper), (middle, _), (_, lower) = titles.values()
    boxes = {
        "coronal": (left - 20, upper, middle - 20, lower - 15),
        "sagittal": (middle - 20, upper, 1000, lower - 15),
        "horizontal": (left - 20, lower, middle - 20, 1000),
    }
    words = {
        name: {
            word: at
            for word in ("left", "right", "anterior", "posterior", "superior", "inferior")
            for at in places.get(word, [])
            if x0 <= at[0] < x1 and y0 <= at[1] < y1
        }
        for name, (x0, y0, x1, y1) in boxes.items()
    }
    return boxes, words


@pytest.mark.parametrize(
    ("sides", "box"),
    [
        (("anterior", "superior", "left"), (0.2, 0.2, 0.2)),
        (("posterior", "inferior", "right"), (0.8, 0.8, 0.8)),
        (("anterior", "inferior", "right"), (0.2, 0.8, 0.8)),
    ],
)
def test_a_marker_is_nearest_to_the_words_of_its_sides(sides, box):
    shape = [round(length / STEP) for length in SPACE.extent]
    image = np.full(shape, 255, np.uint8)
    image[tuple(slice(round(at * n) - 4, round(at * n) + 4) for at, n in zip(box, shape, strict=True))] = 0
    boxes, words = panels(page(image, ".svg"))
    assert {name: set(found) for name, found in words.items()} == {
        "coronal": {"left", "right", "superior", "inferior"},
        "sagittal": {"anterior", "posterior", "superior", "inferior"},
        "horizontal": {"left", "right", "anterior", "posterior"},
    }
    pixels = np.asarray(Image.open(io.BytesIO(page(image, ".png"))).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 250) & (pixels[..., 1] < 20) & (pixels[..., 2] < 20)
    opposite = {"anterior": "posterior", "superior": "inferior", "left": "right"}
    opposite |= {b: a for a, b in opposite.items()}
    for name, found in words.items():
        x0, y0, x1, y1 = (round(at * DPI / 72) for at in boxes[name])
        y, x = np.argwhere(red[y0:y1, x0:x1]).mean(axis=0)
        at = np.array([x0 + x, y0 + y]) * 72 / DPI
        for side in set(sides) & set(found):
            words_of_axis = np.array([found[side], found[opposite[side]]])
            axis = int(np.abs(words_of_axis[1] - words_of_axis[0]).argmax())
            near, far = np.abs(words_of_axis[:, axis] - at[axis])
            assert near < far, (name, side)


def test_the_page_names_planes_positions_axes_and_scale():
    words = words_of(page(np.full((132, 80, 114), 255, np.uint8), ".svg"))
    assert {"Coronal", "Sagittal", "Horizontal", "AP 6.60 mm", "DV 4.00 mm", "ML 5.70 mm", "2 mm"} <= set(words)
    assert [sum(f"← {axis} →" == word for word in words) for axis in ("AP", "DV", "ML")] == [2, 2, 2]


def blocks(size, n=160):
    """Labels of small square regions in a disc."""
    y, x = np.indices((n, n))
    disc = (y - n / 2) ** 2 + (x - n / 2) ** 2 < (0.45 * n) ** 2
    return np.where(disc, 1000 + (y // size) * n + x // size, 0).astype(np.uint32)


@pytest.mark.parametrize("grey", [40, 200])
@pytest.mark.parametrize("inches", [1.0, 3.0])
@pytest.mark.parametrize("size", [4, 16])
def test_borders_are_seen_and_tissue_is_seen_through_them(grey, inches, size):
    labels = blocks(size)
    image = np.where(labels[..., None] > 0, grey, 255 if grey > 100 else 0).repeat(3, axis=2).astype(np.uint8)
    drawn = []
    for plane in (None, LabelPlane(labels, (0.0, 0.0), (50.0, 50.0))):

        def draw(paper, plane=plane):
            draw_section(paper, (0, 0, inches, inches), (8000.0, 8000.0), image, 50.0, plane)

        body = print_page(inches, inches, draw, ".png", {"Title": "x"})
        drawn.append(np.asarray(Image.open(io.BytesIO(body)).convert("L")).astype(int))
    n = len(drawn[0])
    middle = (slice(n // 3, 2 * n // 3),) * 2
    change = (drawn[1] - drawn[0])[middle]
    # Dark lines on light tissue, light lines on dark tissue.
    assert (change <= 0).all() if grey == 200 else (change >= 0).all()
    assert 0.5 < np.abs(change).mean() < 40
    assert np.abs(change).max() > 15


def test_the_pixels_of_thumbnails_are_those_of_the_page():
    for count, columns in ((1, 4), (60, 10)):
        assert thumbnail_grid(count)[0] == columns
        pixels = thumbnail_grid(count)[1] * DPI
        assert thumbnail_resolution(count, PLANES["coronal"], SPACE) * pixels == pytest.approx(11400)
    assert thumbnail_resolution(1, PLANES["coronal"], SPACE) < 20
    assert thumbnail_resolution(60, PLANES["coronal"], SPACE) > 40


def size_of(acronym):
    return 20.0 * len(acronym), 30.0


@given(
    arrays(np.uint32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 3, 4, 5, 9]))
)
@settings(deadline=None)
def test_an_acronym_lies_wholly_in_its_region(labels):
    plane = LabelPlane(labels, (100.0, 200.0), (10.0, 10.0))
    merged, acronyms = legible_regions(plane, ONTOLOGY, size_of)
    assert (merged.corner, merged.size) == (plane.corner, plane.size)
    np.testing.assert_array_equal(merged.labels == 0, labels == 0)
    assert not {1} & {each.structure.id for each in acronyms}
    for each in acronyms:
        width, height = size_of(each.structure.acronym)
        rows = slice(round((each.row - height / 2 - 100) / 10), round((each.row + height / 2 - 100) / 10))
        columns = slice(round((each.column - width / 2 - 200) / 10), round((each.column + width / 2 - 200) / 10))
        below = {structure.id for structure in ONTOLOGY.descendants(each.structure.id)}
        assert set(labels[rows, columns].ravel().tolist()) <= below
        assert len(set(merged.labels[rows, columns].ravel().tolist())) == 1
    # Labels that the terminology lacks stay as they are.
    assert len(set(merged.labels[labels == 9].tolist())) <= 1


def test_small_regions_are_named_by_the_structure_that_has_room():
    labels = np.zeros((40, 40), np.uint32)
    labels[5:35, 5:20:2], labels[5:35, 6:20:2] = 3, 4  # too narrow for A1 and A2
    labels[5:35, 20:38] = 5
    merged, acronyms = legible_regions(LabelPlane(labels, (0.0, 0.0), (10.0, 10.0)), ONTOLOGY, size_of)
    assert [each.structure.acronym for each in acronyms] == ["LONGER", "A"]
    assert len(np.unique(merged.labels)) == 3


def test_of_two_halves_the_one_at_the_lower_columns_has_the_acronym():
    labels = np.zeros((30, 60), np.uint32)
    labels[5:25, 5:20] = labels[5:25, 40:55] = 5
    (acronym,) = legible_regions(LabelPlane(labels, (0.0, 0.0), (10.0, 10.0)), ONTOLOGY, size_of)[1]
    assert (acronym.column, acronym.row) == (pytest.approx(125, abs=15), pytest.approx(150, abs=15))
