"""`refine` on sections of the brain-like phantom: fields, resume, repair, missing images, and what is refused."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import zarr

import brain_sections as brains
from atlaszarr import AllenClient, Displacement, build, build_many, refine, verify
from atlaszarr.errors import InputError, NotFoundError
from atlaszarr.sections.options import SectionsOptions
from atlaszarr.sections.refined import RefinedFields
from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from atlaszarr.transforms import apply
from brain_sections import CORONAL, SAGITTAL
from codes import raises

RESOLUTION = 50
TWO = slice(14, 50, 18)
#: Sections without contrast, which keep their registration.
FLAT = [{"do": "contrast", "factor": 0}]


@pytest.fixture(scope="module")
def annotation(made_once):
    return brains.annotation(made_once)


@pytest.fixture(scope="module")
def served():
    """Emulators of the datasets by id, and clients of them."""
    running = {id: brains.emulator(id) for id in (CORONAL, SAGITTAL)}
    with running[CORONAL], running[SAGITTAL]:
        clients = {id: AllenClient(one.url, cache="none", rate=1e9) for id, one in running.items()}
        yield {id: (running[id], clients[id]) for id in running}


@pytest.fixture(scope="module")
def refined(served, annotation, made_once):
    """FIELDS of a dataset, on one thread, to be read only: ``refined(id)`` -> Path."""

    def folder(id):
        def make(path):
            _, client = served[id]
            assert refine(id, annotation, path, resolution=RESOLUTION, client=client, workers=1).ok

        return made_once(f"refined {id}", make)

    return folder


@pytest.fixture
def flat():
    """Starts emulators of two sections without contrast: ``flat(faults=...)``."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(brains.emulator(CORONAL, FLAT, TWO, **options))


def planes(client, id, fields=None, resolution=100):
    options = SectionsOptions.of({"resolution": resolution, "detection_xy": "centre"}, written=False)
    return options.planes(client.section_dataset(id), stored=False, fields=fields)


def rows(folder):
    with (Path(folder) / "refinement.csv").open() as file:
        return list(csv.DictReader(file))


