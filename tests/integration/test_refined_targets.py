"""Targets, plans and commands with fields: what they record, resume and refuse, and where fields are read from."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client

from atlaszarr import (
    Displacement,
    RefinedFields,
    build,
    build_many,
    iter_sections,
    open_sections,
    open_volume,
    plan,
    preview,
    verify,
)
from atlaszarr.errors import InputError, NotFoundError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.sections.refined import DOCUMENT, alignment_digest, refinement_document
from atlaszarr.writing import write_multiscales
from codes import raises
from copied_datasets import copies
from refined_folders import pixels, wave, write_refinement

#: The dataset of `dataset`: coronal, six sections 100 um apart.
DATASET = 74272479
OPTIONS = {"resolution": 100, "chunk": 32}
FLAT = {"mode": "sections", "resolution": 100, "chunk": 64}


@pytest.fixture
def client(serve, connect):
    return connect(serve())


@pytest.fixture
def ids(dataset):
    return [section.image_id for section in dataset.sections]


@pytest.fixture
def fields(tmp_path, dataset, ids):
    """A refinement with a correction of 40 um, of the fifth section 120 um; the last section keeps its registration."""
    values = {id: wave(dataset, 200.0 + 20 * k)[0] for k, id in enumerate(ids[:-1])}
    return write_refinement(tmp_path / "fields", dataset, dict.fromkeys(ids, 40.0) | {ids[4]: 120.0}, values)


def table(target):
    with (Path(target) / "atlaszarr/sections.csv").open() as file:
        return {int(row["image_id"]): row for row in csv.DictReader(file)}


def document(target, name="atlaszarr/build.json"):
    return json.loads((Path(target) / name).read_text())


@pytest.mark.parametrize("options", [OPTIONS, FLAT], ids=["volume", "sections"])
def test_a_target_records_its_fields_and_both_depths(client, dataset, ids, fields, tmp_path, options):
    target = tmp_path / "x.ome.zarr"
    assert build(dataset, target, fields=fields, client=client, **options).ok
    assert verify(target, deep=True).ok
    made = document(target)
    digest = RefinedFields.open(fields).digest
    assert made["request"]["fields_sha256"] == digest
    recorded = made["fields"]
    assert (recorded["location"], recorded["sha256"]) == (str(fields), digest)
    assert recorded["depth_corrections_um"] == {str(id): 120.0 if id == ids[4] else 40.0 for id in ids}
    assert recorded["refined"] == sorted(ids[:-1])
    assert "out_of_order" not in recorded
    assert made["dataset"] == json.loads(json.dumps(dataset.to_dict()))
    rows = table(target)
    assert [rows[id]["registration"] for id in ids] == [*["refined"] * 5, "depth only"]
    for section in dataset.sections:
        row = rows[section.image_id]
        moved = 120.0 if section.image_id == ids[4] else 40.0
        assert (float(row["depth_recorded_um"]), float(row["depth_um"])) == (section.depth, section.depth + moved)
    label = target / ("labels/section" if options is OPTIONS else "4/labels/section") / "zarr.json"
    properties = json.loads(label.read_text())["attributes"]["ome"]["image-label"]["properties"]
    (fifth,) = [one for one in properties if one["label-value"] == ids[4]]
    assert fifth["depth_um"] == fifth["depth_recorded_um"] + 120.0


def test_the_same_fields_resume_a_target_and_others_are_refused_with_both_digests(
    client, dataset, ids, fields, tmp_path
):
    target = tmp_path / "x.ome.zarr"
    assert build(dataset, target, fields=fields, client=client, **OPTIONS).views[0].state == "built"
    moved = (fields).rename(tmp_path / "elsewhere")
    assert build(dataset, target, fields=moved, client=client, **OPTIONS).views[0].state == "already finished"
    other = write_refinement(tmp_path / "other", dataset, dict.fromkeys(ids, 50.0), {})
    with raises(InputError, "different-options") as caught:
        build(dataset, target, fields=other, client=client, **OPTIONS)
    for folder in (moved, other):
        assert RefinedFields.open(folder).digest in str(caught.value)
    with raises(InputError, "different-options") as caught:
        build(dataset, target, client=client, **OPTIONS)
    assert "no fields_sha256" in str(caught.value)
    assert build(dataset, target, fields=other, client=client, overwrite=True, **OPTIONS).ok
    assert document(target)["fields"]["location"] == str(other)


def test_a_damaged_chunk_is_repaired_with_the_fields(client, dataset, fields, tmp_path, contents):
    target = tmp_path / "x.ome.zarr"
    build(dataset, target, fields=fields, client=client, **OPTIONS)
    before = contents(target)
    chunk = max((target / "0/c").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    chunk.write_bytes(b"damaged")
    assert build(dataset, target, fields=fields, client=client, **OPTIONS).views[0].state == "resumed"
    assert contents(target) == before


@pytest.mark.parametrize("options", [OPTIONS, FLAT], ids=["volume", "sections"])
def test_sections_may_pass_each_other_and_coincide(client, dataset, ids, tmp_path, options):
    step = dataset.nominal_interval
    corrections = dict.fromkeys(ids, 0.0) | {ids[1]: 1.5 * step, ids[3]: step}
    folder = write_refinement(tmp_path / "fields", dataset, corrections, {ids[1]: wave(dataset, 50.0)[0]})
    target = tmp_path / "x.ome.zarr"
    blended = {"fill": "linear"} if options is OPTIONS else {}
    assert build(dataset, target, fields=folder, client=client, **options, **blended).ok
    assert verify(target, deep=True).ok
    assert document(target)["fields"]["out_of_order"] == [ids[1]]
    assert list(table(target)) == [ids[k] for k in (0, 2, 1, 3, 4, 5)]
    if options is OPTIONS:
        section = zarr.open_array(target / "labels/section/0", mode="r")[:]
        # p falls where depth grows, so voxels along -p take the sections in the order of their depths.
        line = section[::-1, 40, 57]
        assert [int(id) for k, id in enumerate(line) if id and id != line[k - 1]] == list(table(target))


def test_sections_that_a_refinement_lacks_keep_their_registration(client, dataset, ids, tmp_path):
    folder = write_refinement(tmp_path / "fields", dataset, {ids[0]: 0.0}, {ids[0]: wave(dataset, 300.0)[0]})
    builds = [tmp_path / name for name in ("plain", "refined")]
    for target, given in zip(builds, (None, folder), strict=True):
        build(dataset, target, fields=given, client=client, **FLAT)
    rows = table(builds[1])
    assert [rows[id]["registration"] for id in ids] == ["refined", *["recorded"] * 5]
    plain, refined = ([zarr.open_array(target / f"{k}/0", mode="r")[:] for k in range(6)] for target in builds)
    assert [np.array_equal(a, b) for a, b in zip(plain, refined, strict=True)] == [False, *[True] * 5]


def test_a_cluster_reads_the_fields_on_its_workers(client, cluster, dataset, fields, tmp_path, contents):
    targets = [tmp_path / name for name in ("threads", "cluster")]
    for target, scheduler in zip(targets, ("threads", cluster.scheduler_address), strict=True):
        assert build(dataset, target, fields=fields, client=client, scheduler=scheduler, **OPTIONS).ok
    assert contents(targets[0]) == contents(targets[1])


@pytest.mark.slow
def test_a_lazy_volume_with_fields_is_computed_on_a_cluster(client, cluster, dataset, fields):
    opened = open_volume(dataset, client=client, fields=fields, **OPTIONS)
    expected = opened.image.values
    with Client(cluster):
        np.testing.assert_array_equal(opened.image.compute().values, expected)
    assert expected.any()


def test_a_lazy_volume_whose_fields_are_removed_names_them_on_a_cluster(client, cluster, dataset, ids, tmp_path):
    values = {id: wave(dataset, 260.0 + 3 * k)[0] for k, id in enumerate(ids)}  # which its workers have not read
    folder = write_refinement(tmp_path / "gone", dataset, dict.fromkeys(ids, 40.0), values)
    opened = open_volume(dataset, client=client, fields=folder, **OPTIONS)
    shutil.rmtree(folder)
    with Client(cluster), raises(InputError, "field-damaged") as caught:
        opened.image.compute()
    assert str(folder) in str(caught.value)


def test_fields_in_the_memory_of_this_process_serve_its_threads_alone(client, cluster, dataset, ids, tmp_path):
    url = f"memory://{tmp_path.name}/fields"
    write_refinement(url, dataset, dict.fromkeys(ids, 40.0), {ids[2]: wave(dataset)[0]})
    with raises(InputError, "target-in-memory"):
        build(dataset, tmp_path / "x", fields=url, client=client, scheduler=cluster.scheduler_address, **OPTIONS)
    assert build(dataset, tmp_path / "x", fields=url, client=client, **OPTIONS).ok
    assert document(tmp_path / "x")["fields"]["location"] == url


def test_fields_in_any_store_build_the_same_target(client, dataset, ids, fields, store, tmp_path, contents):
    values = {id: wave(dataset, 200.0 + 20 * k)[0] for k, id in enumerate(ids[:-1])}
    url = str(store.url("fields"))
    corrections = dict.fromkeys(ids, 40.0) | {ids[4]: 120.0}
    write_refinement(url, dataset, corrections, values, options=store.options)
    targets = [tmp_path / f"{name}.ome.zarr" for name in ("near", "far", "opened")]
    for target, given in zip(targets, (fields, url, RefinedFields.open(url, store.options)), strict=True):
        more = {"storage_options": store.options} if given is url else {}
        assert build(dataset, target, fields=given, client=client, **more, **OPTIONS).ok
    assert contents(targets[0]) == contents(targets[1]) == contents(targets[2])
    text = (targets[1] / "atlaszarr/build.json").read_text()
    assert all(str(secret) not in text for secret in store.options.values() if len(str(secret)) > 5)


def test_a_batch_on_this_disk_reads_the_fields_of_another_store(client, dataset, ids, remote, tmp_path):
    url = str(remote.url("batch"))
    write_refinement(f"{url}/{DATASET}", dataset, dict.fromkeys(ids, 40.0), {}, options=remote.options)
    options = {"fields": url, "client": client, **OPTIONS}
    report = build_many([DATASET], tmp_path / "root", storage_options=remote.options, **options)
    assert report.states == {"built": 1}
    assert document(tmp_path / f"root/{DATASET}.ome.zarr")["fields"]["location"] == f"{url}/{DATASET}"
    for path in (tmp_path / "root/batch").rglob("*.json"):
        assert remote.options["secret"] not in path.read_text()


def test_storage_options_that_nothing_takes_are_refused(client, dataset, fields, tmp_path):
    with raises(InputError, "not-supported"):
        build(dataset, tmp_path / "x", fields=fields, storage_options={"anon": True}, client=client, **OPTIONS)
    assert not (tmp_path / "x").exists()


def test_fields_on_a_web_server_build_the_same_target(client, dataset, fields, web, tmp_path, contents):
    for name, given in (("near", fields), ("far", f"{web}/fields")):
        assert build(dataset, tmp_path / name, fields=given, client=client, **OPTIONS).ok
    assert contents(tmp_path / "near") == contents(tmp_path / "far")


@pytest.mark.parametrize("opener", [open_volume, open_sections])
def test_the_keys_of_a_lazy_dataset_depend_on_the_fields(client, dataset, ids, fields, tmp_path, opener):
    other = write_refinement(tmp_path / "other", dataset, dict.fromkeys(ids, 40.0), {ids[1]: wave(dataset, 50.0)[0]})
    own = [{ids[1]: Displacement.from_affine((80, 114), [[3.0, 0.0, x], [0.0, 3.0, 0.0]])} for x in (5.0, 9.0)]
    names = [
        opener(dataset, 100, client=client, fields=given).image.data.name
        for given in (None, fields, RefinedFields.open(fields), other, *own)
    ]
    assert names[1] == names[2]
    assert len(set(names)) == 5


@pytest.mark.parametrize("mode", ["volume", "sections"])
def test_a_lazy_dataset_with_fields_is_written_as_build_writes_it(
    client, dataset, ids, fields, tmp_path, contents, mode
):
    options = OPTIONS if mode == "volume" else FLAT
    build(dataset, tmp_path / "built", fields=fields, client=client, **options)
    opener = open_volume if mode == "volume" else open_sections
    given = {name: value for name, value in options.items() if name != "mode"}
    opened = opener(dataset, client=client, fields=fields, **given)
    write_multiscales(opened, tmp_path / "written")
    assert contents(tmp_path / "written") == contents(tmp_path / "built")
    assert table(tmp_path / "written") == table(tmp_path / "built")
    assert document(tmp_path / "written")["fields"] == document(tmp_path / "built")["fields"]
    write_multiscales(opened.assign(image=opened.image // 2), tmp_path / "changed")
    rows = table(tmp_path / "changed")
    assert float(rows[ids[4]]["depth_um"]) == float(rows[ids[4]]["depth_recorded_um"]) + 120.0


def test_a_dataset_from_a_file_has_the_depths_of_its_fields(client, dataset, ids, fields, tmp_path):
    open_volume(dataset, client=client, fields=fields, **OPTIONS).to_zarr(
        tmp_path / "x.zarr", zarr_format=2, consolidated=False
    )
    kept = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    write_multiscales(kept, tmp_path / "x.ome.zarr")
    rows = table(tmp_path / "x.ome.zarr")
    assert [rows[id]["registration"] for id in ids] == [*["refined"] * 5, "depth only"]
    assert float(rows[ids[0]]["depth_um"]) == float(rows[ids[0]]["depth_recorded_um"]) + 40.0
    assert document(tmp_path / "x.ome.zarr")["fields"]["sha256"] == RefinedFields.open(fields).digest


def test_sections_are_iterated_at_their_corrected_places(client, dataset, ids, fields):
    plain = {section.image_id: section for section in iter_sections(dataset, resolution=100, client=client)}
    moved = {
        section.image_id: section for section in iter_sections(dataset, resolution=100, client=client, fields=fields)
    }
    for id in ids:
        shift = moved[id].coordinate - plain[id].coordinate
        assert shift == pytest.approx(-120.0 if id == ids[4] else -40.0, rel=0.02)  # p falls where depth grows
    field, alignment = moved[ids[0]].displacement, plain[ids[0]].displacement
    assert isinstance(field, Displacement)
    assert field.norm.max() > alignment.norm.min()
    assert moved[ids[5]].displacement != alignment


def test_written_displacements_are_those_of_the_fields(client, dataset, ids, fields, tmp_path):
    target = tmp_path / "x.ome.zarr"
    assert build(dataset, target, fields=fields, client=client, displacement=True, **FLAT).ok
    sections = {s.image_id: s for s in iter_sections(dataset, resolution=100, client=client, fields=fields)}
    for id in (ids[0], ids[-1]):
        written = Displacement.load(target / table(target)[id]["path"] / "displacement").coordinates()
        np.testing.assert_allclose(written, sections[id].displacement.coordinates(), atol=1e-6)


def test_own_fields_are_built_as_they_are_opened(client, dataset, ids, tmp_path):
    opened = open_sections(dataset, 100, client=client)
    fields = {}
    for section in iter_sections(opened):
        rows, columns = section.displacement.shape
        moved = Displacement.from_affine((rows, columns), [[1.0, 0.02, 3.0], [-0.01, 1.0, -2.0]])
        fields[section.image_id] = section.displacement.compose(moved)
    del fields[ids[1]]
    volume, planes = tmp_path / "volume", tmp_path / "planes"
    assert build(dataset, volume, fields=fields, client=client, **OPTIONS).ok
    assert build(dataset, planes, fields=fields, client=client, **FLAT).ok
    lazy = open_volume(dataset, client=client, fields=fields, **OPTIONS)
    np.testing.assert_array_equal(zarr.open_array(volume / "0", mode="r")[:], lazy.image.values)
    flat = open_sections(dataset, 100, client=client, fields=fields)
    built = np.concatenate([zarr.open_array(planes / f"{k}/0", mode="r")[:] for k in range(6)], axis=1)
    np.testing.assert_array_equal(np.moveaxis(built, 0, -1), flat.image.values)
    assert document(volume)["fields"] == {"sections": sorted(fields)}
    assert table(volume)[ids[1]]["registration"] == "recorded"
    fields[ids[0]] = opened_displacement(opened, ids[0])
    with raises(InputError, "different-options"):
        build(dataset, volume, fields=fields, client=client, **OPTIONS)


def opened_displacement(opened, id):
    return next(section.displacement for section in iter_sections(opened) if section.image_id == id)


def test_a_plan_says_how_sections_are_registered(client, dataset, fields, command):
    (made,) = plan(dataset, fields=fields, client=client, **OPTIONS)
    assert made.registration == "5 refined, 1 depth only; depths corrected by 40 to 120 um"
    assert ("registration", made.registration) in made.describe()
    (plain,) = plan(dataset, client=client, **OPTIONS)
    assert "registration" not in plain.to_dict()
    assert made.memory_bytes - plain.memory_bytes > 0.95 * 5 * 2 * 4 * 320 * 456
    ran = command("plan", DATASET, "--fields", fields, "--api-url", client.api_url, "--resolution", 100)
    assert "registration" in ran.out
    assert made.registration in ran.out


def test_the_command_builds_with_fields(client, dataset, fields, tmp_path, command, contents):
    build(dataset, tmp_path / "x", fields=fields, client=client, **OPTIONS)
    options = ("--api-url", client.api_url, "--cache", "none", "--resolution", 100, "--chunk", 32, "-q")
    assert command("build", DATASET, tmp_path / "y", "--fields", fields, *options).code == 0
    assert contents(tmp_path / "x") == contents(tmp_path / "y")
    refused = command("build", DATASET, tmp_path / "z", "--fields", tmp_path / "nothing", *options)
    assert refused.code == 2
    assert "holds no refinement" in refused.err
    assert not (tmp_path / "z").exists()


def test_a_target_is_not_written_into_the_fields_it_is_made_of(client, dataset, fields):
    before = {path: path.read_bytes() for path in fields.rglob("*") if path.is_file()}
    sections = list(iter_sections(dataset, resolution=100, client=client, fields=fields))
    own = {section.image_id: section.displacement for section in sections}
    for target in (fields, fields / "x.ome.zarr", fields.parent):
        for given in (fields, own):
            with raises(InputError, "target-overlaps-source"):
                build(dataset, target, fields=given, client=client, overwrite=True, **OPTIONS)
    with raises(InputError, "target-overlaps-source"):
        sections[0].displacement.save(fields / "x.ome.zarr")
    assert {path: path.read_bytes() for path in fields.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("opener", [open_volume, open_sections, plan])
def test_fields_that_do_not_belong_are_refused_before_an_image_is_fetched(serve, connect, dataset, fields, opener):
    emulator = serve()
    client = connect(emulator)
    own, turned = pixels(dataset), replace(pixels(dataset), plane=PLANES["sagittal"])
    for code, other, over in (
        ("wrong-dataset", replace(dataset, id=5), own),
        ("wrong-plane", dataset, turned),
    ):
        (fields / DOCUMENT).write_bytes(refinement_document(other, over, {dataset.sections[0].image_id: 40.0}, {}))
        with raises(InputError, code):
            opener(dataset, client=client, fields=fields)
    with raises(NotFoundError, "refinement-not-found"):
        opener(dataset, client=client, fields=fields.parent)
    assert emulator.count("section_image_download") == 0


@pytest.mark.slow
def test_a_preview_shows_the_corrected_places(client, dataset, fields, tmp_path):
    plain, refined = (
        preview(dataset, tmp_path / f"{name}.png", client=client, fields=given).coordinates
        for name, given in (("plain", None), ("refined", fields))
    )
    numbers = sorted(plain)
    shifts = np.array([refined[number] - plain[number] for number in numbers])
    np.testing.assert_allclose(shifts, [-40, -40, -40, -40, -120, -40], rtol=0.02)


def test_a_batch_takes_the_refinement_of_each_dataset(serve, connect, records, tmp_path, command):
    client = connect(serve(*copies(records, (1, 2))))
    first = client.section_dataset(1)
    ids = [section.image_id for section in first.sections]
    write_refinement(tmp_path / "fields/1", first, dict.fromkeys(ids, 40.0), {ids[0]: wave(first)[0]})
    report = build_many([1, 2], tmp_path / "root", client=client, fields=tmp_path / "fields", **OPTIONS)
    assert report.states == {"built": 1, "failed": 1}
    (failed,) = report.failures
    assert (failed.dataset, failed.code) == (2, "refinement-not-found")
    assert document(tmp_path / "root/1.ome.zarr")["fields"]["location"] == str(tmp_path / "fields/1")
    with raises(InputError, "different-options") as caught:
        build_many([1, 2], tmp_path / "root", client=client, **OPTIONS)
    assert str(tmp_path / "fields") in str(caught.value)
    with raises(InputError, "wrong-type"):
        build_many([1, 2], tmp_path / "root", client=client, fields={}, **OPTIONS)
    with raises(NotFoundError, "refinement-not-found"):
        build_many([1, 2], tmp_path / "other", client=client, fields=tmp_path / "none", **OPTIONS)
    assert not (tmp_path / "other").exists()
    (tmp_path / "ids.txt").write_text("1\n2\n")
    options = ("--fields", tmp_path / "fields", "--resolution", 100, "--chunk", 32, "--api-url", client.api_url)
    ran = command("batch", tmp_path / "root", "--ids", tmp_path / "ids.txt", *options)
    assert ran.code == 1
    assert "1 finished before, 1 failed" in ran.out or "1 failed, 1 finished before" in ran.out


def test_records_that_have_changed_since_are_refused(serve, connect, records, dataset, fields):
    datasets, images = records
    images[2]["alignment2d"]["tvs_04"] += 5.0
    images[2]["alignment2d"]["tsv_04"] -= 5.0 * images[2]["alignment2d"]["tsv_00"]
    client = connect(serve(datasets, images))
    changed = client.section_dataset(DATASET)
    assert alignment_digest(changed, changed.sections[2]) != alignment_digest(dataset, dataset.sections[2])
    with raises(InputError, "alignment-changed"):
        plan(DATASET, client=client, fields=fields)
