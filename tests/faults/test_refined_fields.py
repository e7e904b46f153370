"""Faults of FIELDS while sections are registered by them: failing servers, folders that change, killed builds."""

import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from atlaszarr import RefinedFields, build, verify
from atlaszarr.errors import InputError, TargetError
from atlaszarr.sections.options import VolumeOptions
from codes import raises
from quiet_web import Quiet, web
from refined_folders import wave, write_refinement

OPTIONS = {"resolution": 100, "chunk": 32}
MODES = pytest.mark.parametrize("mode", ["volume", "sections"])


@pytest.fixture
def client(serve, connect):
    return connect(serve())


@pytest.fixture
def folder(tmp_path, dataset, request):
    """Makes FIELDS whose values no other test has, since a process keeps fields by their digest."""

    def make(name="fields", more=0.0):
        seed = np.random.default_rng([ord(letter) for letter in request.node.name]).uniform(100, 150) + more
        ids = [section.image_id for section in dataset.sections]
        values = {id: wave(dataset, seed + k)[0] for k, id in enumerate(ids)}
        return write_refinement(tmp_path / name, dataset, dict.fromkeys(ids, 40.0), values)

    return make


@pytest.mark.parametrize(("status", "code"), [(500, "store-error"), (503, "store-overloaded")])
def test_a_server_that_fails_is_named_and_the_field_is_not_called_damaged(dataset, folder, status, code):
    class Failing(Quiet):
        def do_GET(self):  # noqa: N802, its name in the standard library
            if "ome.zarr" in self.path:
                self.send_error(status)
            else:
                super().do_GET()

    with web(folder(), Failing) as url:
        stack = VolumeOptions(resolution=100.0).stack(dataset, RefinedFields.open(url))
        with raises(TargetError, code) as caught:
            stack.sections_by_chunk(64)
    assert url in str(caught.value)


def test_a_server_that_is_gone_is_named(dataset, folder):
    with web(folder()) as url:
        stack = VolumeOptions(resolution=100.0).stack(dataset, RefinedFields.open(url))
    with raises(TargetError, "store-error") as caught:
        stack.sections_by_chunk(64)
    assert url in str(caught.value)


@pytest.mark.slow
def test_a_plan_reads_each_field_once_even_if_not_all_are_kept(allen, tmp_path):
    # Sagittal sections follow one another along the axis that varies fastest. Together these fields have 152 MB.
    dataset = allen.section_dataset(69289763)
    ids = [section.image_id for section in dataset.sections]
    values = {id: np.full((2, 800, 1320), float(k)) for k, id in enumerate(ids)}
    write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), values, resolution=10.0)
    read = Counter()

    class Counting(Quiet):
        def do_GET(self):  # noqa: N802, its name in the standard library
            read[self.path] += "/c/" in self.path
            super().do_GET()

    with web(tmp_path, Counting) as url:
        assert VolumeOptions(resolution=50.0).stack(dataset, RefinedFields.open(url)).sections_by_chunk(32)
    assert set(read.values()) == {0, 1}
    assert sum(read.values()) == 2 * len(ids)


@MODES
def test_fields_that_are_written_again_after_they_were_opened_are_refused(client, dataset, folder, tmp_path, mode):
    opened = RefinedFields.open(folder())
    folder(more=50.0)
    with raises(InputError, "field-damaged"):
        build(dataset, tmp_path / "x", fields=opened, client=client, mode=mode, **OPTIONS)
    assert build(dataset, tmp_path / "x", fields=tmp_path / "fields", client=client, mode=mode, **OPTIONS).ok


SCRIPT = """
import os, signal, sys
from atlaszarr import AllenClient, build

def kill(done, total, word):
    if word == sys.argv[5] and done >= int(sys.argv[6]):
        os.kill(os.getpid(), signal.SIGKILL)

with AllenClient(sys.argv[1], cache="none", rate=1e9) as client:
    build({dataset}, sys.argv[2], fields=sys.argv[3], mode=sys.argv[4], client=client, progress=kill, **{options})
"""


@pytest.mark.slow
@MODES
@pytest.mark.parametrize("at", [("images", "1"), ("blocks", "2")])
def test_a_killed_build_is_resumed_with_the_same_fields_only(
    serve, client, dataset, folder, tmp_path, contents, mode, at
):
    emulator = serve()
    fields, other = folder(), folder("other", more=50.0)
    options = {**OPTIONS, "mode": mode, "client": client}
    build(dataset, tmp_path / "whole", fields=fields, **options)
    code = SCRIPT.format(dataset=dataset.id, options=OPTIONS)
    command = [sys.executable, "-c", code, emulator.url, tmp_path / "x", fields, mode, *at]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == -signal.SIGKILL
    for wrong in (other, None):
        with raises(InputError, "different-options"):
            build(dataset, tmp_path / "x", fields=wrong, **options)
    moved = fields.rename(tmp_path / "elsewhere")
    assert build(dataset, tmp_path / "x", fields=moved, **options).views[0].state == "resumed"
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")
    assert verify(tmp_path / "x", deep=True).ok
