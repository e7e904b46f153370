"""What a killed process leaves in temporary folders is removed by the next one, and what a living one has is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import nrrd
import numpy as np
import pytest

from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.temporary import temporary_folder

HOLD = """
import sys, time
from atlaszarr.reference_volumes import open_annotation

with open_annotation(sys.argv[1], sys.argv[2], orientation="asl", voxel_size=50):
    print("spooled", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def volume(tmp_path):
    """A compressed annotation, which is spooled to be read."""
    labels = np.arange(8**3, dtype=np.uint32).reshape(8, 8, 8)
    nrrd.write(str(path := tmp_path / "labels.nrrd"), labels, {"encoding": "gzip"})
    return path


@contextmanager
def holding(volume, spool):
    """A process that has opened a volume."""
    command = [sys.executable, "-c", HOLD, str(volume), str(spool)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "spooled\n"
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_spool_of_a_killed_process_is_removed_by_the_next(volume, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    with holding(volume, spool) as process:
        process.kill()
        process.wait()
    left = {path.name for path in spool.iterdir()}
    assert any(path.is_dir() for path in spool.iterdir())
    with open_annotation(volume, spool, orientation="asl", voxel_size=50) as opened:
        assert left.isdisjoint(path.name for path in spool.iterdir())
        assert opened.array.max().compute() == 511
    assert not list(spool.iterdir())


@pytest.mark.slow
def test_the_spool_of_a_living_process_is_kept(volume, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    with holding(volume, spool):
        held = {path.name for path in spool.iterdir()}
        with temporary_folder(spool) as folder:
            assert folder.is_dir()
        assert {path.name for path in spool.iterdir()} == held


def test_a_folder_without_a_lock_or_of_another_name_is_never_removed(tmp_path):
    others = ["atlaszarr-mine", f"atlaszarr-{'A' * 32}", f"other-{'b' * 32}"]
    folders, locks = [f"atlaszarr-{'a' * 32}", *others], [f"{name}.lock" for name in others]
    for name in folders:
        (tmp_path / name).mkdir()
    for name in locks:
        (tmp_path / name).touch()
    with temporary_folder(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*folders, *locks}


def test_a_link_is_neither_followed_nor_removed(tmp_path):
    (tmp_path / "other").mkdir()
    (kept := tmp_path / "other" / "kept").write_text("kept")
    spool = tmp_path / "spool"
    spool.mkdir()
    one, other = (f"atlaszarr-{letter * 32}" for letter in "ab")
    (spool / one).symlink_to(tmp_path / "other")
    (spool / f"{one}.lock").symlink_to(kept)
    (spool / other).symlink_to(tmp_path / "other")
    (spool / f"{other}.lock").touch()
    with temporary_folder(spool):
        pass
    assert kept.read_text() == "kept"


def test_many_threads_have_folders_of_their_own(tmp_path):
    seen, failures = set(), []

    def use():
        try:
            for _ in range(20):
                with temporary_folder(tmp_path) as folder:
                    (folder / "file").write_text("x")
                    assert (folder / "file").read_text() == "x"
                    seen.add(folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen) == 160
    assert not list(tmp_path.iterdir())


WRITE = """
import sys, time
from atlaszarr.stores.local import whole_file
from pathlib import Path

with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half of an image")
    file.flush()
    print("written", flush=True)
    time.sleep(600)
"""


def test_half_an_image_that_a_killed_process_left_in_a_cache_is_removed(emulator, connect, tmp_path):
    client, id = connect(emulator, tmp_path), emulator.catalogue.image_ids()[0]
    folder = tmp_path / "section-images" / "ab"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", WRITE, str(folder / "abc.jpg")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    (half,) = folder.iterdir()
    client.image(id, 6)
    assert half.exists()  # a living process may write it
    os.utime(half, (0, 0))
    connect(emulator, tmp_path).image(id, 5)
    assert not half.exists()
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
