"""What a command imports before it does anything: the time that a user waits first."""

import json
import subprocess
import sys

import pytest

from atlaszarr.cli.commands import cli

LISTED = """
import json, sys
before = set(sys.modules)
from atlaszarr.cli import main
main({arguments!r})
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


def imported(*arguments):
    """The modules that a command imports."""
    code = LISTED.format(arguments=arguments)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(run.stderr.splitlines()[-1])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-h"]])
def test_the_help_imports_no_command_and_nothing_heavy(arguments):
    modules = imported(*arguments)
    own = {name for name in modules if name.startswith("atlaszarr")}
    assert own <= {"atlaszarr", "atlaszarr.errors", *(f"atlaszarr.cli{part}" for part in HELP)}
    assert not {"numpy", "logging", "json", "hashlib"} & set(modules)


HELP = ("", ".commands", ".signals", ".terminal")


@pytest.mark.parametrize("name", cli.list_commands(None))
def test_each_command_is_listed_in_one_line_and_has_a_help_of_its_own(name, command):
    (line,) = (line for line in command("--help").out.splitlines() if line.startswith(f"  {name} "))
    assert line.endswith(".")
    assert len(line) <= 80
    assert cli.get_command(None, name).help


def test_no_other_command_exists(command):
    assert command("builds").code == 2