def everything(folder):
    """All objects but those that hold the time."""
    found = {str(path.relative_to(folder)): path for path in Path(folder).rglob("*") if path.is_file()}
    return {key: path.read_bytes() for key, path in found.items() if key != "atlaszarr/owner.lock"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("id", [CORONAL, SAGITTAL])
def test_fields_bring_tissue_nearer_to_where_it_belongs(served, refined, id):
    emulator, client = served[id]
    before = brains.registration_errors(emulator, planes(client, id))
    after = brains.registration_errors(emulator, planes(client, id, RefinedFields.open(refined(id))))
    medians = [(np.median(before[image]), np.median(after[image])) for image in before]
    assert all(end < 0.65 * start for start, end in medians), medians
    validated = verify(refined(id))
    assert (validated.ok, validated.sections, validated.fields) == (True, len(medians), len(medians))
    assert validated.extent.endswith(f"objects, the fields of {len(medians)} of {len(medians)} sections")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_the_document_and_the_fields_agree(served, refined):
    folder = refined(CORONAL)
    dataset = served[CORONAL][1].section_dataset(CORONAL)
    table, document = rows(folder), json.loads((folder / "atlaszarr/refinement.json").read_text())
    assert [int(row["image_id"]) for row in table] == [section.image_id for section in dataset.sections]
    for row, section in zip(table, dataset.sections, strict=True):
        own = document["sections"][row["image_id"]]
        assert (row["kept"], row["reason"], row["flag"]) == ("true", "refined", "")
        assert float(row["depth_recorded_um"]) == section.depth == own["depth_recorded_um"]
        assert own["depth_correction_um"] == float(row["depth_um"])
        assert float(row["unseen_after"]) > float(row["unseen_before"]) + 0.02
        assert float(row["correlation_after"]) > float(row["correlation_before"])
        assert 0.3 < float(row["jacobian"]) < 1.1
        field = Displacement.load(folder / f"{row['image_id']}.ome.zarr")
        length = np.hypot(np.asarray(field.delta_x), np.asarray(field.delta_y)) * RESOLUTION
        # The percentiles of the table are those over the brain of the deformation alone.
        assert 0 < float(row["deformation_p50_um"]) < float(row["deformation_p95_um"]) < 2 * length.max()
    assert document["annotation"]["location"].endswith("brain_100.nrrd")
    assert set(document["versions"]) == {"atlaszarr", "numpy", "scipy", "SimpleITK", "simplejpeg"}
    assert "citation" in document["credit"]
    assert not (folder / "atlaszarr/fitted").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_bytes_are_the_same_on_three_threads_and_on_a_cluster(served, refined, annotation, tmp_path):
    from distributed import LocalCluster

    _, client = served[SAGITTAL]
    options = {"resolution": RESOLUTION, "client": client}
    expected = everything(refined(SAGITTAL))
    refine(SAGITTAL, annotation, tmp_path / "threads", workers=3, **options)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        refine(SAGITTAL, annotation, tmp_path / "cluster", scheduler=cluster, **options)
    for name in ("threads", "cluster"):
        assert {key for key, body in everything(tmp_path / name).items() if body != expected.get(key)} == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_a_kill_the_same_command_resumes_and_ends_with_the_same_bytes(served, refined, annotation, tmp_path):
    emulator, client = served[SAGITTAL]
    target = tmp_path / "x"
    given = ["--annotation", str(annotation), "--resolution", str(RESOLUTION), "--workers", "1"]
    command = [sys.executable, "-m", "atlaszarr", "refine", str(SAGITTAL), str(target), *given]
    environment = {**os.environ, "ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
    for records in (2, 2, 3):  # of three steps of three sections, without those of the runs before
        with subprocess.Popen(command, env=environment) as process:
            while len(list(target.glob("atlaszarr/ledger/*"))) < records and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        with raises(InputError, "refinement-unfinished"):
            RefinedFields.open(target)
    emulator.reset()
    report = refine(SAGITTAL, annotation, target, resolution=RESOLUTION, client=client)
    assert report.state == "resumed"
    assert {key for key, body in everything(refined(SAGITTAL)).items() if body != everything(target).get(key)} == set()
    again = refine(SAGITTAL, annotation, target, resolution=RESOLUTION, client=client)
    assert (again.state, again.sections) == ("already finished", report.sections)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_damaged_field_is_named_and_made_again_from_its_neighbours(served, refined, annotation, tmp_path):
    _, client = served[SAGITTAL]
    shutil.copytree(refined(SAGITTAL), tmp_path / "x")
    (field,) = (tmp_path / "x").glob(f"{brains.records(SAGITTAL)[1][0]['id']}.ome.zarr/0/c/0/0/0")
    field.write_bytes(field.read_bytes()[:-1])
    (defect,) = verify(tmp_path / "x").defects
    assert (defect.kind, defect.key) == ("truncated", str(field.relative_to(tmp_path / "x")))
    report = refine(SAGITTAL, annotation, tmp_path / "x", resolution=RESOLUTION, client=client)
    assert report.state == "resumed"
    assert verify(tmp_path / "x").ok
    expected = everything(refined(SAGITTAL))
    assert {key for key, body in everything(tmp_path / "x").items() if body != expected.get(key)} == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["volume", "sections"])
def test_a_build_with_the_fields_shows_the_brain_better(served, refined, tmp_path, mode):
    """A mean difference of grey levels between what is built and the brain itself, at the same points."""
    emulator, client = served[CORONAL]
    brain, dataset = emulator.phantom.of_dataset(CORONAL), client.section_dataset(CORONAL)
    differences = []
    for name, fields in (("recorded", None), ("refined", refined(CORONAL))):
        target = tmp_path / name
        options = {} if mode == "volume" else {"detection_xy": "centre"}
        build(CORONAL, target, mode=mode, resolution=100, fields=fields, client=client, **options)
        own = dataset if fields is None else RefinedFields.open(fields).corrected(dataset)
        depths = {section.image_id: section.depth for section in own.sections}
        images = [target] if mode == "volume" else [target / str(k) for k in range(4)]
        found = []
        for image in images:
            values, section = (zarr.open_array(image / path, mode="r")[:] for path in ("0", "labels/section/0"))
            index = np.argwhere(section > 0)
            pir = (index + 0.5) * 100.0
            if mode == "sections":
                at = zarr.open_group(image, mode="r").attrs["ome"]["multiscales"][0]["datasets"][0]
                pir[:, 0] = 1000 * at["coordinateTransformations"][1]["translation"][1] + 5
            tissue = brain.labels(pir) > 0
            if mode == "volume":  # a section fills voxels up to 900 um away: only those that it passes through
                depth = apply(dataset.trv, pir)[:, 2]
                tissue &= np.abs(depth - [depths[id] for id in section[tuple(index.T)].tolist()]) < 60
            found.append(np.abs(values[(slice(None), *index[tissue].T)].T - brain.rgb(pir[tissue])).mean())
        differences.append(np.mean(found))
    assert differences[1] < 0.8 * differences[0], differences


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_section_far_off_in_depth_is_flagged(annotation):
    bad = brains.records(CORONAL, slice(10, 54, 5))[1][4]["id"]
    damage = [{"match": {"image": bad}, "do": "depth_error", "um": 500}]
    with brains.emulator(CORONAL, damage, slice(10, 54, 5)) as running:
        client = AllenClient(running.url, cache="none", rate=1e9)
        report = refine(CORONAL, annotation, resolution=RESOLUTION, client=client)
    assert [row.image_id for row in report.flagged] == [bad]
    assert report.warning == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_annotation_that_is_upside_down_is_a_warning(served, annotation, tmp_path):
    import nrrd

    values, header = nrrd.read(str(annotation))
    nrrd.write(str(tmp_path / "turned.nrrd"), values[:, ::-1], header)
    report = refine(SAGITTAL, tmp_path / "turned.nrrd", resolution=RESOLUTION, client=served[SAGITTAL][1])
    assert report.warning.startswith("the annotation does not seem to fit this dataset"), report.warning


def test_sections_without_contrast_keep_their_registration(flat, annotation, connect, command, tmp_path):
    report = refine(CORONAL, annotation, tmp_path / "x", resolution=RESOLUTION, client=connect(flat()))
    assert report.ok
    for row in report.sections:
        assert (row.kept, row.reason, row.flag) == (False, "no contrast", "no contrast")
        assert row.depth_um == 0
    fields = RefinedFields.open(tmp_path / "x")
    assert not any(section.field for section in fields.sections.values())
    assert not list((tmp_path / "x").glob("*.ome.zarr"))
    validated = verify(tmp_path / "x")
    assert (validated.ok, validated.sections, validated.fields) == (True, 2, 0)
    ran = command("verify", tmp_path / "x")
    assert ran.out == f"sound: {tmp_path / 'x'} (0 objects, the fields of 0 of 2 sections)\n"


@pytest.mark.slow
def test_an_edited_depth_is_refused_and_the_same_command_repairs_it(flat, annotation, connect, tmp_path):
    options = {"resolution": RESOLUTION, "client": connect(flat())}
    refine(CORONAL, annotation, tmp_path / "x", **options)
    path = tmp_path / "x/atlaszarr/refinement.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"depth_correction_um": 0.0', b'"depth_correction_um": 90.0', 1))
    assert not verify(tmp_path / "x").ok
    with raises(InputError, "damaged-metadata"):
        build(CORONAL, tmp_path / "y", fields=tmp_path / "x", client=options["client"])
    assert not (tmp_path / "y").exists()
    assert refine(CORONAL, annotation, tmp_path / "x", **options).ok
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_old_phantom_whose_greys_no_region_explains_is_not_moved(made_once, tmp_path):
    """Its greys are waves; nine tenths of its brain are one region."""
    labels = made_once("phantom_100.nrrd", lambda path: path.write_bytes(annotation_nrrd(default_phantom(), 100)))
    with Emulator(*brains.records(CORONAL)) as running:
        client = AllenClient(running.url, cache="none", rate=1e9)
        report = refine(CORONAL, labels, tmp_path / "x", resolution=RESOLUTION, client=client)
        fields = RefinedFields.open(tmp_path / "x")
        before = planes(client, CORONAL)
        after = planes(client, CORONAL, fields)
    for row in report.sections:
        assert not row.kept, row
        assert abs(row.depth_um) <= 100, row
    for one, other in zip(before.displacements, after.displacements, strict=True):
        np.testing.assert_allclose(np.asarray(one.coordinates()), np.asarray(other.coordinates()), atol=1.0)


def gone(image_id):
    return [{"match": {"path": f"section_image_download/{image_id}"}, "times": None, "do": "status", "status": 404}]


@pytest.mark.slow
def test_a_missing_image_leaves_the_refinement_unfinished_until_it_is_allowed_or_available(
    flat, annotation, connect, tmp_path
):
    lost = brains.records(CORONAL, TWO)[1][1]["id"]
    options = {"resolution": RESOLUTION, "client": connect(flat(faults=gone(lost)))}
    target = tmp_path / "x"
    report = refine(CORONAL, annotation, target, **options)
    assert (report.ok, report.state, [f.request.image_id for f in report.failures]) == (False, "unfinished", [lost])
    (row,) = [row for row in rows(target) if row["image_id"] == str(lost)]
    assert row["reason"].startswith("image missing: ")
    assert (row["kept"], row["depth_um"], row["unseen_after"]) == ("false", "0.0", "")
    with raises(InputError, "refinement-unfinished"):
        RefinedFields.open(target)
    assert refine(CORONAL, annotation, target, allow_missing=True, **options).state == "resumed"
    assert verify(target).ok
    assert set(RefinedFields.open(target).sections) == {image["id"] for image in brains.records(CORONAL, TWO)[1]}
    again = refine(CORONAL, annotation, target, **options)  # it stays allowed
    assert (again.ok, again.state) == (True, "already finished")
    options["client"] = connect(flat())
    repaired = refine(CORONAL, annotation, target, **options)
    assert (repaired.state, repaired.failures) == ("resumed", ())
    assert repaired.sections == refine(CORONAL, annotation, tmp_path / "y", **options).sections
    assert everything(target).keys() == everything(tmp_path / "y").keys()


@pytest.mark.parametrize("step", ["fits", "fields"])
def test_an_image_that_is_missing_after_an_interruption_leaves_the_refinement_unfinished(
    flat, annotation, connect, tmp_path, step
):
    """It was compared in an earlier run, which ended before a later step of it."""

    def interrupt(_done, _total, word):
        if word == step:
            raise KeyboardInterrupt

    lost, target = brains.records(CORONAL, TWO)[1][1]["id"], tmp_path / "x"
    running, options = connect(flat()), {"resolution": RESOLUTION, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        refine(CORONAL, annotation, target, client=running, progress=interrupt, **options)
    for _ in range(2):
        report = refine(CORONAL, annotation, target, client=connect(flat(faults=gone(lost))), **options)
        assert (report.state, [f.request.image_id for f in report.failures]) == ("unfinished", [lost])
        (row,) = [row for row in report.sections if row.image_id == lost]
        assert row.reason.startswith("image missing: ")
    repaired = refine(CORONAL, annotation, target, client=running, **options)
    assert (repaired.state, repaired.failures) == ("resumed", ())
    assert repaired.sections == refine(CORONAL, annotation, tmp_path / "y", client=running, **options).sections


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fields_in_any_store_are_those_on_a_disk_and_serve_a_build(store, annotation, tmp_path, contents):
    with brains.emulator(CORONAL, images=slice(23, 24)) as running:
        client = AllenClient(running.url, cache="none", rate=1e9)
        options = {"resolution": RESOLUTION, "client": client}
        expected = refine(CORONAL, annotation, tmp_path / "near", **options)
        url = str(store.url("refinement"))
        report = refine(CORONAL, annotation, url, storage_options=store.options, **options)
        assert report.sections == expected.sections
        assert [row.reason for row in report.sections] == ["refined"]
        assert verify(url, storage_options=store.options).ok
        for name, fields in (("x", tmp_path / "near"), ("y", RefinedFields.open(url, store.options))):
            assert build(CORONAL, tmp_path / name, fields=fields, resolution=200, client=client).ok
    assert contents(tmp_path / "x") == contents(tmp_path / "y")


def test_each_image_is_fetched_once(flat, annotation, connect, tmp_path):
    running = flat()
    refine(CORONAL, annotation, tmp_path / "x", resolution=RESOLUTION, client=connect(running))
    fetched = [request.path for request in running.requests if "section_image_download" in request.path]
    assert len(fetched) == len(set(fetched)) == 2


def test_a_dry_run_prints_the_table_with_flags_and_writes_nothing(flat, annotation, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api = ("--api-url", flat().url)
    ran = command("refine", CORONAL, "--annotation", annotation, "--resolution", RESOLUTION, "--dry-run", *api)
    assert (ran.code, list(tmp_path.iterdir())) == (0, [])
    header, *lines = ran.out.splitlines()
    assert header.split()[:4] == ["section", "added", "depth", "um"]
    numbers = [str(image["section_number"]) for image in brains.records(CORONAL, TWO)[1]]
    assert sorted(line.split()[0] for line in lines[:2]) == sorted(numbers)
    assert all(line.endswith("no contrast  no contrast") for line in lines[:2])
    assert [line.split()[2:4] for line in lines[:2]] == [["0.00", "0.00"]] * 2
    assert "flags" in ran.out
    assert "2 of 2 sections are flagged" in ran.out


def test_the_command_reports_failures_with_exit_code_1(flat, annotation, command, tmp_path):
    lost = brains.records(CORONAL, TWO)[1][0]["id"]
    given = ["--annotation", annotation, "--resolution", RESOLUTION, "--api-url", flat(faults=gone(lost)).url]
    ran = command("refine", CORONAL, tmp_path / "x", *given, "--json", "--quiet")
    assert ran.code == 1
    assert json.loads(ran.out)["failures"][0]["image_id"] == lost
    assert f"missing: section image {lost}" in ran.err
    assert "--allow-missing" in ran.err
    assert command("refine", CORONAL, tmp_path / "x", *given, "--allow-missing", "--quiet").code == 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.slow
def test_a_picture_shows_the_sections_before_and_after(flat, annotation, connect, tmp_path, suffix):
    client, picture = connect(flat()), tmp_path / f"x.{suffix}"
    options = {"resolution": RESOLUTION, "client": client, "preview": picture}
    refine(CORONAL, annotation, tmp_path / "x", **options)
    body = picture.read_bytes()
    assert len(body) > 10_000
    if suffix == "svg":
        assert body.count(b"<image") == 4  # two panels of each section
    refine(CORONAL, annotation, tmp_path / "x", **options)
    assert picture.read_bytes() == body


def test_wrong_input_is_refused_in_one_sentence_and_nothing_is_written(flat, annotation, connect, tmp_path):
    client, target = connect(flat()), tmp_path / "x"

    def refused(error, code, volume=annotation, target=target, **options):
        with raises(error, code):
            refine(CORONAL, volume, target, client=client, **{"resolution": RESOLUTION, **options})
        assert not (tmp_path / "x").exists()

    small = np.zeros((8, 8, 8), np.uint32)
    other = tmp_path / "other.nrrd"
    import nrrd

    nrrd.write(str(other), small, {"space": "left-posterior-superior", "space directions": np.eye(3) * 0.1})
    refused(InputError, "wrong-reference-space", other)
    refused(InputError, "wrong-reference-space", annotation, template=other)
    refused(NotFoundError, "file-not-found", tmp_path / "none.nrrd")
    refused(InputError, "not-supported", resolution=30)
    refused(InputError, "not-supported", resolution=100)
    refused(InputError, "unknown-suffix", preview=tmp_path / "x.pdf")
    refused(InputError, "target-overlaps-source", target=annotation)
    refused(InputError, "file-not-found", hold_out=["HIP"])  # the NRRD has no terminology


def test_an_unknown_structure_to_hold_out_is_refused_with_suggestions(flat, annotation, connect, tmp_path):
    from atlaszarr import Terminology
    from atlaszarr.testing.ontology import structure_graph

    terminology = Terminology.from_structure_graph(structure_graph()["msg"])
    options = {"client": connect(flat()), "resolution": RESOLUTION, "terminology": terminology}
    with raises(NotFoundError, "structure-not-found") as caught:
        refine(CORONAL, annotation, tmp_path / "x", hold_out=["hippocampus"], **options)
    assert "did you mean" in str(caught.value)
    refine(CORONAL, annotation, tmp_path / "x", hold_out=["DG"], **options)
    root = json.loads((tmp_path / "x/zarr.json").read_text())["attributes"]["atlaszarr"]
    known = {structure.value for structure in terminology.descendants("DG")}
    assert set(root["request"]["hold_out"]) == known
    with raises(InputError, "different-options"):
        refine(CORONAL, annotation, tmp_path / "x", **options)
    assert refine(CORONAL, annotation, tmp_path / "x", overwrite=True, **options).state == "built"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_batch_refines_each_dataset_first(flat, annotation, connect, remote, tmp_path):
    """The annotation lies in a bucket, the root on this disk."""
    lost = brains.records(CORONAL, TWO)[1][1]["id"]
    bucket, name = str(remote.url("annotations")), annotation.name
    Target.of(bucket, remote.options).write(name, annotation.read_bytes())
    options = {"refine": f"{bucket}/{name}", "storage_options": remote.options, "resolution": 200, "chunk": 32}
    report = build_many([CORONAL], tmp_path, client=connect(flat(faults=gone(lost))), **options)
    assert (report.ok, report.states) == (False, {"unfinished": 1})
    assert not (tmp_path / f"{CORONAL}.ome.zarr").exists()
    client = connect(flat())
    report = build_many([CORONAL], tmp_path, client=client, **options)
    assert (report.ok, report.states) == (True, {"built": 1}), report.failures
    fields = RefinedFields.open(tmp_path / f"fields/{CORONAL}")
    document = json.loads((tmp_path / f"{CORONAL}.ome.zarr/atlaszarr/build.json").read_text())
    assert fields.digest in json.dumps(document)
    assert verify(tmp_path / f"fields/{CORONAL}").ok
    assert build_many([CORONAL], tmp_path, client=client, **options).states == {"finished before": 1}
    with raises(InputError, "different-options"):
        build_many([CORONAL], tmp_path, client=client, resolution=200, chunk=32)
    with raises(NotFoundError, "file-not-found"):
        build_many([CORONAL], tmp_path / "y", client=client, refine=tmp_path / "none.nrrd")
    assert not (tmp_path / "y").exists()


def test_a_template_is_compared_too_and_recorded(flat, annotation, connect, tmp_path):
    client = connect(flat())
    options = {"resolution": RESOLUTION, "client": client}
    refine(CORONAL, annotation, tmp_path / "x", template=annotation, **options)
    document = json.loads((tmp_path / "x/atlaszarr/refinement.json").read_text())
    assert document["template"]["location"].endswith(annotation.name)
    with raises(InputError, "different-options") as caught:
        refine(CORONAL, annotation, tmp_path / "x", **options)
    assert "template" in str(caught.value)
