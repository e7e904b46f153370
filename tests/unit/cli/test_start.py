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


FIRST_REQUEST = """
import json, os, socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
def answer():
    server.accept()
    print(json.dumps(sorted(sys.modules)), flush=True)
    os._exit(0)
threading.Thread(target=answer).start()
from atlaszarr.cli import main
main(["build", "69289763", sys.argv[1], "--api-url", f"http://127.0.0.1:{server.getsockname()[1]}/api/v2"])
"""


def test_a_build_imports_few_modules_before_its_first_request(tmp_path):
    command = [sys.executable, "-c", FIRST_REQUEST, tmp_path / "x.ome.zarr"]
    modules = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    heavy = {"dask", "distributed", "fsspec", "matplotlib", "obstore", "pandas", "pyarrow", "scipy", "xarray", "zarr"}
    assert not heavy & set(modules)
    # 499 with NumPy 2.4 and urllib3 2.8, of which 88 are of the package.
    assert len(modules) < 550
    assert len([name for name in modules if name.startswith("atlaszarr")]) < 100


WRITTEN = """
import json, sys
import zarr
from atlaszarr.writing import write_multiscales
image = zarr.create_array(sys.argv[1] + "-image", shape=(4, 4, 4), dtype="u1")
write_multiscales(image, sys.argv[1])
print(json.dumps([name for name in ("dask", "distributed", "pandas", "xarray") if name in sys.modules]))
"""


def test_a_zarr_array_is_written_without_dask(tmp_path):
    command = [sys.executable, "-c", WRITTEN, tmp_path / "x.ome.zarr"]
    assert json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == []
