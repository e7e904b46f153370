"""Builds from slides through stores that lie, change or stall, damaged caches, and kills: never a wrong voxel."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from atlaszarr import build
from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.open_data import on_slides
from conftest import DATASET
from ranged_web import serving


@pytest.fixture(scope="module")
def slides(_middle, tmp_path_factory):
    """The files of a bucket at the tier for 100 um, two sections to a slide, by key; a tier has 240 kB a slide."""
    folder = tmp_path_factory.mktemp("slides")
    Emulator(_middle[0], on_slides(_middle[1], per_slide=2)).write_bucket(Target(str(folder)), tiers=[6])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def voxels(target):
    """Bytes of all objects but those of the records of the build."""
    files = {path.relative_to(target): path for path in Path(target).rglob("*") if path.is_file()}
    # The root names its ledger, which has the ETags.
    kept = {key: path for key, path in files.items() if key.parts[0] not in ("atlaszarr", "zarr.json")}
    return {key: path.read_bytes() for key, path in kept.items()}


@pytest.fixture
def sound(serve, connect, slides, tmp_path):
    """The voxels of an undisturbed build."""
    with serving(slides) as (url, _):
        assert build(DATASET, tmp_path / "sound", client=connect(serve(), image_source=url), **OPTIONS).ok
    return voxels(tmp_path / "sound")


OPTIONS = {"resolution": 100, "chunk": 32}


# S3.


@pytest.fixture
def on_s3(remote, slides, serve, connect):
    """A client of the bucket on S3."""
    for key, body in slides.items():
        remote._client.put_object(Bucket="atlas", Key=f"slides/{key}", Body=body, ACL="public-read")
    options = {"anon": True, "endpoint_url": remote.options["endpoint_url"], "region_name": "us-east-1"}
    yield connect(serve(), image_source=remote.url("slides"), image_source_options={**options, "timeout": 0.5})
    remote.gate.watch = lambda _: None


def reasons(report):
    return {failure.reason for view in report.views for failure in view.failures}


def test_s3_that_ignores_ranges_is_named(on_s3, remote, tmp_path, sound):
    remote.gate.watch = lambda environment: environment.pop("HTTP_RANGE", None) and None
    report = build(DATASET, tmp_path / "x", client=on_s3, **OPTIONS)
    assert len(reasons(report)) == 3, "one for each slide"
    assert all("sends no parts of files" in reason for reason in reasons(report))
    remote.gate.watch = lambda _: None
    assert build(DATASET, tmp_path / "x", client=on_s3, **OPTIONS).ok
    assert voxels(tmp_path / "x") == sound


def test_an_empty_object_is_a_truncated_slide(on_s3, remote, slides, tmp_path, sound):
    key = next(key for key in slides if key.endswith(".tiff"))
    remote._client.put_object(Bucket="atlas", Key=f"slides/{key}", Body=b"", ACL="public-read")
    report = build(DATASET, tmp_path / "x", client=on_s3, **OPTIONS)
    (reason,) = reasons(report)
    assert "0 bytes" in reason
    assert key in reason
    remote._client.put_object(Bucket="atlas", Key=f"slides/{key}", Body=slides[key], ACL="public-read")
    assert build(DATASET, tmp_path / "x", client=on_s3, **OPTIONS).ok
    assert voxels(tmp_path / "x") == sound


def test_an_object_that_is_replaced_between_two_ranges_is_not_mixed(on_s3, remote, slides, tmp_path, sound):
    """Its other half, of the same length, has other pixels."""
    key = next(key for key in slides if key.endswith(".tiff"))
    asked = []

    def replace(environment):
        if environment["PATH_INFO"].endswith(key) and environment["REQUEST_METHOD"] == "GET":
            asked.append(environment["HTTP_RANGE"])
            if len(asked) == 2:  # after the header
                body = slides[key][:4096] + bytes(len(slides[key]) - 4096)
                remote._client.put_object(Bucket="atlas", Key=f"slides/{key}", Body=body, ACL="public-read")

    remote.gate.watch = replace
    report = build(DATASET, tmp_path / "x", client=on_s3, **OPTIONS)
    (reason,) = reasons(report)
    assert "changed while it was read" in reason
    remote.gate.watch = lambda _: None
    remote._client.put_object(Bucket="atlas", Key=f"slides/{key}", Body=slides[key], ACL="public-read")
    assert build(DATASET, tmp_path / "x", client=on_s3, **OPTIONS).ok
    assert voxels(tmp_path / "x") == sound


# The cache.


def _flip(path, _):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


DAMAGES = {
    "a flipped bit": _flip,
    "cut short": lambda path, _: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path, _: path.write_bytes(b""),
    "longer": lambda path, _: path.write_bytes(path.read_bytes() + b"x"),
    "another entry": lambda path, others: path.write_bytes(others[0].read_bytes()),
    "a digest alone": lambda path, _: path.write_bytes(hashlib.sha256(b"").digest()),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:section images are not cached")
def test_a_cache_that_is_damaged_gives_no_wrong_voxel(serve, connect, slides, tmp_path, sound, damage):
    with serving(slides) as (url, files):
        options = {"image_source": url, "cache": tmp_path / "cache"}
        assert build(DATASET, tmp_path / "x", client=connect(serve(), **options), **OPTIONS).ok
        first, second, *_ = entries = sorted((tmp_path / "cache").rglob("*.jpg"))
        assert len(entries) == 6
        DAMAGES[damage](first, [second])
        files.sent.clear()
        assert build(DATASET, tmp_path / "y", client=connect(serve(), **options), **OPTIONS).ok
    assert voxels(tmp_path / "x") == voxels(tmp_path / "y") == sound


# Kills.


@pytest.mark.slow
def test_a_build_from_slides_that_is_killed_is_resumed_to_the_same_voxels(serve, connect, slides, tmp_path, sound):
    """Killed when the server is asked for the second slide, and for the third."""
    emulator = serve()
    for number in (2, 3):
        target = tmp_path / f"killed {number}"
        reached, killed, asked = threading.Event(), threading.Event(), set()

        def stall(path, body, number=number, asked=asked, reached=reached, killed=killed):
            if path.endswith(".tiff"):
                asked.add(path)
                if len(asked) >= number:
                    reached.set()
                    killed.wait(60)
            return body

        with serving(slides) as (url, files):
            files.faults = [stall] * 100
            command = [sys.executable, "-m", "atlaszarr", "build", str(DATASET), str(target), "--image-source", url]
            command += ["--api-url", emulator.url, "--cache", "none", "--resolution", "100", "--chunk", "32"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert reached.wait(60), process.communicate()
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            files.faults = []
            killed.set()
            assert build(DATASET, target, client=connect(emulator, image_source=url), **OPTIONS).ok
        assert voxels(target) == sound
