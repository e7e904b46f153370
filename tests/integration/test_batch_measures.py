"""A batch that measures its volumes: one table of all datasets and structures, resumed like the batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from atlaszarr import build_many, region_statistics
from atlaszarr.errors import InputError, SchedulerError
from codes import raises
from copied_datasets import copies

EXAMPLES = Path(__file__).parents[2] / "examples"
ANNOTATION = "annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr"
IDS = (11, 12, 13)
SMALL = {"resolution": 100, "chunk": 32, "view": ("primary", "expression")}


@pytest.fixture
def client(records, serve, connect):
    datasets, images = copies(records, IDS)
    for dataset, gene in zip(datasets, ("Calb1", "Prox1", "Calb1"), strict=True):
        dataset["genes"] = [{**dataset["genes"][0], "acronym": gene}]
    return connect(serve(datasets, images))


def assert_measured(report, annotation, ids, **options):
    table = pd.read_parquet(report.measures)
    assert list(table.columns[:3]) == ["dataset", "gene", "identifier"]
    assert table["dataset"].unique().tolist() == list(ids)
    for id in ids:
        found = table[table["dataset"] == id].drop(columns=["dataset", "gene"]).set_index("identifier")
        expected = region_statistics(f"{report.root}/{id}.ome.zarr", annotation, **options)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    return table


def test_the_table_has_a_row_for_each_dataset_and_structure(client, annotation, tmp_path):
    report = build_many(IDS, tmp_path, client=client, measure=annotation, **SMALL)
    assert report.states == {"built": 3}
    table = assert_measured(report, annotation, IDS)
    assert set(zip(table["dataset"], table["gene"], strict=True)) == {(11, "Calb1"), (12, "Prox1"), (13, "Calb1")}
    assert (table["expressing"] > 0).any()
    shown = subprocess.run(
        [sys.executable, EXAMPLES / "genes_by_regions.py", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["acronym", "gene", "Calb1", "Prox1"]
    rows = table[(table["acronym"] == "root") & (table["gene"] == "Calb1")]
    assert f"{rows['density'].mean():.4f}" in shown[2]


def test_measures_by_hemisphere_are_those_of_one_volume_and_the_batch_keeps_to_them(client, annotation, tmp_path):
    given = {"client": client, "measure": annotation, **SMALL}
    with raises(InputError, "missing-option"):
        build_many(IDS[:1], tmp_path, client=client, by_hemisphere=True)
    build_many(IDS[:1], tmp_path, by_hemisphere=True, **given)
    with raises(InputError, "different-options") as caught:
        build_many(IDS[:2], tmp_path, **given)
    assert "by_hemisphere" in str(caught.value)
    report = build_many(IDS[:2], tmp_path, by_hemisphere=True, **given)
    assert report.states == {"finished before": 1, "built": 1}
    table = assert_measured(report, annotation, IDS[:2], by_hemisphere=True)
    assert (table["covered_left"] + table["covered_right"] == table["covered"]).all()


@pytest.mark.slow
def test_measures_are_added_to_a_finished_batch_and_made_once(client, annotation, tmp_path):
    assert build_many(IDS[:2], tmp_path, client=client, **SMALL).measures is None
    report = build_many(IDS, tmp_path, client=client, measure=annotation, **SMALL)
    assert report.states == {"already finished": 2, "built": 1}
    assert_measured(report, annotation, IDS)
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "batch" / "measure").iterdir()}
    report = build_many(IDS, tmp_path, client=client, measure=annotation, **SMALL)
    assert report.states == {"finished before": 3}
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert len(parts) == 3


def test_another_annotation_in_the_same_root_is_refused_with_both_shown(client, annotation, tmp_path):
    build_many(IDS[:1], tmp_path / "root", client=client, measure=annotation, **SMALL)
    other = tmp_path / "other"
    other.symlink_to(annotation.parents[3])
    with raises(InputError, "different-options") as caught:
        build_many(IDS, tmp_path / "root", client=client, measure=other / ANNOTATION, **SMALL)
    assert str(annotation) in str(caught.value)
    assert str(other) in str(caught.value)


def test_an_annotation_that_cannot_be_measured_is_refused_before_anything_is_written(client, annotation, tmp_path):
    with raises(InputError, "not-an-image"):
        build_many(IDS, tmp_path / "root", client=client, measure=tmp_path / "nowhere", **SMALL)
    with raises(InputError, "conflicting-options"):
        build_many(IDS, tmp_path / "root", client=client, measure=annotation, mode="sections")
    assert not (tmp_path / "root").exists()


@pytest.mark.slow
def test_an_annotation_that_workers_cannot_read_ends_the_batch_and_the_next_run_resumes(client, annotation, tmp_path):
    own = tmp_path / "atlas"
    shutil.copytree(annotation.parents[3], own)

    def remove(_):
        if own.exists():
            own.rename(tmp_path / "elsewhere")

    given = {"client": client, "measure": own / ANNOTATION, **SMALL}
    with raises(SchedulerError, "annotation-unreachable") as caught:
        build_many(IDS, tmp_path / "root", progress=remove, **given)
    assert str(own) in str(caught.value)
    (tmp_path / "elsewhere").rename(own)
    report = build_many(IDS, tmp_path / "root", **given)
    assert report.ok
    assert_measured(report, annotation, IDS)
