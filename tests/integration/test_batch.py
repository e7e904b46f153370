"""Many datasets to one root: what is built, recorded, left alone, tried again and refused."""

import csv
import json
import threading
from collections import Counter
from uuid import uuid4

import pandas as pd
import pytest

from atlaszarr import AllenClient, build, build_many, verify
from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from codes import raises
from copied_datasets import copies

IDS = (11, 12, 13)
SMALL = {"resolution": 200, "chunk": 16}


@pytest.fixture
def emulator(records, serve):
    """An API with three datasets of six sections."""
    return serve(*copies(records, IDS))


@pytest.fixture
def client(emulator, connect):
    return connect(emulator)


@pytest.fixture
def root(store):
    """A root on a local disk and in a bucket, and its storage options."""
    return store.url(f"root-{uuid4().hex}"), store.options


def table(report, options=None):
    """Rows of ``batch.csv`` by dataset."""
    at, _, name = report.table.rpartition("/")
    text = Target.of(at, options).read(name).decode()
    return {int(row["dataset"]): row for row in csv.DictReader(text.splitlines())}


def images_fetched(emulator):
    return Counter(asked.path for asked in emulator.requests if asked.kind == "section_image_download")


@pytest.mark.first(1)
def test_each_dataset_is_built_as_alone_and_has_a_row(client, root, contents, tmp_path):
    url, storage = root
    report = build_many(IDS, url, client=client, storage_options=storage, **SMALL)
    assert report.ok
    assert report.states == {"built": 3}
    assert report.images == 18
    rows = table(report, storage)
    assert set(rows) == set(IDS)
    for id in IDS:
        assert verify(f"{url}/{id}.ome.zarr", storage_options=storage).ok
        alone = build(id, tmp_path / f"{id}.ome.zarr", client=client, **SMALL)
        expected = contents(tmp_path / f"{id}.ome.zarr")
        found = Target.of(f"{url}/{id}.ome.zarr", storage).read_all("")
        assert {key: body for key, body in found.items() if not key.startswith("atlaszarr/")} == expected
        (view,) = alone.views
        assert int(rows[id]["images"]) == view.images == 6
        assert int(rows[id]["stored_bytes"]) == view.stored_bytes
        assert view.stored_bytes == sum(len(body) for key, body in expected.items() if key[-1].isdigit())
    assert verify(url, storage_options=storage).ok
    damaged = Target.of(url, storage)
    key = next(key for key in damaged.list_keys("12.ome.zarr/0") if "/c/" in key)
    damaged.remove_each([key])
    (defect,) = verify(url, storage_options=storage).defects
    assert (defect.kind, defect.key) == ("missing", key)


@pytest.mark.first(1)
def test_a_second_run_asks_nothing_about_datasets_that_the_journal_calls_finished(client, emulator, root):
    url, storage = root
    build_many(IDS[:2], url, client=client, storage_options=storage, **SMALL)
    emulator.reset()
    report = build_many(IDS[:2], url, client=client, storage_options=storage, **SMALL)
    assert report.states == {"finished before": 2}
    assert emulator.count() == 0
    report = build_many(IDS, url, client=client, storage_options=storage, **SMALL)
    assert report.states == {"finished before": 2, "built": 1}
    assert set(table(report, storage)) == set(IDS)


def test_a_finished_dataset_whose_line_is_lost_is_neither_fetched_nor_written_again(client, emulator, tmp_path):
    build_many(IDS, tmp_path, client=client, **SMALL)
    (journal,) = (tmp_path / "batch" / "journal").iterdir()
    journal.write_bytes(journal.read_bytes()[:-40])  # the last line is torn
    emulator.reset()
    report = build_many(IDS, tmp_path, client=client, **SMALL)
    assert report.states == {"finished before": 2, "already finished": 1}
    assert report.images == 6
    assert not images_fetched(emulator)
    assert len(table(report)) == 3


