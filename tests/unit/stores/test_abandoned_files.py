"""Temporary files of writes: those of processes that have ended are removed, all others stay."""

import os
import subprocess
import sys
import time

import pytest

from atlaszarr.stores.target import Target

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is it known that a process has ended")

SCRIPT = """
import os, sys
from atlaszarr.stores.target import Target
sys.addaudithook(lambda event, arguments: event == "os.rename" and os._exit(9))
Target.of(sys.argv[1]).write("a/b.json", b"{}")
"""
HOUR = 3600


def left(folder):
    return sorted(path.name for path in (folder / "a").iterdir())


@pytest.fixture
def abandoned(tmp_path):
    """The file that a process leaves that ends before it renames it."""
    process = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], check=False, timeout=100)
    assert process.returncode == 9
    (name,) = left(tmp_path)
    return tmp_path / "a" / name


def test_a_file_of_a_process_that_has_ended_is_removed(abandoned, tmp_path):
    abandoned.with_name(".other.partial").touch()
    Target.of(tmp_path).tidy(["a", "nothing"])
    assert left(tmp_path) == [".other.partial"]


def test_a_file_of_a_running_process_stays(abandoned, tmp_path):
    machine, _, number = abandoned.name.split("-")
    running = f"{machine}-{os.getpid()}-{number}"
    abandoned.rename(abandoned.with_name(running))
    Target.of(tmp_path).tidy(["a"])
    assert left(tmp_path) == [running]


def test_a_file_of_another_machine_stays_for_an_hour(abandoned, tmp_path):
    other = abandoned.with_name("." + "0" * 8 + abandoned.name[9:])
    abandoned.rename(other)
    Target.of(tmp_path).tidy(["a"])
    assert left(tmp_path) == [other.name]
    then = time.time() - HOUR - 60
    os.utime(other, (then, then))
    Target.of(tmp_path).tidy(["a"])
    assert not (tmp_path / "a").exists()


def test_a_folder_in_another_kind_of_store_has_none():
    target = Target.of("memory://tidy")
    target.write("a/b.json", b"{}")
    target.tidy(["a"])
    assert target.list_keys() == ["a/b.json"]
