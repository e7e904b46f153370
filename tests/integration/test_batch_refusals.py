"""What a batch refuses, and what it makes of damage in its own folder; `--overwrite` and measures resume."""

import shutil
from collections import Counter

import pandas as pd
import pytest

from atlaszarr import build, build_many, verify
from atlaszarr.errors import InputError
from codes import raises
from copied_datasets import copies

ANNOTATION = "annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr"
IDS = (11, 12)
SMALL = {"resolution": 200, "chunk": 16}
MEASURED = {"resolution": 100, "chunk": 32}


@pytest.fixture
def emulator(records, serve):
    return serve(*copies(records, IDS))


@pytest.fixture
def client(emulator, connect):
    return connect(emulator)


@pytest.fixture
def given(emulator):
    """Options of every command here."""
    return ("--resolution", 200, "--chunk", 16, "--cache", "none", "--api-url", emulator.url)


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(map(str, IDS)))
    return path


def asked(emulator):
    return emulator.count("section_image_download")


@pytest.mark.parametrize("at", ["root", "root/below", "root/batch"])
def test_a_root_that_is_a_file_is_named_and_the_exit_code_is_2(at, command, given, ids, tmp_path):
    path = tmp_path / at.removesuffix("/below")
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    ran = command("batch", tmp_path / at.removesuffix("/batch"), "--ids", ids, *given)
    assert (ran.code, ran.err) == (2, f"atlaszarr: {path} is a file; choose another root\n")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_1_is_refused(limit, command, given, ids, tmp_path):
    ran = command("batch", tmp_path / "root", "--ids", ids, "--limit", limit, *given)
    assert (ran.code, ran.err) == (2, f"atlaszarr: limit {limit} must be at least 1\n")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "damaged-metadata"),
        ("[" * 10**5, "damaged-metadata"),
        ("{}", "damaged-metadata"),
        ('{"request": null}', "damaged-metadata"),
        ('{"request": {"views": [1]}}', "damaged-metadata"),
        ('{"request": {"views": {}}}', "damaged-metadata"),
        ('{"request": {"views": [{}]}, "measure": 4}', "damaged-metadata"),
        ('{"request": {"views": [{}]}}', "different-layout"),
    ],
)
def test_a_damaged_request_is_refused_and_overwrite_replaces_it(text, code, client, tmp_path):
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "batch.json").write_text(text)
    with raises(InputError, code) as caught:
        build_many(IDS[:1], tmp_path, client=client, **SMALL)
    assert str(tmp_path / "batch") in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert build_many(IDS[:1], tmp_path, client=client, overwrite=True, **SMALL).states == {"built": 1}


def test_the_same_call_with_overwrite_resumes_and_builds_no_target_again(client, emulator, tmp_path):
    build(11, tmp_path / "11.ome.zarr", client=client, resolution=400, chunk=16)
    emulator.reset()
    build_many(IDS, tmp_path, client=client, overwrite=True, **SMALL)
    assert asked(emulator) == 12
    assert verify(tmp_path / "11.ome.zarr").ok
    emulator.reset()
    again = build_many(IDS, tmp_path, client=client, overwrite=True, **SMALL)
    assert again.states == {"finished before": 2}
    shutil.rmtree(tmp_path / "batch" / "journal")  # as after a kill before the first put
    again = build_many(IDS, tmp_path, client=client, overwrite=True, **SMALL)
    assert again.states == {"already finished": 2}
    assert asked(emulator) == 0


def test_overwrite_measures_in_another_annotation_and_builds_nothing(client, emulator, annotation, tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    other.symlink_to(annotation.parents[3])
    build_many(IDS, root, client=client, measure=annotation, **MEASURED)
    emulator.reset()
    options = {"client": client, "measure": other / ANNOTATION, "overwrite": True, **MEASURED}
    report = build_many(IDS, root, **options)
    assert report.states == {"already finished": 2}
    assert asked(emulator) == 0
    assert pd.read_parquet(report.measures)["dataset"].unique().tolist() == list(IDS)
    assert build_many(IDS, root, **options).states == {"finished before": 2}
    with raises(InputError, "different-options"):
        build_many(IDS, root, client=client, measure=annotation, **MEASURED)


def test_an_annotation_whose_voxels_no_volume_has_is_refused_before_anything_is_written(client, annotation, tmp_path):
    with raises(InputError, "no-matching-level") as caught:
        build_many(IDS, tmp_path / "root", client=client, measure=annotation, **SMALL)
    assert "200 um" in str(caught.value)
    assert "--resolution 100" in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_an_annotation_of_a_level_that_the_volumes_lack_ends_the_batch(client, annotation, tmp_path):
    with raises(InputError, "no-matching-level"):
        build_many(IDS, tmp_path, client=client, measure=annotation, resolution=50, levels=1, workers=1)


def test_a_part_of_the_measures_that_is_lost_is_made_again_and_a_damaged_one_is_named(client, annotation, tmp_path):
    options = {"client": client, "measure": annotation, **MEASURED}
    report = build_many(IDS, tmp_path, **options)
    table = pd.read_parquet(report.measures)
    part = tmp_path / "batch" / "measure" / "12.parquet"
    whole = part.read_bytes()
    for damaged in (b"", whole[:-100], whole[:200] + bytes(200) + whole[400:]):
        part.write_bytes(damaged)
        with raises(InputError, "damaged-measures") as caught:
            build_many(IDS, tmp_path, **options)
        assert str(part) in str(caught.value)
    part.unlink()
    report = build_many(IDS, tmp_path, **options)
    assert Counter(report.states) == {"finished before": 1, "already finished": 1}
    pd.testing.assert_frame_equal(pd.read_parquet(report.measures), table)


def test_a_batch_in_which_all_datasets_fail_has_no_table_of_measures(client, annotation, tmp_path):
    report = build_many([99], tmp_path, client=client, measure=annotation, **MEASURED)
    assert report.states == {"failed": 1}
    assert report.measures is None
    assert not (tmp_path / "batch" / "measure.parquet").exists()


@pytest.mark.parametrize("option", [{"view": ("primary", "expression")}, {"quality": 50}])
def test_options_that_an_image_source_lacks_are_refused_before_anything_is_written(option, emulator, connect, tmp_path):
    (tmp_path / "slides").mkdir()
    client = connect(emulator, image_source=tmp_path / "slides")
    emulator.reset()
    with raises(InputError, "not-in-image-source"):
        build_many(IDS, tmp_path / "root", client=client, **option, **SMALL)
    assert not (tmp_path / "root").exists()
    assert emulator.count() == 0
