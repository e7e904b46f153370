"""Faults of the service and of the input: what a user sees, and what is written."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import zarr
from PIL import Image

from atlaszarr.allen.client import AllenClient
from atlaszarr.allen.http import Http
from atlaszarr.allen.images import ImageRequest
from atlaszarr.dataset_build.api import build
from atlaszarr.errors import ImageError, InputError, ServiceError
from atlaszarr.testing.records import image_record
from codes import raises

IMAGES = "section_image_download"
DATASET = 74272479
#: The third of the six sections of the `records` fixture, and the options of a small build of them.
IMAGE = 74081221
SMALL = {"resolution": 200.0, "chunk": 16, "quality": 90}
SMALL_OPTIONS = [text for name, value in SMALL.items() for text in (f"--{name}", value)]


def faults(*kinds, path=f"{IMAGES}/{IMAGE}", times=None, **details):
    """Rules for the emulator: faults of the requests whose URL contains `path`."""
    return [{"match": {"path": path}, "times": times, "do": kind, **details} for kind in kinds]


def count(emulator, text):
    """The number of requests whose path or query contains a text."""
    return sum(text in f"{request.path}?{request.query}" for request in emulator.requests)


def table(target, name):
    """A table next to the ledger of a build, as a list of dicts."""
    return list(csv.DictReader(io.StringIO(Path(target, "atlaszarr", name).read_text())))


def root(target):
    """The attributes of a target's root."""
    return json.loads(Path(target, "zarr.json").read_text())["attributes"]


def state(target):
    """The state in the root of a target, and whether the root has OME-Zarr metadata."""
    return root(target)["atlaszarr"]["state"], "ome" in root(target)


def section_ids(target):
    """The section images that the voxels of level 0 are sampled from."""
    return set(np.unique(zarr.open_array(Path(target, "labels", "section", "0"), mode="r")[:]).tolist()) - {0}


def is_empty(folder):
    return not any(Path(folder).rglob("*"))


# The service fails for a time

TRANSIENT = [
    pytest.param("status", {"status": 429}, id="429"),
    pytest.param("status", {"status": 500}, id="500"),
    pytest.param("status", {"status": 502}, id="502"),
    pytest.param("status", {"status": 503}, id="503"),
    pytest.param("status", {"status": 503, "retry_after": 0}, id="503 with Retry-After"),
    pytest.param("status", {"status": 503, "retry_after": 0.5}, id="503 with a Retry-After that is not valid"),
    pytest.param("status", {"status": 504}, id="504"),
    pytest.param("reset", {}, id="reset"),
    pytest.param("cut", {"fraction": 0.5}, id="cut in the middle"),
    pytest.param("cut", {"fraction": 0.0}, id="cut before the body"),
]


@pytest.mark.parametrize(("kind", "details"), TRANSIENT)
def test_requests_are_repeated_until_the_service_recovers(serve, connect, dataset, kind, details):
    failing = "model::SectionDataSet", f"{IMAGES}/{IMAGE}"
    emulator = serve(faults=[rule for path in failing for rule in faults(kind, path=path, times=2, **details)])
    client = connect(emulator)
    assert client.section_dataset(DATASET) == dataset
    image = client.image(IMAGE, 6)
    assert image.shape[2] == 3
    assert [count(emulator, path) for path in failing] == [3, 3]


@pytest.mark.parametrize(("kind", "details"), TRANSIENT)
def test_a_request_that_keeps_failing_ends_after_the_retries_with_its_url_in_the_message(serve, connect, kind, details):
    emulator = serve(faults=faults(kind, **details))
    client = connect(emulator, retries=3)
    with raises(ServiceError, "retries-exhausted") as caught:
        client.image(IMAGE, 6)
    assert f"/{IMAGES}/{IMAGE}?downsample=6" in str(caught.value)
    assert count(emulator, IMAGES) == 4


def test_a_request_that_hangs_past_the_read_timeout_is_repeated(serve, connect):
    emulator = serve(faults=faults("hang", times=1, seconds=600.0))
    assert connect(emulator, timeout=(2.0, 1.0)).image(IMAGE, 6).shape == (112, 157, 3)
    assert emulator.peak >= 2  # the request that hangs is not finished yet


def test_requests_that_all_hang_end_after_the_retries(serve, connect):
    emulator = serve(faults=faults("hang", seconds=600.0))
    with raises(ServiceError, "retries-exhausted") as caught:
        connect(emulator, timeout=(2.0, 0.5), retries=2).fetch(ImageRequest(IMAGE, 157, 112, 6))
    assert f"{IMAGE}?downsample=6" in str(caught.value)
    assert "ReadTimeoutError" in str(caught.value)
    assert emulator.peak == 3


