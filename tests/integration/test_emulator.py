"""The emulated Allen Brain API over real HTTP: images, synchronisation, faults, recorded requests."""

from __future__ import annotations

import http.client
import io
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import simplejpeg
import urllib3
from PIL import Image

from atlaszarr.errors import InputError
from atlaszarr.testing import Emulator
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.records import dataset_records, image_record
from codes import raises

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "api"
CORONAL, SAGITTAL = 74081221, 69177654


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def pool():
    with urllib3.PoolManager(retries=False, timeout=10.0) as manager:
        yield manager


@pytest.fixture
def get(emulator, pool):
    return lambda path: pool.request("GET", f"{emulator.url}/{path}")


@pytest.fixture
def picture(get):
    """The decoded image of an id and parameters."""

    def fetch(image_id, parameters="", endpoint="section_image_download"):
        response = get(f"{endpoint}/{image_id}?{parameters}")
        assert (response.status, response.headers["Content-Type"]) == (200, "image/jpeg")
        return np.asarray(Image.open(io.BytesIO(response.data)))

    return fetch


def colour(p, i, r):
    """The phantom's plain tissue at (p, i, r) mm, from typed numbers."""
    tau = 2 * math.pi
    waves = (
        (150, (14, p / 7 + r / 11, 0.4), (12, i / 6 - r / 9, 1.9), (10, -p / 9 + i / 8 + r / 6, 3.1)),
        (135, (13, p / 9 + i / 7, 2.2), (12, p / 8 - r / 7, 0.7), (11, i / 9 + r / 10, 4.4)),
        (172, (15, i / 8 + r / 8, 5.0), (11, p / 6 - i / 10, 1.1), (10, p / 10 + r / 7, 2.6)),
    )
    return [base + sum(a * math.sin(tau * turns + phase) for a, turns, phase in terms) for base, *terms in waves]


def test_a_coronal_pixel_shows_the_phantom_where_the_typed_matrices_put_it(picture):
    # Column 360, row 300 of tier 4 of image 74081221: section 237 of 74272479, reference space 9.
    x, y, depth = 360.5 * 16 - 0.5, 300.5 * 16 - 0.5, 237 * 25.0
    u = 1.04491 * x + 0.0925617 * y + 894.74
    v = -0.0925617 * x + 1.04491 * y + 1910.56
    p = 0.0171383 * u + 0.0333349 * v - 0.992505 * depth + 13425.6
    i = 0.0187492 * u + 1.2153 * v + 0.0301973 * depth - 2618.42
    r = 1.05855 * u - 0.0220654 * v + 0.0155342 * depth - 1061.46
    assert default_phantom().labels([p, i, r]) == 997
    shown = picture(CORONAL, "downsample=4&quality=100")[300, 360]
    np.testing.assert_allclose(shown, colour(p / 1000, i / 1000, r / 1000), atol=1.6)


def test_a_sagittal_pixel_lies_where_the_alignment_puts_it_though_its_space_is_10(picture):
    # Column 500, row 150 of tier 4 of image 69177654: section 70 of 69289763, reference space 10.
    x, y, depth = 500.5 * 16 - 0.5, 150.5 * 16 - 0.5, 70 * 25.0
    u = 1.049 * x - 0.000497103 * y + 2081.73
    v = 0.000497103 * x + 1.049 * y + 1594.62
    p = 1.0283 * u + 0.0326282 * v - 0.000652651 * depth - 1118.73
    i = -0.0323384 * u + 0.990426 * v - 0.0198112 * depth - 1225.02
    r = 0.0174272 * v + 0.871244 * depth + 1743.06
    assert default_phantom().labels([p, i, r]) == 997
    shown = picture(SAGITTAL, "downsample=4&quality=100")[150, 500]
    np.testing.assert_allclose(shown, colour(p / 1000, i / 1000, r / 1000), atol=1.6)
    flipped = colour(p / 1000, i / 1000, (11400 - r) / 1000)
    assert np.abs(shown - flipped).max() > 10


