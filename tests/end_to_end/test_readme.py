"""The README: its length, its links, its quickstart with the output that it prints, and all its commands in order."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from atlaszarr.testing import Emulator
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd, template_nrrd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BEFORE, QUICKSTART, AFTER = re.split("<!-- (?:end of the )?quickstart -->", README)
MOST_WORDS = 1000
LARGEST_PICTURE_KIB = 300
ALLEN = "http://download.alleninstitute.org/informatics-archive/current-release/mouse_ccf/"
#: The paths of the files on the server of the Allen Institute, and the functions that draw them here.
FILES = {
    "annotation/ccf_2017/annotation_25.nrrd": annotation_nrrd,
    "average_template/average_template_25.nrrd": template_nrrd,
}
RSP = [254, 894, 879, 886]  # the structures of the phantom in the retrosplenial area


def blocks(text):
    """The fenced blocks, in order: (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def prose():
    """The README without code, output, tables, comments and the addresses of links."""
    text = re.sub(r"^```.*?^```|<!--.*?-->|^\|.*?$", "", README, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def anchors(path):
    """The anchors of the headings of a document, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_prose_has_at_most_a_thousand_words():
    assert 500 < len(prose().split()) <= MOST_WORDS


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_links_of_the_readme_lead_to_files_and_headings_that_exist(link):
    if not link.startswith("https://"):
        name, _, anchor = link.partition("#")
        assert (ROOT / name).exists()
        assert not anchor or anchor in anchors(ROOT / name)


def test_pictures_of_readme_and_documentation_are_small():
    pictures = [path for path in (ROOT / "docs/_static").iterdir() if path.suffix in {".png", ".jpg", ".svg"}]
    assert {ROOT / path for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)} <= set(pictures)
    assert {path.name for path in pictures if path.stat().st_size > LARGEST_PICTURE_KIB * 1024} == set()


def python(folder, environment, *arguments):
    """The output of a Python process in a folder."""
    command = [sys.executable, *map(str, arguments)]
    ran = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_quickstart_of_at_most_ten_lines_prints_what_the_readme_shows(tmp_path):
    (_, code), (_, output) = blocks(QUICKSTART)
    assert len(code.strip().splitlines()) <= 11  # with a blank line
    assert python(tmp_path, {**os.environ, "ATLASZARR_CACHE": "none"}, "-c", code) == output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_and_the_python_of_the_readme_run_in_order(tmp_path):
    # Local files stand for those of the Allen Institute, and a folder for a bucket, which tests/integration has.
    standing_in = {}
    for path, draw in FILES.items():
        standing_in[ALLEN + path] = str(tmp_path / Path(path).name)
        (tmp_path / Path(path).name).write_bytes(draw(default_phantom(), 50))
    with Emulator() as emulator, LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster:
        environment = {**os.environ, "ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": str(tmp_path / "cache")}
        standing_in["tcp://127.0.0.1:8786"] = cluster.scheduler_address
        printed = []
        for language, block in blocks(BEFORE + AFTER):
            if "pip install" in block and language == "sh":  # CI runs these two, and the third opens a browser
                continue
            if language == "python":
                printed.append(python(tmp_path, environment, "-c", block))
                continue
            for line in block.replace("\\\n", "").splitlines():
                name, *words = (standing_in.get(word, word) for word in shlex.split(line))
                assert name == "atlaszarr"
                assert not [word for word in words if word.startswith("http")], "a file that is not in FILES"
                words = [re.sub(r"^s3://bucket/", f"{tmp_path}/bucket/", word) for word in words]
                printed.append(python(tmp_path, environment, "-m", "atlaszarr", *words))
    text = "".join(printed)
    mm3 = np.isin(default_phantom().annotation(50), RSP).sum() * 0.05**3
    assert f"\nRetrosplenial area: {mm3:.2f} mm3 (left " in text
    assert re.search(r"^voxels +\d+$", text, re.MULTILINE)
    assert re.search(r"^ +name +density$\nacronym *\n\S+ .+ [01]\.\d+$", text, re.MULTILINE)
    (promised,) = re.findall(r"^prints `(\(.*?)`\.", README, flags=re.MULTILINE)
    assert promised in text
    assert "{'built': 2}" in text
    assert (tmp_path / "bucket/nrp1.ome.zarr/zarr.json").exists()
    assert (tmp_path / "bucket/mouse/74272479.ome.zarr/zarr.json").exists()
