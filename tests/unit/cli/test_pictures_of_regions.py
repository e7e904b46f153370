"""`volumes --picture` and `measure --picture`: bars of the largest regions in their colours."""

import numpy as np
import pytest
import zarr
from PIL import Image

from atlaszarr import Terminology
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError
from atlaszarr.previews.paper import print_page, text_width
from atlaszarr.previews.region_bars import (
    MOST_BARS,
    BarChart,
    divisions,
    draw_chart,
    picture_file,
    statistics_chart,
    write_chart,
)
from atlaszarr.writing import write_multiscales
from codes import raises
from drawn_words import places_of, words_of
from small_annotation import CSV, GEOMETRY, write_annotation


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    return write_annotation(tmp_path_factory.mktemp("annotation"))


@pytest.fixture(scope="module")
def volume(annotation):
    """A volume that is the brighter, the further posterior, and darker on the right."""
    image = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None] * 10, (20, 20, 20)).copy()
    image[:, :, 10:] //= 2
    write_multiscales(image, annotation.with_name("x.ome.zarr"), rule="mean", geometry=GEOMETRY)
    return annotation.with_name("x.ome.zarr")


def many(folder, count=50):
    """An annotation of structures of different sizes, all children of the root."""
    sizes = np.repeat(np.arange(1, count + 1), np.arange(1, count + 1))
    values = np.zeros(2**11, np.uint32)
    values[: len(sizes)] = sizes + 1
    rows = [f'{k + 1},1,{k + 1},Region number {k},R{k},#{k:02X}8080,"[1, {k + 1}]"' for k in range(1, count + 1)]
    (folder / "terminology.csv").write_text("\n".join([*CSV.splitlines()[:2], *rows]))
    write_multiscales(values.reshape(8, 16, 16), folder / "many.ome.zarr", rule="mode", geometry=GEOMETRY)
    return folder / "many.ome.zarr"


def share(picture, colour):
    """The number of pixels of a colour."""
    with Image.open(picture) as opened:
        return int((np.asarray(opened.convert("RGB")) == colour).all(axis=-1).sum())


def test_bars_have_the_colours_and_lengths_of_their_regions(command, annotation, tmp_path):
    arguments = ("volumes", annotation, "--region", "RSP", "--region", "CTX")
    printed = command(*arguments).out
    ran = command(*arguments, "--picture", tmp_path / "x.png")
    assert (ran.code, ran.out) == (0, printed)
    assert ran.err == f"{tmp_path}/x.png: bars of 2 regions\n"
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width == 1600
    # 4.00 and 1.50 mm3.
    assert share(tmp_path / "x.png", (0, 0, 255)) / share(tmp_path / "x.png", (0, 255, 0)) == pytest.approx(
        1.5 / 4, rel=0.03
    )


def test_bars_are_named_and_ordered_with_units(command, annotation, tmp_path):
    assert (
        command("volumes", annotation, "--region", "RSP", "--region", "CTX", "--picture", tmp_path / "x.svg").code == 0
    )
    words = words_of((tmp_path / "x.svg").read_bytes())
    named = [word for word in words if word in ("CTX", "RSP", "Retrosplenial area", "Cortex, all of it [bold]")]
    assert named == ["CTX", "Cortex, all of it [bold]", "RSP", "Retrosplenial area"]
    assert {"Region volumes", "volume (mm³)", "4.00 mm³", "1.50 mm³"} <= set(words)


def test_both_sides_have_a_bar_each(command, annotation, tmp_path):
    ran = command("volumes", annotation, "--region", "RSP", "--by-hemisphere", "--picture", tmp_path / "x.svg")
    assert ran.code == 0
    words = words_of((tmp_path / "x.svg").read_bytes())
    assert {"left", "right", "1.00 mm³", "0.500 mm³"} <= set(words)
    assert "1.50 mm³" not in words


def test_without_regions_the_largest_that_do_not_overlap_are_drawn(command, tmp_path):
    ran = command("volumes", many(tmp_path), "--picture", tmp_path / "x.svg")
    assert (ran.code, ran.err) == (0, f"{tmp_path}/x.svg: bars of 1 region\n")  # 50 children are too many: the root
    regions = [part for k in range(1, 51) for part in ("--region", f"R{k}")]
    ran = command("volumes", tmp_path / "many.ome.zarr", *regions, "--picture", tmp_path / "x.svg")
    assert ran.err == f"{tmp_path}/x.svg: bars of {MOST_BARS} regions\n"
    words = words_of((tmp_path / "x.svg").read_bytes())
    assert [word for word in words if word.startswith("R") and word[1:].isdigit()] == [
        f"R{k}" for k in range(50, 30, -1)
    ]
    assert "The largest 20 of 50 regions." in words