def test_a_dataset_that_fails_does_not_end_the_batch(records, serve, connect, tmp_path):
    datasets, images = copies(records, IDS)
    datasets[1]["alignment3d"] = None
    client = connect(serve(datasets, images))
    report = build_many([*IDS, 99], tmp_path, client=client, **SMALL)
    assert not report.ok
    assert report.states == {"built": 2, "failed": 2}
    rows = table(report)
    assert rows[99]["code"] == "dataset-not-found"
    assert rows[12]["state"] == "failed"
    assert "12" in rows[12]["message"]
    assert {row.dataset for row in report.failures} == {12, 99}


def test_missing_images_leave_a_dataset_unfinished_and_the_next_run_fetches_them(records, serve, connect, tmp_path):
    fault = {"match": {"path": "section_image_download/12003"}, "do": "status", "status": 404, "times": 1}
    emulator = serve(*copies(records, IDS), faults=[fault])
    client = connect(emulator)
    report = build_many(IDS, tmp_path, client=client, **SMALL)
    assert report.states == {"built": 2, "unfinished": 1}
    assert table(report)[12]["failures"] == "1"
    emulator.reset()
    report = build_many(IDS, tmp_path, client=client, **SMALL)
    assert report.states == {"finished before": 2, "resumed": 1}
    fetched = images_fetched(emulator)
    assert fetched["/api/v2/section_image_download/12003"] == 1
    assert all("/12" in path and count == 1 for path, count in fetched.items())
    assert table(report)[12]["failures"] == "0"


def test_a_service_that_fails_for_a_while_is_asked_again_after_all_other_datasets(records, serve, connect, tmp_path):
    emulator = serve(
        *copies(records, IDS), faults=[{"match": {"path": "id$eq11]"}, "do": "status", "status": 500, "times": 1}]
    )
    report = build_many(IDS, tmp_path, client=connect(emulator, retries=0), **SMALL, workers=1)
    assert report.states == {"built": 3}
    assert [asked.status for asked in emulator.requests if "id$eq11]" in str(asked.query)] == [500, 200, 200]
    assert list(table(report)) == [12, 13, 11]


def test_datasets_are_given_as_ids_records_or_a_search_result_and_each_is_built_once(client, emulator, tmp_path):
    found = client.search()
    assert build_many(found, tmp_path / "search", client=client, **SMALL).states == {"built": 3}
    record = client.section_dataset(12)
    emulator.reset()
    report = build_many([record, 12, 12, "13"], tmp_path / "mixed", client=client, **SMALL)
    assert report.states == {"built": 2}
    assert max(images_fetched(emulator).values()) == 1


@pytest.mark.parametrize(
    ("datasets", "code"), [([], "no-datasets"), (["x"], "invalid-id"), ([-1], "invalid-id"), (12, "invalid-value")]
)
def test_datasets_that_are_none_are_refused_and_nothing_is_written(client, datasets, code, tmp_path):
    with raises(InputError, code):
        build_many(datasets, tmp_path / "root", client=client, **SMALL)
    assert not (tmp_path / "root").exists()


def test_an_invalid_option_is_refused_before_anything_is_written(client, emulator, tmp_path):
    emulator.reset()
    with raises(InputError, "unknown-option"):
        build_many(IDS, tmp_path / "root", client=client, colour="blue")
    assert not (tmp_path / "root").exists()
    assert emulator.count() == 0


def test_other_options_in_the_same_root_are_refused_with_both_shown(client, tmp_path):
    build_many(IDS[:1], tmp_path, client=client, **SMALL)
    with raises(InputError, "different-options") as caught:
        build_many(IDS, tmp_path, client=client, resolution=400, chunk=16)
    assert "resolution 200.0, not with resolution 400.0" in str(caught.value)
    report = build_many(IDS, tmp_path, client=client, resolution=400, chunk=16, overwrite=True)
    assert report.states == {"built": 3}
    assert verify(tmp_path / "11.ome.zarr").ok


def test_a_damaged_request_is_named(client, tmp_path):
    build_many(IDS[:1], tmp_path, client=client, **SMALL)
    (tmp_path / "batch" / "batch.json").write_text("{")
    with raises(InputError, "damaged-metadata") as caught:
        build_many(IDS[:1], tmp_path, client=client, **SMALL)
    assert "batch.json" in str(caught.value)
    report = build_many(IDS[:1], tmp_path, client=client, **SMALL, overwrite=True)
    assert report.states == {"already finished": 1}


