"""An atlas without the libraries of its extra: one sentence before anything is written."""

import subprocess
import sys

import pytest

from tiny_atlas import write_sources

#: Runs the command line in a Python in which modules are not installed.
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
runpy.run_module("atlaszarr", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("missing", "named"),
    [("tensorstore", "tensorstore"), ("DracoPy,fast_simplification", "DracoPy, fast-simplification")],
)
def test_without_its_libraries_an_atlas_names_them_and_the_extra_and_writes_nothing(tmp_path, missing, named):
    sources = write_sources(tmp_path / "sources")
    given = [word for name in ("annotation", "template") for word in (f"--{name}", str(sources[name]))]
    command = [sys.executable, "-c", WITHOUT, missing, "atlas", str(tmp_path / "atlas"), *given, "--brainglobe"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.strip().endswith(f"meshes and the segmentation need {named}; install atlaszarr[atlas]")
    assert not (tmp_path / "atlas").exists()
