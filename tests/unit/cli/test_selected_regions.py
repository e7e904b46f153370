"""Which regions `volumes` and `measure` print, and in which order."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from atlaszarr.writing import write_multiscales
from small_annotation import CSV, GEOMETRY

pytestmark = pytest.mark.filterwarnings("ignore:the midline is assumed")
#: A part of RSP, one of CTX, and one of root, with fewer and fewer voxels; NIL has none.
FURTHER = """5,3,5,Part of RSP,RSPd,#0000FF,"[1, 2, 3, 5]"
6,2,6,Visual area,VIS,#0000FF,"[1, 2, 6]"
7,1,7,Cerebellum,CB,#0000FF,"[1, 7]"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selected")
    (folder / "terminology.csv").write_text(CSV + FURTHER)
    values = np.zeros((20, 20, 20), np.uint32)
    values[:8], values[8:12], values[12:15], values[15:17] = 5, 6, 7, 2
    image = np.zeros((20, 20, 20), np.uint8)
    image[:8], image[8:12], image[12:15], image[15:17] = 10, 200, 50, 90
    sections = np.ones((20, 20, 20), np.uint32)
    sections[8:10] = 0
    write_multiscales(values, folder / "annotation.ome.zarr", rule="mode", geometry=GEOMETRY)
    write_multiscales(image, folder / "x.ome.zarr", geometry=GEOMETRY, labels={"section": sections})
    return folder


@pytest.fixture
def printed(command, folder):
    """The acronyms that a command prints as a table, as CSV and as JSON, which are the same."""

    def run(name, *arguments):
        given = ("volumes", folder / "annotation.ome.zarr")
        if name == "measure":
            given = ("measure", folder / "x.ome.zarr", "--annotation", folder / "annotation.ome.zarr")
        text, csv, rows = (command(*given, *arguments, *form) for form in ((), ("--format", "csv"), ("--json",)))
        assert {text.code, csv.code, rows.code} == {0}
        found = [row["acronym"] for row in json.loads(rows.out)["regions"]]
        assert pd.read_csv(io.StringIO(csv.out))["acronym"].tolist() == found
        lines = [line.split(" ")[0] for line in text.out.splitlines()[1:] if not line.startswith("structures")]
        assert lines == [name for name in found if name != "NIL"]  # not indented, and without those that have no voxels
        return found

    return run


@pytest.mark.parametrize("name", ["volumes", "measure"])
@pytest.mark.parametrize(
    ("arguments", "acronyms"),
    [
        (("--leaves",), ["RSPd", "VIS", "CB"]),
        (("--depth", 1), ["CTX", "NIL", "CB"]),
        (("--depth", 3), ["RSPd"]),
        (("--leaves", "--region", "CTX"), ["RSPd", "VIS"]),
        (("--depth", 2, "--region", "CTX", "--region", "RSP"), ["RSP", "VIS"]),
        (("--sort", "mm3", "--top", 3), ["root", "CTX", "RSP"]),
        (("--sort", "volume_mm3", "--leaves", "--top", 2), ["RSPd", "VIS"]),
        (("--sort", "acronym", "--leaves"), ["CB", "RSPd", "VIS"]),
        (("--sort", "mm3", "--region", "VIS", "--region", "RSP"), ["RSP", "VIS"]),
    ],
    ids=str,
)
def test_regions_are_selected_and_sorted(printed, name, arguments, acronyms):
    assert printed(name, *arguments) == acronyms


@pytest.mark.parametrize(("column", "acronyms"), [("grey", ["VIS", "CB", "RSPd"]), ("covered", ["RSPd", "CB", "VIS"])])
def test_measures_are_sorted_by_a_channel_or_by_the_covered_part(printed, column, acronyms):
    assert printed("measure", "--sort", column, "--leaves") == acronyms


def test_regions_without_a_value_are_the_last(printed):
    assert printed("measure", "--sort", "mean_grey")[-1] == "NIL"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--top", 3), "missing-option"),
        (("--top", 0, "--sort", "mm3"), "out-of-range"),
        (("--depth", -1), "out-of-range"),
        (("--sort", "colour"), "unknown-column"),
    ],
    ids=str,
)
def test_a_wrong_selection_is_one_sentence(command, folder, arguments, code):
    ran = command("volumes", folder / "annotation.ome.zarr", "--json", *arguments)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert json.loads(ran.out)["error"]["code"] == code


def test_a_picture_draws_the_selected_regions(command, folder, tmp_path):
    arguments = ("--sort", "mm3", "--leaves", "--top", 2, "--picture", tmp_path / "x.svg")
    assert command("volumes", folder / "annotation.ome.zarr", *arguments).err.endswith("x.svg: bars of 2 regions\n")
