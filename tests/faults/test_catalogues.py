"""Catalogues that are killed, damaged, taken for others, or written while the records change."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.catalogue.catalogue import Catalogue
from atlaszarr.catalogue.columns import DATASETS, IMAGES
from atlaszarr.catalogue.files import write_document, write_table
from atlaszarr.catalogue.snapshot import write_catalogue
from atlaszarr.errors import InputError, NotFoundError, RecordError, ServiceError
from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.many_datasets import invented_datasets
from codes import raises

#: Section datasets: one page of them, and a page of images for every fifty.
COUNT = 260


def rows(count, plane="sagittal"):
    """Rows of the table that `invented_datasets` takes."""
    same = {"animal_id": 5, "sex": "Male", "age": "P56", "plane_of_section": plane, "treatment": "ISH"}
    return [{**same, "experiment_id": 1000 + 7 * number, "gene": f"Gene{number % 40}"} for number in range(count)]


@pytest.fixture(scope="module")
def service():
    with Emulator(*invented_datasets(rows(COUNT)), latency=0.05) as running:
        yield running


@pytest.fixture(scope="module")
def whole(service, tmp_path_factory):
    """The folder of a catalogue that nothing disturbed; the requests for it are counted in `requests`."""
    folder = tmp_path_factory.mktemp("catalogues") / "whole"
    service.reset()
    with AllenClient(service.url, "none", rate=1e9) as client:
        report = client.write_catalogue(folder)
    assert report.requests == service.count() == 1 + -(-COUNT // 50)
    return folder


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def queries(service):
    return Counter(request.query["criteria"] for request in service.requests)


@pytest.mark.first(1)
@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_killed_catalogue_is_not_read_and_resumes_at_the_page_where_it_stopped(
    service, whole, connect, tmp_path, after
):
    folder = tmp_path / "c"
    command = [sys.executable, "-m", "atlaszarr", "catalogue", folder, "--api-url", service.url, "-q"]
    service.reset()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while service.count() <= after and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not (folder / "catalogue.json").exists():
        with raises(InputError, "not-a-catalogue"):
            connect(service, catalogue=folder)
    report = connect(service).write_catalogue(folder)
    assert tables(folder) == tables(whole)
    repeated = [query for query, count in queries(service).items() if count > 1]
    assert len(repeated) <= 1  # the page that was on its way
    assert len(queries(service)) == 1 + -(-COUNT // 50)
    assert report.datasets == COUNT
    assert sorted(path.name for path in folder.iterdir()) == ["catalogue.json", "datasets.parquet", "images.parquet"]


@pytest.mark.first(1)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_images_of_several_pages_resume_within_them(connect, tmp_path, after):
    records = invented_datasets(rows(60, "coronal"))
    with Emulator(*records) as service:
        connect(service).write_catalogue(tmp_path / "whole")
        undisturbed = queries(service)
    assert len(undisturbed) == 5  # datasets, two pages and a count of the first fifty, and a page of the last ten
    fault = {"do": "status", "status": 500, "times": 1, "after": after}
    with Emulator(*records, faults=[fault]) as service:
        with raises(ServiceError, "retries-exhausted"):
            connect(service, retries=0).write_catalogue(tmp_path / "c")
        assert service.count() == after + 1
        before = queries(service)
        service.reset()
        connect(service).write_catalogue(tmp_path / "c")
        again = set(before) & set(queries(service))
        # the request that failed, and the page whose records were being counted
        assert len(again) == (2 if after == 3 else 1)
    assert tables(tmp_path / "c") == tables(tmp_path / "whole")


def test_a_finished_catalogue_is_not_fetched_again(service, whole, command):
    service.reset()
    before = tables(whole)
    outcome = command("catalogue", whole, "--api-url", service.url)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("already finished: ")
    assert service.count() == 0
    assert tables(whole) == before


def test_pages_that_a_killed_process_left_in_a_finished_catalogue_are_removed(service, whole, connect, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(whole, folder)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "images-00000-last.parquet").write_text("left")
    assert connect(service).write_catalogue(folder).state == "already finished"
    assert not (folder / "unfinished").exists()
    assert tables(folder) == tables(whole)


def test_two_processes_do_not_write_one_catalogue(service, connect, tmp_path):
    def second(*_):
        with raises(InputError, "target-locked"):
            connect(service).write_catalogue(tmp_path / "c")
        refused.append(True)

    refused = []
    connect(service).write_catalogue(tmp_path / "c", progress=second)
    assert refused


def test_a_catalogue_of_another_request_is_refused_with_both(service, whole, command):
    outcome = command("catalogue", whole, "--api-url", service.url, "--product", "Mouse")
    assert outcome.code == 2
    assert "product None" in outcome.err
    assert "product Mouse" in outcome.err


def test_a_folder_that_holds_something_else_is_not_written_to(service, connect, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with raises(InputError, "target-not-empty"):
        connect(service).write_catalogue(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def change_document(**changes):
    def change(folder):
        path = folder / "catalogue.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def flip(name, part):
    def change(folder):
        body = bytearray((folder / name).read_bytes())
        body[int(part * (len(body) - 1))] ^= 1
        (folder / name).write_bytes(body)

    return change


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 1)


DAMAGES = {
    "no document": (lambda folder: (folder / "catalogue.json").unlink(), "not-a-catalogue"),
    "no folder": (shutil.rmtree, "not-a-catalogue"),
    "not JSON": (lambda folder: (folder / "catalogue.json").write_text("{"), "damaged-file"),
    "another JSON": (lambda folder: (folder / "catalogue.json").write_text("{}"), "not-a-catalogue"),
    "another version": (change_document(version=2), "unsupported-version"),
    "another date": (change_document(date="2020-01-01"), "damaged-file"),
    "other files": (change_document(files={}), "damaged-file"),
    **{
        f"{name} flipped at {part}": (flip(name, part), "damaged-file")
        for name in ("datasets.parquet", "images.parquet")
        for part in (0, 0.3, 0.99, 1)
    },
    **{f"{name} cut": (cut(name), "damaged-file") for name in ("datasets.parquet", "images.parquet")},
    "images missing": (lambda folder: (folder / "images.parquet").unlink(), "damaged-file"),
    "tables exchanged": (
        lambda folder: shutil.copy(folder / "datasets.parquet", folder / "images.parquet"),
        "damaged-file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_catalogue_is_refused_in_one_sentence(whole, command, tmp_path, damage):
    folder = tmp_path / "c"
    shutil.copytree(whole, folder)
    change, code = DAMAGES[damage]
    change(folder)
    with raises(InputError, code) as caught, AllenClient("http://127.0.0.1:1/api/v2", "none", catalogue=folder) as it:
        for record in range(1000, 1000 + 7 * COUNT, 7 * 40):
            it.section_dataset(record)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    outcome = command("search", "--limit", COUNT, "--images", "--catalogue", folder)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1


def test_a_damaged_page_is_fetched_again(service, whole, connect, tmp_path):
    folder = tmp_path / "c"
    stopped = connect(service)

    def stop(done, _total, word):
        if word == "images of datasets" and done >= 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.write_catalogue(folder, progress=stop)
    for page in (folder / "unfinished").glob("*.parquet"):
        flip(page.name, 0.5)(page.parent)
    connect(service).write_catalogue(folder)
    assert tables(folder) == tables(whole)


@pytest.mark.slow
def test_records_that_are_added_and_removed_meanwhile_are_named(connect, tmp_path):
    datasets, images = invented_datasets(rows(60, "coronal"))
    every = list(images)
    with Emulator(datasets, every) as service:
        removed, added = every[10], {**every[20], "id": 500}
        served = service.catalogue.models["SectionImage"] = list(every)

        client = connect(service)
        pages = []

        def query(model, *arguments, **options):
            """Changes the records of the service once it has answered a page of images."""
            answer = client._query(model, *arguments, **options)
            pages.append(model)
            if pages.count("SectionImage") == 1 and model == "SectionImage":
                served.remove(removed)
                served.insert(0, added)
                served.insert(0, {**added, "id": 501})
            return answer

        report = write_catalogue(query, Target.of(tmp_path / "c"), {"api_url": service.url})
        (changed,) = report.changes
        assert "2 added: 500, 501" in changed
        assert f"1 removed: {removed['id']}" in changed
        assert report.images == len(served)
        assert json.loads((tmp_path / "c" / "catalogue.json").read_text())["changes"] == [changed]
        offline = connect(service, catalogue=tmp_path / "c")
        id = added["data_set_id"]
        assert offline.section_dataset(id) == client.section_dataset(id)


@pytest.mark.slow
def test_records_that_never_stop_changing_are_an_error(connect, tmp_path):
    datasets, images = invented_datasets(rows(60, "coronal"))
    every = list(images)
    with Emulator(datasets, every) as service:
        served = service.catalogue.models["SectionImage"] = list(every)
        client = connect(service)

        def query(model, *arguments, **options):
            if model == "SectionImage":
                served.insert(0, {**every[0], "id": 900_000 - len(served)})
            return client._query(model, *arguments, **options)

        with raises(RecordError, "matches-changed"):
            write_catalogue(query, Target.of(tmp_path / "c"), {"api_url": service.url})
        assert not (tmp_path / "c" / "catalogue.json").exists()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"do": "other_record", "attribute": "data_set_id", "value": 5, "match": {"path": "SectionImage"}}, None),
        ({"do": "other_record", "attribute": "id", "value": 5, "match": {"path": "SectionDataSet"}}, None),
        ({"do": "other_record", "attribute": "id", "value": "x", "match": {"path": "SectionDataSet"}}, None),
        ({"do": "html"}, "not-json"),
        ({"do": "fail"}, "query-refused"),
        ({"do": "total_rows", "delta": -5, "match": {"path": "SectionImage"}}, "unexpected-answer"),
    ],
    ids=str,
)
def test_an_answer_with_other_records_is_refused_and_the_next_run_completes(connect, tmp_path, fault, code):
    with Emulator(*invented_datasets(rows(60)), faults=[fault]) as service:
        with pytest.raises(ServiceError) as caught:
            connect(service).write_catalogue(tmp_path / "c")
        assert caught.value.code in ((code,) if code else ("wrong-record", "unexpected-answer"))
        assert connect(service).write_catalogue(tmp_path / "c").datasets == 60


def test_ids_of_a_file_are_selected_and_those_that_do_not_exist_are_named(service, command, connect, tmp_path):
    (tmp_path / "ids.txt").write_text("1007\n1000, Prox1\n1014\n1000\n")
    outcome = command("catalogue", tmp_path / "c", "--ids", tmp_path / "ids.txt", "--api-url", service.url, "--json")
    assert (outcome.code, json.loads(outcome.out)["datasets"]) == (0, 3)
    assert connect(service, catalogue=tmp_path / "c").search().index.tolist() == [1000, 1007, 1014]
    (tmp_path / "ids.txt").write_text("1007\n1008\n5")
    outcome = command("catalogue", tmp_path / "d", "--ids", tmp_path / "ids.txt", "--api-url", service.url)
    assert outcome.code == 2
    assert "5, 1008 (2 of 3 ids)" in outcome.err
    assert not (tmp_path / "d").exists()
    for text, words in (("", "has no ids"), ("1007\nx", "line 2")):
        (tmp_path / "ids.txt").write_text(text)
        outcome = command("catalogue", tmp_path / "e", "--ids", tmp_path / "ids.txt", "--api-url", service.url)
        assert outcome.code == 2
        assert words in outcome.err
        assert not (tmp_path / "e").exists()


def test_a_product_without_datasets_is_named(service, connect, tmp_path):
    with raises(NotFoundError, "dataset-not-found") as caught:
        connect(service).write_catalogue(tmp_path / "c", product="Moose")
    assert "'Moose'" in str(caught.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_catalogue_in_a_bucket_is_written_and_read(service, whole, remote, connect):
    report = connect(service).write_catalogue(remote.url("c"), storage_options=remote.options)
    assert (report.state, report.datasets) == ("written", COUNT)
    assert set(remote.keys("c")) == {"catalogue.json", "datasets.parquet", "images.parquet"}
    local = connect(service, catalogue=whole)
    service.reset()
    far = connect(service, catalogue=remote.url("c"), catalogue_options=remote.options)
    assert far.section_dataset(1007) == local.section_dataset(1007)
    assert far.search(gene="gene1*").equals(local.search(gene="gene1*"))
    assert service.count() == 0


def test_row_groups_hold_whole_datasets_in_order(whole):
    ranges = Catalogue(whole).table("SectionImage").ranges
    ends = [end for group in ranges for end in group]
    assert len(ranges) == 2
    assert ends == sorted(set(ends))
    assert (ends[0], ends[-1]) == (1000, 1000 + 7 * (COUNT - 1))


def forged(folder, target, change):
    """A catalogue of one table that is changed, with valid digests."""
    source = Catalogue(folder)
    files = {}
    for columns in (DATASETS, IMAGES):
        table = source.table(columns.model).read(columns.schema.names)
        files[columns.file] = write_table(target, columns, [change(columns, table)]).to_dict()
    document = json.loads((folder / "catalogue.json").read_text())
    write_document(target, {**document, "files": files})


def with_column(model, name, value):
    def change(columns, table):
        if columns.model != model:
            return table
        place = columns.schema.get_field_index(name)
        kind = columns.schema.field(name).type
        return table.set_column(place, columns.schema.field(name), pa.array([value] * len(table), kind))

    return change


def nothing(columns, rows):
    """A table of nulls: a few bytes for any number of rows."""
    return pa.table({field.name: pa.nulls(rows, field.type) for field in columns.schema}, schema=columns.schema)


@pytest.mark.first(4)
@pytest.mark.parametrize(
    "change",
    [
        with_column("SectionDataSet", "json", "{"),
        with_column("SectionImage", "json", "[" * 1000),
        with_column("SectionDataSet", "genes_name", ["a", "b", "c"]),
        lambda columns, table: nothing(columns, 2**20 + 1) if columns is DATASETS else table,
    ],
    ids=["not JSON", "deep JSON", "lists of other lengths", "rows beyond number"],
)
def test_a_forged_table_is_refused_in_one_sentence(whole, tmp_path, change):
    target = Target.of(tmp_path / "forged")
    forged(whole, target, change)
    with raises(InputError, "damaged-file"):
        AllenClient("http://127.0.0.1:1/api/v2", "none", catalogue=target.url).section_dataset(1000)
