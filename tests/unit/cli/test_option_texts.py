"""The texts of options of the command line: read as written, or refused in one short sentence."""

import pytest

from atlaszarr.cli.commands import main

MANY = "9" * 5000


@pytest.mark.parametrize(
    "option",
    [
        pytest.param("--voxel-size=1_000", id="a number with an underscore"),
        pytest.param("--voxel-size=\uff11", id="a digit of another script"),
        pytest.param(f"--voxel-size={MANY}", id="a number of 5000 digits"),
        pytest.param("--voxel-size=1,2", id="two numbers"),
        pytest.param("--voxel-size=1,,2", id="an empty number"),
        pytest.param("--voxel-size=1e400", id="a number beyond a float"),
        pytest.param("--level=1_0", id="a whole number with an underscore"),
        pytest.param("--storage-option=key=" + "[" * 5000, id="JSON nested too deep"),
        pytest.param("--storage-option=key=" + '{"a":' * 5000, id="objects nested too deep"),
        pytest.param(f"--storage-option=key=[{MANY}]", id="JSON with a number of 5000 digits"),
        pytest.param(f"--storage-option={MANY}", id="a long key without a value"),
    ],
)
def test_a_wrong_text_of_an_option_is_refused_in_one_sentence(option, capsys, tmp_path):
    assert main(["volumes", str(tmp_path), option]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 250


@pytest.mark.parametrize("text", ["200", " 200 ", "200,200,100", "200, 200, 100", "1e2", ".5"])
def test_lengths_may_have_spaces_around_them(text, capsys, tmp_path):
    assert main(["volumes", str(tmp_path), "--voxel-size", text]) == 2
    assert "is not an OME-Zarr image" in capsys.readouterr().err