@pytest.mark.parametrize("status", [400, 403, 404, 410, 501])
def test_a_final_status_is_not_requested_again(serve, connect, status):
    emulator = serve(faults=faults("status", status=status))
    with raises(ServiceError, "http-status") as caught:
        connect(emulator).image(IMAGE, 6)
    assert str(caught.value).endswith(f" answered with HTTP status {status}")  # once, though the answer has it too
    assert count(emulator, IMAGES) == 1


def test_an_address_without_a_server_is_a_service_error():
    with (
        AllenClient("http://127.0.0.1:1/api/v2", "none") as client,
        raises(ServiceError, "service-unreachable") as caught,
    ):
        client.search()
    assert "127.0.0.1:1" in str(caught.value)


def test_a_retry_after_is_followed_up_to_the_longest_wait(serve):
    # A second, then days: with two retries and waits of at most a second, this ends.
    second, days = {"status": 429, "retry_after": 1}, {"status": 503, "retry_after": 864000}
    emulator = serve(faults=[*faults("status", path="", times=1, **second), *faults("status", path="", **days)])
    http = Http(timeout=(2.0, 5.0), retries=2, backoff=0.0, longest_wait=1.0)
    with raises(ServiceError, "retries-exhausted"):
        http.get(emulator.url, 2**20, bytes)
    http.close()
    started = [request.started for request in emulator.requests]
    assert len(started) == 3
    assert min(np.diff(started)) >= 1.0  # a lower bound that also holds on a slow machine


# Metadata that is not valid


@pytest.mark.parametrize(
    ("kind", "details", "code", "excerpt"),
    [
        ("html", {}, "not-json", "The service is down"),
        ("truncated", {"fraction": 0.5}, "not-json", ""),
        ("truncated", {"fraction": 0.0}, "not-json", ""),
        ("garbage", {}, "not-json", ""),
        ("fail", {"message": "line 1, column 92"}, "query-refused", "line 1, column 92"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda client: client.section_dataset(DATASET), id="dataset"),
        pytest.param(lambda client: client.search(gene="Nrp1"), id="search"),
        pytest.param(lambda client: client.image(IMAGE, 6), id="image"),
        pytest.param(lambda client: client.structure_graph(), id="structure graph"),
    ],
)
def test_the_error_of_a_wrong_answer_to_a_query_has_the_url_and_an_excerpt(
    serve, connect, tmp_path, ask, kind, details, code, excerpt
):
    emulator = serve(faults=faults(kind, path="", **details))
    with raises(ServiceError, code) as caught:
        ask(connect(emulator, tmp_path))
    assert f"{emulator.url}/" in str(caught.value)
    assert excerpt in str(caught.value)
    assert emulator.count() == 1
    assert is_empty(tmp_path)


@pytest.mark.parametrize("kind", ["html", "truncated", "fail"])
@pytest.mark.parametrize("model", ["SectionDataSet", "SectionImage"])
def test_a_build_without_metadata_ends_with_one_line_and_writes_nothing(serve, command, tmp_path, model, kind):
    emulator = serve(faults=faults(kind, path=f"model::{model}"))
    target = tmp_path / "x.ome.zarr"
    outcome = command("build", DATASET, target, "--api-url", emulator.url, "--cache", tmp_path, *SMALL_OPTIONS)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1
    assert f"{emulator.url}/data/query.json" in outcome.err
    assert is_empty(tmp_path)


OTHER_RECORDS = [
    pytest.param("SectionDataSet", "id", 69289763, id="another dataset"),
    pytest.param("SectionDataSet", "id", None, id="a dataset without id"),
    pytest.param("SectionImage", "data_set_id", 69289763, id="a section image of another dataset"),
]


@pytest.mark.parametrize(("model", "attribute", "value"), OTHER_RECORDS)
@pytest.mark.parametrize("name", ["build", "plan", "info"])
def test_an_answer_about_another_dataset_ends_with_one_line(serve, command, tmp_path, name, model, attribute, value):
    emulator = serve(faults=faults("other_record", path=f"model::{model},", attribute=attribute, value=value))
    target = [tmp_path / "x.ome.zarr"] if name == "build" else []
    outcome = command(name, DATASET, *target, "--api-url", emulator.url)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    for text in (model, f"{attribute} {DATASET}", f"{attribute} {value}"):
        assert text in outcome.err
    assert is_empty(tmp_path)


