"""`atlaszarr volumes`: its output in every format, and its errors."""

import json

import pytest

from atlaszarr.regions.tables import digits
from atlaszarr.writing import write_multiscales
from small_annotation import CSV, GEOMETRY, labels, write_annotation


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    return write_annotation(tmp_path_factory.mktemp("annotation"))


def test_each_region_is_a_line(command, annotation):
    ran = command("volumes", annotation, "--region", "RSP", "--region", "CTX")
    assert ran.code == 0
    assert ran.out == "Retrosplenial area: 1.50 mm3\nCortex, all of it [bold]: 4.00 mm3\n"


def test_by_hemisphere_it_prints_which_side_is_which(command, annotation):
    ran = command("volumes", annotation, "--region", "RSP", "--by-hemisphere")
    line, sides = ran.out.splitlines()
    assert line == "Retrosplenial area: 1.50 mm3 (left 1.00, right 0.500)"
    assert sides.startswith("left is low r (x voxels before 10), right is high r (from 10 on); x runs left-to-right")
    assert sides.endswith("; the midline is assumed in the middle")


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


def test_stdout_holds_only_json(command, annotation):
    for arguments in (["--json"], ["--format", "json"]):
        ran = command("volumes", annotation, *arguments, "--region", "RSP", "--level", 0)
        found = json.loads(ran.out)
        assert found["level"] == 0
        assert [(row["identifier"], row["voxels"]) for row in found["regions"]] == [(3, 1500)]


def test_labels_without_a_structure_are_a_warning_on_stderr(command, annotation, tmp_path):
    values = labels()
    values[-1] = 99
    write_multiscales(values, tmp_path / "x.ome.zarr", rule="mode", geometry=GEOMETRY)
    ran = command("volumes", tmp_path / "x.ome.zarr", "--terminology", annotation.parent / "terminology.csv")
    assert (ran.code, "99" in ran.err) == (0, True)
    assert "label 99, not in the terminology" in ran.out


def test_a_voxel_size_may_be_given(command, annotation):
    assert command("volumes", annotation, "--voxel-size", "200", "--region", "RSP").out.endswith(": 12.00 mm3\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--region", "rsp"], "'rsp'"),
        (["--level", "4"], "level 4"),
        (["--terminology", "/nowhere/t.csv"], "/nowhere/t.csv"),
        (["--format", "excel"], "'excel'"),
        (["--storage-option", "key"], "'key'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_input_is_exit_code_2_and_named(command, annotation, arguments, named):
    ran = command("volumes", annotation, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err


def test_a_missing_annotation_is_exit_code_2_and_named(command, tmp_path):
    ran = command("volumes", tmp_path / "x.ome.zarr")
    assert ran.code == 2
    assert str(tmp_path / "x.ome.zarr") in ran.err


@pytest.mark.parametrize(
    ("volume", "text"),
    [(0.0, "0"), (506.0529, "506.05"), (10.501, "10.50"), (0.97249, "0.972"), (0.000484375, "0.000484")],
)
def test_a_volume_is_printed_with_at_least_three_significant_digits(volume, text):
    assert digits(volume) == text
