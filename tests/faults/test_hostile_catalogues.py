"""Catalogues whose digests are valid and whose content is not, and services that answer other records than asked for.

A reader validates what it reads: the order of the ids, their ranges, the text, and the JSON of unusual records.
"""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.catalogue.catalogue import Catalogue
from atlaszarr.catalogue.columns import DATASETS, IMAGES
from atlaszarr.catalogue.files import BLOCK, write_document, write_table
from atlaszarr.catalogue.snapshot import PAGE, write_catalogue
from atlaszarr.dataset_build.estimate import estimate
from atlaszarr.errors import InputError, ServiceError
from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.many_datasets import invented_datasets
from codes import raises

COUNT = 60
DATASET, IMAGE = "SectionDataSet", "SectionImage"
NOWHERE = "http://127.0.0.1:1/api/v2"


def records():
    same = {"animal_id": 5, "sex": "Male", "age": "P56", "plane_of_section": "coronal", "treatment": "ISH"}
    return invented_datasets(
        {**same, "experiment_id": 1000 + 7 * number, "gene": f"Gene{number % 40}"} for number in range(COUNT)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "whole"
    with Emulator(*records()) as service, AllenClient(service.url, "none", rate=1e9) as client:
        client.write_catalogue(folder)
    return folder


def forged(whole, folder, change):
    """A catalogue whose tables are changed, with valid digests; `change` returns a table or several row groups."""
    source, target, files = Catalogue(whole), Target.of(folder), {}
    for columns in (DATASETS, IMAGES):
        changed = change(columns.model, source.table(columns.model).read(columns.schema.names))
        files[columns.file] = write_table(target, columns, changed if isinstance(changed, list) else [changed])
    document = json.loads((whole / "catalogue.json").read_text())
    write_document(target, {**document, "files": {name: table.to_dict() for name, table in files.items()}})
    return folder


def with_cell(model, name, row, value):
    def change(of, table):
        if of != model:
            return table
        values = table.column(name).to_pylist()
        values[row] = value
        field = table.schema.field(name)
        return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))

    return change


def with_rows(model, reorder):
    return lambda of, table: reorder(table) if of == model else table


def shuffled(table):
    return table.take(np.random.default_rng(0).permutation(len(table)))


def swapped(table):
    middle = len(table) // 2
    return [table.slice(middle), table.slice(0, middle)]


def twice(table):
    return [table, table]


ORDERS = {
    "an id twice": with_cell(DATASET, "id", 1, 1000),
    "no id": with_cell(DATASET, "id", 1, None),
    "datasets in another order": with_rows(DATASET, shuffled),
    "datasets in other row groups": with_rows(DATASET, swapped),
    "datasets twice": with_rows(DATASET, twice),
    "images in another order": with_rows(IMAGE, shuffled),
    "images in other row groups": with_rows(IMAGE, swapped),
    "images twice": with_rows(IMAGE, twice),
    "an image twice": with_cell(IMAGE, "id", 1, 1_000_000),
    "no image id": with_cell(IMAGE, "id", 1, None),
    "an image of no dataset": with_cell(IMAGE, "data_set_id", 5, None),
}
RECORDS = {
    "JSON of another dataset": with_cell(DATASET, "json", 0, json.dumps({"id": 1007})),
    "JSON without an id": with_cell(DATASET, "json", 0, "{}"),
    "JSON that is a list": with_cell(DATASET, "json", 0, "[]"),
    "JSON of another image": with_cell(IMAGE, "json", 0, json.dumps({"id": 1_000_000, "data_set_id": 1007})),
}


@pytest.mark.parametrize("change", [*ORDERS.values(), *RECORDS.values()], ids=[*ORDERS, *RECORDS])
def test_rows_that_are_not_in_order_or_not_the_records_are_refused(whole, command, tmp_path, change):
    folder = forged(whole, tmp_path / "forged", change)
    with raises(InputError, "damaged-file") as caught:
        AllenClient(NOWHERE, "none", catalogue=folder).section_dataset(1000)
    assert str(folder) in str(caught.value)
    outcome = command("search", "--id", 1000, "--images", "--catalogue", folder)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("change", ORDERS.values(), ids=ORDERS)
def test_an_estimate_of_rows_that_are_not_in_order_is_refused(whole, tmp_path, change):
    folder = forged(whole, tmp_path / "forged", change)
    with raises(InputError, "damaged-file"):
        estimate(Catalogue(folder), resolution=200)