@pytest.mark.parametrize("downsample", [2, 3, 4, 5, 7])
def test_a_tier_has_floor_sizes(picture, downsample):
    shape = (7553 // 2**downsample, 11921 // 2**downsample, 3)
    assert picture(SAGITTAL, f"downsample={downsample}").shape == shape


def test_the_image_of_the_getting_started_page_has_its_size(picture):
    whole = picture(101321610)
    assert whole.shape == (2656, 2856, 3)
    np.testing.assert_array_equal(whole, picture(101321610))
    assert np.ptp(whole) > 100


def test_tiers_show_the_same_part_of_the_phantom(picture):
    fine, coarse = picture(CORONAL, "downsample=4").astype(float), picture(CORONAL, "downsample=5")
    rows, columns = coarse.shape[:2]
    reduced = fine[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3))
    difference = np.abs(reduced - coarse)
    assert np.median(difference) < 1.0
    assert difference.mean() < 1.5


def test_a_region_is_that_part_of_the_whole(picture):
    whole = picture(SAGITTAL, "downsample=4&quality=100").astype(int)
    # left and top are full-resolution pixels, width and height pixels of the tier
    part = picture(SAGITTAL, "downsample=4&quality=100&left=3200&top=1600&width=120&height=90").astype(int)
    assert part.shape == (90, 120, 3)
    assert np.abs(part - whole[100:190, 200:320]).max() <= 6
    edge = picture(SAGITTAL, "downsample=4&left=11200&top=7200&width=500&height=500")
    assert edge.shape == (472 - 450, 745 - 700, 3)


def test_a_region_is_counted_from_the_frame_and_the_alignment_from_the_crop(pool):
    dataset = {**dataset_records()[0], "id": 5}
    image = image_record(6, 5, 240, (4000, 3000))
    image |= {"x": 1600, "y": 800, "image_width": 6000, "image_height": 4000}
    image["alignment2d"] = dict(zip([f"tsv_{k:02d}" for k in range(6)], (1, 0, 0, 1, 4000, 4000), strict=True))
    with Emulator(datasets=[dataset], images=[image]) as emulator:
        url = f"{emulator.url}/section_image_download/6?downsample=4&quality=100"
        whole, part = (
            simplejpeg.decode_jpeg(pool.request("GET", url + region).data).astype(int)
            for region in ("", "&left=1760&top=1120&width=50&height=60")
        )
    assert whole.shape == (187, 250, 3)
    assert np.abs(part - whole[20:80, 10:60]).max() <= 6


def test_the_quality_asked_for_decides_the_size(get):
    sizes = [len(get(f"section_image_download/{CORONAL}?downsample=5&quality={q}").data) for q in (20, 60, 95, 100)]
    assert sizes == sorted(set(sizes))
    assert sizes[2] == len(get(f"section_image_download/{CORONAL}?downsample=5").data)


def test_images_are_baseline_jpegs_of_three_channels(get):
    jpeg = get(f"section_image_download/{CORONAL}?downsample=6").data
    assert b"\xff\xc0" in jpeg
    assert b"\xff\xc2" not in jpeg
    assert simplejpeg.decode_jpeg_header(jpeg)[2:] == ("YCbCr", "444")


def test_the_expression_view_is_heat_on_black(picture):
    plain, view = picture(SAGITTAL, "downsample=4"), picture(SAGITTAL, "downsample=4&view=expression")
    assert view.shape == plain.shape
    assert (view.max(axis=2) < 8).mean() > 0.8
    assert view[..., 0].max() > 200
    assert view[..., 0].astype(int).sum() > 2 * view[..., 2].astype(int).sum()
    np.testing.assert_array_equal(view, picture(SAGITTAL, "downsample=4&expression=true"))
    np.testing.assert_array_equal(plain, picture(SAGITTAL, "downsample=4&view=primary"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("section_image_download/101321610?view=expression", 404),
        (f"section_image_download/{SAGITTAL}?view=tumor_feature_boundary", 404),
        (f"section_image_download/{SAGITTAL}?downsample=15", 404),
        (f"section_image_download/{SAGITTAL}?downsample=4&left=20000", 404),
        ("section_image_download/1", 404),
        ("section_image_download/x", 404),
        (f"section_image_download/{SAGITTAL}?downsample=-1", 400),
        (f"section_image_download/{SAGITTAL}?quality=101", 400),
        (f"section_image_download/{SAGITTAL}?range=0,1", 400),
        ("nothing/1.json", 404),
    ],
)
def test_an_unknown_path_image_or_option_is_an_http_error(get, path, status):
    assert get(path).status == status


