"""Catalogues of the emulator's records: written page by page, and a client that asks nothing of the service."""

import copy
import json
import pickle
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.allen.records import SectionDataset
from atlaszarr.errors import InputError, NotFoundError, RecordError
from atlaszarr.testing.records import dataset_records, image_records, invented, invented_elsewhere
from codes import raises

NRP1, PROX1, INVENTED = 74272479, 69289763, 909


@pytest.fixture(scope="module")
def offline(emulator, tmp_path_factory):
    """The folder of a catalogue of the emulator's records."""
    folder = tmp_path_factory.mktemp("catalogue") / "all"
    with AllenClient(emulator.url, "none", rate=1e9) as client:
        client.write_catalogue(folder)
    return folder


@pytest.fixture
def both(emulator, connect, offline):
    """A client of the emulator, and one of the catalogue; the emulator has forgotten its requests."""
    clients = connect(emulator), connect(emulator, catalogue=offline)
    emulator.reset()
    return clients


CRITERIA = [
    {},
    {"gene": "Prox1"},
    {"gene": "pROX1"},
    {"gene": "*r*1"},
    {"gene": "N*"},
    {"gene": "*"},
    {"gene": "Pro?1"},
    {"gene": "Prox"},
    {"plane": "coronal"},
    {"plane": "sagittal"},
    {"plane": "horizontal"},
    {"plane": "transverse"},
    {"product": "Mouse"},
    {"product": "mouse"},
    {"product": "HumanNT"},
    {"specimen": 68870790},
    {"id": PROX1},
    {"id": 1},
    {"id": PROX1, "plane": "coronal"},
    {"gene": "*", "plane": "coronal", "product": "Mouse"},
    {"limit": 1},
    {"limit": 2, "product": "Mouse"},
    {"limit": None},
]


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("criteria", CRITERIA, ids=str)
def test_a_search_of_a_catalogue_finds_what_a_search_of_the_service_finds(both, emulator, criteria, images):
    online, offline = both
    expected = online.search(**criteria, images=images)
    emulator.reset()
    found = offline.search(**criteria, images=images)
    assert emulator.count() == 0
    assert found.equals(expected)
    assert found.dtypes.equals(expected.dtypes)
    assert found.attrs == expected.attrs


@pytest.mark.parametrize("gene", ["Prox2", "prox1", "Nrp", "Zzz", "Pr", ""])
def test_a_similar_gene_is_suggested_without_a_request(both, emulator, gene):
    online, offline = both
    expected = online.similar_gene(gene)
    emulator.reset()
    assert offline.similar_gene(gene) == expected
    assert emulator.count() == 0


@pytest.mark.parametrize(
    "criteria", [{"gene": "a'b"}, {"plane": "oblique"}, {"product": "x[y]"}, {"limit": 0}, {"id": "x"}], ids=str
)
def test_a_criterion_that_the_service_refuses_is_refused_in_the_same_words(both, criteria):
    messages = []
    for client in both:
        with pytest.raises(InputError) as caught:
            client.search(**criteria)
        messages.append((caught.value.code, str(caught.value)))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("id", [NRP1, PROX1, INVENTED])
def test_a_dataset_of_a_catalogue_equals_that_of_the_service(both, emulator, id):
    online, offline = both
    expected = online.section_dataset(id)
    emulator.reset()
    assert offline.section_dataset(id) == expected
    assert pickle.loads(pickle.dumps(offline)).section_dataset(id) == expected
    assert emulator.count() == 0


def test_an_image_of_a_catalogue_is_requested_as_that_of_the_service(both, emulator):
    online, offline = both
    expected = [online.image_request(69177654, d, roi=roi) for d in (0, 3) for roi in (None, (0, 0, 9, 9))]
    emulator.reset()
    assert [offline.image_request(69177654, d, roi=roi) for d in (0, 3) for roi in (None, (0, 0, 9, 9))] == expected
    assert emulator.count() == 0
    assert offline.image(69177654, 6).shape == online.image(69177654, 6).shape


