"""build and plan: exact in their requests and objects; readable by other libraries; resumed after a stop."""

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from fractions import Fraction
from pathlib import Path

import ngff_zarr
import numpy as np
import pytest
import tensorstore
import yaozarrs
import zarr

from atlaszarr import AllenClient, build, open_volume, plan, verify
from atlaszarr.engine.downsampling import reduce
from atlaszarr.errors import InputError, RecordError, TargetError
from atlaszarr.testing.emulator import Emulator
from codes import raises

CORONAL, SAGITTAL = 74272479, 69289763


@pytest.fixture(scope="module")
def server():
    with Emulator() as running:
        yield running


@pytest.fixture
def emulator(server):
    server.reset()
    return server


@pytest.fixture
def client(emulator):
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        yield client


def objects(target):
    return sorted(p.relative_to(target).as_posix() for p in Path(target).rglob("*") if p.is_file())


def digests(target):
    """Digests of the array chunks and the zarr metadata, which must be byte-identical."""
    return {
        name: hashlib.sha256((Path(target) / name).read_bytes()).hexdigest()
        for name in objects(target)
        if not name.startswith("atlaszarr/")
    }


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (CORONAL, {"resolution": 100}),
        (CORONAL, {"resolution": 100, "chunk": 16, "fill": "none"}),
        (CORONAL, {"resolution": 200, "levels": 1}),
        (SAGITTAL, {"resolution": 100, "chunk": 32, "fill": "linear", "levels": 3}),
        (SAGITTAL, {"resolution": 100, "view": ("primary", "expression"), "downsample": 6}),
        (SAGITTAL, {"resolution": 100, "chunk": 16, "shard": 64}),
        (SAGITTAL, {"resolution": 100, "chunk": 32, "ome_zarr": "0.4"}),
        (CORONAL, {"resolution": 100, "chunk": 16, "shard": 32, "ome_zarr": "0.6"}),
    ],
)
def test_a_plan_is_exact_in_requests_pixels_tasks_and_objects(emulator, client, tmp_path, dataset, options):
    plans = plan(dataset, client=client, **options)
    assert emulator.count("section_image_download") == 0
    assert emulator.count() == plans[0].metadata_requests
    emulator.reset()
    target = tmp_path / "x.ome.zarr"
    report = build(dataset, target, client=client, **options)
    requests = [r for r in emulator.requests if r.kind == "section_image_download"]
    assert emulator.count() == sum(p.requests for p in plans)
    assert len({(r.path, str(r.query)) for r in requests}) == len(requests)
    assert sum(p.tasks for p in plans) == len(requests) + sum(view.tasks_done for view in report.views)
    for one, view in zip(plans, report.views, strict=True):
        assert len(objects(view.target)) == one.objects
        with (Path(view.target) / "atlaszarr/sections.csv").open() as file:
            used = [row for row in csv.DictReader(file) if row["state"] == "used"]
        assert len(used) == one.image_requests
        assert sum(int(row["width"]) * int(row["height"]) for row in used) == one.pixels
        for path in ("", "labels/section"):
            read = ngff_zarr.from_ngff_zarr(str(Path(view.target) / path), validate=True)
            assert len(read.images) == one.levels
        assert verify(view.target, deep=True).ok


def test_an_image_is_requested_for_each_of_the_59_of_60_sections_inside_the_space(emulator, client, tmp_path):
    # Section 5 is behind the posterior end of the reference space: its p is at least 13360 um.
    build(CORONAL, tmp_path / "x.ome.zarr", client=client, resolution=50)
    assert emulator.count("section_image_download") == 59
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.ome.zarr/atlaszarr/sections.csv").read_text())))
    assert [(row["image_id"], row["state"]) for row in rows if row["state"] != "used"] == [("74081149", "outside")]
    assert len(rows) == 60


def test_a_second_build_with_the_cache_requests_no_image(emulator, tmp_path):
    with AllenClient(emulator.url, cache=tmp_path / "cache", rate=1e9) as client:
        for name in ("first", "second"):
            emulator.reset()
            build(SAGITTAL, tmp_path / f"{name}.ome.zarr", client=client, resolution=100)
            assert emulator.count("section_image_download") == {"first": 18, "second": 0}[name]
        (planned,) = plan(SAGITTAL, client=client, resolution=100)
        assert (planned.image_requests, planned.images_cached, planned.pixels) == (0, 18, 0)
    assert digests(tmp_path / "first.ome.zarr") == digests(tmp_path / "second.ome.zarr")