@pytest.mark.parametrize("endpoint", ["image_download", "atlas_image_download", "projection_image_download"])
def test_other_endpoints_serve_the_same_images(picture, endpoint):
    same = picture(CORONAL, "downsample=6&annotation=false&colormap=0.5,1,0,256,4", endpoint)
    np.testing.assert_array_equal(same, picture(CORONAL, "downsample=6"))


def test_the_range_stretches_fluorescence_and_leaves_bright_field_alone(picture, pool):
    parameters = "downsample=5&quality=100&range=0,2047,0,4095,2048,4095"
    plain = picture(CORONAL, "downsample=5&quality=100").astype(float)
    np.testing.assert_array_equal(picture(CORONAL, parameters), plain)
    fluorescent = [record | {"red_channel": "EGFP"} for record in dataset_records()]
    with Emulator(datasets=fluorescent) as emulator:
        data = pool.request("GET", f"{emulator.url}/section_image_download/{CORONAL}?{parameters}").data
    stretched = simplejpeg.decode_jpeg(data)
    expected = np.clip((plain * 4095 / 255 - [0, 0, 2048]) / [2047, 4095, 2047], 0, 1) * 255
    assert np.abs(stretched - expected).mean() < 1.5


def test_user_supplied_pixels_replace_an_image_and_its_other_tiers(pool):
    own = np.random.default_rng(3).integers(0, 256, (1888, 2980, 3), dtype=np.uint8)
    own = own // 4 + np.arange(2980, dtype=np.uint8)[np.newaxis, :, np.newaxis] // 2
    jpeg = simplejpeg.encode_jpeg(own, 90)
    with Emulator(pixels={SAGITTAL: {2: jpeg}, CORONAL: {5: own[:224, :315]}}) as emulator:
        url = f"{emulator.url}/section_image_download"
        served = pool.request("GET", f"{url}/{SAGITTAL}?downsample=2").data
        coarser = simplejpeg.decode_jpeg(pool.request("GET", f"{url}/{SAGITTAL}?downsample=4&quality=100").data)
        finer = simplejpeg.decode_jpeg(pool.request("GET", f"{url}/{CORONAL}?downsample=4&quality=100").data)
    assert served == jpeg
    decoded = simplejpeg.decode_jpeg(jpeg)
    blocks = decoded[:1888, :2980].reshape(472, 4, 745, 4, 3).mean(axis=(1, 3))
    assert np.abs(coarser - blocks).max() <= 6
    assert finer.shape == (449, 631, 3)
    assert np.abs(finer[:448:2, :630:2].astype(int) - own[:224, :315]).max() <= 6
    with raises(InputError, "image-not-served") as caught:
        Emulator(pixels={1: {0: own}})
    assert "image 1:" in str(caught.value)


def test_an_image_whose_alignment_is_singular_or_missing_is_still_drawn(pool):
    dataset = dataset_records()[0] | {"id": 5}
    flat, none, orphan = (image_record(id, 5, 240, (800, 600)) for id in (6, 7, 8))
    flat["alignment2d"] = {f"tsv_{k:02d}": 0.0 for k in range(6)}
    orphan["data_set_id"] = 4
    with Emulator(datasets=[dataset], images=[flat, none, orphan]) as emulator:
        for id in (6, 7, 8):
            data = pool.request("GET", f"{emulator.url}/section_image_download/{id}").data
            assert simplejpeg.decode_jpeg(data).shape == (600, 800, 3)


