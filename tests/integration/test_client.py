"""The Allen client against a real server: queries, section images, the cache, request limits, proxies."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import s3fs
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atlaszarr.allen import rma
from atlaszarr.allen.cache import ImageCache
from atlaszarr.allen.client import AllenClient
from atlaszarr.allen.http import Http
from atlaszarr.allen.images import SectionImage
from atlaszarr.errors import (
    AtlaszarrWarning,
    ImageError,
    InputError,
    NotFoundError,
    RecordError,
    ServiceError,
)
from atlaszarr.testing.drawing import Drawing, Painter
from atlaszarr.testing.records import image_record
from codes import raises
from s3_server import S3Server

IMAGES = "section_image_download"
NRP1, PROX1, INVENTED = 74272479, 69289763, 909
#: A section image of NRP1 that has an expression mask.
IMAGE = 74081215
OTHER_IMAGE = 74081221
UNSAFE = "'\"[](),$:;\\"


@pytest.fixture
def client(emulator, connect):
    """A client of the session's emulator, whose count starts at zero."""
    emulator.reset()
    return connect(emulator)


def drawn(emulator, image_id=IMAGE, **request):
    """The emulator's own drawing of an image, decoded by Pillow."""
    jpeg = Painter(emulator.catalogue, emulator.phantom).jpeg(image_id, Drawing(**request))
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def differ(a, b):
    """The largest difference of two pictures, in grey levels: two decoders round differently."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


def stored(path):
    """The JPEG body of a cache entry, without its digest."""
    return path.read_bytes()[:-32]


@contextmanager
def serving(handler):
    """An HTTP server on loopback; yields its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files(folder):
    """All files in a folder, at any depth."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


# Metadata


def test_a_dataset_comes_with_its_sections_genes_products_and_age(client):
    dataset = client.section_dataset(PROX1)
    assert (dataset.id, dataset.plane, dataset.reference_space_id) == (PROX1, "sagittal", 10)
    assert (dataset.genes, dataset.products, dataset.age) == (("Prox1",), ("Mouse",), "P56")
    assert len(dataset.sections) == len(client.search(id=PROX1, images=True))


def test_a_dataset_takes_two_requests(emulator, client):
    client.section_dataset(NRP1)
    assert emulator.count("query") == emulator.count() == 2


def test_a_dataset_of_thousands_of_sections_is_read_page_by_page(serve, connect, records):
    (dataset,), (image, *_) = records
    many = [image | {"id": 5000 - number, "section_number": number} for number in range(4500)]
    emulator = serve([dataset], many)
    read = connect(emulator).section_dataset(NRP1)
    assert [section.section_number for section in read.sections] == list(range(4500))
    asked = [request.query["criteria"] for request in emulator.requests]
    assert len(asked) == 1 + 3 == 1 + rma.pages(4500)
    assert all(f"[start_row$eq{2000 * page}]" in criteria for page, criteria in enumerate(asked[1:]))


@pytest.mark.parametrize("count", [1999, 2000, 2001])
def test_no_empty_page_is_requested(serve, connect, count):
    emulator = serve(images=[image_record(1 + number, NRP1, number, (300, 200)) for number in range(count)])
    assert len(connect(emulator).search(id=NRP1, images=True)) == count
    assert emulator.count() == 1 + rma.pages(count)


def test_a_limit_is_part_of_the_query(emulator, client):
    assert len(client.search(limit=1)) == 1
    assert "[num_rows$eq1]" in emulator.requests[0].query["criteria"]


def test_a_number_of_matches_that_changes_between_pages_is_an_error_naming_the_dataset(serve, connect):
    rows = [image_record(1 + number, NRP1, number, (300, 200)) for number in range(2100)]
    emulator = serve(images=rows, faults=[{"match": {"path": "model::SectionImage"}, "after": 1, "do": "total_rows"}])
    with raises(RecordError, "matches-changed") as caught:
        connect(emulator).section_dataset(NRP1)
    assert all(value in str(caught.value) for value in (str(NRP1), "2100", "2101"))


def test_missing_rows_are_an_error(serve, connect):
    emulator = serve(faults=[{"match": {"path": "model::SectionImage"}, "times": None, "do": "total_rows"}])
    with raises(ServiceError, "missing-rows"):
        connect(emulator).section_dataset(NRP1)


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({}, [INVENTED, PROX1, NRP1]),
        ({"gene": "Prox1"}, [PROX1]),
        ({"gene": "*r*1"}, [PROX1, NRP1]),
        ({"gene": "prox1"}, [PROX1]),
        ({"gene": "NRP*"}, [NRP1]),
        ({"gene": "Prox"}, []),
        ({"plane": "coronal"}, [INVENTED, NRP1]),
        ({"plane": "transverse"}, []),
        ({"plane": "horizontal"}, []),
        ({"product": "Mouse"}, [INVENTED, PROX1, NRP1]),
        ({"product": "DevMouse"}, []),
        ({"id": NRP1}, [NRP1]),
        ({"id": 1}, []),
        ({"specimen": 1}, []),
        ({"gene": "Prox1", "plane": "coronal"}, []),
        ({"gene": "Prox1", "plane": "sagittal", "product": "Mouse"}, [PROX1]),
    ],
)
def test_search_finds_the_datasets_that_meet_all_criteria(client, criteria, found):
    assert list(client.search(**criteria).index) == found


def test_search_finds_the_dataset_of_a_specimen(client):
    specimen = client.section_dataset(PROX1).specimen_id
    assert list(client.search(specimen=specimen).index) == [PROX1]


def test_search_returns_the_attributes_of_a_dataset(client):
    assert client.search(gene="Prox1").loc[PROX1].to_dict() == {
        "gene": "Prox1",
        "plane": "sagittal",
        "product": "Mouse",
        "reference_space": 10,
        "thickness_um": 25.0,
        "specimen": client.section_dataset(PROX1).specimen_id,
        "failed": False,
        "age": "P56",
        "sex": "Male",
        "sections": 18,
        "gene_name": "prospero homeobox 1",
    }


def test_a_search_takes_two_requests_however_many_datasets_it_finds(emulator, client):
    assert client.search()["sections"].to_dict() == {INVENTED: 8, PROX1: 18, NRP1: 60}
    assert emulator.count("query") == emulator.count() == 2
    assert "[only$eq'id,data_set_id']" in emulator.requests[1].query["criteria"]
    emulator.reset()
    assert client.search(id=1).empty
    assert emulator.count() == 1


@pytest.mark.parametrize("images", [False, True])
def test_numbers_of_a_search_are_whole_where_some_are_missing(serve, connect, records, images):
    (dataset,), (image, *_) = records
    empty = {"reference_space_id": None, "section_thickness": None, "specimen_id": None, "specimen": None}
    bare = {"section_number": None, "width": None, "height": None, "tier_count": None}
    emulator = serve([dataset, dataset | empty | {"id": 5}], [image, image | bare | {"id": 6, "data_set_id": 5}])
    found = connect(emulator).search(images=images).sort_index()
    whole = {"reference_space", "specimen", "sections", "dataset", "section_number", "width", "height", "tiers"}
    assert {str(found[name].dtype) for name in whole.intersection(found)} == {"Int64"}
    assert str(found.index.dtype) == "Int64"
    first, second = json.loads(found.to_json(orient="records"))
    if images:
        assert [first[name] for name in ("dataset", "section_number", "width", "tiers")] == [5, None, None, None]
        assert (second["section_number"], second["width"]) == (image["section_number"], image["width"])
    else:
        assert [first[name] for name in ("reference_space", "thickness_um", "specimen")] == [None, None, None]
        assert (second["reference_space"], second["thickness_um"], second["sections"]) == (9, 25.0, 1)


def test_sections_are_not_counted_where_that_takes_more_than_two_requests(serve, connect, records):
    (dataset,), (image, *_) = records
    for count, shown in ((4000, [4000]), (4001, [None])):
        emulator = serve([dataset], [image | {"id": 1 + number} for number in range(count)])
        assert json.loads(connect(emulator).search().to_json(orient="records"))[0]["sections"] == shown[0]
        assert emulator.count() == 3
    emulator = serve([dataset | {"id": 1 + number} for number in range(201)])
    found = connect(emulator).search(limit=201)
    assert len(found) == 201
    assert found["sections"].isna().all()
    assert emulator.count() == 1


def test_a_search_counts_the_datasets_that_meet_the_criteria(client):
    assert client.search(limit=1).attrs["datasets"] == 3
    assert client.search(limit=1, images=True).attrs["datasets"] == 3
    assert client.search(gene="Prox1").attrs["datasets"] == 1


@pytest.mark.parametrize(
    ("gene", "similar"),
    [("Prox", "Prox1"), ("PROXX1", "Prox1"), ("nrp2", "Nrp1"), ("Pax6", None), ("prox1", None), ("Pro*", None)],
)
def test_the_gene_most_like_one_that_is_not_found_takes_one_request(emulator, client, gene, similar):
    assert client.similar_gene(gene) == similar
    assert emulator.count() == ("*" not in gene)


@pytest.mark.parametrize(
    ("key", "value"),
    [("specimen_id", 7.5), ("section_thickness", "thin"), ("genes", [{"id": 1, "name": "no acronym"}])],
)
def test_a_search_names_the_dataset_whose_record_is_wrong(serve, connect, records, key, value):
    emulator = serve([records[0][0] | {key: value}])
    with raises(RecordError, "invalid-record") as caught:
        connect(emulator).search()
    assert f"section dataset {NRP1} has {key} " in str(caught.value)


def test_search_lists_the_images_of_the_datasets_it_finds(client):
    found = client.search(gene="Nrp1", images=True)
    assert len(found) == 60
    assert set(found["dataset"]) == {NRP1}
    assert found.loc[IMAGE, ["width", "height", "tiers"]].tolist() == [10401, 6657, 7]


def test_a_search_without_result_has_the_columns_of_one_with(client):
    for images in (False, True):
        none, some = client.search(id=1, images=images), client.search(id=NRP1, images=images)
        assert none.empty
        assert list(none.columns) == list(some.columns)
        assert none.index.name == "id"


@given(before=st.text(max_size=5), unsafe=st.sampled_from(UNSAFE), after=st.text(max_size=5))
@pytest.mark.parametrize("criterion", ["gene", "product", "plane"])
def test_no_text_that_a_query_cannot_express_is_ever_sent(emulator, criterion, before, unsafe, after):
    emulator.reset()
    code = "unknown-value" if criterion == "plane" else "unsupported-character"
    with AllenClient(emulator.url, "none") as client, raises(InputError, code) as caught:
        client.search(**{criterion: before + unsafe + after})
    assert criterion in str(caught.value)
    assert emulator.count() == 0


@given(text=st.text(st.characters(exclude_characters=UNSAFE).filter(str.isprintable), min_size=1, max_size=8))
def test_any_other_text_reaches_the_service_as_it_is(emulator, text):
    emulator.reset()
    with AllenClient(emulator.url, "none", rate=1e9) as client:
        client.search(product=text)
    assert f"products[abbreviation$eq'{text}']" in emulator.requests[0].query["criteria"]


@given(text=st.text(max_size=6).filter(lambda text: not text.isdecimal()) | st.integers(max_value=-1) | st.floats())
def test_an_id_that_is_not_a_whole_number_is_refused_before_any_request(emulator, text):
    emulator.reset()
    with AllenClient(emulator.url, "none") as client:
        for ask in (client.section_dataset, client.image, client.structure_graph, lambda id: client.search(id=id)):
            with raises(InputError, "invalid-id"):
                ask(text)
    assert emulator.count() == 0


@pytest.mark.parametrize(
    ("criteria", "code"),
    [({"plane": "oblique"}, "unknown-value"), ({"limit": 0}, "out-of-range"), ({"limit": -1}, "out-of-range")],
)
def test_an_invalid_criterion_is_refused(emulator, client, criteria, code):
    with raises(InputError, code) as caught:
        client.search(**criteria)
    assert str(*criteria.values()) in str(caught.value)
    assert emulator.count() == 0


def test_an_unknown_dataset_or_image_is_not_found(client):
    for ask, code in ((client.section_dataset, "dataset-not-found"), (client.image, "image-not-found")):
        with raises(NotFoundError, code) as caught:
            ask(12345)
        assert "12345" in str(caught.value)


def test_the_structure_graph_is_a_terminology(client):
    terminology = client.structure_graph()
    assert terminology["root"].path == (997,)
    assert terminology["CTX"] in terminology.descendants("grey")
    assert all(structure.path[-1] == structure.id for structure in terminology)
    assert terminology["CTX"].colour.startswith("#")
    with pytest.raises(NotFoundError, match="'ctx'"):
        terminology["ctx"]


def test_an_unknown_structure_graph_is_refused_by_the_service(client):
    with raises(ServiceError, "query-refused") as caught:
        client.structure_graph(2)
    assert "structure_graph_download/2.json" in str(caught.value)


# Section images


@pytest.mark.parametrize("downsample", [5, 6])
def test_a_whole_image_has_the_floor_of_its_size_and_shows_what_was_drawn(emulator, client, downsample):
    record = emulator.catalogue.image(IMAGE)
    image = client.image(IMAGE, downsample)
    assert image.shape == (record["height"] >> downsample, record["width"] >> downsample, 3)
    assert differ(image, drawn(emulator, downsample=downsample)) <= 1


def test_an_image_at_full_resolution_needs_no_options(serve, connect):
    emulator = serve(images=[image_record(7, NRP1, 1, (321, 123))])
    assert connect(emulator).image(7).shape == (123, 321, 3)


def test_a_region_shows_that_part_of_the_image(emulator, client):
    region = client.image(IMAGE, 5, roi=(1603, 1616, 50, 40))
    assert differ(region, drawn(emulator, downsample=5, left=1603, top=1616, width=50, height=40)) <= 1


def test_a_region_of_whole_jpeg_blocks_is_cut_from_the_whole_image(client):
    # 24 * 32 = 768 and 40 * 32 = 1280 full-resolution pixels.
    assert differ(client.image(IMAGE, 5, roi=(768, 1280, 48, 32)), client.image(IMAGE, 5)[40:72, 24:72]) == 0


def test_a_region_may_be_the_whole_tier(emulator, client):
    record = emulator.catalogue.image(IMAGE)
    width, height = record["width"] >> 5, record["height"] >> 5
    assert differ(client.image(IMAGE, 5, roi=(0, 0, width, height)), client.image(IMAGE, 5)) == 0


def test_a_region_is_counted_from_the_corner_of_the_section_not_of_its_slide(serve, connect):
    record = image_record(7, NRP1, 1, (400, 300)) | {"x": 1000, "y": 500, "image_width": 2000, "image_height": 2000}
    client = connect(serve(images=[record]))
    whole = client.image(7)
    assert differ(client.image(7, roi=(48, 64, 120, 80)), whole[64:144, 48:168]) == 0
    assert differ(client.image(7, 1, roi=(96, 64, 56, 40)), client.image(7, 1)[32:72, 48:104]) == 0


@pytest.mark.parametrize(
    ("downsample", "roi"),
    [
        (0, (-1, 0, 10, 10)),
        (0, (0, -1, 10, 10)),
        (0, (0, 0, 0, 10)),
        (0, (0, 0, 10, -1)),
        (0, (291, 0, 10, 10)),
        (0, (0, 191, 10, 10)),
        (1, (0, 0, 151, 10)),
        (1, (200, 0, 51, 10)),
        (-1, None),
        (9, None),
        (4000, None),
    ],
)
def test_a_region_or_tier_outside_the_image_is_refused_before_it_is_asked_for(serve, connect, downsample, roi):
    emulator = serve(images=[image_record(7, NRP1, 1, (300, 200))])
    with raises(InputError, "region-outside-image" if roi else "tier-out-of-range") as caught:
        connect(emulator).image(7, downsample, roi=roi)
    assert "section image 7" in str(caught.value)
    assert emulator.count(IMAGES) == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"view": "annotation"}, "unknown-value"),
        ({"view": "Expression"}, "unknown-value"),
        ({"quality": -1}, "out-of-range"),
        ({"quality": 101}, "out-of-range"),
        ({"range": (0, 1, 0, 1)}, "out-of-range"),
        ({"range": (5, 1, 0, 1, 0, 1)}, "out-of-range"),
        ({"range": (0, 4096, 0, 1, 0, 1)}, "out-of-range"),
    ],
)
def test_an_option_the_service_does_not_support_is_refused_before_any_request(emulator, client, options, code):
    with raises(InputError, code):
        client.image(IMAGE, 5, **options)
    assert emulator.count() == 0


def test_the_expression_view_is_another_picture(emulator, client):
    image = client.image(IMAGE, 5, view="expression")
    assert differ(image, drawn(emulator, downsample=5, view="expression")) <= 1
    assert differ(image, client.image(IMAGE, 5)) > 50


def test_the_primary_view_is_what_is_served_without_asking_for_one(emulator, client):
    assert differ(client.image(IMAGE, 5, view="primary"), client.image(IMAGE, 5)) == 0
    assert all("view" not in request.query for request in emulator.requests)


def test_a_view_that_an_image_does_not_have_is_a_clear_error(serve, connect):
    emulator = serve(images=[image_record(7, NRP1, 1, (300, 200))])
    with raises(ServiceError, "http-status") as caught:
        connect(emulator).image(7, view="expression")
    assert "404: SectionImage 7 has no view 'expression'" in str(caught.value)
    assert emulator.count(IMAGES) == 1


def test_a_lower_quality_is_a_smaller_file_of_the_same_picture(emulator, client):
    fine, coarse = (client.fetch(client.image_request(IMAGE, 5, quality=quality)) for quality in (95, 20))
    assert len(coarse.body) < len(fine.body)
    assert differ(fine.request.decode(fine.body), drawn(emulator, downsample=5, quality=95)) <= 1


def test_a_range_changes_fluorescence(serve, connect, records):
    records[0][0]["red_channel"] = "EGFP"
    client = connect(serve())
    limits = (0, 2000, 0, 3000, 0, 4095)
    ranged, plain = client.image(IMAGE, 6, range=limits), client.image(IMAGE, 6)
    assert ranged.mean(axis=(0, 1))[0] > plain.mean(axis=(0, 1))[0]


def test_every_option_is_sent_as_the_service_names_it(emulator, client):
    client.image(IMAGE, 6, view="expression", roi=(64, 128, 20, 10), quality=80, range=(0, 1000, 0, 2000, 0, 4095))
    assert emulator.requests[-1].query == {
        "downsample": "6",
        "view": "expression",
        "left": "64",
        "top": "128",
        "width": "20",
        "height": "10",
        "quality": "80",
        "range": "0,1000,0,2000,0,4095",
    }


def test_the_published_size_of_a_known_image_is_served(client):
    request = client.image_request(101321610)
    assert (request.width, request.height) == (2856, 2656)


# The cache


def test_a_second_fetch_makes_no_request(emulator, connect, tmp_path):
    client = connect(emulator, tmp_path)
    request = client.image_request(IMAGE, 6)
    emulator.reset()
    first = client.fetch(request)
    assert emulator.count() == 1
    assert client.has_cached(request)
    assert client.fetch(request) == first
    assert connect(emulator, tmp_path).fetch(request) == first
    assert emulator.count() == 1


def test_without_a_cache_every_fetch_makes_a_request(emulator, client):
    request = client.image_request(IMAGE, 6)
    emulator.reset()
    assert client.fetch(request) == client.fetch(request)
    assert not client.has_cached(request)
    assert emulator.count() == 2


@pytest.mark.parametrize("location", ["memory://atlaszarr-test-cache", "file"])
def test_a_cache_may_be_a_url(emulator, connect, tmp_path, location):
    url = location if "://" in location else tmp_path.as_uri()
    client = connect(emulator, url)
    request = client.image_request(IMAGE, 6)
    emulator.reset()
    try:
        first = client.fetch(request)
        assert pickle.loads(pickle.dumps(client)).fetch(request) == first
        assert emulator.count() == 1
        fs, root = fsspec.core.url_to_fs(url)
        (path,) = fs.find(root)
        assert fs.cat_file(path).startswith(first.body)
        fs.pipe_file(path, b"damaged")
        assert client.fetch(request) == first
        assert emulator.count() == 2
    finally:
        fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("named", ["none", ""])
def test_the_environment_names_the_cache_and_may_name_none(emulator, monkeypatch, tmp_path, named):
    monkeypatch.setenv("ATLASZARR_API_URL", emulator.url)
    monkeypatch.setenv("ATLASZARR_CACHE", named)
    with AllenClient() as client:
        assert client.cache is None
    monkeypatch.setenv("ATLASZARR_CACHE", str(tmp_path))
    with AllenClient(rate=1e9) as client:
        client.image(IMAGE, 6)
    assert len(files(tmp_path)) == 1


def damage(body):
    """Damaged cache entries, by kind of damage."""
    other = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    return {"empty": b"", "cut": body[: len(body) // 2], "one byte short": body[:-1], "another picture": other}


@pytest.mark.parametrize("how", sorted(damage(b"")))
def test_a_damaged_entry_is_fetched_again(emulator, connect, tmp_path, how):
    client = connect(emulator, tmp_path)
    request = client.image_request(IMAGE, 6)
    first = client.fetch(request)
    (path,) = files(tmp_path)
    path.write_bytes(damage(first.body)[how])
    emulator.reset()
    assert client.fetch(request) == first
    assert emulator.count() == 1
    assert stored(path) == first.body


def test_an_invalid_image_is_never_cached(serve, connect, records, tmp_path):
    kinds = ("truncated", "wrong_size", "empty", "garbage", "bomb", "grey", "html", "fail")
    wanted = [(image["id"], downsample) for image in records[1] for downsample in (5, 6)]
    rules = [
        {"match": {"path": f"{IMAGES}/{id}?downsample={downsample}"}, "times": None, "do": kind}
        for (id, downsample), kind in zip(wanted, kinds, strict=False)
    ]
    client = connect(serve(faults=rules), tmp_path)
    requests = [client.image_request(*which) for which in wanted]
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(client.try_fetch, requests))
    assert [isinstance(image, SectionImage) for image in got] == [False] * len(kinds) + [True] * 4
    assert sorted(stored(path) for path in files(tmp_path)) == sorted(image.body for image in got[-4:])
    assert [client.has_cached(request) for request in requests] == [False] * len(kinds) + [True] * 4


def test_a_reader_never_finds_half_a_file(tmp_path):
    cache = ImageCache(tmp_path)
    bodies = [bytes([value]) * 300_000 for value in range(4)]
    cache.put("ab12", bodies[0])
    done = threading.Event()

    def read():
        seen = 0
        while not done.is_set() or not seen:
            assert cache.get("ab12", 2**20) in bodies
            seen += 1
        return seen

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for turn in range(60):
            cache.put("ab12", bodies[turn % 4])
        done.set()
        assert all(reader.result() for reader in readers)
    assert [path.name for path in files(tmp_path)] == ["ab12.jpg"]


def run(code, *arguments, **environment):
    """Start a Python process; its code can use `url`, `cache`, `client` and `requests`."""
    prelude = """
        import sys, json
        from atlaszarr.allen.client import AllenClient
        url, cache, *ids = sys.argv[1:]
        client = AllenClient(url, cache, rate=1e9)
        requests = [client.image_request(id, 5) for id in ids]
    """
    text = textwrap.dedent(prelude) + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def test_on_a_full_disk_images_are_fetched_and_half_an_entry_is_never_left(emulator, tmp_path):
    emulator.reset()
    process = run(
        """
        import resource, warnings
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the disk is full after 1000 bytes
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print(*(len(client.fetch(request).body) > 1000 for request in requests))
        print(*(warning.message for warning in caught), sep="\\n")
        """,
        emulator.url, tmp_path, IMAGE, OTHER_IMAGE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[0] == "True True"
    (warned,) = out.splitlines()[1:]
    assert warned.startswith("section images are not cached: ")
    assert f"{tmp_path}: File too large" in warned
    assert files(tmp_path) == []


def test_two_processes_may_share_a_folder(emulator, connect, tmp_path):
    ids = sorted(emulator.catalogue.image_ids())[:8]
    emulator.reset()
    code = """
        print(json.dumps([client.fetch(request).sha256 for request in requests]))
    """
    processes = [run(code, emulator.url, tmp_path, *order) for order in (ids, ids[::-1])]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (json.loads(out) for out, _ in outputs)
    assert first == second[::-1]
    assert len(ids) <= emulator.count(IMAGES) <= 2 * len(ids)
    assert len(files(tmp_path)) == len(ids)
    client = connect(emulator, tmp_path)
    emulator.reset()
    assert [client.fetch(client.image_request(id, 5)).sha256 for id in ids] == first
    assert emulator.count(IMAGES) == 0


def test_an_image_named_by_text_is_the_one_named_by_number(client):
    assert client.image_request(str(IMAGE), 6) == client.image_request(IMAGE, 6)


def test_a_cache_that_fails_emits_one_warning_and_is_disabled(emulator, connect, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    client = connect(emulator, tmp_path / "file")
    requests = [client.image_request(id, 6) for id in (IMAGE, OTHER_IMAGE)]
    with pytest.warns(AtlaszarrWarning) as warned:
        fetched = [client.fetch(request) for request in requests]
    assert [image.request for image in fetched] == requests
    (message,) = (str(warning.message) for warning in warned)
    assert message.startswith("section images are not cached: ")
    assert f"{tmp_path / 'file'}: Not a directory" in message
    # A copy in the same process knows that it failed: a second warning would be an error here.
    assert pickle.loads(pickle.dumps(client)).fetch(requests[0]) == fetched[0]
    assert not client.has_cached(requests[0])
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_failing_store_gets_one_request_and_its_keys_are_never_shown(emulator, connect):
    asked = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_):
            pass

    with serving(Refusing) as port:
        options = {"endpoint_url": f"http://127.0.0.1:{port}", "key": "the-access-key", "secret": "the-secret-key"}
        client = connect(emulator, "s3://bucket/images", cache_options=options)
        assert "the-secret-key" not in repr(client.cache) + repr(client)
        requests = [client.image_request(id, 6) for id in (IMAGE, OTHER_IMAGE)]
        with pytest.warns(AtlaszarrWarning) as warned:
            fetched = [client.fetch(request) for request in requests]
    assert [image.request for image in fetched] == requests
    assert len(asked) == 1
    (message,) = (str(warning.message) for warning in warned)
    assert message.startswith("section images are not cached: ")
    assert "s3://bucket/images" in message
    assert "HTTP 403" in message
    assert "key" not in message.replace("keys", "")


@pytest.mark.parametrize("location", ["nowhere://place", "s3://user:secret@bucket/images", "memory://"])
def test_an_invalid_location_is_refused_without_its_password(emulator, connect, location):
    with pytest.raises(InputError, match=r"^cache: ") as caught:
        connect(emulator, location)
    assert "secret" not in str(caught.value)


def test_cache_options_without_a_url_are_refused(emulator, connect, tmp_path, command):
    with pytest.raises(InputError, match=r"^cache: .*'key'"):
        connect(emulator, tmp_path, cache_options={"key": "the-access-key"})
    address = ("--api-url", emulator.url)
    outcome = command("info", NRP1, *address, "--cache", tmp_path, "--cache-option", "key=the-access-key")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "the-access-key" not in outcome.err
    assert "cache option 'key'" in command("info", NRP1, *address, "--cache-option", "key").err


def test_cache_options_reach_the_store_from_python_and_the_command_line(emulator, connect, tmp_path, command):
    moto = S3Server()
    moto.start()
    try:
        options = {"endpoint_url": moto.url, "key": "the-key", "secret": "the-secret"}
        s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir("images")
        given = [one for name, value in options.items() for one in ("--cache-option", f"{name}={value}")]
        out, cache = tmp_path / "x.jpg", "s3://images/here"
        arguments = ("--downsample", 6, "--api-url", emulator.url, "--cache", cache, *given)
        assert command("image", IMAGE, out, *arguments).code == 0
        client = connect(emulator, cache, cache_options=options)
        request = client.image_request(IMAGE, 6)
        emulator.reset()
        assert client.has_cached(request)
        assert client.fetch(request).body == out.read_bytes()
        assert emulator.count() == 0
    finally:
        moto.stop()


@pytest.mark.parametrize("location", ["~/images", "deep/../images", "images"])
def test_a_cache_may_be_named_relative_to_home_or_the_working_folder(emulator, monkeypatch, tmp_path, location):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with AllenClient(emulator.url, location, rate=1e9) as client:
        monkeypatch.chdir("/")
        client.image(IMAGE, 6)
    assert [path.relative_to(tmp_path).parts[0] for path in files(tmp_path)] == ["images"]


def test_no_flipped_bit_of_a_cached_image_is_ever_served(emulator, connect, tmp_path):
    client = connect(emulator, tmp_path)
    requests = [client.image_request(id, 6) for id in sorted(emulator.catalogue.image_ids())[:5]]
    first = {request: client.fetch(request) for request in requests}
    paths = {path.stem: path for path in files(tmp_path)}
    random = np.random.default_rng(0)
    for turn in range(200):
        request = requests[turn % len(requests)]
        path = paths[request.key(client.api_url)]
        whole = path.read_bytes()
        place, bit = int(random.integers(len(whole))), int(random.integers(8))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        emulator.reset()
        assert client.fetch(request) == first[request]
        assert emulator.count() == 1
        assert path.read_bytes() == whole


def test_an_entry_copied_from_another_image_of_the_same_size_is_absent(serve, connect, tmp_path):
    pictures = {id: {0: np.full((200, 300, 3), grey, np.uint8)} for id, grey in ((7, 0), (8, 200))}
    images = [image_record(id, NRP1, id, (300, 200)) for id in pictures]
    emulator = serve(images=images, pixels=pictures)
    client = connect(emulator, tmp_path)
    requests = [client.image_request(id) for id in pictures]
    black, grey = (client.fetch(request) for request in requests)
    paths = {path.stem: path for path in files(tmp_path)}
    first, second = (paths[request.key(client.api_url)] for request in requests)
    second.write_bytes(first.read_bytes())
    assert client.fetch(requests[1]) == grey != black


def test_an_entry_without_a_digest_is_absent(emulator, connect, tmp_path):
    client = connect(emulator, tmp_path)
    request = client.image_request(IMAGE, 6)
    key, body = request.key(client.api_url), client.fetch(request).body
    (path,) = files(tmp_path)
    path.write_bytes(body)
    for earlier in (path, tmp_path / "images" / key[:2] / path.name):
        earlier.parent.mkdir(parents=True, exist_ok=True)
        earlier.write_bytes(body)
        emulator.reset()
        assert client.fetch(request).body == body
        assert emulator.count() == (1 if earlier == path else 0)
    path.unlink()
    assert not client.has_cached(request)


# One client in several threads and processes


def test_a_pickled_client_works_and_keeps_its_settings(emulator, connect, tmp_path):
    client = connect(emulator, tmp_path, concurrency=3)
    client.image(IMAGE, 6)
    emulator.reset()
    with pickle.loads(pickle.dumps(client)) as copy:
        assert (copy.api_url, copy.concurrency) == (client.api_url, 3)
        assert copy.has_cached(client.image_request(IMAGE, 6))
        assert differ(copy.image(IMAGE, 5), client.image(IMAGE, 5)) == 0


def test_a_client_can_be_used_again_after_it_was_closed(client):
    client.close()
    assert len(client.search()) == 3


def test_no_more_requests_are_under_way_than_allowed(serve, connect):
    emulator = serve(latency=0.02)
    client = connect(emulator, concurrency=3)
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda _: len(client.search()), range(30)))
    assert found == [1] * 30
    assert emulator.count() == 60
    assert 1 < emulator.peak <= 3


def test_no_more_requests_start_in_any_time_than_the_rate_allows(serve, connect):
    emulator = serve()
    concurrency, rate = 2, 50.0
    client = connect(emulator, concurrency=concurrency, rate=rate)
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.search(), range(10)))
    started = sorted(request.started for request in emulator.requests)
    assert len(started) == 20
    for window in np.linspace(0.0, started[-1] - begun, 50):
        count = sum(start <= begun + window for start in started)
        assert count <= concurrency * (1 + window // (concurrency / rate))


@pytest.mark.slow
def test_the_limit_holds_for_a_whole_cluster(serve, connect):
    distributed = pytest.importorskip("distributed")
    emulator = serve(latency=0.02)
    client = connect(emulator, concurrency=2)
    requests = [client.image_request(image["id"], 6) for image in emulator.catalogue.models["SectionImage"]]
    emulator.draw(downsample=6)
    emulator.reset()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=4, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as scheduler,
    ):
        workers = list(scheduler.scheduler_info()["workers"])
        futures = [
            scheduler.submit(client.try_fetch, request, pure=False, workers=workers[n % 2])
            for n, request in enumerate(requests * 4)
        ]
        got = scheduler.gather(futures)
        here = client.fetch(requests[0])
    assert all(isinstance(image, SectionImage) for image in got)
    assert got[0] == here == client.fetch(requests[0])  # the last with the cluster gone
    assert emulator.count(IMAGES) == len(futures) + 2
    assert emulator.peak <= 2


# What a client shows


@pytest.mark.parametrize(
    "url", ["http://user:secret@127.0.0.1:1/api/v2", "http://secret@host/api/v2", "http://host/api/v2?key=secret"]
)
def test_an_address_with_credentials_is_refused_without_repeating_them(url, command, tmp_path):
    with raises(InputError, "credentials-in-url") as caught:
        AllenClient(url)
    assert "secret" not in str(caught.value)
    outcome = command("build", NRP1, tmp_path / "x.ome.zarr", "--api-url", url)
    assert outcome.code == 2
    assert "secret" not in outcome.out + outcome.err
    assert files(tmp_path) == []


def test_the_repr_of_a_client_has_only_the_url(emulator, connect):
    client = connect(emulator, "memory://place", cache_options={"password": "secret"})
    assert repr(client) == f"AllenClient({emulator.url!r})"
    assert "secret" not in repr(client.cache)
    assert "secret" not in repr(client.search)


def test_the_repr_of_an_image_has_its_id_and_no_bytes(client):
    image = client.fetch(client.image_request(IMAGE, 6))
    assert f"image_id={IMAGE}" in repr(image)
    assert "\\xff" not in repr(image)


@pytest.mark.parametrize("url", ["ftp://host/api/v2", "127.0.0.1:8000/api/v2", "//host/api/v2"])
def test_an_address_that_is_not_of_http_is_refused(url):
    with raises(InputError, "not-an-http-url") as caught:
        AllenClient(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}])
def test_a_limit_that_is_not_positive_is_refused(emulator, connect, options):
    with raises(InputError, "out-of-range"):
        connect(emulator, **options)


def test_the_bytes_of_one_image_do_not_pass_for_another_of_another_size(serve, connect):
    pixels = np.zeros((200, 300, 3), np.uint8)
    body = simplejpeg.encode_jpeg(pixels)
    images = [image_record(7, NRP1, 1, (300, 200)), image_record(8, NRP1, 2, (400, 200))]
    client = connect(serve(images=images, pixels={7: {0: body}, 8: {0: body}}))
    assert client.image(7).shape == (200, 300, 3)
    with raises(ImageError, "wrong-image-size") as caught:
        client.image(8)
    assert "300 x 200 pixels, not 400 x 200" in str(caught.value)


# Connections, proxies, redirects


#: A URL, and what the message names: the host, the cause, the variable for a proxy.
UNREACHABLE = [
    ("http://127.0.0.1:1/api/v2", ("127.0.0.1:1", "refused", " HTTP_PROXY")),
    ("http://allen.invalid/api/v2", ("allen.invalid", "not resolved", " HTTP_PROXY")),
    ("https://allen.invalid/api/v2", ("allen.invalid", "not resolved", " HTTPS_PROXY")),
]


@pytest.fixture
def no_proxies(monkeypatch):
    """Remove the environment's proxies; returns the monkeypatch to set others."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(("url", "named"), UNREACHABLE)