@pytest.mark.first(1)
def test_a_second_batch_in_the_same_root_is_refused_while_the_first_runs(client, root):
    url, storage = root
    refused = []

    def second(_):
        if not refused:
            with raises(InputError, "target-locked") as caught:
                build_many(IDS, url, client=client, storage_options=storage, **SMALL)
            refused.append(str(caught.value))

    assert build_many(IDS[:1], url, client=client, storage_options=storage, progress=second, **SMALL).ok
    assert f"{url}/batch" in refused[0]
    assert build_many(IDS, url, client=client, storage_options=storage, **SMALL).ok


def test_a_target_that_holds_something_else_fails_its_dataset_alone(client, tmp_path):
    (tmp_path / "12.ome.zarr").mkdir()
    (tmp_path / "12.ome.zarr" / "notes.txt").write_text("mine")
    report = build_many(IDS, tmp_path, client=client, **SMALL)
    assert report.states == {"built": 2, "failed": 1}
    assert [(row.dataset, row.code) for row in report.failures] == [(12, "target-not-empty")]


def test_a_root_inside_an_image_is_refused_and_nothing_is_written(client, tmp_path):
    build(11, tmp_path / "x.ome.zarr", client=client, **SMALL)
    with raises(InputError, "target-inside-image"):
        build_many(IDS, tmp_path / "x.ome.zarr" / "many", client=client, **SMALL)
    assert not (tmp_path / "x.ome.zarr" / "many").exists()


def test_a_bucket_that_does_not_exist_ends_the_batch_with_one_sentence(client, remote):
    with raises(TargetError, "bucket-not-found"):
        build_many(IDS, "s3://nowhere/root", client=client, storage_options=remote.options, **SMALL)


def test_progress_counts_datasets_images_and_bytes_and_estimates_the_end(client, tmp_path):
    lines = []
    report = build_many(IDS, tmp_path, client=client, progress=lambda status: lines.append(str(status)), **SMALL)
    assert lines[0] == "0 of 3 datasets, 0 images, 0.0 MB"
    assert lines[-1] == f"3 of 3 datasets, 18 images, {report.stored_bytes / 1e6:.1f} MB, 0:00:00 left"
    json.dumps(report.to_dict())


def test_an_error_of_the_user_s_progress_ends_the_batch_and_the_next_run_resumes(client, tmp_path):
    class NotTodayError(Exception):
        pass

    def progress(status):
        if threading.current_thread() is threading.main_thread() and status.done == 0:
            raise NotTodayError

    with pytest.raises(NotTodayError):
        build_many(IDS, tmp_path, client=client, progress=progress, **SMALL)
    assert build_many(IDS, tmp_path, client=client, **SMALL).ok


def test_several_views_are_one_row(records, serve, connect, tmp_path):
    client = connect(serve(*copies(records, IDS[:1])))
    report = build_many(IDS[:1], tmp_path, client=client, view=("primary", "expression"), **SMALL)
    assert report.states == {"built": 1}
    assert report.images == 12
    assert (tmp_path / "11.expression.ome.zarr").exists()
    assert pd.read_csv(report.table).images.tolist() == [12]


class Careless(AllenClient):
    """A client of a user, with a mistake."""

    def section_dataset(self, id):
        """Same as in `AllenClient`, except for one dataset."""
        return 1 / 0 if id == 12 else super().section_dataset(id)


def test_an_error_that_is_not_of_atlaszarr_fails_one_dataset_and_is_named(emulator, tmp_path):
    with Careless(emulator.url, "none", rate=1e9) as client:
        report = build_many(IDS, tmp_path, client=client, **SMALL)
    assert report.states == {"built": 2, "failed": 1}
    (row,) = report.failures
    assert (row.code, row.message) == ("unexpected-error", "ZeroDivisionError: division by zero")