def recorded(name):
    path = RECORDED / name
    if not path.exists():
        pytest.skip("the recorded answers (../shared/data) are missing")
    return json.loads(path.read_text())


def entries(prefix, matrix, order):
    return {f"{prefix}_{k:02d}": value for k, value in zip(order, np.ravel(matrix).tolist(), strict=True)}


def served_matrices(answers, names):
    """Records with the matrices of recorded answers; every dataset declared to lie in space 9."""
    two, three = names
    datasets, images = {}, {}
    for answer in answers:
        dataset = {
            "id": answer["dataset_id"],
            "reference_space_id": 9,
            "section_thickness": answer.get("section_thickness", 25.0),
        }
        dataset["alignment3d"] = entries(three, answer["affine_3d"], (0, 1, 2, 9, 3, 4, 5, 10, 6, 7, 8, 11))
        datasets[answer["dataset_id"]] = dataset
        image = image_record(answer["image_id"], answer["dataset_id"], answer["section_number"], (9000, 9000))
        image["alignment2d"] = entries(two, answer["affine_2d"], (0, 1, 4, 2, 3, 5))
        images[answer["image_id"]] = image
    return list(datasets.values()), list(images.values())


def test_recorded_answers_of_image_to_reference_are_given_again(pool):
    answers = recorded("recorded_xy_to_pir.json")
    datasets, images = served_matrices(answers, ("tsv", "tvr"))
    with Emulator(datasets=datasets, images=images) as emulator:
        for answer in answers:
            path = f"image_to_reference/{answer['image_id']}.json?x={answer['x']}&y={answer['y']}"
            message = pool.request("GET", f"{emulator.url}/{path}").json()["msg"]
            given = [message["image_to_reference"][axis] for axis in "xyz"]
            np.testing.assert_allclose(given, [answer[axis] for axis in "pir"], rtol=0, atol=1e-9)
    assert len(answers) == 20


def test_recorded_answers_of_reference_to_image_are_given_again(pool):
    answers = recorded("recorded_pir_to_xy.json")
    datasets, images = served_matrices(answers, ("tvs", "trv"))
    with Emulator(datasets=datasets, images=images) as emulator:
        for answer in answers:
            point = f"x={answer['p']}&y={answer['i']}&z={answer['r']}"
            path = f"reference_to_image/9.json?{point}&section_data_set_ids={answer['dataset_id']}"
            ((message),) = pool.request("GET", f"{emulator.url}/{path}").json()["msg"]
            sync = message["image_sync"]
            assert sync["section_data_set_id"] == str(answer["dataset_id"])
            assert (sync["section_image_id"], sync["section_number"]) == (answer["image_id"], answer["section_number"])
            np.testing.assert_allclose([sync["x"], sync["y"]], [answer["x"], answer["y"]], rtol=0, atol=1e-9)
    assert len(answers) == 10


def test_a_point_finds_the_nearest_section_of_each_dataset_and_the_last_beyond_the_ends(get):
    def sync(p, r, ids, space=9):
        answer = get(f"reference_to_image/{space}.json?x={p}&y=4000&z={r}&section_data_set_ids={ids}").json()
        return [
            (item["image_sync"]["section_data_set_id"], item["image_sync"]["section_number"]) for item in answer["msg"]
        ]

    assert sync(-90000, 5700, 74272479) == [("74272479", 477)]
    assert sync(90000, 5700, 74272479) == [("74272479", 5)]
    # 69289763 lies in space 10: r of space 9 is mirrored, so both ask for the same section.
    assert sync(6000, 8000, "69289763,74272479") == [
        sync(6000, 3400, 69289763, space=10)[0],
        *sync(6000, 8000, 74272479),
    ]
    # By hand: 0.00063422 6000 + 0.020167 4000 - 1.14732 3400 + 2025.27 = -1791 um, section 71.6.
    assert sync(6000, 8000, "69289763")[0][1] == 70
    assert sync(6000, 8000, 1) == []