@pytest.mark.parametrize(
    ("model", "attribute", "ask"),
    [
        ("SectionImage", "id", lambda client: client.image(IMAGE, 6)),
        ("SectionDataSet", "id", lambda client: client.search(id=DATASET)),
        ("SectionDataSet", "specimen_id", lambda client: client.search(specimen=72962948)),
        ("SectionImage", "data_set_id", lambda client: client.search(id=DATASET, images=True)),
    ],
)
def test_the_records_of_an_image_or_a_search_are_compared_with_the_query(serve, connect, model, attribute, ask):
    emulator = serve(faults=faults("other_record", path=f"model::{model},", attribute=attribute, value=5))
    with raises(ServiceError, "wrong-record") as caught:
        ask(connect(emulator))
    assert f"{attribute} 5" in str(caught.value)
    assert emulator.count(IMAGES) == 0


def test_sections_of_another_dataset_are_not_counted(serve, connect):
    emulator = serve(faults=faults("other_record", path="model::SectionImage,", attribute="data_set_id", value=5))
    with raises(ServiceError, "wrong-record") as caught:
        connect(emulator).search()
    assert "dataset 5" in str(caught.value)


def test_an_endless_number_of_rows_is_not_read(serve, connect):
    emulator = serve(faults=faults("total_rows", path="model::SectionImage", delta=10**9))
    with raises(ServiceError, "too-many-rows"):
        connect(emulator).section_dataset(DATASET)
    assert emulator.count() == 2


def test_metadata_is_never_cached(serve, connect, dataset, tmp_path):
    emulator = serve()
    client = connect(emulator, tmp_path)
    assert client.section_dataset(DATASET) == client.section_dataset(DATASET) == dataset
    assert emulator.count("query") == 4
    assert is_empty(tmp_path)


# Section images that are not valid

WRONG = [
    pytest.param("truncated", {"fraction": 0.5}, "damaged-image", "", id="truncated"),
    pytest.param("truncated", {"fraction": 0.999}, "damaged-image", "", id="a few bytes short"),
    pytest.param("wrong_size", {}, "wrong-image-size", "64 x 48", id="wrong size"),
    pytest.param("empty", {}, "not-a-jpeg", "0 bytes", id="0 bytes"),
    pytest.param("garbage", {}, "not-a-jpeg", "", id="not an image"),
    pytest.param("html", {}, "not-a-jpeg", "DOCTYPE", id="a page"),
    pytest.param("fail", {}, "not-a-jpeg", "", id="JSON"),
    pytest.param("grey", {}, "wrong-channels", "Gray", id="grey"),
    pytest.param("bomb", {}, "wrong-image-size", "60000 x 60000", id="declared 60000 x 60000"),
]


@pytest.mark.parametrize(("kind", "details", "code", "value"), WRONG)
def test_a_wrong_image_is_fetched_again_within_the_retries_and_never_cached(
    serve, connect, tmp_path, kind, details, code, value
):
    emulator = serve(faults=faults(kind, times=4, **details))
    client = connect(emulator, tmp_path, retries=2)
    request = client.image_request(IMAGE, 6)
    emulator.reset()
    with raises(ImageError, code) as caught:
        client.fetch(request)
    assert str(IMAGE) in str(caught.value)
    assert value in str(caught.value)
    assert emulator.count() == 3
    assert is_empty(tmp_path)
    right = client.fetch(request)
    assert emulator.count() == 5
    assert request.decode(right.body).shape == (request.height, request.width, 3)
    assert [path.read_bytes()[:-32] for path in tmp_path.rglob("*.jpg")] == [right.body]


@pytest.mark.parametrize(
    ("kind", "details", "value"), [pytest.param(*case.values[:2], case.values[3], id=case.id) for case in WRONG]
)
def test_a_build_records_an_image_that_stays_wrong(serve, connect, tmp_path, dataset, kind, details, value):
    emulator = serve(faults=faults(kind, **details))
    target = tmp_path / "x.ome.zarr"
    report = build(dataset, target, client=connect(emulator, retries=1), **SMALL)
    (failure,) = report.views[0].failures
    assert value in failure.reason
    assert (report.ok, report.views[0].state, failure.request.image_id) == (False, "unfinished", IMAGE)
    assert count(emulator, IMAGES) == 5 + 2
    (row,) = table(target, "failures.csv")
    assert row["image_id"] == str(IMAGE)
    assert row["reason"] == failure.reason
    assert state(target) == ("unfinished", False)