def test_divisions_hold_the_brain_and_no_structure_twice():
    graph = [
        {"id": id, "parent_structure_id": parent, "acronym": f"S{id}", "name": f"S{id}", "color_hex_triplet": "112233"}
        for id, parent in ((1, None), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3))
    ]
    terminology = Terminology.from_structure_graph(graph)
    volumes = {1: 100.0, 2: 60.0, 3: 40.0, 4: 50.0, 5: 10.0, 6: 10.0, 7: 0.0}
    # The parts of 3 hold a quarter of it: it is not divided.
    assert [s.id for s in divisions(volumes, terminology)] == [4, 3, 5]
    assert [s.id for s in divisions(volumes, terminology, 2)] == [2, 3]
    assert [s.id for s in divisions(volumes, terminology, 1)] == [1]
    assert divisions({}, terminology) == []


def test_an_acronym_that_is_the_name_takes_no_space_from_the_names():
    graph = [
        {"id": id, "parent_structure_id": None, "acronym": acronym, "name": name, "color_hex_triplet": "112233"}
        for id, acronym, name in ((1, "fiber tracts", "fiber tracts"), (2, "sAMY", "Striatum-like amygdalar nuclei"))
    ]
    structures = tuple(Terminology.from_structure_graph(graph))
    chart = BarChart("Volumes", "volume", structures, {"": (35.0, 4.0)}, lambda value: f"{value:.2f} mm³")
    body = print_page(4, 2, lambda paper: draw_chart(paper, (0.1, 0.1, 3.8, 1.8), chart, 7.5), ".svg", {})
    assert {"fiber tracts", "sAMY", "Striatum-like amygdalar nuclei"} <= set(words_of(body))
    (name,) = places_of(body)["Striatum-like amygdalar nuclei"]
    (acronym,) = places_of(body)["sAMY"]
    assert name[0] - acronym[0] < 72 * text_width("fiber tracts", 7.5, "bold")


def test_names_are_drawn_as_they_are_and_on_one_line(command, annotation, tmp_path):
    (tmp_path / "t.csv").write_text(CSV.replace("Retrosplenial area,RSP", '"$\\frac{1}$\nx","<b>&\x1b[0m$_"'))
    ran = command(
        "volumes", annotation, "--terminology", tmp_path / "t.csv", "--region", "3", "--picture", tmp_path / "x.svg"
    )
    assert ran.code == 0, ran.err
    body = (tmp_path / "x.svg").read_bytes()
    assert b"\x1b" not in body
    assert any(word.startswith("$\\frac{1}$\\nx") for word in words_of(body))


def test_letters_that_the_font_lacks_are_no_warning(command, annotation, tmp_path):
    (tmp_path / "t.csv").write_text(CSV.replace("Retrosplenial area,RSP", "\U0001f9e0 \u8133\u6881,\u8133"))
    ran = command("volumes", annotation, "--terminology", tmp_path / "t.csv", "--picture", tmp_path / "x.png")
    assert (ran.code, ran.err) == (0, f"{tmp_path}/x.png: bars of 1 region\n")


def test_negative_means_are_bars_to_the_left(command, annotation, tmp_path):
    image = np.full((20, 20, 20), -2, np.int16)
    write_multiscales(image, tmp_path / "y.ome.zarr", rule="mean", geometry=GEOMETRY)
    ran = command("measure", tmp_path / "y.ome.zarr", "--annotation", annotation, "--picture", tmp_path / "x.svg")
    assert ran.code == 0, ran.err
    assert "-2" in words_of((tmp_path / "x.svg").read_bytes())