def test_what_a_catalogue_lacks_is_named_with_the_catalogue(both, offline):
    _, client = both
    with raises(NotFoundError, "dataset-not-found") as caught:
        client.section_dataset(1)
    assert str(offline) in str(caught.value)
    with raises(NotFoundError, "image-not-found"):
        client.image_request(5)
    with raises(InputError, "conflicting-options"):
        client.write_catalogue(offline)


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--gene", "Prox1"),
        ("search", "--gene", "Prox2"),
        ("search", "--images", "--id", NRP1, "--json"),
        ("info", PROX1),
        ("info", NRP1, "--json"),
    ],
    ids=str,
)
def test_search_and_info_work_offline(command, emulator, offline, arguments):
    expected = command(*arguments, "--api-url", emulator.url)
    found = command(*arguments, "--api-url", "http://127.0.0.1:1/api/v2", "--catalogue", offline)
    assert found == expected
    assert found.code == 0


def test_a_plan_of_a_catalogue_counts_no_request_for_metadata(command, emulator, offline):
    emulator.reset()
    plans = [
        json.loads(command("plan", PROX1, "--resolution", 100, "--json", "--api-url", emulator.url, *more).out)[0]
        for more in ((), ("--catalogue", offline))
    ]
    assert emulator.count() == 2
    assert [plan.pop("metadata_requests") for plan in plans] == [2, 0]
    assert [plan.pop("requests") for plan in plans] == [20, 18]
    assert plans[0] == plans[1]


def strange_records():
    """Records with values that a registration skips or refuses, or that have unexpected types: (datasets, images)."""
    record, images = invented(1, numbers=range(100, 300, 10))
    changes = [
        {"failed": True},
        {"alignment2d": None},
        {"alignment2d": {}},
        {"alignment2d": {"id": 3}},
        {"alignment2d": dict.fromkeys(images[0]["alignment2d"])},
        {"alignment2d": "none"},
        {"section_number": 100},
        {"section_number": 110.0},
        {"section_number": "7"},
        {"section_number": 10**9},
        {"width": None},
        {"width": 0},
        {"height": "4400"},
        {"resolution": -1.0},
        {"resolution": 2},
        {"tier_count": 7.0},
        {"tier_count": 99},
        {"x": None, "y": 2**50},
        {"expression_path": "", "failed": "no"},
        {"expression_path": 5},
    ]
    images = [image | change for image, change in zip(images, changes, strict=True)]
    datasets, others = [record], list(images)
    for id, change in enumerate(
        [
            {"section_thickness": "25"},
            {"section_thickness": 0},
            {"section_thickness": 25},
            {"section_thickness": None, "alignment3d": None, "reference_space_id": None},
            {"alignment3d": {"id": 5}},
            {"alignment3d": record["alignment3d"] | {"tvr_00": None}},
            {"alignment3d": record["alignment3d"] | {"tvr_00": 2.5}},
            {"alignment3d": [1]},
            {"genes": "Prox1"},
            {"genes": [{"name": "no acronym"}]},
            {"genes": [{"id": 5, "acronym": None, "name": None}]},
            {"genes": [{"id": 6, "acronym": "A", "name": None}, {"id": 7, "acronym": "Ä", "name": "zwei"}]},
            {"genes": None, "products": None},
            {"plane_of_section_id": 3},
            {"plane_of_section_id": None},
            {"specimen": {"donor": {"age": {"name": "P4"}, "sex_full_name": "Female"}}},
            {"specimen": {"donor": None}},
            {"specimen": {"donor": 5}},
            {"specimen": "none"},
            {"age": "P28"},
            {"age": 28},
            {"failed": "yes"},
            {"failed": None},
            {"red_channel": 5},
        ],
        start=2,
    ):
        datasets.append(copy.deepcopy(record) | {"id": id} | change)
        others += [
            image | {"id": image["id"] + 1000 * (id - 1), "data_set_id": id} for image in copy.deepcopy(images[:3])
        ]
    for product, id in (("HumanNT", 90), ("NhpISH", 91), ("DevMouse", 92)):
        elsewhere, its_images = invented_elsewhere(product, id)
        datasets.append(elsewhere)
        others += its_images
    return datasets, others


def outcome(make):
    """What a call returns, or the kind, code and text of its error."""
    try:
        return make()
    except (RecordError, InputError) as error:
        return type(error), error.code, str(error)