def test_wrong_images_and_faults_of_the_service_share_the_retries(serve, connect):
    kinds = (*faults("status", times=1), *faults("html", times=1), *faults("reset", times=1), *faults("empty", times=1))
    emulator = serve(faults=kinds)
    client = connect(emulator, retries=3)
    request = ImageRequest(IMAGE, 157, 112, 6)
    with raises(ImageError, "not-a-jpeg"):
        client.fetch(request)
    assert [row.fault for row in emulator.requests] == ["status", "html", "reset", "empty"]
    emulator = serve(faults=kinds)
    assert connect(emulator, retries=4).fetch(request).request == request
    assert emulator.count() == 5


def test_an_image_that_declares_a_huge_size_takes_no_memory(serve, connect):
    client = connect(serve(faults=faults("bomb")))
    request = client.image_request(IMAGE, 6)
    client.try_fetch(client.image_request(IMAGE, 5))
    tracemalloc.start()
    with raises(ImageError, "wrong-image-size"):
        client.fetch(request)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_an_answer_larger_than_any_image_of_that_size_is_not_read_completely(serve, connect, tmp_path):
    endless = b"\xff\xd8" + bytes(64 * 2**20)
    emulator = serve(images=[image_record(7, DATASET, 1, (300, 200))], pixels={7: {0: endless}})
    client = connect(emulator, tmp_path)
    request = client.image_request(7)
    client.search()
    tracemalloc.start()
    with raises(ServiceError, "answer-too-large") as caught:
        client.fetch(request)
    assert f"{IMAGES}/7?downsample=0" in str(caught.value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20
    assert is_empty(tmp_path)
    assert len(client.search()) == 1


@pytest.mark.slow
def test_an_image_beyond_the_limit_of_pillow_decodes(serve, connect):
    picture = np.zeros((14000, 14000, 3), np.uint8)
    picture[:7000, :, 0] = 200
    body = simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="420")
    del picture
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(body))
    emulator = serve(images=[image_record(7, DATASET, 1, (14000, 14000))], pixels={7: {0: body}})
    client = connect(emulator)
    request = client.image_request(7)
    image = request.decode(client.fetch(request).body)
    assert image.shape == (14000, 14000, 3)
    assert image[[10, 13990], [13990, 10]].tolist() == [[200, 0, 0], [0, 0, 0]]


# One image of a dataset is missing


@pytest.fixture
def undisturbed(serve, connect, tmp_path, contents):
    """The array chunks and zarr metadata of a build without faults."""
    target = tmp_path / "undisturbed.ome.zarr"
    with connect(serve()) as client:
        assert build(DATASET, target, client=client, **SMALL).ok
    return contents(target)


@pytest.fixture
def build_small(command, tmp_path):
    """Runs the command of the small build of the records, with target x.ome.zarr and a cache."""

    def run(emulator, *options):
        emulator.reset()
        paths = ("--api-url", emulator.url, "--cache", tmp_path / "cache")
        return command("build", DATASET, tmp_path / "x.ome.zarr", *paths, *SMALL_OPTIONS, *options)

    return run


def test_a_build_without_one_image_writes_the_rest_and_the_same_command_resumes(
    serve, build_small, tmp_path, contents, undisturbed
):
    from ngff_zarr import from_ngff_zarr

    emulator, target = serve(faults=faults("status", status=404, times=1)), tmp_path / "x.ome.zarr"
    outcome = build_small(emulator)
    assert outcome.code == 1
    assert f"missing: section image {IMAGE}: {emulator.url}/{IMAGES}/{IMAGE}" in outcome.err
    assert "1 of 6 section images are missing; --allow-missing finishes without" in outcome.err
    assert outcome.out == f"unfinished: {target}\n"
    assert emulator.count(IMAGES) == 6
    (failure,) = table(target, "failures.csv")
    assert (failure["image_id"], failure["section_number"]) == (str(IMAGE), "237")
    assert failure["url"].startswith(f"{emulator.url}/{IMAGES}/{IMAGE}?downsample=")
    sections = {row["image_id"]: row for row in table(target, "sections.csv")}
    assert {id for id, row in sections.items() if row["state"] != "used"} == {str(IMAGE)}
    assert (sections[str(IMAGE)]["state"], sections[str(IMAGE)]["reason"]) == ("missing", failure["reason"])
    assert len(section_ids(target)) == 5
    assert state(target) == ("unfinished", False)
    with pytest.raises(Exception, match=r"(?i)multiscales|metadata|ome"):
        from_ngff_zarr(str(target))

    outcome = build_small(emulator)
    assert (outcome.code, outcome.err, outcome.out.splitlines()[0]) == (0, "", f"resumed: {target}")
    assert [request.path.rsplit("/", 1)[1] for request in emulator.requests if request.kind == IMAGES] == [str(IMAGE)]
    assert contents(target) == undisturbed
    assert table(target, "failures.csv") == []
    assert {row["state"] for row in table(target, "sections.csv")} == {"used"}
    assert from_ngff_zarr(str(target), validate=True).images[0].data.shape == (3, 66, 40, 57)

    outcome = build_small(emulator)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"already finished: {target}")
    assert emulator.count(IMAGES) == 0
    assert contents(target) == undisturbed


