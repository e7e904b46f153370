"""The migration table from atldld names only what exists here; tests/peers validates that it is complete."""

import inspect
import re
from pathlib import Path

import pytest

import atlaszarr
from atlaszarr import SectionDataset, errors, open_sections, transforms
from atlaszarr.allen.records import Section
from atlaszarr.cli.commands import cli
from atlaszarr.geometry import spaces
from atlaszarr.sections.options import SectionsOptions

TABLE = (Path(__file__).parents[2] / "docs" / "from_atldld.md").read_text()
ROWS = dict(re.findall(r"^\| (`.*?) \| (.*) \|$", TABLE, flags=re.MULTILINE))
COMMANDS = {theirs: here for theirs, here in ROWS.items() if theirs.startswith("`atldld ")}
PYTHON = {theirs: here for theirs, here in ROWS.items() if theirs not in COMMANDS}
OWNERS = {"errors": errors, "transforms": transforms, "spaces": spaces, "dataset": SectionDataset, "section": Section}
#: A dotted name of atlaszarr.
NAME = r"\b((?:{})(?:\.[a-z]\w*)*)".format("|".join([*OWNERS, *atlaszarr.__all__]))


def spans(cell):
    return re.findall(r"`([^`]+)`", cell)


def find(name):
    """The object of a dotted name; the fields of a dataclass count too, although its class does not have them."""
    first, *rest = name.split(".")
    found = OWNERS.get(first) or getattr(atlaszarr, first)
    for part in rest:
        found = (
            found.__dataclass_fields__[part]
            if part in getattr(found, "__dataclass_fields__", ())
            else getattr(found, part)
        )
    return found


@pytest.mark.parametrize("theirs", PYTHON)
def test_the_python_names_in_the_table_exist(theirs):
    found = []
    for span in spans(PYTHON[theirs]):
        call = re.search(NAME + r"(\((?:[^()]|\([^()]*\))*\))?", span.replace("AllenClient()", "AllenClient"))
        if call is None:  # a name of the caller, or a value
            continue
        found.append(find(call[1]))
        options = set(re.findall(r"(\w+)=", call[2] or ""))
        if found[-1] is open_sections:
            options -= set(SectionsOptions.__dataclass_fields__)
        assert not options or options <= set(inspect.signature(found[-1]).parameters)
    assert found or PYTHON[theirs].startswith(("nothing", "the `displacement`"))


@pytest.mark.parametrize("theirs", COMMANDS)
def test_the_commands_in_the_table_and_their_options_exist(theirs):
    for span in spans(COMMANDS[theirs]):
        program, name, *rest = span.split()
        assert program == "atlaszarr"
        options = (
            {option for word in cli.get_command(None, name).params for option in word.opts}
            if name[0] != "-"
            else {"--version"}
        )
        assert {word for word in rest if word.startswith("--")} <= options
    assert spans(COMMANDS[theirs]) or COMMANDS[theirs].startswith("nothing")
