"""The command batch: selection, output, exit codes, interruption."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest
from distributed import LocalCluster

from copied_datasets import copies

IDS = range(1, 7)


@pytest.fixture
def emulator(records, serve):
    return serve(*copies(records, IDS))


@pytest.fixture
def given(emulator):
    """Options of every batch here."""
    return ("--resolution", 200, "--chunk", 16, "--cache", "none", "--api-url", emulator.url)


def test_ids_come_from_a_file_or_from_a_search(command, given, tmp_path):
    (tmp_path / "ids.csv").write_text("id,gene\n1,Nrp1\n2,Nrp1\n")
    ran = command("batch", tmp_path / "root", "--ids", tmp_path / "ids.csv", *given)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"2 datasets: 2 built\ntable: {tmp_path}/root/batch/batch.csv\n"
    ran = command("batch", tmp_path / "root", "--gene", "nrp1", "--plane", "coronal", "--limit", 3, "--json", *given)
    assert ran.code == 0
    assert json.loads(ran.out)["states"] == {"finished before": 2, "built": 1}


def test_a_dataset_that_fails_is_named_and_the_exit_code_is_1(command, given, tmp_path):
    (tmp_path / "ids.txt").write_text("1\n99\n")
    ran = command("batch", tmp_path / "root", "--ids", tmp_path / "ids.txt", *given)
    assert ran.code == 1
    assert ran.err.startswith("failed: section dataset 99: section dataset 99 does not exist")
    assert ran.out.startswith("2 datasets: 1 built, 1 failed\n")


def test_a_dry_run_is_the_plan_of_all_and_writes_nothing(command, given, emulator, tmp_path):
    (tmp_path / "ids.txt").write_text("1\n99\n2\n3\n")
    ids = ("--ids", tmp_path / "ids.txt")
    ran = command("batch", tmp_path / "root", *ids, "--dry-run", "--json", *given)
    assert (ran.code, ran.err) == (0, "section dataset 99 does not exist; `atlaszarr search` lists the datasets\n")
    assert command("plan", *ids, "--json", *given).out == ran.out
    found = json.loads(ran.out)
    plans = [json.loads(command("plan", id, "--json", *given).out)[0] for id in (1, 2, 3)]
    assert (found["datasets"], found["registered"]) == (4, 3)
    for name in ("image_requests", "pixels", "download_bytes", "stored_bytes", "uncompressed_bytes"):
        assert found[name] == sum(plan[name] for plan in plans)
    assert found["images"] == sum(plan["sections_used"] for plan in plans)
    by_gene = command("batch", tmp_path / "root", "--gene", "nrp1", "--limit", 3, "--dry-run", *given)
    assert by_gene.out.startswith("section datasets     3, 3 of them can be registered")
    assert emulator.count("section_image_download") == 0
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no section datasets are chosen"),
        (("--ids", "ids.txt", "--gene", "Nrp1"), "--ids contradicts the search options"),
        (("--ids", "nowhere.txt"), "there is no file"),
        (("--ids", "bad.txt"), "line 2 of"),
        (("--ids", "ids.txt", "--resolution", "0"), "resolution 0 um"),
        (("--ids", "ids.txt", "--atlas", "ccf"), "holds no atlas of the standard"),
        (("--gene", "nothing"), "there are no datasets to build"),
        (("--dry-run",), "no section datasets are chosen"),
        (("--ids", "ids.txt", "--limit", "0", "--dry-run"), "limit 0 must be at least 1"),
        (("--ids", "ids.txt", "--mode", "sections", "--dry-run"), "mode 'sections' is not supported for an estimate"),
    ],
)
def test_wrong_use_is_one_sentence_and_nothing_is_written(arguments, sentence, command, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.txt").write_text("1\n")
    (tmp_path / "bad.txt").write_text("1\nNrp1\n")
    ran = command("batch", "root", *given, *arguments)
    assert ran.code == 2
    assert ran.err.startswith("atlaszarr: ")
    assert sentence in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "root").exists()


def started(root, ids, emulator, *further, **pipes):
    command = [sys.executable, "-m", "atlaszarr", "batch", root, "--ids", ids, "--resolution", 100, "--chunk", 16]
    command += ["--cache", "none", "--api-url", emulator.url, *further]
    # A child inherits SIGINT as ignored if the tests run in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([*map(str, command)], **pipes)
    finally:
        signal.signal(signal.SIGINT, before)


def finished(root):
    roots = [path / "zarr.json" for path in root.glob("*.ome.zarr")]
    return {path.parent.name for path in roots if path.exists() and '"finished"' in path.read_text()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_ends_within_seconds_and_keeps_the_finished_datasets(kind, records, serve, tmp_path):
    slow = serve(*copies(records, IDS), latency=0.1)
    (tmp_path / "ids.txt").write_text("\n".join(map(str, IDS)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started(tmp_path / "root", tmp_path / "ids.txt", slow, **pipes) as batch:
        while not finished(tmp_path / "root"):
            assert batch.poll() is None
            time.sleep(0.02)
        batch.send_signal(kind)
        sent = time.monotonic()
        out, err = batch.communicate(timeout=60)
        assert time.monotonic() - sent < 10  # seconds, on a machine that is busy
    assert batch.returncode == 130
    assert out == ""
    assert err.strip() == "atlaszarr: interrupted; the same command resumes a batch; finished datasets are kept"
    kept = finished(tmp_path / "root")
    assert 1 <= len(kept) < len(IDS)
    slow.reset()
    with started(tmp_path / "root", tmp_path / "ids.txt", slow, **pipes) as batch:
        out, _ = batch.communicate(timeout=100)
    assert batch.returncode == 0
    assert out.startswith("6 datasets: ")
    paths = [asked.path for asked in slow.requests if asked.kind == "section_image_download"]
    assert not {f"{int(path.rpartition('/')[2]) // 1000}.ome.zarr" for path in paths} & kept


@pytest.mark.slow
def test_a_batch_on_a_cluster_is_interrupted_within_seconds_and_the_datasets_of_its_workers_are_kept(
    records, serve, tmp_path
):
    slow = serve(*copies(records, IDS), latency=0.4)
    (tmp_path / "ids.txt").write_text("\n".join(map(str, IDS)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster:
        given = (tmp_path / "root", tmp_path / "ids.txt", slow, "--scheduler", cluster.scheduler_address)
        with started(*given, **pipes) as batch:
            while not finished(tmp_path / "root"):
                assert batch.poll() is None
                time.sleep(0.02)
            batch.send_signal(signal.SIGINT)
            sent = time.monotonic()
            _, err = batch.communicate(timeout=60)
            assert time.monotonic() - sent < 10
        assert batch.returncode == 130
        kept = "the same command resumes a batch; finished datasets are kept; the workers finish the datasets that they"
        assert f"{kept} have begun, and no others" in err
        with started(*given, **pipes) as batch:
            out, _ = batch.communicate(timeout=100)
    assert batch.returncode == 0
    assert out.startswith("6 datasets: ")
    fetched = Counter(asked.path for asked in slow.requests if asked.kind == "section_image_download")
    assert set(fetched.values()) == {1}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_on_a_terminal_progress_counts_datasets_images_and_bytes_and_estimates_the_end(records, serve, tmp_path):
    slow = serve(*copies(records, IDS), latency=0.1)
    (tmp_path / "ids.txt").write_text("\n".join(map(str, IDS)))
    parent, child = pty.openpty()
    with started(tmp_path / "root", tmp_path / "ids.txt", slow, stdout=subprocess.PIPE, stderr=child) as batch:
        os.close(child)
        shown = b""
        with suppress(OSError):  # the terminal is closed
            while part := os.read(parent, 2**16):
                shown += part
        batch.communicate(timeout=100)
    os.close(parent)
    assert batch.returncode == 0
    assert re.search(rb"[1-5] of 6 datasets, \d+ images, [\d.]+ MB, \d:\d\d:\d\d left", shown)