def test_with_allow_missing_a_build_finishes_with_a_hole_that_a_later_run_fills(
    serve, build_small, tmp_path, contents, undisturbed
):
    emulator, target = serve(faults=faults("status", status=404, times=3)), tmp_path / "x.ome.zarr"
    outcome = build_small(emulator, "--allow-missing")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"built: {target}")
    assert f"missing: section image {IMAGE}" in outcome.err
    assert emulator.count(IMAGES) == 6
    assert state(target) == ("finished", True)
    assert len(section_ids(target)) == 5
    assert IMAGE not in section_ids(target)
    assert [row["image_id"] for row in table(target, "sections.csv") if row["state"] == "missing"] == [str(IMAGE)]
    with_hole = contents(target)

    outcome = build_small(emulator, "--allow-missing")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"already finished: {target}")
    assert emulator.count(IMAGES) == 1
    outcome = build_small(emulator)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"already finished: {target}")
    assert emulator.count(IMAGES) == 1
    assert contents(target) == with_hole

    outcome = build_small(emulator)
    assert (outcome.code, outcome.err, outcome.out.splitlines()[0]) == (0, "", f"resumed: {target}")
    assert emulator.count(IMAGES) == 1
    assert contents(target) == undisturbed
    assert IMAGE in section_ids(target)
    assert table(target, "failures.csv") == []


def test_an_unfinished_build_may_be_finished_without_the_image(serve, build_small, tmp_path):
    emulator, target = serve(faults=faults("status", status=404)), tmp_path / "x.ome.zarr"
    assert build_small(emulator).code == 1
    before = {path: path.stat().st_mtime_ns for path in target.rglob("c/**/*") if path.is_file()}
    outcome = build_small(emulator, "--allow-missing")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"resumed: {target}")
    assert emulator.count(IMAGES) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert state(target) == ("finished", True)


def test_every_run_requests_only_the_missing_image_again(serve, build_small, tmp_path):
    emulator = serve(faults=faults("status", status=404))
    for requests in (6, 1, 1):
        outcome = build_small(emulator)
        assert (outcome.code, emulator.count(IMAGES)) == (1, requests)
    assert state(tmp_path / "x.ome.zarr") == ("unfinished", False)


def test_a_build_without_any_image_is_unfinished_and_lists_them_all(serve, build_small, tmp_path, records):
    emulator, target = serve(faults=faults("status", path=IMAGES, status=404)), tmp_path / "x.ome.zarr"
    outcome = build_small(emulator)
    assert outcome.code == 1
    assert "6 of 6 section images are missing" in outcome.err
    assert {int(row["image_id"]) for row in table(target, "failures.csv")} == {image["id"] for image in records[1]}
    assert section_ids(target) == set()
    assert state(target) == ("unfinished", False)


def test_a_service_that_stays_overloaded_adds_a_row_to_the_failures_and_exits_with_1(serve, build_small, tmp_path):
    emulator = serve(faults=faults("status", status=429, retry_after=1))
    outcome = build_small(emulator)
    assert outcome.code == 1
    assert emulator.count(IMAGES) == 5 + 6
    (row,) = table(tmp_path / "x.ome.zarr", "failures.csv")
    assert "429" in row["reason"]
    assert state(tmp_path / "x.ome.zarr") == ("unfinished", False)


