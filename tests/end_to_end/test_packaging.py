"""Dependencies, a light start, the public names, the tracked files, and the README."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import atlaszarr
from atlaszarr.native.compiling import SUFFIX, VARIANTS
from atlaszarr.testing import Emulator

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
ENVIRONMENT = (ROOT / "environment.yml").read_text()

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?P<extra>\[[a-z,]+\])?(?:>=(?P<floor>[0-9.]+))?$")
HEAVY = {
    "numpy", "dask", "zarr", "pandas", "xarray", "ngff_zarr", "distributed", "rich", "pyarrow", "matplotlib",
}  # fmt: skip
#: Servers and clusters: no unit test needs them.
SERVERS = {"moto", "boto3", "botocore", "flask", "distributed"}

#: Not known to be on conda-forge; the test that needs it is skipped there.
PIP_ALONE = {"aind-data-schema"}

PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
#: The pages whose Python is run in this order, after the first build.
WITH_PYTHON = ("sections", "lazy_volumes", "any_image", "displacement")

#: Commands that README and pages name already.
#: Names of the contract that do not exist yet.
NOT_YET: set[str] = set()
CONTRACT = {
    "AllenClient", "SectionDataset", "Section",
    "Grid", "ReferenceSpace", "Displacement",
    "open_sections", "open_volume",
    "plan", "build", "verify",
    "Terminology", "build_atlas", "region_volumes",
}  # fmt: skip

LARGEST_KB = 500


def tracked(*options):
    listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [name for name in listed.stdout.split("\0") if name]


def parse(requirement):
    match = REQUIREMENT.match(requirement)
    assert match, f"{requirement!r} is not a name with a floor"
    return match["name"], match["extra"], match["floor"]


def blocks(language, text=README):
    """The fenced blocks of a language, by default the README's."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def command_ending(words):
    """The one block of the README that ends with these words; it has one line."""
    (command,) = (block.strip() for block in blocks("sh") if block.rstrip().endswith(words))
    assert "\n" not in command
    return command


# Dependencies


def test_the_conda_environment_has_the_dependencies_and_the_test_and_docs_extras_with_their_floors():
    lines = re.findall(r"^  - (\S+?)(?: +# (\S+))?$", ENVIRONMENT.partition("dependencies:")[2], flags=re.MULTILINE)
    assert [written for written, _ in lines] == yaml.safe_load(ENVIRONMENT)["dependencies"]
    there = [(comment or name, floor) for (name, _, floor), comment in ((parse(w), c) for w, c in lines)]
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *project["optional-dependencies"]["docs"],
        "python" + project["requires-python"],
    ]
    floors, extras = {}, set()
    for name, extra, floor in map(parse, wanted):
        assert floors.setdefault(name, floor) == floor, f"{name} has two floors"
        extras |= {f"{name}{extra}"} if extra else set()
    there_are = {name.partition("[")[0]: floor for name, floor in there if floor}
    assert there_are == {name: floor for name, floor in floors.items() if name not in PIP_ALONE}
    assert {name for name, _ in there if "[" in name} == extras
    assert [name for name, floor in there if not floor and "[" not in name] == ["pip"]  # installs atlaszarr itself


# A light start


