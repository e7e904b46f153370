"""The commands of the pages on atlases and region volumes run unchanged, with small files for the real ones."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atlaszarr import verify
from atlaszarr.testing import Emulator
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd, template_nrrd

ROOT = Path(__file__).parents[2]
README, ATLAS, PAGE, VOLUMES = (
    (ROOT / name).read_text() for name in ("README.md", "docs/atlas.md", "docs/layouts.md", "docs/regions.md")
)
LAYOUTS, BRAINGLOBE = PAGE.split("## BrainGlobe and neuroglancer\n")
ALLEN = "http://download.alleninstitute.org/informatics-archive/current-release/mouse_ccf/"
#: The paths of the files on the server of the Allen Institute, and the functions that draw them here.
FILES = {
    "annotation/ccf_2017/annotation_25.nrrd": annotation_nrrd,
    "average_template/average_template_25.nrrd": template_nrrd,
}
RSP = [254, 894, 879, 886]  # the structures of the phantom in the retrosplenial area
SET = "annotation-sets/allen-adult-mouse-annotation/2017"
#: In the layout `brainglobe` the precomputed annotation holds it.
OF_PLAIN = {f"{SET}/segment_properties/info"}


@pytest.fixture(scope="module")
def service():
    with Emulator() as running:
        yield running


@pytest.fixture
def run(tmp_path, service):
    """Runs the commands and the Python of a page in order, and returns their output."""
    local = {}
    for path, draw in FILES.items():
        local[ALLEN + path] = tmp_path / Path(path).name
        local[ALLEN + path].write_bytes(draw(default_phantom(), 100))
    environment = {**os.environ, "ATLASZARR_API_URL": service.url, "ATLASZARR_CACHE": "none"}

    def section(text):
        printed = []
        for language, block in re.findall(r"^```(sh|py)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            commands = [["-c", block]]
            if language == "sh":
                words = [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]
                commands = [[str(local.get(word, word)) for word in line] for line in words]
            for command in commands:
                if command[0] == "atlaszarr":
                    command[:1] = ["-m", "atlaszarr"]
                elif command[0] == "python":
                    command[:2] = [str(ROOT / command[1])]
                assert not [word for word in command if word.startswith("http")], "a source that is not in FILES"
                ran = subprocess.run(
                    [sys.executable, *command],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert ran.returncode == 0, ran.stderr
                printed.append(ran.stdout)
        return printed

    return section


def named(text):
    """The paths in the first column of a page's table."""
    cells = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    paths = [path for cell in cells for path in re.findall(r"`([^`]+)`", cell)]
    return {path.replace("annotation-sets/...", SET).rstrip("/") for path in paths}


def written(folder):
    """The parts of an atlas: each image and each set of meshes, and all other files."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return {re.sub(r"(\.(ome\.zarr|precomputed))/.*", r"\1", path) for path in files}


@pytest.mark.slow
def test_the_atlas_of_the_readme_has_the_listed_parts_and_its_regions_are_measured(run, tmp_path):
    run(ATLAS)
    assert named(ATLAS) == written(tmp_path / "ccf")
    assert verify(tmp_path / "ccf").ok
    voxels = np.isin(default_phantom().annotation(100), RSP).sum()
    by_command, by_python, plain = run(VOLUMES)
    assert by_command.startswith(f"Retrosplenial area: {voxels / 1000:.2f} mm3 (left ")
    assert by_command.splitlines()[-1].startswith("left is low r")
    assert re.search(rf"^voxels +{voxels}$", by_python, re.MULTILINE)
    assert f"\nRetrosplenial area: {voxels / 1000:.2f} mm3\n" in plain
    assert (tmp_path / "retrosplenial_plain.png").exists()


@pytest.mark.slow
def test_the_layout_of_the_readme_completes_its_atlas_and_a_registered_dataset_is_listed_in_it(run, tmp_path):
    run(ATLAS)
    _, registered = run(LAYOUTS)
    (path,) = re.findall(r"ROOT/(templates/\S+-template/\d+)/template\.ome\.zarr", LAYOUTS)
    assert f"registered: /{path} in atlases/" in registered
    assert (tmp_path / "ccf" / path / "template.ome.zarr/zarr.json").exists()
    assert verify(tmp_path / "ccf").ok


@pytest.mark.slow
def test_the_brainglobe_atlas_of_the_readme_has_the_listed_parts(run, tmp_path):
    run(BRAINGLOBE)
    folder = tmp_path / "brainglobe-atlasapi"
    parts = (named(ATLAS) - OF_PLAIN) | named(BRAINGLOBE)
    assert [part for part in parts if not (folder / part).exists()] == []
    beyond = {part for part in written(folder) - parts if not part.endswith("/manifest.json")}
    assert beyond == {f"atlases/{name}.conf" for name in ("custom_atlases", "last_versions")}


def test_readme_and_pages_name_files_that_the_allen_institute_has():
    urls = set(re.findall(r"http\S+\.nrrd", README + ATLAS + PAGE))
    assert urls == set(re.findall(r"http\S+\.nrrd", README))
    assert urls == {ALLEN + path for path in FILES}