def test_a_build_with_a_damaged_cache_fetches_the_damaged_images_and_is_byte_identical(
    serve, build_small, tmp_path, contents, undisturbed
):
    emulator, target = serve(), tmp_path / "x.ome.zarr"
    assert build_small(emulator).code == 0
    entries = sorted((tmp_path / "cache").rglob("*.jpg"))
    assert len(entries) == 6
    for number, path in enumerate(entries[:4]):
        body = bytearray(path.read_bytes())
        body[len(body) * (number + 1) // 5] ^= 1 << number
        path.write_bytes(body)
    shutil.rmtree(target)
    outcome = build_small(emulator)
    assert (outcome.code, outcome.err, emulator.count(IMAGES)) == (0, "", 4)
    assert contents(target) == undisturbed


def test_a_build_whose_cache_cannot_be_written_finishes_with_one_warning(
    serve, build_small, tmp_path, contents, undisturbed
):
    emulator = serve()
    (tmp_path / "cache").write_text("not a folder")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        outcome = build_small(emulator)
    assert (outcome.code, emulator.count(IMAGES)) == (0, 6)
    assert outcome.err.count("\n") == 1
    assert str(tmp_path / "cache") in outcome.err
    assert contents(tmp_path / "x.ome.zarr") == undisturbed


def test_with_json_a_failed_build_prints_only_its_report(serve, build_small):
    emulator = serve(faults=faults("status", status=404))
    outcome = build_small(emulator, "--json")
    report = json.loads(outcome.out)
    assert (outcome.code, report["ok"], report["dataset"]) == (1, False, DATASET)
    (failure,) = report["views"][0]["failures"]
    assert failure["image_id"] == IMAGE


def test_sections_that_are_skipped_are_in_the_table_with_the_reason(serve, build_small, tmp_path, records):
    first, second = records[1][:2]
    first["alignment2d"] = None
    second["section_number"] = records[1][2]["section_number"]
    assert build_small(serve()).code == 0
    rows = {row["image_id"]: row for row in table(tmp_path / "x.ome.zarr", "sections.csv")}
    skipped = [rows[str(image["id"])] for image in records[1] if rows[str(image["id"])]["state"] == "skipped"]
    assert len(skipped) == 2
    assert "no 2-D alignment" in rows[str(first["id"])]["reason"]
    assert all(f"of section dataset {DATASET}" in row["reason"] for row in skipped)


@pytest.mark.parametrize(
    ("edit", "value"),
    [
        ({"alignment3d": None}, "3-D alignment"),
        ({"plane_of_section_id": 3}, "plane of section unknown (3)"),
        ({"section_thickness": None}, "no section thickness"),
        ({"reference_space_id": 4}, "reference space 4"),
    ],
)
def test_a_dataset_that_cannot_be_registered_ends_with_one_line(serve, build_small, records, tmp_path, edit, value):
    records[0][0] |= edit
    outcome = build_small(serve())
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert value in outcome.err
    assert is_empty(tmp_path)


# Input that is not valid


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for targets that must stay unwritten."""
    return tmp_path_factory.mktemp("refused")


def assert_refused(outcome, *values):
    """Exit code 2, and one line on stderr that contains the given values."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("atlaszarr: ")
    assert outcome.err.count("\n") == 1
    for text in values:
        assert text in outcome.err


@pytest.mark.parametrize("id", ["1'", '1"', "[1]", "(1)", "1,2", "1e3", "1.0", "", " ", "id$eq1", "../1", "0x10", "-1"])
@pytest.mark.parametrize("name", ["build", "plan", "info", "image"])
def test_an_id_that_is_not_a_number_is_refused(command, emulator, folder, name, id):
    emulator.reset()
    arguments = [id, folder / "x.ome.zarr"] if name == "build" else [id]
    assert_refused(command(name, *arguments, "--api-url", emulator.url), id)
    assert emulator.count() == 0
    assert is_empty(folder)


@pytest.mark.parametrize("name", ["build", "plan", "info"])
def test_an_unknown_dataset_is_refused(command, emulator, folder, name):
    arguments = ["12345", folder / "x.ome.zarr"] if name == "build" else ["12345"]
    assert_refused(command(name, *arguments, "--api-url", emulator.url), "section dataset 12345")
    assert is_empty(folder)


BAD_OPTIONS = [
    *[("--resolution", value) for value in ("0", "-25", "nan", "inf", "-inf", "1e9", "0.05", "fine")],
    *[("--fill", value) for value in ("cubic", "")],
    *[("--max-gap", value) for value in ("0.9", "-3", "nan", "inf", "wide")],
    ("--interpolation", "lanczos4"),
    *[("--space", value) for value in ("auto", "9", "native", "")],
    *[("--r-extent", value) for value in ("11350", "nan", "")],
    *[("--view", value) for value in ("annotation", "")],
    *[("--downsample", value) for value in ("-1", "40", "4000", "1.5", "coarse")],
    *[("--levels", value) for value in ("0", "-1", "99", "many")],
    *[("--chunk", value) for value in ("0", "-64", "7", "1025", "64.0")],
    *[("--background", value) for value in ("-1", "256", "white")],
    *[("--quality", value) for value in ("-1", "101", "high")],
    *[("--range", value) for value in ("0,4095", "a,b,c,d,e,f", "9,1,0,1,0,1", "0,4096,0,1,0,1", "-1,1,0,1,0,1", "")],
    *[("--workers", value) for value in ("0", "-2", "two")],
    ("--cache", "nowhere://place"),
    ("--api-url", "ftp://127.0.0.1/api/v2"),
]


@pytest.mark.parametrize("name", ["build", "plan"])
@pytest.mark.parametrize(("option", "value"), BAD_OPTIONS, ids=lambda text: text or "nothing")
def test_a_bad_option_is_refused(command, emulator, folder, name, option, value):
    emulator.reset()
    arguments = [DATASET, folder / "x.ome.zarr"] if name == "build" else [DATASET]
    outcome = command(name, *arguments, "--api-url", emulator.url, "--resolution", "200", option, value)
    assert_refused(outcome, option.removeprefix("--").replace("api-url", "api_url").replace("max-gap", "gap"))
    assert emulator.count(IMAGES) == 0
    assert is_empty(folder)


@pytest.mark.parametrize(
    "options",
    [
        ("--no-such-option",),
        ("--resolution",),
        ("--view", "primary", "--view", "primary"),
        ("--storage-option", "no value"),
        ("--storage-option", "=1"),
        ("one", "too many"),
    ],
)
def test_wrong_use_is_refused(command, emulator, folder, options):
    outcome = command("build", DATASET, folder / "x.ome.zarr", "--api-url", emulator.url, *options)
    assert_refused(outcome)
    assert is_empty(folder)


@pytest.mark.parametrize("arguments", [("build",), ("build", DATASET), ("image",), ("no-such-command",)])
def test_a_command_that_is_not_complete_is_refused(command, arguments):
    assert_refused(command(*arguments))


@pytest.mark.parametrize("target", ["memory://a/../b", "nowhere://a/b", "s3:/bucket/b"])
def test_a_target_that_is_not_a_path_or_url_is_refused(command, emulator, folder, monkeypatch, target):
    monkeypatch.chdir(folder)
    emulator.reset()
    assert_refused(command("build", DATASET, target, "--api-url", emulator.url, *SMALL_OPTIONS), repr(target))
    assert emulator.count() == 0
    assert is_empty(folder)


def test_a_target_in_memory_is_refused_with_a_scheduler_of_other_processes(command, emulator):
    outcome = command("build", DATASET, "memory://x", "--scheduler", "tcp://127.0.0.1:1", "--api-url", emulator.url)
    assert_refused(outcome, "memory://x")


def test_a_scheduler_that_is_not_an_address_is_refused_and_later_builds_run(serve, build_small, tmp_path):
    emulator = serve()
    assert_refused(build_small(emulator, "--scheduler", "nonsense"), "'nonsense'")
    assert is_empty(tmp_path)
    assert build_small(emulator).code == 0


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("what", ["a file in a folder", "a zarr array", "a zarr group", "an unreadable root"])
def test_a_target_that_atlaszarr_did_not_write_is_never_changed(
    serve, build_small, tmp_path, contents, what, overwrite
):
    target = tmp_path / "x.ome.zarr"
    match what:
        case "a file in a folder":
            (target / "deep").mkdir(parents=True)
            (target / "deep" / "thesis.txt").write_text("mine")
        case "a zarr array":
            zarr.save_array(target, np.arange(9))
        case "a zarr group":
            zarr.create_group(target, attributes={"ome": {"version": "0.5"}})
        case _:
            target.mkdir()
            (target / "zarr.json").write_text("{")
    before = contents(target)
    emulator = serve()
    assert_refused(build_small(emulator, *overwrite), str(target))
    assert contents(target) == before
    assert emulator.count(IMAGES) == 0


def test_a_target_that_is_a_file_is_refused(serve, build_small, tmp_path):
    target = tmp_path / "x.ome.zarr"
    target.write_text("mine")
    assert_refused(build_small(serve()), str(target))
    assert target.read_text() == "mine"


@pytest.mark.parametrize("target", ["s3://", "memory://", "memory:///"])
def test_a_url_without_a_path_is_refused(serve, command, folder, monkeypatch, target):
    monkeypatch.chdir(folder)
    try:
        assert_refused(command("build", DATASET, target, "--api-url", serve().url, *SMALL_OPTIONS), repr(target))
        assert is_empty(folder)
    finally:
        shutil.rmtree(folder / target.rstrip("/"), ignore_errors=True)


def test_an_output_that_is_a_folder_is_refused(command, serve, tmp_path):
    (tmp_path / "x.jpg").mkdir()
    assert command("image", IMAGE, tmp_path / "x.jpg", "--downsample", 6, "--api-url", serve().url).code in (1, 2)


def test_other_options_for_the_same_target_are_refused_with_both_values(serve, build_small, tmp_path, contents):
    emulator, target = serve(), tmp_path / "x.ome.zarr"
    assert build_small(emulator).code == 0
    before = contents(target)
    outcome = build_small(emulator, "--resolution", "250", "--fill", "none")
    assert_refused(outcome, "resolution 200.0, fill nearest", "resolution 250.0, fill none", "--overwrite")
    assert contents(target) == before
    assert emulator.count(IMAGES) == 0
    outcome = build_small(emulator, "--resolution", "250", "--fill", "none", "--overwrite")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"built: {target}")
    assert zarr.open_array(target / "0", mode="r").shape == (3, 53, 32, 46)