@pytest.mark.parametrize("arguments", [None, ["--help"], ["build", "--help"]], ids=str)
def test_starting_imports_nothing_heavy(arguments):
    report = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))"
    start = "import atlaszarr"
    if arguments is not None:
        start = (
            f"import runpy; sys.argv = ['atlaszarr', *{arguments}]; runpy.run_module('atlaszarr', run_name='__main__')"
        )
    ran = subprocess.run([sys.executable, "-c", f"{report}; {start}"], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stderr.split()}
    assert "atlaszarr" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    ("collected", "forbidden"),
    [
        ("tests/unit/geometry/test_grid.py", HEAVY - {"numpy"} | SERVERS),
        pytest.param("tests/unit", SERVERS, marks=pytest.mark.slow),
    ],
)
def test_collecting_unit_tests_imports_no_server_and_nothing_heavy_that_they_do_not_use(collected, forbidden):
    script = f"""
import sys, pytest
code = pytest.main(["--collect-only", "--quiet", "-n", "0", "-p", "no:cacheprovider", "{collected}"])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # it may choose other tests
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    loaded = {name.partition(".")[0] for name in ran.stderr.split()}
    assert "hypothesis" in loaded
    assert loaded & forbidden == set()


# The public names


def test_every_name_of_the_contract_that_exists_is_importable_from_the_top():
    assert set(atlaszarr.__all__) >= CONTRACT - NOT_YET
    for name in atlaszarr.__all__:
        assert getattr(atlaszarr, name).__name__ == name
    for name in NOT_YET:
        assert not hasattr(atlaszarr, name), f"{name} exists: remove it from NOT_YET"
    transforms = import_module("atlaszarr.transforms")
    assert callable(transforms.image_to_reference)
    assert callable(transforms.reference_to_image)


def test_names_known_to_type_checkers_are_the_names_loaded():
    tree = ast.parse((ROOT / "src/atlaszarr/__init__.py").read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: f".{node.module}" for node in guarded.body for alias in node.names}
    assert seen == atlaszarr._HOMES
    assert sorted(seen) == sorted(atlaszarr.__all__)


# The files


def test_no_tracked_file_is_large():
    sizes = {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).exists()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_KB * 1000} == {}


def test_nothing_that_git_ignores_is_tracked():
    assert tracked("--cached", "--ignored", "--exclude-standard") == []


@pytest.mark.slow
def test_the_wheel_holds_the_sources_and_the_figures(tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("atlaszarr/")}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/atlaszarr").rglob("*")}
    wanted = {name for name in sources if name.endswith((".py", ".csv", "py.typed"))}
    assert {"atlaszarr/py.typed", "atlaszarr/testing/figures/section_images.csv"} <= wanted
    assert held == wanted | {f"atlaszarr/native/{name}{SUFFIX}" for name in VARIANTS}
    assert not wheel.name.endswith("-any.whl")  # it is for this platform


# The README


def test_ci_runs_the_readme_s_two_commands_and_makes_the_documentation():
    run = (ROOT / ".ci" / "run").read_text()
    assert f'\ntest_command="{command_ending("pytest")}"\n' in run
    assert f'\ndemo_command="{command_ending("atlaszarr demo")}"\n' in run
    assert run.count('"$test_command"') == 2  # on the default Python, and on the others
    assert run.count('"$demo_command"') == 1
    (site,) = (block.strip() for block in blocks("sh", PAGES["install"]) if "sphinx-build" in block)
    assert f'\ndocs_command="{site}"\n' in run
    assert run.count("$docs_command") == 1
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.slow
def test_the_first_build_and_the_python_of_the_pages_run(tmp_path):
    (session,) = (block for block in blocks("sh", PAGES["build"]) if "atlaszarr plan" in block)
    commands = session.splitlines()
    assert commands[-1] == "atlaszarr build 74272479 nrp1.ome.zarr"
    with Emulator() as emulator:
        environment = {**os.environ, "ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": str(tmp_path / "cache")}

        def run(*arguments):
            command = [sys.executable, *arguments]
            ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        for command in commands:
            name, *arguments = command.split()
            assert name == "atlaszarr"
            assert run("-m", "atlaszarr", *arguments)
        python = [block for name in WITH_PYTHON for block in blocks("python", PAGES[name])]
        asked = emulator.count("section_image_download")
        assert "is from section image 7" in run("-c", "\n".join(python))
        assert emulator.count("section_image_download") > asked  # the plane at another resolution
    record = json.loads((tmp_path / "nrp1.ome.zarr" / "atlaszarr" / "build.json").read_text())
    assert record["dataset"]["id"] == 74272479
    written = {path.relative_to(tmp_path / "nrp1.ome.zarr").as_posix() for path in tmp_path.glob("nrp1.ome.zarr/*/*")}
    named = re.findall(r"^\| `(atlaszarr/[a-z.]+)` \|", PAGES["build"], flags=re.MULTILINE)
    assert {name for name in written if name.startswith("atlaszarr/")} == set(named)


def test_readme_and_pages_name_only_commands_and_options_that_exist():
    # The table for those who come from atldld has a test of its own, and this one names options of atldld.
    pages = "\n".join([README, *(text for name, text in PAGES.items() if name != "from_atldld")])

    def help_of(*command):
        command = [sys.executable, "-m", "atlaszarr", *command, "--help"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    commands = set(re.findall(r"^  ([a-z]+) ", help_of(), flags=re.MULTILINE))
    spans = [*blocks("sh", pages), *re.findall(r"`[^`\n]+`", pages)]
    assert set(re.findall(r"\batlaszarr ([a-z]+)", "\n".join(spans))) <= commands | {"atlaszarr"}
    options = {option for command in commands for option in re.findall(r"--[a-z][a-z-]*", help_of(command))}
    of_others = {"--no-deps", "--keep-going"}  # of pip and of sphinx-build
    assert set(re.findall(r"(?<![a-z-])--[a-z][a-z-]*", pages)) <= options | of_others