@pytest.fixture(scope="session")
def target(made_once):
    def make(target):
        with Emulator() as running, AllenClient(running.url, cache="none", rate=1e9) as client:
            build(CORONAL, target, client=client, resolution=100)

    return made_once("nrp1.ome.zarr", make)


def test_ngff_zarr_opens_and_validates_image_and_label(target):
    read = ngff_zarr.from_ngff_zarr(str(target), validate=True)
    assert [image.data.shape for image in read.images] == [
        (3, 132, 80, 114),
        (3, 66, 40, 57),
        (3, 33, 20, 29),
    ]
    first = read.images[0]
    assert first.dims == ("c", "z", "y", "x")
    assert {axis: first.axes_units[axis] for axis in "zyx"} == dict.fromkeys("zyx", "millimeter")
    assert {axis: first.axes_orientations[axis].value.value for axis in "zyx"} == {
        "z": "anterior-to-posterior",
        "y": "superior-to-inferior",
        "x": "left-to-right",
    }
    assert [channel.color for channel in read.metadata.omero.channels] == ["FF0000", "00FF00", "0000FF"]
    label = ngff_zarr.from_ngff_zarr(str(target / "labels/section"), validate=True)
    assert label.images[0].dims == ("z", "y", "x")


def test_every_level_has_the_extent_of_the_reference_space(target):
    for path in (target, target / "labels/section"):
        read = ngff_zarr.from_ngff_zarr(str(path))
        for level, image in enumerate(read.images):
            size = 100 * 2**level
            for axis, extent in zip("zyx", (13200, 8000, 11400), strict=True):
                n = image.data.shape[image.dims.index(axis)]
                assert n == -(-extent // size)
                mm = image.translation[axis] + image.scale[axis] * np.arange(n)
                np.testing.assert_allclose(1000 * mm + 5, (np.arange(n) + 0.5) * size, rtol=0, atol=1e-6)


def test_tensorstore_zarr_and_yaozarrs_read_the_same_values(target):
    yaozarrs.validate_zarr_store(str(target))
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(target / "1")}}
    found = tensorstore.open(spec, open=True).result().read().result()
    np.testing.assert_array_equal(found, zarr.open_array(target / "1", mode="r")[:])
    assert found.any()


def test_a_build_is_equal_to_what_open_volume_computes(target, client):
    volume = open_volume(CORONAL, resolution=100, client=client).compute()
    np.testing.assert_array_equal(zarr.open_array(target / "0", mode="r")[:], volume.image)
    np.testing.assert_array_equal(zarr.open_array(target / "labels/section/0", mode="r")[:], volume.section)


def test_a_level_is_background_exactly_where_its_section_is_0(target):
    root = zarr.open_group(target, mode="r")
    for level in range(3):
        image, section = root[str(level)][:], root[f"labels/section/{level}"][:]
        assert (image[:, section == 0] == 0).all()
        # Paper and tissue of the phantom are bright: background does not darken a voxel inside the image.
        assert image[:, section > 0].max(axis=0).min() > 60


