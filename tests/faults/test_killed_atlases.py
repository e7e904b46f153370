"""`atlaszarr atlas` killed with ``kill -9`` at any moment: the next run leaves nothing behind, and equal bytes."""

import json
import os
import random
import shutil
import sys
import time

import numpy as np
import pytest

from atlaszarr import verify
from chains import PATIENCE, started
from tiny_atlas import GRAPH, files, labels, save

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is it known that the owner of a lease has ended"),
]

#: Parts of the objects of an atlas at whose number it is killed; the first time once the folder exists into which
#: volumes are spooled, whether or not the first object is written by then.
MOMENTS = (0, 0.02, 0.2, 0.4, 0.6, 0.8, 0.97)


class Run:
    """The command that builds an atlas in a folder, with a folder for temporary files of its own."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.temporary, self.target = folder, folder / "temporary", folder / "atlas"
        self.temporary.mkdir()

    def command(self, *more):
        sources = self.folder.parent / "sources"
        given = ["--annotation", "annotation.nrrd", "--template", "template.nrrd", "--ontology", "graph.json"]
        named = ["--name", "tiny", "--version", "1", "--species", "Mus inventus", "--citation", "Tiny, T. (2026)"]
        paths = [str(sources / text) if "." in text and " " not in text else text for text in given]
        command = [sys.executable, "-m", "atlaszarr", "atlas", str(self.target), *paths, *named, "--chunk", "8", "-q"]
        return [*command, "--workers", "1", *more]

    def run(self, *more):
        """Run the command to its end; nothing is left of it or of those before it."""
        with started(self.command(*more), {**os.environ, "TMPDIR": str(self.temporary)}) as child:
            child.end()
        assert not list(self.temporary.iterdir())

    def kill(self, reached, *more):
        """Run the command until `reached`, and kill it; return whether it was killed before its end."""
        end = time.monotonic() + PATIENCE
        with started(self.command(*more), {**os.environ, "TMPDIR": str(self.temporary)}) as child:
            while not reached() and child.process.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.002)  # less than a change of the disk takes
            child.kill()
            return child.process.returncode != 0

    def count(self):
        """The number of files in the target."""
        return sum(len(names) for _, _, names in os.walk(self.target))

    def content(self):
        """All files, without what depends on the time of the build."""
        found = files(self.target)
        for name, body in found.items():
            if name.startswith("atlaszarr/"):
                found[name] = {**json.loads(body), "built": None, "check": None}
            elif name.endswith("ledger.jsonl"):
                found[name] = body.splitlines()[:-1]  # the last line has the digests of the sidecars
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    (folder / "sources").mkdir()
    template = np.random.default_rng(0).integers(0, 4000, (40, 32, 36)).astype("uint16")
    save(folder / "sources/annotation.nrrd", labels(), 25)
    save(folder / "sources/template.nrrd", template, 25)
    small = json.loads(json.dumps(GRAPH).replace("3000000003", "4").replace('"a1"', '"A2"'))
    (folder / "sources/graph.json").write_text(json.dumps(small))
    array = labels()
    array[array == 3_000_000_003] = 4
    save(folder / "sources/annotation.nrrd", array, 25)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder):
    """The content of an atlas that was built at once, by whether it has the files of BrainGlobe."""
    found = {}
    for name, more in (("plain", ()), ("brainglobe", ("--brainglobe",))):
        run = Run(folder / name)
        run.run(*more)
        found[name] = run.content()
    return found


def test_a_killed_atlas_is_completed_to_the_same_bytes(folder, undisturbed):
    run, expected = Run(folder / "killed"), undisturbed["brainglobe"]
    kills = 0
    for part in MOMENTS:
        goal = part * len(expected)

        def reached(goal=goal):
            if not goal:
                return any(path.is_dir() for path in run.temporary.iterdir())
            return run.count() >= goal

        kills += run.kill(reached, "--brainglobe")
        if not part:
            assert list(run.temporary.iterdir())
            assert run.count() < len(expected)
    assert kills > len(MOMENTS) // 2
    run.run("--brainglobe")
    assert run.content() == expected
    assert verify(run.target, deep=True).ok


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_an_atlas_killed_while_it_removes_an_earlier_one_is_completed_to_the_same_bytes(folder, undisturbed, part):
    run = Run(folder / f"overwritten-{part}")
    shutil.copytree(folder / "brainglobe/atlas", run.target, symlinks=True)
    old = [run.target / name for name in undisturbed["brainglobe"] if name not in undisturbed["plain"]]
    watched = random.Random(0).sample(sorted(old), 20)
    manifest = run.target / "atlaszarr/tiny-1.json"
    first = manifest.stat().st_mtime_ns

    def reached():
        if not part:
            return manifest.stat().st_mtime_ns != first
        return sum(not path.exists() for path in watched) >= part * len(watched)

    run.kill(reached, "--overwrite")
    run.run("--overwrite")
    assert run.content() == undisturbed["plain"]
    assert verify(run.target, deep=True).ok