def test_a_service_that_cannot_be_reached_is_named_with_the_cause_and_not_tried_again(url, named):
    # A second try would come after a wait of more than an hour.
    with (
        AllenClient(url, "none", retries=5, backoff=3600.0) as client,
        raises(ServiceError, "service-unreachable") as caught,
    ):
        client.section_dataset(NRP1)
    assert all(name in str(caught.value) for name in named)


@pytest.mark.usefixtures("no_proxies")
def test_the_first_connection_is_waited_for_no_longer_than_its_timeout():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as waiting:
        address = server.getsockname()
        for _ in range(3):  # a full queue: further connections are neither accepted nor refused
            queued = waiting.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(address)
        with (
            AllenClient(f"http://127.0.0.1:{address[1]}/api/v2", "none", timeout=(0.3, 60.0), backoff=3600.0) as client,
            raises(ServiceError, "service-unreachable") as caught,
        ):
            client.section_dataset(NRP1)
        assert "0.3 s" in str(caught.value)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("verbose", [(), ("-v",)])
def test_the_address_of_a_request_that_cannot_be_sent_is_shown_when_asked_for(verbose):
    done = subprocess.run(
        [sys.executable, "-m", "atlaszarr", "info", str(NRP1), "--api-url", "http://127.0.0.1:1/api/v2", *verbose],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert ("query.json" in done.stderr) == bool(verbose)
    assert "127.0.0.1:1" in done.stderr.splitlines()[-1]


def test_a_service_that_goes_away_later_is_tried_again(serve, connect):
    emulator = serve()
    client = connect(emulator, retries=2)
    client.search()
    emulator.__exit__(None, None, None)
    copy = pickle.loads(pickle.dumps(client))
    for used in (client, copy):
        used.close()
        used.api_url = client.api_url
        with raises(ServiceError, "retries-exhausted") as caught:
            used.search()
        assert "3 times" in str(caught.value)
        assert "NewConnectionError" in str(caught.value)


@pytest.mark.parametrize("form", ["body", "chunk", "chunk extension"])
def test_an_answer_that_drips_ends_after_the_longest_answer(form):
    hung_up, stopped = threading.Event(), threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            length = ("Content-Length", "1000000") if form == "body" else ("Transfer-Encoding", "chunked")
            self.send_header(*length)
            self.end_headers()
            drop = b"1\r\nx\r\n" if form == "chunk" else b"x"
            self.wfile.write(b"1;" if form == "chunk extension" else b"")
            try:
                while not stopped.wait(0.01):
                    self.wfile.write(drop)
            except OSError:
                hung_up.set()

        def log_message(self, *_):
            pass

    http = Http(timeout=(5.0, 60.0), backoff=3600.0, longest_answer=0.3)
    with serving(Dripping) as port:
        try:
            with raises(ServiceError, "answer-too-slow"):
                http.get(f"http://127.0.0.1:{port}/", 2**20, bytes)
            assert hung_up.wait(60)
        finally:
            stopped.set()
            http.close()


class _Proxy(BaseHTTPRequestHandler):
    """Forwards GET to the emulator, whatever the host asked for; refuses tunnels."""

    seen: ClassVar[list[tuple[str, str | None]]]
    emulator: ClassVar[str]
    refusal: ClassVar[int] = 407

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(self.emulator + self.path.partition("/api/v2")[2]) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self):
        self.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_error(self.refusal)

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(emulator):
    """A proxy on loopback to the session's emulator: its handler, with what it has `seen`, and its port."""

    class Proxy(_Proxy):
        seen: ClassVar = []

    Proxy.emulator = emulator.url
    with serving(Proxy) as port:
        yield Proxy, port


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_the_proxy_of_the_environment_is_used(proxy, no_proxies, variable):
    handler, port = proxy
    no_proxies.setenv(variable, f"127.0.0.1:{port}" if variable == "all_proxy" else f"http://127.0.0.1:{port}")
    with AllenClient("http://allen.invalid/api/v2", "none", rate=1e9) as client:
        assert client.section_dataset(NRP1).id == NRP1
        assert client.image(IMAGE, 6).ndim == 3
    assert len(handler.seen) == 4
    assert all(path.startswith("http://allen.invalid/api/v2/") for path, _ in handler.seen)