def test_other_options_for_an_unfinished_target_are_refused(serve, build_small):
    emulator = serve(faults=faults("status", status=404))
    assert build_small(emulator).code == 1
    assert_refused(build_small(emulator, "--levels", "1"), "levels None", "levels 1")


def test_records_that_have_changed_are_refused_for_the_same_target(serve, build_small, records):
    assert build_small(serve()).code == 0
    records[1][0]["alignment2d"]["tsv_04"] += 1.0
    assert_refused(build_small(serve()), "records_sha256")


def test_a_dry_run_fetches_no_image_and_writes_nothing(serve, build_small, tmp_path):
    emulator = serve()
    outcome = build_small(emulator, "--dry-run", "--json")
    (plan,) = json.loads(outcome.out)
    assert (outcome.code, plan["image_requests"], plan["metadata_requests"]) == (0, 6, emulator.count())
    assert emulator.count(IMAGES) == 0
    assert is_empty(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("image", IMAGE, "x.png"),
        ("image", IMAGE, "no/such/folder/x.jpg"),
        ("image", IMAGE, "--roi", "1,2,3"),
        ("image", IMAGE, "--roi", "0,0,1,99999"),
        ("image", IMAGE, "--downsample", "-1"),
        ("image", IMAGE, "--downsample", "20"),
        ("image", IMAGE, "--view", "inside"),
        ("image", "12345"),
        ("search", "--gene", "Prox1']"),
        ("search", "--product", "Mouse$eq"),
        ("search", "--plane", "oblique"),
        ("search", "--specimen", "1;2"),
        ("search", "--limit", "0"),
    ],
)
def test_arguments_of_images_and_searches_that_are_not_valid_are_refused(
    command, emulator, folder, monkeypatch, arguments
):
    monkeypatch.chdir(folder)
    emulator.reset()
    assert_refused(command(*arguments, "--api-url", emulator.url))
    assert emulator.count(IMAGES) == 0
    assert is_empty(folder)