@pytest.mark.parametrize(
    ("picture", "code"),
    [("x.jpg", "x.jpg"), ("nowhere/x.png", "nowhere/x.png"), ("s3://bucket/x.png", "s3://bucket/x.png")],
)
@pytest.mark.parametrize("name", ["volumes", "measure"])
def test_an_invalid_picture_is_refused_before_anything_is_read(command, tmp_path, monkeypatch, name, picture, code):
    monkeypatch.chdir(tmp_path)
    arguments = ("missing.ome.zarr",) if name == "volumes" else ("missing.ome.zarr", "--annotation", "missing.ome.zarr")
    ran = command(name, *arguments, "--picture", picture)
    assert (ran.code, ran.out) == (2, "")
    assert code in ran.err
    assert "missing.ome.zarr" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_does_not_replace_what_is_read(command, annotation, volume):
    for arguments in (
        ("volumes", annotation, "--picture", annotation / "x.png"),
        ("measure", volume, "--annotation", annotation, "--picture", volume / "0/x.png"),
    ):
        ran = command(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "overlaps the input" in ran.err


def test_regions_without_voxels_are_refused(command, annotation, tmp_path):
    ran = command("volumes", annotation, "--region", "NIL", "--picture", tmp_path / "x.png")
    assert (ran.code, ran.out) == (2, "")
    assert "no region has a value to draw" in ran.err
    assert not (tmp_path / "x.png").exists()


def test_means_of_a_volume_are_drawn_by_side(command, annotation, volume, tmp_path):
    ran = command("measure", volume, "--annotation", annotation, "--by-hemisphere", "--region", "RSP",
                  "--picture", tmp_path / "x.svg")  # fmt: skip
    assert ran.code == 0, ran.err
    words = words_of((tmp_path / "x.svg").read_bytes())
    # Grey levels 0, 10, 20, 30, 40 on the left, half of them on the right.
    assert {"20", "10", "left", "right", "mean grey level"} <= set(words)


def test_several_volumes_have_a_bar_each_and_more_than_four_are_refused(command, annotation, volume, tmp_path):
    other = tmp_path / "y.ome.zarr"
    write_multiscales(np.full((20, 20, 20), 70, np.uint8), other, rule="mean", geometry=GEOMETRY)
    ran = command("measure", volume, other, "--annotation", annotation, "--picture", tmp_path / "x.svg")
    assert ran.code == 0, ran.err
    words = words_of((tmp_path / "x.svg").read_bytes())
    assert {"70", "CTX"} <= set(words)
    assert sum("ome.zarr" in word or word in ("x", "y") for word in words) >= 2
    ran = command(
        "measure", volume, other, volume, "--by-hemisphere", "--annotation", annotation, "--picture", tmp_path / "z.png"
    )
    assert (ran.code, ran.out) == (2, "")
    assert "3 volumes by hemisphere has 6 bars for each region" in ran.err
    assert not (tmp_path / "z.png").exists()


def test_volumes_without_a_channel_in_common_are_refused(annotation):
    import pandas as pd

    tables = [pd.DataFrame({"volume_mm3": [1.0], name: [1.0]}, index=[1]) for name in ("mean_a", "mean_b")]
    for table in tables:
        table.attrs["dataset"] = "x"
    with raises(InputError, "no-common-channel"):
        statistics_chart(tables, Terminology.read(annotation.with_name("terminology.csv")))


@pytest.mark.parametrize(
    ("means", "column", "title"),
    [("mean_red", "density", "Density of expression"), ("mean_energy", "energy", "Expression energy")],
)
def test_expression_is_drawn_if_it_is_known_with_missing_regions_named(annotation, tmp_path, means, column, title):
    import pandas as pd

    terminology = Terminology.read(annotation.with_name("terminology.csv"))
    table = pd.DataFrame(
        {
            "volume_mm3": [2.0, 2.0, 1.0, 0.0],
            means: [9.0] * 4,
            f"{column}_left": [1.0, 3.0, np.nan, np.nan],
            f"{column}_right": [1.0, 2.0, 7.0, np.nan],
            column: [1.0, 2.5, 7.0, np.nan],
        },
        index=[1, 2, 3, 4],
    )
    table.attrs = {"dataset": 69289763, "sides": ["left", "right"]}
    chart = statistics_chart([table], terminology, list(terminology))
    assert [structure.acronym for structure in chart.structures] == ["RSP", "CTX", "root"]
    assert list(chart.series) == ["left", "right"]
    write_chart(picture_file(tmp_path / "x.svg"), chart, "an annotation")
    words = words_of((tmp_path / "x.svg").read_bytes())
    assert {f"{title}, dataset 69289763", "no data", "7", "Annotation: an annotation"} <= set(words)


def test_red_green_and_blue_are_drawn_as_grey(command, annotation, tmp_path):
    image = np.zeros((3, 20, 20, 20), np.uint8)
    image[0], image[1], image[2] = 30, 60, 90
    geometry = Geometry((0.1,) * 3, orientation={"x": "left-to-right"})
    write_multiscales(image, tmp_path / "rgb.ome.zarr", rule="mean", geometry=geometry)
    group = zarr.open_group(tmp_path / "rgb.ome.zarr")
    names = [{"label": name} for name in ("red", "green", "blue")]
    group.attrs["ome"] = {**group.attrs["ome"], "omero": {"channels": names}}
    ran = command("measure", tmp_path / "rgb.ome.zarr", "--annotation", annotation, "--picture", tmp_path / "x.svg")
    assert ran.code == 0, ran.err
    assert {"60", "mean of red, green and blue (grey levels, 0 to 255)"} <= set(
        words_of((tmp_path / "x.svg").read_bytes())
    )