def test_a_pixel_carried_to_the_reference_and_back_returns(get):
    there = get(f"image_to_reference/{CORONAL}.json?x=5000.000000&y=4000.000000").json()["msg"]["image_to_reference"]
    point = "&".join(f"{axis}={value}" for axis, value in there.items())
    (back,) = get(f"reference_to_image/9.json?{point}&section_data_set_ids=74272479").json()["msg"]
    assert back["image_sync"]["section_image_id"] == CORONAL
    assert [back["image_sync"]["x"], back["image_sync"]["y"]] == pytest.approx([5000, 4000], abs=0.3)
    other = get(f"image_to_image/{CORONAL}.json?x=5000&y=4000&section_data_set_ids=74272479,69289763").json()["msg"]
    assert other[0] == back
    assert other[1]["image_sync"]["section_data_set_id"] == "69289763"


@pytest.mark.parametrize(
    "path", ["1.json?x=1&y=1", "101321610.json?x=1&y=1", f"{CORONAL}.json?x=1", f"{CORONAL}.json?x=a&y=1"]
)
def test_a_point_without_alignment_or_coordinates_is_refused(get, path):
    answer = get(f"image_to_reference/{path}").json()
    assert answer["success"] is False
    assert isinstance(answer["msg"], str)


def test_the_structure_graph_is_served(get):
    (root,) = get("structure_graph_download/1.json").json()["msg"]
    assert (root["id"], [node["acronym"] for node in root["children"]]) == (997, ["grey", "fiber tracts", "VS"])
    assert get("structure_graph_download/2.json").json()["success"] is False


IMAGE = f"section_image_download/{CORONAL}"


def faulty(kind, **values):
    return {"match": {"path": IMAGE}, "do": kind, **values}


def faulted(pool, rule, path=f"{IMAGE}?downsample=6"):
    with Emulator(faults=[rule]) as emulator:
        return pool.request("GET", f"{emulator.url}/{path}"), emulator.requests