@pytest.mark.parametrize("row", [0, 1])
def test_a_range_of_ids_that_is_not_that_of_its_rows_is_refused(whole, tmp_path, row):
    """The statistics of another table, by which a reader skips row groups."""
    other = with_cell(DATASET, "id", [0, COUNT - 1][row], [999, 9999][row])
    folder, lie = forged(whole, tmp_path / "f", lambda _, table: table), forged(whole, tmp_path / "g", other)
    honest = (folder / "datasets.parquet").read_bytes()
    footer = (lie / "datasets.parquet").read_bytes()
    size = 8 + int.from_bytes(footer[-8:-4], "little")
    assert (pq.read_metadata(lie / "datasets.parquet").serialized_size + 8, len(honest)) == (size, len(footer))
    sealed(folder, "datasets.parquet", honest[:-size] + footer[-size:])
    with raises(InputError, "damaged-file"):
        AllenClient(NOWHERE, "none", catalogue=folder).section_dataset(1007)


def sealed(folder, name, body, rows=None):
    """Write a table as bytes, with valid digests."""
    import hashlib

    (folder / name).write_bytes(body)
    document = json.loads((folder / "catalogue.json").read_text())
    del document["sha256"]
    described = document["files"][name]
    described["size"] = len(body)
    described["sha256"] = [
        hashlib.sha256(body[start : start + BLOCK]).hexdigest() for start in range(0, len(body), BLOCK)
    ]
    described["rows"] = described["rows"] if rows is None else rows
    write_document(Target.of(folder), document)


def in_a_process(folder, *lines):
    """Output of a script that reads a catalogue, in a process whose address space is bounded."""
    script = "\n".join(
        [
            "import resource, sys",
            "from atlaszarr.allen.client import AllenClient",
            "from atlaszarr.errors import AtlaszarrError",
            f"client = AllenClient({NOWHERE!r}, 'none', catalogue={str(folder)!r})",
            "client.catalogue.document",
            "import pandas, pyarrow.parquet",
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss",
            *lines,
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)",
        ]
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["name", "genes_name"])
def test_a_text_that_a_dictionary_repeats_is_refused_by_its_size(whole, tmp_path, name):
    """A megabyte of text, a quarter of a million times in a file of a few kilobytes."""
    folder, rows = forged(whole, tmp_path / "f", lambda _, table: table), 2**18
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 2**20]))
    columns = {}
    for field in DATASETS.schema:
        columns[field.name] = pa.nulls(rows, field.type)
    columns["id"] = pa.array(range(1, rows + 1))
    columns[name] = text if name == "name" else pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), text)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd", store_schema=False, row_group_size=rows)
    body = sink.getvalue().to_pybytes()
    assert len(body) < 2**21
    sealed(folder, "datasets.parquet", body, rows)
    words, megabytes = in_a_process(
        folder,
        "try:",
        "    client.section_dataset(5)",
        "except AtlaszarrError as error:",
        "    print(error.code)",
    )
    assert words == "damaged-file"
    assert int(megabytes) < 200


@pytest.mark.parametrize("name", ["gene", "id"])
def test_text_that_is_not_unicode_is_refused(whole, tmp_path, name):
    folder = forged(whole, tmp_path / "f", lambda _, table: table)
    table = pq.read_table(folder / "datasets.parquet")
    bad = pa.array([b"\xff"] * len(table), pa.binary()).buffers()
    text = pa.StringArray.from_buffers(len(table), bad[1], bad[2])
    lists = pa.ListArray.from_arrays(pa.array(range(len(table) + 1), pa.int32()), text)
    place = table.schema.get_field_index("genes_acronym")
    table = table.set_column(place, DATASETS.schema.field("genes_acronym"), lists)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=False)
    sealed(folder, "datasets.parquet", sink.getvalue().to_pybytes())
    client = AllenClient(NOWHERE, "none", catalogue=folder)
    with raises(InputError, "damaged-file"):
        client.search(**{name: {"gene": "G*", "id": 1000}[name]})


DOCUMENTS = {
    "no files": {"files": {}},
    "files that are a list": {"files": []},
    "no rows": {"files": {"datasets.parquet": {}, "images.parquet": {}}},
    "changes that are a number": {"changes": 5},
    "changes of numbers": {"changes": [5]},
    "a date that is a number": {"date": 5},
    "a request that is a list": {"request": []},
}