@pytest.mark.parametrize("options", [{"resolution": math.nan}, {"colour": "red"}, {"resolution": 200, "fill": None}])
def test_an_argument_of_the_library_that_is_not_valid_is_named(dataset, tmp_path, options):
    with pytest.raises(InputError, match=next(reversed(options))):
        build(dataset, tmp_path / "x.ome.zarr", client=AllenClient("http://127.0.0.1:1/api/v2", "none"), **options)
    assert is_empty(tmp_path)


# The command in a child process


def process(*arguments):
    """The finished process of `python -m atlaszarr`, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-m", "atlaszarr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))


def test_a_process_with_a_wrong_id_exits_with_two_and_one_line(tmp_path):
    done = process("build", "1'", tmp_path / "x.ome.zarr")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("atlaszarr: ")
    assert "1'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert is_empty(tmp_path)


@pytest.mark.slow
def test_a_process_without_one_image_exits_with_1_and_the_next_with_0(serve, tmp_path, contents, undisturbed):
    emulator, target = serve(faults=faults("status", status=404, times=1)), tmp_path / "x.ome.zarr"
    arguments = ("build", DATASET, target, "--api-url", emulator.url, "--cache", tmp_path / "cache", *SMALL_OPTIONS)
    first = process(*arguments)
    assert (first.returncode, first.stdout) == (1, f"unfinished: {target}\n")
    assert first.stderr.count("\n") == 2
    assert str(IMAGE) in first.stderr
    assert state(target) == ("unfinished", False)
    emulator.reset()
    second = process(*arguments)
    assert (second.returncode, second.stdout.splitlines()[0], second.stderr) == (0, f"resumed: {target}", "")
    assert emulator.count(IMAGES) == 1
    assert contents(target) == undisturbed