def test_a_proxy_gets_its_password_which_is_never_shown(proxy, no_proxies):
    handler, port = proxy
    no_proxies.setenv("http_proxy", f"http://jo%40lab:the-secret@127.0.0.1:{port}")
    with AllenClient("http://allen.invalid/api/v2", "none", rate=1e9) as client:
        client.section_dataset(NRP1)
        assert "the-secret" not in repr(client) + repr(vars(client._http))
        with raises(ServiceError, "query-refused") as caught:
            client.structure_graph(2)
    assert "the-secret" not in str(caught.value)
    assert {sent for _, sent in handler.seen} == {"Basic " + base64.b64encode(b"jo@lab:the-secret").decode()}


@pytest.mark.parametrize("user", ["", "jo:the-secret@"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_password_is_named_and_not_tried_again(proxy, no_proxies, scheme, user):
    handler, port = proxy
    handler.do_GET = handler.do_CONNECT
    no_proxies.setenv(f"{scheme}_proxy", f"http://{user}127.0.0.1:{port}")
    # A second try would come after a wait of more than an hour.
    with (
        AllenClient(f"{scheme}://allen.invalid/api/v2", "none", backoff=3600.0) as client,
        raises(ServiceError, "proxy-authentication") as caught,
    ):
        client.section_dataset(NRP1)
    assert all(name in str(caught.value) for name in (f"127.0.0.1:{port}", "407", f" {scheme.upper()}_PROXY"))
    assert "the-secret" not in str(caught.value)
    assert len(handler.seen) == 1


@pytest.mark.parametrize(
    ("status", "tries", "code", "named"),
    [(403, 1, "proxy-refused", "HTTPS_PROXY"), (503, 3, "retries-exhausted", "ProxyError")],
)
def test_a_tunnel_is_tried_again_if_the_proxy_refuses_it_temporarily(proxy, no_proxies, status, tries, code, named):
    handler, port = proxy
    handler.refusal = status
    no_proxies.setenv("https_proxy", f"http://127.0.0.1:{port}")
    with (
        AllenClient("https://allen.invalid/api/v2", "none", retries=2, backoff=0.01) as client,
        raises(ServiceError, code) as caught,
    ):
        client.section_dataset(NRP1)
    assert str(status) in str(caught.value)
    assert named in str(caught.value)
    assert len(handler.seen) == tries


@pytest.mark.parametrize("reason", ["loopback", "NO_PROXY"])
def test_a_host_without_proxy_is_connected_to_directly(emulator, proxy, no_proxies, reason):
    handler, port = proxy
    no_proxies.setenv("http_proxy", f"http://127.0.0.1:{port}")
    if reason == "loopback":
        with AllenClient(emulator.url, "none", rate=1e9) as client:
            assert client.section_dataset(NRP1).id == NRP1
    else:
        no_proxies.setenv("no_proxy", "elsewhere.invalid,.allen.invalid")
        with (
            AllenClient("http://api.allen.invalid/api/v2", "none") as client,
            raises(ServiceError, "service-unreachable") as caught,
        ):
            client.section_dataset(NRP1)
        assert "api.allen.invalid" in str(caught.value)
    assert handler.seen == []


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(no_proxies):
    no_proxies.setenv("https_proxy", "http://jo:the-secret@127.0.0.1:1")
    with (
        AllenClient("https://allen.invalid/api/v2", "none", backoff=3600.0) as client,
        raises(ServiceError, "proxy-unreachable") as caught,
    ):
        client.section_dataset(NRP1)
    assert all(name in str(caught.value) for name in ("127.0.0.1:1", "HTTPS_PROXY"))
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["socks5://jo:the-secret@127.0.0.1:1", "http://jo:the-secret@host:port", "http://"])
def test_a_proxy_that_is_not_of_http_is_refused_without_its_password(no_proxies, value):
    no_proxies.setenv("http_proxy", value)
    with (
        AllenClient("http://allen.invalid/api/v2", "none") as client,
        raises(InputError, "invalid-proxy") as caught,
    ):
        client.section_dataset(NRP1)
    assert "HTTP_PROXY" in str(caught.value)
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "code", "requests"),
    [
        ("/api/v2/elsewhere", None, 2),
        ("http://evil.invalid/api/v2", "redirect-to-other-host", 1),
        ("ftp://127.0.0.1/api/v2", "redirect-to-other-host", 1),
        ("/api/v2/structure_graph_download/1.json", "too-many-redirects", 6),
    ],
)
def test_a_redirect_is_followed_on_the_same_host_only(emulator, location, code, requests):
    asked = []

    class Redirecting(_Proxy):
        seen = asked

        def do_GET(self):
            if self.path == "/api/v2/elsewhere":
                self.path = "/api/v2/structure_graph_download/1.json"
                super().do_GET()
                return
            asked.append((self.path, None))
            self.send_response(302)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

    Redirecting.emulator = emulator.url
    with serving(Redirecting) as port, AllenClient(f"http://127.0.0.1:{port}/api/v2", "none", rate=1e9) as client:
        if code is None:
            assert client.structure_graph()["root"].id == 997
        else:
            with raises(ServiceError, code):
                client.structure_graph()
    assert len(asked) == requests
