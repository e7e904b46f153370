"""`build_atlas` in the layouts of the standard and of BrainGlobe, killed with ``kill -9`` in each of its parts.

A process kills itself before a change of the disk in a given part, so that every part is really reached. The next one
resumes and is killed in the next part; the last one completes the tree to the bytes of one that was built at once.
These processes are forks of one that has imported all that they need.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from atlaszarr import build_atlas, verify
from tiny_atlas import GRAPH, files, labels, save

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is it known that the owner of a lease has ended"),
]

LAYOUTS = {"both": {"layout": ["assets", "brainglobe"]}, "strict": {"layout": "assets", "strict": True}}
#: Parts of the path of a change before which the process is killed, and how many such changes are made before.
MOMENTS = [
    ("/annotation", 5),
    ("template.ome.zarr/0/c/", 1),
    ("annotations.ome.zarr/0/c/", 2),
    ("annotations.precomputed/25000_25000_25000/", 0),
    ("annotations.precomputed/mesh/", 3),
    ("annotations.precomputed/info", 0),
    ("template_25.nii.gz", 0),
    ("data_description.json", 2),
    ("atlases/tiny-atlas/2026/manifest.json", 0),
]
#: The record is written when a build begins, after each NIfTI, and at the end.
RECORD = {"both": "atlaszarr/tiny-2026.json", "strict": "atlaszarr/atlas.json"}
#: Audit events that Python raises before a change to a local disk.
CHANGES = ("os.rename", "os.remove", "os.symlink")


def build(sources, target, **more):
    """Build the atlas of a folder of sources."""
    return build_atlas(
        target,
        annotation=Path(sources, "annotation.nrrd"),
        template=Path(sources, "template.nrrd"),
        ontology=Path(sources, "graph.json"),
        name="tiny",
        version="2026",
        citation="Tiny, T. (2026) An invented atlas",
        species="Mus inventus",
        chunk=16,
        workers=1,
        **more,
    )


@pytest.fixture(scope="module")
def killed(sources):
    """Build in a process that kills itself before a change in a part; return whether it reached that change."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipes = [sys.executable, __file__, str(sources)], dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:

        def killed(target, part, after, **more):
            process.stdin.write(json.dumps([str(target), part, after, more]) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code != 0

        yield killed
        process.stdin.close()


def content(folder):
    """All files but ledgers and the record, and without the times at which assets were made."""
    found = files(folder)
    for name, body in found.items():
        if name.endswith("data_description.json"):
            found[name] = {**json.loads(body), "creation_time": None, "name": None}  # both have the time
        elif name.endswith("processing.json"):
            found[name] = re.sub(rb'"(start|end)_date_time": "[^"]*"', b"", body)
        elif name.endswith(tuple(RECORD.values())):
            found[name] = {**json.loads(body), "built": None, "files": None, "check": None}
        elif name.endswith("ledger.jsonl"):
            found[name] = body.splitlines()[:-1]  # the last line has the digests of the sidecars
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    array = labels()
    array[array == 3_000_000_003] = 4
    save(folder / "annotation.nrrd", array, 25)
    save(folder / "template.nrrd", np.random.default_rng(0).integers(0, 4000, array.shape).astype("uint16"), 25)
    graph = json.dumps(GRAPH).replace("3000000003", "4").replace('"a1"', '"A2"')
    (folder / "graph.json").write_text(graph)
    return folder


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def undisturbed(sources, tmp_path_factory, layout):
    folder = tmp_path_factory.mktemp("undisturbed") / "atlas"
    build(sources, folder, **LAYOUTS[layout])
    return folder


def test_an_atlas_killed_in_each_part_is_completed_to_the_same_bytes(sources, undisturbed, layout, killed, tmp_path):
    target, options = tmp_path / "atlas", LAYOUTS[layout]
    for part, after in [*MOMENTS, (RECORD[layout], 1)]:
        assert killed(target, part, after, **options), f"{part} was not reached"
        assert not verify(target).ok
    build(sources, target, **options)
    assert content(target) == content(undisturbed)
    assert verify(target, deep=True).ok


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_atlas_killed_in_each_part_while_it_is_built_anew_is_completed_to_the_same_bytes(
    sources, undisturbed, layout, killed, tmp_path, overwrite
):
    target, options = tmp_path / "atlas", LAYOUTS[layout]
    build(sources, target, **options)
    moments = MOMENTS[:-1]  # the manifest of the atlas is the same, and not written again
    for part, after in [(RECORD[layout], 0), *moments, (RECORD[layout], 7)]:
        assert killed(target, part, after, overwrite=True, **options), f"{part} was not reached"
    build(sources, target, overwrite=overwrite, **options)
    assert content(target) == content(undisturbed)
    assert verify(target, deep=True).ok


def main():
    sources = sys.argv[1]
    for name in imported(sources):
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            code = 1
            try:
                build_until(sources, *json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def imported(sources):
    """The names of the modules that builds import, from a fork: tensorstore refuses forks of a process that used it."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        for options in LAYOUTS.values():
            with tempfile.TemporaryDirectory() as folder:
                build(sources, Path(folder, "atlas"), **options)
        with open(writer, "w") as names:  # noqa: PTH123
            json.dump(list(sys.modules), names)
        os._exit(0)
    os.close(writer)
    with open(reader) as names:  # noqa: PTH123
        found = json.load(names)
    os.waitpid(child, 0)
    return found


def build_until(sources, target, part, after, more):
    """Build, and kill this process before a change in a part, after some of them."""
    left = after

    def watch(event, arguments):
        nonlocal left
        if event in CHANGES:
            path = str(arguments[1 if event != "os.remove" else 0])
            if path.startswith(target) and part in path.removeprefix(target):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

    sys.addaudithook(watch)
    build(sources, target, **more)


if __name__ == "__main__":
    main()