def test_strange_records_are_kept_with_their_skipped_sections_and_errors(serve, connect, tmp_path):
    datasets, images = strange_records()
    service = serve(datasets, images)
    online = connect(service)
    report = online.write_catalogue(tmp_path / "c")
    assert (report.datasets, report.images) == (len(datasets), len(images))
    offline = connect(service, catalogue=tmp_path / "c")
    kinds = set()
    for record in datasets:
        expected = outcome(lambda id=record["id"]: online.section_dataset(id))
        assert outcome(lambda id=record["id"]: offline.section_dataset(id)) == expected
        kinds.add(type(expected))
        assert repr(outcome(lambda id=record["id"]: offline.search(id=id).to_dict())) == repr(
            outcome(lambda id=record["id"]: online.search(id=id).to_dict())
        )
    assert kinds == {SectionDataset, tuple}
    assert len(online.section_dataset(1).skipped) > 10
    for image in images[:20]:
        assert outcome(lambda id=image["id"]: offline.image_request(id)) == outcome(
            lambda id=image["id"]: online.image_request(id)
        )
    assert 10 < report.misfits < 60


def test_a_catalogue_of_ordinary_records_has_no_misfits(connect, emulator, tmp_path):
    report = connect(emulator).write_catalogue(tmp_path / "c")
    assert report.misfits == 0
    assert (report.datasets, report.images) == (3, 86)
    assert len(dataset_records()) == 2
    assert sum(image["data_set_id"] != 0 for image in image_records()) == 78


def test_pandas_selects_rows_of_a_catalogue(offline):
    coronal = pd.read_parquet(offline / "datasets.parquet", filters=[("plane_of_section_name", "==", "coronal")])
    images = pd.read_parquet(offline / "images.parquet", filters=[("data_set_id", "in", coronal["id"])])
    assert set(coronal["id"]) == {NRP1, INVENTED}
    assert len(images) == 68
    assert images["alignment2d_tsv_00"].dtype == "float64"
    assert [list(genes) for genes in coronal["genes_acronym"]] == [[], ["Nrp1"]]


def test_many_threads_read_one_catalogue(connect, emulator, offline):
    client = connect(emulator, catalogue=offline)
    expected = {id: client.section_dataset(id) for id in (NRP1, PROX1, INVENTED)}
    client = pickle.loads(pickle.dumps(client))
    assert len(pickle.dumps(client)) < 2000
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(client.section_dataset, 20 * list(expected)))
    assert found == 20 * list(expected.values())


@pytest.mark.first(1)
@pytest.mark.parametrize("arguments", [("build", "x.ome.zarr"), ("preview", "x.png")], ids=lambda words: words[0])
def test_build_and_preview_with_a_catalogue_request_images_alone(command, emulator, offline, tmp_path, arguments):
    name, target = arguments
    emulator.reset()
    options = ("--api-url", emulator.url, "--cache", "none", "--catalogue", offline)
    resolution = ("--resolution", 200) if name == "build" else ()
    outcome = command(name, INVENTED, tmp_path / target, *options, *resolution)
    assert outcome.code == 0, outcome.err
    assert emulator.count("query") == 0
    assert emulator.count("section_image_download") == emulator.count() == 8
    outcome = command("image", 69177654, tmp_path / "one.jpg", "--downsample", 6, *options)
    assert outcome.code == 0, outcome.err
    assert emulator.count("query") == 0


def test_the_commands_and_the_python_of_the_documentation_run(command, emulator, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/catalogue.md").read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATLASZARR_API_URL", emulator.url)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        name, *words = shlex.split(line)
        assert name == "atlaszarr"
        outcome = command(*words)
        assert outcome.code == 0, outcome.err
        assert outcome.out
    (python,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(python, names)
    assert len(names["coronal"]) == 2
    assert len(names["images"]) == 68
    columns = {*pd.read_parquet("mouse-catalogue/datasets.parquet"), *pd.read_parquet("mouse-catalogue/images.parquet")}
    named = set(re.findall(r"`([a-z]\w*_\w+)`", text))
    assert named <= columns