@pytest.mark.parametrize("change", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_of_another_shape_is_refused_by_readers_and_writers(whole, tmp_path, change):
    folder = tmp_path / "f"
    shutil.copytree(whole, folder)
    document = json.loads((folder / "catalogue.json").read_text())
    del document["sha256"]
    write_document(Target.of(folder), {**document, **change})
    with raises(InputError, "damaged-file"):
        Catalogue(folder)
    with raises(InputError, "damaged-file"):
        AllenClient(NOWHERE, "none").write_catalogue(folder)


def begun(folder, service):
    """A catalogue that is interrupted once its datasets are there."""

    def stop(_done, _total, word):
        if word == "images of datasets":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), AllenClient(service.url, "none", rate=1e9) as client:
        client.write_catalogue(folder, progress=stop)


def test_what_a_process_left_that_was_killed_while_it_wrote_a_table_is_removed(connect, tmp_path):
    """A temporary folder and its lock, and a file with a temporary name."""
    script = """
import sys, time
from pathlib import Path
from atlaszarr.stores.local import whole_file
from atlaszarr.stores.temporary import temporary_folder
with temporary_folder(sys.argv[1]) as folder, whole_file(Path(sys.argv[1], "catalogue.json")) as file:
    (folder / "object").write_text("half a table")
    print("ready", flush=True)
    time.sleep(600)
"""
    folder = tmp_path / "c"
    with Emulator(*records()) as service:
        begun(folder, service)
        with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"ready\n"
            child.send_signal(signal.SIGKILL)
        assert len(list(folder.iterdir())) == 4
        assert connect(service).write_catalogue(folder).state == "written"
    assert sorted(path.name for path in folder.iterdir()) == ["catalogue.json", "datasets.parquet", "images.parquet"]


@pytest.mark.parametrize(
    "name",
    ["datasets.parquet", "images.parquet", "unfinished/mine.parquet", "unfinished/atlaszarr/x", "x/catalogue.json"],
)
def test_files_of_another_program_are_kept(connect, tmp_path, name):
    path = tmp_path / "c" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with Emulator(*records()) as service, raises(InputError, "target-not-empty") as caught:
        connect(service).write_catalogue(tmp_path / "c")
    assert repr(name) in str(caught.value)
    assert path.read_text() == "mine"
    assert [each for each in (tmp_path / "c").rglob("*") if each.is_file()] == [path]


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"date": 5, "request": {}, "changes": []}'])
def test_a_damaged_record_of_what_was_begun_is_named(connect, tmp_path, body):
    with Emulator(*records()) as service:
        begun(tmp_path / "c", service)
        path = tmp_path / "c/unfinished/request.json"
        path.write_text(body)
        with raises(InputError, "damaged-file") as caught:
            connect(service).write_catalogue(tmp_path / "c")
    assert str(path) in str(caught.value)


def of_datasets(attribute, value):
    return {"do": "other_record", "attribute": attribute, "value": value, "match": {"path": "SectionDataSet"}}


@pytest.mark.parametrize(
    ("fault", "selection"),
    [
        (of_datasets("id", 99_999), {"ids": [1000, 1007]}),
        (of_datasets("products", []), {"product": "Mouse"}),
        (of_datasets("products", None), {"product": "Mouse"}),
        (of_datasets("products", [{"abbreviation": "DevMouse"}]), {"product": "Mouse"}),
    ],
    ids=str,
)
def test_section_datasets_that_were_not_asked_for_are_refused(connect, tmp_path, fault, selection):
    with Emulator(*records(), faults=[fault]) as service:
        with raises(ServiceError, "wrong-record"):
            connect(service).write_catalogue(tmp_path / "c", **selection)
        assert connect(service).write_catalogue(tmp_path / "c", **selection).datasets == len(
            selection.get("ids", range(COUNT))
        )


def test_a_service_with_more_images_than_datasets_have_is_refused_at_its_first_page(connect, tmp_path):
    fault = {"do": "total_rows", "delta": 500_000, "match": {"path": "SectionImage"}, "times": None}
    with Emulator(*records(), faults=[fault]) as service:
        with raises(ServiceError, "too-many-rows") as caught:
            connect(service, retries=0).write_catalogue(tmp_path / "c")
        assert service.count() == 2
    assert "500,000" in str(caught.value)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(10**9, id="a billion"),
        pytest.param(PAGE + 1, id="always one more than a page", marks=pytest.mark.slow),
    ],
)
def test_a_service_whose_section_datasets_have_no_end_is_refused(tmp_path, left):
    asked = []

    def query(_model, criteria, **options):
        asked.append(options)
        after = criteria[-1].value
        return [{"id": after + 1 + number} for number in range(options["limit"])], left

    with raises(ServiceError, "too-many-rows") as caught:
        write_catalogue(query, Target.of(tmp_path / "c"), {})
    assert len(asked) == (1 if left > PAGE + 1 else 250_000 // PAGE)
    assert "250,000" in str(caught.value)