def test_a_status_fault_says_when_to_come_back_and_runs_out(pool):
    with Emulator(faults=[faulty("status", status=429, retry_after=2, times=2, after=1)]) as emulator:
        answers = [pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6") for _ in range(4)]
        other = pool.request("GET", f"{emulator.url}/section_image_download/{SAGITTAL}?downsample=6")
    assert [answer.status for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["Retry-After"] == "2"
    assert other.status == 200


def test_a_fault_without_limit_applies_to_all_requests(pool):
    with Emulator(faults=[faulty("status", times=None)]) as emulator:
        assert {pool.request("GET", f"{emulator.url}/{IMAGE}").status for _ in range(5)} == {503}


def test_the_first_rule_that_has_not_run_out_acts(pool):
    with Emulator(faults=[faulty("status", status=500), faulty("status", status=502)]) as emulator:
        statuses = [pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6").status for _ in range(3)]
    assert statuses == [500, 502, 200]


def test_a_hang_outlasts_the_read_timeout_and_ends_with_the_emulator(pool):
    start = time.monotonic()
    with Emulator(faults=[faulty("hang", seconds=60)]) as emulator:
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6", timeout=0.2)
        assert pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6").status == 200
    assert time.monotonic() - start < 5


def test_a_short_hang_answers_late(pool):
    start = time.monotonic()
    answer, _ = faulted(pool, faulty("hang", seconds=0.3))
    assert answer.status == 200
    assert time.monotonic() - start >= 0.3


def test_a_reset_breaks_the_connection(pool):
    with Emulator(faults=[faulty("reset")]) as emulator:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6")
        (request,) = emulator.requests
    assert (request.status, request.bytes_sent, request.fault) == (0, 0, "reset")


def test_a_cut_body_is_shorter_than_announced(pool):
    with (
        Emulator(faults=[faulty("cut")]) as emulator,
        pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"),
    ):
        pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6")


def test_a_truncated_body_is_as_long_as_announced_but_not_whole(pool):
    answer, (request,) = faulted(pool, faulty("truncated", fraction=0.25))
    assert len(answer.data) == int(answer.headers["Content-Length"]) == request.bytes_sent
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(answer.data)).load()
    answer, _ = faulted(pool, {"do": "truncated"}, "data/Product/query.json")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_page_of_html_comes_with_status_200(pool):
    answer, _ = faulted(pool, {"do": "html", "match": {"path": "model::Product"}}, "data/query.json?q=model::Product")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.data.startswith(b"<!DOCTYPE html>")


def test_image_faults_change_the_image_as_documented(pool):
    assert simplejpeg.decode_jpeg(faulted(pool, faulty("wrong_size", width=20, height=10))[0].data).shape == (10, 20, 3)
    assert faulted(pool, faulty("empty"))[0].data == b""
    assert not simplejpeg.is_jpeg(faulted(pool, faulty("garbage"))[0].data)
    bomb = faulted(pool, faulty("bomb"))[0].data
    assert (simplejpeg.decode_jpeg_header(bomb)[:2], len(bomb) < 2000) == ((60000, 60000), True)
    grey = Image.open(io.BytesIO(faulted(pool, faulty("grey"))[0].data))
    assert (grey.mode, grey.size) == ("L", (10097 >> 6, 7185 >> 6))


def test_a_query_can_fail_with_a_message_and_total_rows_can_change(pool):
    query = "data/query.json?criteria=model::SectionImage"
    answer, _ = faulted(pool, {"do": "fail", "message": "too many cooks"}, query)
    assert (answer.status, answer.json()["success"], answer.json()["msg"]) == (200, False, "too many cooks")
    rule = {"do": "total_rows", "delta": -3, "after": 1, "match": {"path": "model::SectionImage"}}
    with Emulator(faults=[rule]) as emulator:
        totals = [pool.request("GET", f"{emulator.url}/{query}").json()["total_rows"] for _ in range(3)]
    assert totals == [87, 84, 87]


def test_a_query_can_answer_another_record_than_the_one_asked_for(pool):
    query = "data/SectionImage/query.json?criteria=[data_set_id$eq74272479]"
    rule = {"do": "other_record", "attribute": "data_set_id", "value": 69289763}
    with Emulator(faults=[rule]) as emulator:
        wrong, right = (pool.request("GET", f"{emulator.url}/{query}").json()["msg"] for _ in range(2))
    assert wrong[:-1] == right[:-1]
    assert wrong[-1] == right[-1] | {"data_set_id": 69289763}


def test_faults_are_read_from_a_file(pool, tmp_path):
    path = tmp_path / "faults.json"
    path.write_text(json.dumps([faulty("status", status=500)]))
    with Emulator(faults=path) as emulator:
        assert pool.request("GET", f"{emulator.url}/{IMAGE}").status == 500
    for text, code in (("{", "not-json"), ("{}", "invalid-fault"), ('[{"do": "x"}]', "unknown-value")):
        path.write_text(text)
        with raises(InputError, code):
            Emulator(faults=path)
    with raises(InputError, "unreadable-file") as caught:
        Emulator(faults=tmp_path / "absent.json")
    assert "absent.json" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "code", "named"),
    [
        ("hang", "invalid-fault", ("'hang'",)),
        ({}, "unknown-value", ("'None'", "status, hang")),
        ({"do": "hang", "status": 1}, "unknown-option", ("'hang'", "'status'")),
        ({"do": "status", "status": 1000}, "invalid-fault", ("1000", "status")),
        ({"do": "empty", "times": 0}, "invalid-fault", ("0", "times")),
        ({"do": "empty", "after": -1}, "invalid-fault", ("-1", "after")),
        ({"do": "hang", "seconds": "long"}, "invalid-fault", ("'long'", "seconds")),
        ({"do": "empty", "match": {"url": "x"}}, "invalid-fault", ("'path'", "'url'")),
    ],
)
def test_an_invalid_rule_is_refused_in_one_line(rule, code, named):
    with raises(InputError, code) as caught:
        Emulator(faults=[rule])
    assert all(name in str(caught.value) for name in named)
    assert "\n" not in str(caught.value)


