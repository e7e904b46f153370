"""`atlaszarr volumes`: what it prints, in every form, and what it says of wrong input."""

import json

import numpy as np
import pytest

from atlaszarr.engine.ome import Geometry
from atlaszarr.regions.tables import digits
from atlaszarr.writing import write_multiscales

CSV = """identifier,parent_identifier,annotation_value,name,abbreviation,color_hex_triplet,root_identifier_path
1,,1,root,root,#FFFFFF,[1]
2,1,2,"Cortex, all of it [bold]",CTX,#00FF00,"[1, 2]"
3,2,3,Retrosplenial area,RSP,#0000FF,"[1, 2, 3]"
4,1,4,Nothing,NIL,#0000FF,"[1, 4]"
"""
GEOMETRY = Geometry((0.1, 0.1, 0.1), orientation={"x": "left-to-right"})


def labels():
    values = np.zeros((20, 20, 20), np.uint32)
    values[:10] = 2
    values[:5, :, :15] = 3
    return values


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotation")
    (folder / "terminology.csv").write_text(CSV)
    write_multiscales(labels(), folder / "annotation.ome.zarr", rule="mode", geometry=GEOMETRY)
    return folder / "annotation.ome.zarr"


def test_one_line_a_region(command, annotation):
    ran = command("volumes", annotation, "--region", "RSP", "--region", "CTX")
    assert ran.code == 0
    assert ran.out == "Retrosplenial area: 1.50 mm3\nCortex, all of it [bold]: 4.00 mm3\n"


def test_by_hemisphere_it_prints_which_side_is_which(command, annotation):
    ran = command("volumes", annotation, "--region", "RSP", "--by-hemisphere")
    line, stated = ran.out.splitlines()
    assert line == "Retrosplenial area: 1.50 mm3 (left 1.00, right 0.500)"
    assert stated == "left is low r (x voxels before 10), right is high r (from 10 on); x runs left-to-right"


def test_all_regions_are_a_tree(command, annotation):
    ran = command("volumes", annotation)
    rows = [line.rstrip() for line in ran.out.splitlines()]
    assert rows[1].split() == ["root", "root", "4.00", "0"]
    assert rows[2].startswith("  CTX  ")
    assert "Cortex, all of it [bold]" in rows[2]
    assert rows[3].split() == ["RSP", "Retrosplenial", "area", "1.50", "1.50"]
    assert rows[3].startswith("    RSP")
    assert rows[4:] == ["structures without voxels, not listed: 1"]
    assert "left" in command("volumes", annotation, "--by-hemisphere").out.splitlines()[0]


def test_names_of_a_terminology_are_escaped(command, annotation, tmp_path):
    path = tmp_path / "terminology.csv"
    path.write_text(CSV.replace("Retrosplenial area,RSP", '"Retro\x1b[31m\nsplenial","R\x1b[0mSP"'))
    for arguments in ([], ["--region", "R\x1b[0mSP"]):
        ran = command("volumes", annotation, "--terminology", path, *arguments)
        assert (ran.code, "\x1b" in ran.out) == (0, False)
        assert r"Retro\x1b[31m\nsplenial" in ran.out
    assert r"    R\x1b[0mSP  Retro" in command("volumes", annotation, "--terminology", path).out
    refused = command("volumes", annotation, "--terminology", path, "--region", "X\x1b[31m\n")
    assert (refused.code, len(refused.err.splitlines()), "\x1b" in refused.err) == (2, 1, False)


def test_json_is_all_that_is_on_stdout(command, annotation):
    for arguments in (["--json"], ["--format", "json"]):
        ran = command("volumes", annotation, *arguments, "--region", "RSP", "--level", 0)
        found = json.loads(ran.out)
        assert found["level"] == 0
        assert [(row["identifier"], row["voxels"]) for row in found["regions"]] == [(3, 1500)]


def test_labels_of_no_structure_are_told_on_stderr(command, annotation, tmp_path):
    values = labels()
    values[-1] = 99
    write_multiscales(values, tmp_path / "x.ome.zarr", rule="mode", geometry=GEOMETRY)
    ran = command("volumes", tmp_path / "x.ome.zarr", "--terminology", annotation.parent / "terminology.csv")
    assert (ran.code, "99" in ran.err) == (0, True)
    assert "label 99, not in the terminology" in ran.out


def test_a_voxel_size_may_be_given(command, annotation):
    assert command("volumes", annotation, "--voxel-size", "200", "--region", "RSP").out.endswith(": 12.00 mm3\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--region", "rsp"], "no structure has the acronym 'rsp' (acronyms match by case); did you mean RSP?"),
        (["--level", "4"], "level 4 is not there"),
        (["--terminology", "/nowhere/t.csv"], "there is no terminology at /nowhere/t.csv"),
        (["--format", "excel"], "'excel' is not one of"),
        (["--storage-option", "key"], "has no value; write KEY=VALUE"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_input_is_exit_2_and_a_sentence(command, annotation, arguments, words):
    ran = command("volumes", annotation, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_a_place_without_an_annotation_is_exit_2(command, tmp_path):
    ran = command("volumes", tmp_path / "x.ome.zarr")
    assert ran.code == 2
    assert ran.err.endswith("x.ome.zarr is not an OME-Zarr image; give the path or URL of one\n")


@pytest.mark.parametrize(
    ("volume", "text"),
    [(0.0, "0"), (506.0529, "506.05"), (10.501, "10.50"), (0.97249, "0.972"), (0.000484375, "0.000484")],
)
def test_a_volume_has_sensible_digits(volume, text):
    assert digits(volume) == text
