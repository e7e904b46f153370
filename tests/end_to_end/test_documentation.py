"""The site: its gallery, its reference, and what checks it. CI builds it: see `.ci/run`."""

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

import atlaszarr
from atlaszarr.testing import BrainPhantom, Damage, Emulator
from atlaszarr.testing.damage import KINDS as DAMAGE
from atlaszarr.testing.faults import KINDS, Rule, load_faults

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40


def loaded(name):
    """A module of the folder of the documentation."""
    spec = util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_short_says_how_it_is_run_and_draws_a_picture(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert re.search(rf"^    python examples/{path.name} ", text, re.MULTILINE)
    title, underline = text.splitlines()[1:3]
    assert text.startswith('"""\n')
    assert underline == "=" * len(title)
    assert re.search(r"^ *(figure|plt)\.savefig\(", text, re.MULTILINE)


def test_the_gallery_runs_every_example():
    source = (DOCS / "gallery_inputs.py").read_text()
    named = re.findall(r'^    "(\w+)": \[', source, re.MULTILINE)
    assert sorted(named) == [path.stem for path in EXAMPLES]


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference.md").read_text()
    named = set(re.findall(r"^\.\. auto(?:class|function):: (\w+)$", text, re.MULTILINE))
    documented_as_a_module = {"AtlaszarrError"}
    assert set(atlaszarr.__all__) == named | documented_as_a_module
    assert ".. automodule:: atlaszarr.errors" in text


def test_every_page_is_in_the_table_of_contents():
    contents = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), re.DOTALL | re.MULTILINE)
    listed = [line for block in contents for line in block.splitlines() if line and not line.startswith(":")]
    assert sorted(listed) == sorted(
        ["gallery/index", *(path.stem for path in DOCS.glob("*.md") if path.stem != "index")]
    )


def test_links_that_lead_nowhere_and_missing_pictures_are_named(tmp_path):
    checks = loaded("site_checks")
    (tmp_path / "gallery").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static/part.html").write_text('<a href="{{ a template }}">')
    (tmp_path / "index.html").write_text(
        '<h1 id="top"><a href="#top">a</a><a href="#nowhere">b</a><a href="gallery/one.html#here">c</a>'
        '<a href="gone.html">d</a><img src="gone.png"><a href="https://example.org/x">e</a><a href="gallery/">f</a>'
    )
    (tmp_path / "gallery/index.html").write_text('<a href="one.html#there">')
    (tmp_path / "gallery/one.html").write_text('<p id="here"><img src="../images/sphx_glr_one_001.png">')
    assert checks.broken_links(tmp_path) == [
        "gallery/index.html: one.html#there",
        "gallery/one.html: ../images/sphx_glr_one_001.png",
        "index.html: #nowhere",
        "index.html: gone.html",
        "index.html: gone.png",
    ]
    assert checks.without_picture(tmp_path, ["one", "two"]) == ["two"]
    (tmp_path / "gallery/two.html").write_text("an example that draws nothing")
    assert checks.without_picture(tmp_path, ["one", "two"]) == ["two"]


# The page of the emulator


def test_the_page_of_the_emulator_has_every_fault_with_its_keys_and_defaults():
    faults, _, _ = (DOCS / "emulator.md").read_text().partition("## Damage")
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*)\|$", faults, re.MULTILINE)
    found = {
        kind: re.findall(r"`(\w+)`(?: in seconds| of the body that is sent)?(?: \(`?([\w.]+)`?\))?", keys)
        for kind, keys in rows
        if kind != "do"  # the heading
    }
    assert {kind: tuple(key for key, _ in keys) for kind, keys in found.items()} == KINDS
    for kind, keys in found.items():
        for key, default in keys:
            assert not default or str(getattr(Rule(kind), key)) in {default, f"{default}.0"}


def test_the_page_of_the_emulator_has_every_damage_with_its_keys_and_where_they_are_drawn():
    _, _, damage = (DOCS / "emulator.md").read_text().partition("## Damage")
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*)\|$", damage, re.MULTILINE)
    found = {kind: re.findall(r"`(\w+)`(?: \((-?\d[\d.]*) to ([\d.]+))?", keys) for kind, keys in rows if kind != "do"}
    assert {kind: [key for key, *_ in keys] for kind, keys in found.items()} == {
        kind: list(keys) for kind, keys in DAMAGE.items()
    }
    stated = [(DAMAGE[kind][key][2:], drawn) for kind, keys in found.items() for key, *drawn in keys if drawn[0]]
    assert len(stated) == 9
    assert all(limits == tuple(map(float, drawn)) for limits, drawn in stated)


def test_the_faults_and_the_damage_of_the_page_are_valid_and_its_python_runs(tmp_path):
    text = (DOCS / "emulator.md").read_text()
    (faults, damage), (python, truth) = (
        re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for language in ("json", "python")
    )
    (tmp_path / "damage.json").write_text(damage)
    with Emulator(phantom=BrainPhantom(), damage=Damage.load(tmp_path / "damage.json")) as emulator:
        assert [item.do for item in emulator.truth(74081235).damage] == ["hole", "tear", "depth_error"]
    ran = subprocess.run([sys.executable, "-c", truth], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    (tmp_path / "faults.json").write_text(faults)
    assert [rule.do for rule in load_faults(tmp_path / "faults.json")] == ["status", "cut", "hang"]
    ran = subprocess.run([sys.executable, "-c", python], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.match(r"3 requests, the first: /api/v2/data/query", ran.stdout)


# The page of coordinates


def test_the_page_of_coordinates_converts_a_position_as_the_package_does():
    text = (DOCS / "coordinates.md").read_text()
    assert "p_um = (264 + 1/2) x 25 = 6612.5\n    z = (6612.5 - 5) / 1000 = 6.6075 mm" in text
    (session,) = re.findall(r"^```pycon\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    code = re.sub(r"^>>> ", "", session, flags=re.MULTILINE)
    *lines, last = code.strip().splitlines()
    script = "\n".join(
        [
            *lines,
            f"print({last})",
            "volume = __import__('atlaszarr').open_volume(dataset)",
            "print(float(volume.z[264]), float(volume.p_um[264]))",
        ]
    )
    with Emulator() as emulator:
        environment = {**os.environ, "ATLASZARR_API_URL": emulator.url}
        ran = subprocess.run(
            [sys.executable, "-c", script], env=environment, check=False, capture_output=True, text=True
        )
    assert ran.returncode == 0, ran.stderr
    position, voxel = ran.stdout.splitlines()
    assert re.match(r"\[ *\d+\. +\d+\. +\d+\.\]", position)
    assert voxel == "6.6075 6612.5"
