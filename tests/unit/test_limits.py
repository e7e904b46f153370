"""The figures of docs/limits.md are those of the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs/limits.md"
ROWS = re.findall(r"^\| (.+?) \| ([\d.,]+)(?: (KiB|MiB|GiB|um))? \| `([\w.]+)` \|$", DOCUMENT.read_text(), re.MULTILINE)
UNITS = {"": 1, "um": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def test_every_row_is_compared():
    assert len(ROWS) == DOCUMENT.read_text().count("` |\n") > 30


@pytest.mark.parametrize(("figure", "unit", "name"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_documented_limit_is_that_of_the_code(figure, unit, name):
    module, _, constant = name.rpartition(".")
    assert getattr(import_module(f"atlaszarr.{module}"), constant) == float(figure.replace(",", "")) * UNITS[unit]