@pytest.mark.parametrize("name", ["0", "labels/section/1"])
def test_a_flipped_bit_fails_the_checksum_of_an_array(target, tmp_path, name):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(target / name, copy)
    chunk = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    body = bytearray(chunk.read_bytes())
    body[len(body) // 2] ^= 1
    chunk.write_bytes(body)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(copy, mode="r")[:]


def test_build_json_has_all_that_is_needed_to_build_the_target_again(target, client, tmp_path):
    document = json.loads((target / "atlaszarr/build.json").read_text())
    assert document["anchor_um"] == 10
    assert document["request"]["dataset"] == CORONAL
    assert "citation" in document["credit"]
    from atlaszarr import SectionDataset

    dataset = SectionDataset.from_dict(document["dataset"])
    options = {k: v for k, v in document["request"].items() if k not in ("dataset", "layout", "records_sha256")}
    again = tmp_path / "nrp1.ome.zarr"
    build(dataset, again, client=client, **options)
    assert digests(again) == digests(target)


def test_a_finished_target_is_not_changed(target, emulator, client):
    before = {name: (Path(target) / name).stat().st_mtime_ns for name in objects(target)}
    report = build(CORONAL, target, client=client, resolution=100)
    assert report.ok
    assert report.views[0].state == "already finished"
    assert emulator.count("section_image_download") == 0
    assert before == {name: (Path(target) / name).stat().st_mtime_ns for name in objects(target)}


def set_first_layout(target):
    """Turn a finished target into one of the first layout, whose root records no layout number."""
    path = target / "zarr.json"
    document = json.loads(path.read_text())
    del document["attributes"]["atlaszarr"]["request"]["layout"]
    path.write_text(json.dumps(document))


def test_a_target_of_another_layout_is_neither_resumed_nor_verified(target, client, tmp_path):
    older = tmp_path / "older.ome.zarr"
    shutil.copytree(target, older)
    set_first_layout(older)
    for run in (lambda: build(CORONAL, older, client=client, resolution=100), lambda: verify(older)):
        before = objects(older)
        with raises(InputError, "different-layout") as caught:
            run()
        assert "layout 1" in str(caught.value)
        assert "layout 2" in str(caught.value)
        assert objects(older) == before
    build(CORONAL, older, client=client, resolution=100, overwrite=True)
    assert digests(older) == digests(target)


def test_a_mirrored_build_records_it_in_build_json_and_its_metadata(client, tmp_path):
    target = tmp_path / "x.ome.zarr"
    build(CORONAL, target, client=client, resolution=400, mirror=True)
    assert json.loads((target / "atlaszarr/build.json").read_text())["request"]["mirror"] is True
    assert json.loads((target / "zarr.json").read_text())["attributes"]["atlaszarr"]["request"]["mirror"] is True
    with raises(InputError, "different-options") as caught:
        build(CORONAL, target, client=client, resolution=400)
    assert "mirror True" in str(caught.value)


def test_a_target_of_other_options_is_refused_with_both_named(target, client):
    with raises(InputError, "different-options") as caught:
        build(CORONAL, target, client=client, resolution=100, fill="linear")
    assert all(text in str(caught.value) for text in ("fill nearest", "fill linear", "--overwrite"))


def test_overwrite_replaces_another_build_of_atlaszarr(client, tmp_path):
    target = tmp_path / "x.ome.zarr"
    build(SAGITTAL, target, client=client, resolution=200)
    report = build(SAGITTAL, target, client=client, resolution=100, overwrite=True)
    assert report.views[0].state == "built"
    fresh = tmp_path / "fresh" / "x.ome.zarr"
    build(SAGITTAL, fresh, client=client, resolution=100)
    assert digests(target) == digests(fresh)


@pytest.mark.parametrize("overwrite", [False, True])
def test_data_that_atlaszarr_did_not_write_is_never_changed(client, tmp_path, overwrite):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("do not lose")
    group = tmp_path / "other.zarr"
    zarr.create_group(group)
    for target, code in ((folder, "target-not-empty"), (group, "not-atlaszarr")):
        before = {name: (target / name).read_bytes() for name in objects(target)}
        with raises(InputError, code):
            build(SAGITTAL, target, client=client, resolution=200, overwrite=overwrite)
        assert {name: (target / name).read_bytes() for name in objects(target)} == before


def test_an_unfinished_target_is_not_an_image_and_is_resumed(emulator, client, tmp_path):
    target = tmp_path / "x.ome.zarr"

    class StopError(Exception):
        pass

    def stop_after_three_blocks(done, _total, word):
        if (done, word) == (3, "blocks"):
            raise StopError

    options = {"client": client, "resolution": 200, "chunk": 16}
    with pytest.raises(StopError):
        build(CORONAL, target, progress=stop_after_three_blocks, **options)
    attributes = json.loads((target / "zarr.json").read_text())["attributes"]
    assert attributes["atlaszarr"]["state"] == "unfinished"
    assert "ome" not in attributes
    with pytest.raises((ValueError, KeyError)):
        ngff_zarr.from_ngff_zarr(str(target), validate=True)
    (planned,) = plan(CORONAL, **options)
    emulator.reset()
    report = build(CORONAL, target, **options)
    assert report.views[0].state == "resumed"
    assert report.views[0].tasks_done <= planned.tasks - planned.image_requests - 3
    fresh = tmp_path / "fresh" / "x.ome.zarr"
    build(CORONAL, fresh, **options)
    assert digests(target) == digests(fresh)
    assert len(objects(target)) == planned.objects


def test_views_after_the_first_are_written_next_to_the_target(client, tmp_path):
    target = tmp_path / "prox1.ome.zarr"
    build(SAGITTAL, target, client=client, resolution=200, view=("primary", "expression"))
    images = [ngff_zarr.from_ngff_zarr(str(p), validate=True) for p in (target, tmp_path / "prox1.expression.ome.zarr")]
    primary, expression = (np.asarray(image.images[0].data) for image in images)
    assert primary.shape == expression.shape
    assert np.abs(primary.astype(int) - expression).mean() > 10


def test_each_level_is_its_parent_downsampled_as_a_whole(target):
    root = zarr.open_group(target, mode="r")
    for level in range(2):
        image, section = root[str(level)][:], root[f"labels/section/{level}"][:]
        halved = reduce(image, (Fraction(2),) * 3, "mean", mask=section)
        np.testing.assert_array_equal(root[str(level + 1)][:], halved)
        halved = reduce(section, (Fraction(2),) * 3, "mode_of_nonzero")
        np.testing.assert_array_equal(root[f"labels/section/{level + 1}"][:], halved)


def test_a_build_stopped_during_a_repair_leaves_no_coarse_chunk_of_the_old_state(client, tmp_path):
    """The blocks are computed again, then the run ends before the coarser levels: they must not count as done."""

    class StopError(Exception):
        pass

    target, options = tmp_path / "x.ome.zarr", {"resolution": 200, "chunk": 16}
    rule = {"match": {"path": "section_image_download/74081221"}, "do": "status", "status": 404, "times": None}
    with Emulator(faults=[rule]) as broken, AllenClient(broken.url, cache="none", rate=1e9) as lacking:
        dataset = lacking.section_dataset(CORONAL)
        assert build(dataset, target, client=lacking, allow_missing=True, **options).ok
    assert 74081221 not in zarr.open_array(target / "labels/section/0", mode="r")[:]

    def stop_once_blocks_are_done(_done, _total, word):
        if word.startswith("level"):
            raise StopError

    with pytest.raises(StopError):
        build(dataset, target, client=client, progress=stop_once_blocks_are_done, **options)
    assert build(dataset, target, client=client, **options).views[0].state == "resumed"
    fresh = tmp_path / "fresh" / "x.ome.zarr"
    build(dataset, fresh, client=client, **options)
    assert digests(target) == digests(fresh)


def test_nothing_is_written_after_a_build_has_ended_in_an_error(client, tmp_path):
    """A block that still waits for an image then must not write into the target of a later build."""

    class StopError(Exception):
        pass

    def stop(done, _total, word):
        if done and word == "blocks":
            raise StopError

    target, options = tmp_path / "x.ome.zarr", {"resolution": 200, "chunk": 16}
    hang = {"match": {"path": "section_image_download"}, "do": "hang", "seconds": 2, "times": None, "after": 12}
    with Emulator(faults=[hang]) as slow, AllenClient(slow.url, cache="none", rate=1e9, timeout=(5, 5)) as waiting:
        dataset = waiting.section_dataset(SAGITTAL)
        with pytest.raises(StopError):
            build(dataset, target, client=waiting, progress=stop, **options)
        build(dataset, target, client=client, overwrite=True, background=200, **options)
        before = digests(target), objects(target)
    # Leaving the emulator's context waits for the requests that hang.
    assert (digests(target), objects(target)) == before


def test_an_overwrite_that_was_stopped_is_resumed(client, tmp_path):
    target = tmp_path / "x.ome.zarr"
    build(SAGITTAL, target, client=client, resolution=200)
    root = json.loads((target / "zarr.json").read_text())
    root["attributes"]["atlaszarr"]["state"] = "removing"
    (target / "zarr.json").write_text(json.dumps(root))
    shutil.rmtree(target / "0")
    assert build(SAGITTAL, target, client=client, resolution=100).views[0].state == "built"
    ngff_zarr.from_ngff_zarr(str(target), validate=True)


def test_the_targets_of_all_views_are_validated_before_anything_is_written(emulator, client, tmp_path):
    other = tmp_path / "x.expression.ome.zarr"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with raises(InputError, "target-not-empty") as caught:
        build(SAGITTAL, tmp_path / "x.ome.zarr", client=client, resolution=200, view=("primary", "expression"))
    assert "x.expression.ome.zarr" in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()
    assert emulator.count("section_image_download") == 0


def test_an_image_that_changed_at_the_source_while_a_build_was_stopped_is_named(client, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, _total, word):
        if (done, word) == (3, "blocks"):
            raise StopError

    target, options = tmp_path / "x.ome.zarr", {"resolution": 200, "chunk": 16}
    with pytest.raises(StopError):
        build(CORONAL, target, client=client, progress=stop, **options)
    with Emulator(quality=60) as changed, AllenClient(changed.url, cache="none", rate=1e9) as other:
        for _ in range(2):  # the second run refuses it too
            with raises(TargetError, "image-changed") as caught:
                build(CORONAL, target, client=other, **options)
            assert str(target) in str(caught.value)
        assert build(CORONAL, target, client=other, overwrite=True, **options).ok


def test_allowed_missing_images_stay_allowed_when_others_are_filled(tmp_path):
    target, options = tmp_path / "x.ome.zarr", {"resolution": 100}

    def lacking(*ids):
        rules = [
            {"match": {"path": f"section_image_download/{id}"}, "do": "status", "status": 404, "times": None}
            for id in ids
        ]
        return Emulator(faults=rules)

    with lacking(69177654, 69177634) as api, AllenClient(api.url, cache="none", rate=1e9) as two:
        assert build(SAGITTAL, target, client=two, allow_missing=True, **options).ok
        assert build(SAGITTAL, target, client=two, **options).ok
    with lacking(69177654) as api, AllenClient(api.url, cache="none", rate=1e9) as one:
        report = build(SAGITTAL, target, client=one, **options)
    assert report.ok
    assert [failure.request.image_id for failure in report.views[0].failures] == [69177654]
    ngff_zarr.from_ngff_zarr(str(target), validate=True)
    assert 69177634 in zarr.open_array(target / "labels/section/0", mode="r")[:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": "abc"},
        {"resolution": None},
        {"quality": "95"},
        {"range": 5},
        {"chunk": 64.0},
        {"downsample": 1.5},
        {"background": 1.5},
        {"shard": 100},
        {"shard": 128, "ome_zarr": "0.4"},
        {"ome_zarr": "1.0"},
        {"downsample": True},
        {"resolution": 1},
        {"workers": -1},
        {"view": "x-ray"},
        {"view": ("primary", "primary")},
        {"storage_options": {"a": {1}}},
    ],
    ids=str,
)
def test_an_invalid_option_is_refused_by_name(client, tmp_path, wrong):
    with pytest.raises(InputError) as caught:
        build(SAGITTAL, "memory://x" if "storage_options" in wrong else tmp_path / "x", client=client, **wrong)
    assert next(iter(wrong)).split("_")[0] in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_auto_is_the_default_of_levels_and_downsample(client):
    assert plan(SAGITTAL, client=client, levels="auto", downsample="auto") == plan(SAGITTAL, client=client)