def test_requests_are_recorded_with_what_they_asked_and_got(pool):
    with Emulator() as emulator:
        before = time.monotonic()
        image = pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6&view=expression")
        pool.request("GET", f"{emulator.url}/data/query.json?q=model::Product")
        pool.request("GET", f"{emulator.url}/section_image_download/1")
        first, second, third = emulator.requests
        assert (first.path, first.query) == (f"/api/v2/{IMAGE}", {"downsample": "6", "view": "expression"})
        assert (first.kind, first.status, first.bytes_sent) == ("section_image_download", 200, len(image.data))
        assert (second.kind, second.query, third.status) == ("query", {"q": "model::Product"}, 404)
        assert before <= first.started <= second.started <= third.started <= time.monotonic()
        assert (emulator.count(), emulator.count("section_image_download"), emulator.count("query")) == (3, 2, 1)
        emulator.reset()
        assert (emulator.requests, emulator.count(), emulator.peak) == ([], 0, 0)


def test_the_peak_is_the_largest_number_of_concurrent_requests(pool):
    with Emulator(latency=0.25) as emulator:
        threads = [
            threading.Thread(target=pool.request, args=("GET", f"{emulator.url}/data/Product/query.json"))
            for _ in range(5)
        ]
        for batch in (threads[:3], threads[3:]):
            for thread in batch:
                thread.start()
            for thread in batch:
                thread.join()
        assert (emulator.peak, emulator.count()) == (3, 5)


def test_one_connection_carries_many_requests(emulator):
    parts = urlsplit(emulator.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        sockets = set()
        for path in ("data/Product/query.json", "nothing", "data/Gene/query.json"):
            connection.request("GET", f"{parts.path}/{path}")
            sockets.add(connection.sock)
            connection.getresponse().read()
        assert len(sockets) == 1
    finally:
        connection.close()


def test_leaving_closes_the_connections_and_frees_the_port(capfd):
    with Emulator() as emulator:
        port = urlsplit(emulator.url).port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/api/v2/data/Product/query.json")
        connection.getresponse().read()
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.url
    with Emulator(port=port) as again, socket.create_connection(("127.0.0.1", port), timeout=5):
        assert str(port) in again.url
    assert capfd.readouterr().err == ""


def test_images_drawn_beforehand_are_kept_between_runs(pool, tmp_path):
    with Emulator(draw_cache=tmp_path) as emulator:
        emulator.draw([CORONAL, SAGITTAL], downsample=6)
        first = pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6").data
        assert emulator.count() == 1
    assert len(list(tmp_path.iterdir())) == 2
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with Emulator(draw_cache=tmp_path) as emulator:
        assert pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6").data == first
        assert pool.request("GET", f"{emulator.url}/{IMAGE}?downsample=6&quality=50").data != first
    assert len(list(tmp_path.iterdir())) == 3
    assert all(path.stat().st_mtime_ns == stamps.get(path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    with Emulator(draw_cache=tmp_path) as emulator:
        emulator.draw(downsample=9, view="expression")
    assert len(list(tmp_path.iterdir())) == 3 + 86


def test_serve_announces_its_url_and_runs_until_interrupted():
    # Tests in the background may have been told to ignore SIGINT, which a child inherits.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from atlaszarr.testing.emulator import serve; serve(announce=lambda url: print(url, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        try:
            with urllib3.PoolManager() as manager:
                assert manager.request("GET", f"{url}/data/Product/query.json").json()["success"] is True
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_serve_may_be_interrupted_as_soon_as_its_url_is_known():
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from atlaszarr.testing.emulator import serve; serve(announce=lambda url: signal.raise_signal(signal.SIGINT))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_naming_the_package_imports_nothing_heavy():
    program = "import sys, atlaszarr.testing; print([name for name in ('numpy', 'dask') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