def test_a_dataset_without_a_section_inside_the_grid_is_refused(client, tmp_path):
    dataset = client.section_dataset(CORONAL)
    behind = dataclasses.replace(dataset, sections=dataset.sections[:1])
    with raises(RecordError, "no-section-in-grid") as caught:
        build(behind, tmp_path / "x.ome.zarr", client=client, resolution=100)
    assert str(CORONAL) in str(caught.value)
    assert not (tmp_path / "x.ome.zarr").exists()


def test_progress_counts_images_and_then_blocks_up_to_their_totals(emulator, client, tmp_path):
    emulator.reset()
    calls = {}
    options = {
        "client": client,
        "resolution": 200,
        "progress": lambda *call: calls.setdefault(call[2], []).append(call),
    }
    build(CORONAL, tmp_path / "x.ome.zarr", **options)
    assert list(calls)[:2] == ["images", "blocks"]
    assert calls["images"][-1][0] == emulator.count("section_image_download") > 1
    for steps in calls.values():
        done, totals, _ = zip(*steps, strict=True)
        assert list(done) == sorted(done)
        assert (done[0], done[-1], set(totals)) == (0, totals[0], {totals[0]})
    calls.clear()
    build(CORONAL, tmp_path / "x.ome.zarr", **options)
    assert not calls


def test_progress_counts_the_missing_images_that_are_fetched_again(serve, connect, tmp_path):
    missing = {"match": {"path": "section_image_download"}, "do": "status", "status": 404, "times": 2}
    calls = []
    options = {"client": connect(serve(faults=[missing])), "resolution": 200}
    report = build(CORONAL, tmp_path / "x.ome.zarr", **options)
    assert len(report.views[0].failures) == 2
    build(CORONAL, tmp_path / "x.ome.zarr", progress=lambda *call: calls.append(call), **options)
    assert calls[:2] == [(1, 2, "missing images"), (2, 2, "missing images")]
