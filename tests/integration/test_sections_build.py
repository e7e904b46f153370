"""build --mode sections: positions and values of the planes, defects, resume, missing images and windows."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import ngff_zarr
import numpy as np
import pytest
import yaozarrs
import zarr

from atlaszarr import Displacement, build, plan, verify
from atlaszarr.errors import InputError
from atlaszarr.testing.records import dataset_records, image_records, invented
from atlaszarr.transforms import image_to_reference
from codes import raises

CORONAL, SAGITTAL = 74272479, 69289763
FIXED = {CORONAL: "z", SAGITTAL: "x"}
CENTRED = {"resolution": 200, "chunk": 64, "detection_xy": "centre", "displacement": True}


@pytest.fixture
def collection(built):
    return partial(built, mode="sections")


def rows(target, name="sections"):
    with (Path(target) / "atlaszarr" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.first(1)
@pytest.mark.parametrize("dataset", [CORONAL, SAGITTAL])
@pytest.mark.parametrize("version", [pytest.param("0.4", marks=pytest.mark.slow), "0.5", "0.6"])
def test_the_collection_validates_and_opens_section_by_section(collection, dataset, version):
    target = collection(dataset, resolution=200, chunk=32, ome_zarr=version, displacement=True)
    if version != "0.6":  # yaozarrs does not support it
        yaozarrs.validate_zarr_store(str(target))
    sections = [row for row in rows(target) if row["state"] in ("used", "outside")]
    assert [row["path"] for row in sections] == [str(k) for k in range(len(sections))]
    for row in sections[::5]:
        image = ngff_zarr.from_ngff_zarr(f"{target}/{row['path']}", validate=True).images[0]
        assert image.data.shape == {CORONAL: (3, 1, 40, 57), SAGITTAL: (3, 66, 40, 1)}[dataset]
        assert list(image.dims) == ["c", "z", "y", "x"]
        assert image.axes_units["z"] == "millimeter"
    field = ngff_zarr.from_ngff_zarr(f"{target}/0/displacement", validate=True)
    assert [image.data.shape[0] for image in field.images] == [3]  # only level 0
    if version == "0.6":
        (transform,) = field.metadata.coordinateTransformations
        assert (transform.type, transform.input.name, transform.output.name) == ("displacements", "reference", "image")


@pytest.mark.first(1)
@pytest.mark.parametrize("dataset", [CORONAL, SAGITTAL])
@pytest.mark.parametrize("point", [(0.0, 0.0), (3000.0, 2000.0)])
def test_a_section_has_its_coordinate_to_a_millionth_of_a_micron(allen, collection, dataset, point):
    target = collection(dataset, resolution=200, chunk=32, detection_xy=point)
    described = rows(target)
    record = allen.section_dataset(dataset)
    for k, section in enumerate(record.sections):
        pir = image_to_reference(point, section.depth, section.tsv, record.tvr)
        expected = pir[2 if dataset == SAGITTAL else 0]
        image = ngff_zarr.from_ngff_zarr(f"{target}/{k}").images[0]
        assert abs(1000 * image.translation[FIXED[dataset]] + 5 - expected) < 1e-6
        assert image.scale[FIXED[dataset]] == 0.025
        for axis in {"z", "y", "x"} - {FIXED[dataset]}:
            assert (image.scale[axis], image.translation[axis]) == (0.2, 0.095)
        assert float(described[k]["coordinate_um"]) == pytest.approx(expected, abs=1e-9)


def parallel(record, section, pir, downsample):
    """The pixels of a tier image at points of space 9, computed from the matrices."""
    trv, tvs = np.array(record.trv), np.array(section.tvs)
    plane = pir @ trv[:2, :3].T + trv[:2, 3]
    xy = plane @ tvs[:, :2].T + tvs[:, 2]
    return (xy + 0.5) / 2**downsample - 0.5


@pytest.mark.first(1)
@pytest.mark.parametrize("dataset", [CORONAL, SAGITTAL])
def test_a_plane_shows_the_phantom_at_the_position_of_its_section(emulator, allen, collection, dataset):
    target = collection(dataset, **CENTRED)
    record = allen.section_dataset(dataset)
    described = rows(target)
    for k in range(9 if dataset == CORONAL else 4, len(record.sections) - 8, 5):
        section, row = record.sections[k], described[k]
        image = zarr.open_array(target / str(k) / "0", mode="r")[:]
        label = zarr.open_array(target / str(k) / "labels/section/0", mode="r")[:]
        field = zarr.open_array(target / str(k) / "displacement/0", mode="r")[:]
        index = np.argwhere(label == section.image_id)
        pir = (index + 0.5) * 200.0
        pir[:, "zyx".index(FIXED[dataset])] = float(row["coordinate_um"])
        xy = parallel(record, section, pir, int(row["downsample"]))
        assert (xy >= -0.5 - 1e-9).all()
        # the field: from the position of a pixel to its position in the section image, in mm
        d = field[(slice(None), *index.T)].T
        full = (xy + 0.5) * 2 ** int(row["downsample"]) - 0.5
        reference = (pir - 5) / 1000
        along = {CORONAL: (2, 1), SAGITTAL: (0, 1)}[dataset]
        for axis, pixels in zip(along, full.T, strict=True):
            np.testing.assert_allclose(d[:, axis], section.resolution / 1000 * pixels - reference[:, axis], atol=1e-9)
        assert not d[:, "zyx".index(FIXED[dataset])].any()
        # the image: the phantom on the plane of the section
        own = image_to_reference(full, section.depth, section.tsv, record.tvr)
        inside = (emulator.phantom.distance_to_edge(own) > 100) & (emulator.phantom.labels(own) > 0)
        assert inside.sum() > 100
        difference = image[(slice(None), *index[inside].T)].T - emulator.phantom.rgb(own[inside])
        assert np.abs(difference).mean() < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (CORONAL, {"resolution": 100}),
        (CORONAL, {"resolution": 25, "chunk": 128, "displacement": True}),
        (SAGITTAL, {"resolution": 100, "chunk": 32, "shard": 64, "levels": 2}),
        (SAGITTAL, {"resolution": 100, "chunk": 64, "ome_zarr": "0.4", "view": ("primary", "expression")}),
        (SAGITTAL, {"resolution": 50, "ome_zarr": "0.6", "displacement": True, "downsample": 2}),
    ],
)
def test_a_plan_is_exact_and_no_image_is_fetched_twice(emulator, allen, tmp_path, dataset, options):
    plans = plan(dataset, mode="sections", client=allen, **options)
    emulator.reset()
    report = build(dataset, tmp_path / "x.ome.zarr", mode="sections", client=allen, **options)
    assert report.ok
    requests = [r for r in emulator.requests if r.kind == "section_image_download"]
    assert len({(r.path, str(r.query)) for r in requests}) == len(requests) == sum(p.image_requests for p in plans)
    for one in report.views:
        files = [path for path in Path(one.target).rglob("*") if path.is_file()]
        assert len(files) == one.plan.objects
        assert one.tasks_done + one.plan.image_requests == one.plan.tasks
        assert verify(one.target, deep=True).ok


def test_a_stopped_build_is_resumed_and_ends_byte_identical(allen, contents, tmp_path):
    options = {"mode": "sections", "resolution": 200, "chunk": 32, "client": allen, "displacement": True}
    whole, target = tmp_path / "whole.ome.zarr", tmp_path / "x.ome.zarr"
    assert build(SAGITTAL, whole, **options).ok

    def stop(done, total, word):
        if word == "blocks" and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(SAGITTAL, target, progress=stop, **options)
    assert [defect.kind for defect in verify(target).defects] == ["unfinished"]
    for path in ("", "/0", "/17", "/3/labels/section", "/3/displacement"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - any error will do: it is not an image yet
            ngff_zarr.from_ngff_zarr(f"{target}{path}", validate=True)
    report = build(SAGITTAL, target, **options)
    assert report.views[0].state == "resumed"
    assert 0 < report.views[0].tasks_done < report.views[0].plan.tasks
    assert contents(target) == contents(whole)
    assert build(SAGITTAL, target, **options).views[0].state == "already finished"


@pytest.mark.slow
def test_an_object_store_receives_the_same_bytes_and_opens(allen, collection, contents, remote):
    options = {"resolution": 100, "chunk": 64, "displacement": True}
    local, url = collection(SAGITTAL, **options), remote.url("sections.ome.zarr")
    report = build(SAGITTAL, url, mode="sections", client=allen, storage_options=remote.options, **options)
    assert report.ok
    stored = {key: remote.read("sections.ome.zarr", key) for key in remote.keys("sections.ome.zarr")}
    assert {key: body for key, body in stored.items() if not key.startswith("atlaszarr/")} == contents(local)
    assert verify(url, deep=True, storage_options=remote.options).ok
    field = Displacement.load(f"{url}/9/displacement", storage_options=remote.options)
    assert field.shape == (80, 132)


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("key", "damage", "kind"),
    [
        ("7/0/c/0/0/0/0", None, "missing"),
        ("7/0/c/0/0/0/0", b"12", "truncated"),
        ("7/labels/section/1/c/0/0/0", "flip", "altered"),
        ("3/displacement/0/c/0/1/0/0", "flip", "altered"),
        ("4/zarr.json", "edit", "metadata"),
        ("OME/zarr.json", "edit", "metadata"),
        ("OME/METADATA.ome.xml", "flip", "altered"),
        ("OME/METADATA.ome.xml", None, "missing"),
        ("5/0/zarr.json", "edit", "metadata"),
        ("5/0/c/0/9/9/0", b"12", "extra"),
    ],
)
def test_a_defect_is_named_and_only_it_is_repaired(allen, collection, contents, tmp_path, key, damage, kind):
    options = CENTRED
    intact, target = collection(SAGITTAL, **options), tmp_path / "x.ome.zarr"
    shutil.copytree(intact, target)
    path = target / key
    if damage is None:
        path.unlink()
    elif damage == "flip":
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
    elif damage == "edit":
        document = json.loads(path.read_text())
        document["attributes"]["edited"] = True
        path.write_text(json.dumps(document))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage)
    assert [(defect.kind, defect.key) for defect in verify(target).defects] == [(kind, key)]
    report = build(SAGITTAL, target, mode="sections", client=allen, **options)
    assert report.ok
    assert report.views[0].tasks_done <= 2
    assert contents(target) == contents(intact)
    assert verify(target, deep=True).ok


@pytest.mark.slow
def test_a_missing_image_is_recorded_as_background_and_filled_later(serve, connect, contents, tmp_path):
    datasets = [record for record in dataset_records() if record["id"] == SAGITTAL]
    images = [record for record in image_records() if record["data_set_id"] == SAGITTAL]
    missing = images[9]["id"]
    # The first build and the second request it three times each.
    fault = {"do": "status", "match": {"path": f"section_image_download/{missing}"}, "times": 6, "status": 500}
    emulator = serve(datasets, images, faults=[fault])
    whole, target = tmp_path / "whole.ome.zarr", tmp_path / "x.ome.zarr"
    options = {"mode": "sections", "resolution": 200, "chunk": 32, "client": connect(emulator)}
    report = build(SAGITTAL, target, **options)
    assert not report.ok
    assert [failure.request.image_id for failure in report.views[0].failures] == [missing]
    assert [row["image_id"] for row in rows(target, "failures")] == [str(missing)]
    assert build(SAGITTAL, target, allow_missing=True, **options).ok
    (row,) = (row for row in rows(target) if row["state"] == "missing")
    assert int(row["image_id"]) == missing
    assert not zarr.open_array(target / row["path"] / "0", mode="r")[:].any()
    emulator.reset()
    assert build(SAGITTAL, target, **options).views[0].state == "resumed"
    assert emulator.count("section_image_download") == 1
    assert build(SAGITTAL, whole, **options).ok
    assert contents(target) == contents(whole)


@pytest.mark.slow
def test_missing_windows_are_reported_by_image_and_the_others_are_built(serve, records, command, tmp_path):
    (dataset,), images = records
    fault = {"do": "status", "match": {"path": "left=0&top=0"}, "times": 99, "status": 404}
    emulator = serve([dataset], images[:1], faults=[fault])
    target = tmp_path / "x.ome.zarr"
    options = ("--mode", "sections", "--resolution", 50, "--chunk", 64, "--downsample", 0, "--cache", "none")
    outcome = command("build", CORONAL, target, *options, "--api-url", emulator.url, "--allow-missing")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert lines[-1] == "1 of 1 section images are missing"
    assert [line.partition(": ")[2].split(": ")[0] for line in lines[:-1]] == [
        f"section image {image['id']} (1 windows)" for image in images[:1]
    ]
    assert [row["image_id"] for row in rows(target, "failures")] == [str(image["id"]) for image in images[:1]]
    label = zarr.open_array(target / "0/labels/section/0", mode="r")[:]
    assert 0.5 < (label > 0).mean() < 1  # all but the blocks of the missing corner
    assert verify(target, deep=True).ok


@pytest.mark.slow
def test_windows_have_the_values_of_the_whole_image(serve, connect, tmp_path):
    emulator = serve()
    client = connect(emulator)
    options = {"mode": "sections", "resolution": 50, "chunk": 128, "client": client, "downsample": 0}
    (planned,) = plan(CORONAL, **options)
    assert planned.sections_in_windows == planned.sections_used == 6
    emulator.reset()
    assert build(CORONAL, tmp_path / "x.ome.zarr", **options).ok
    requests = [r for r in emulator.requests if r.kind == "section_image_download"]
    assert len({(r.path, str(r.query)) for r in requests}) == len(requests) == planned.image_requests
    assert max(int(r.query[side]) for r in requests for side in ("width", "height")) <= 2048
    row = rows(tmp_path / "x.ome.zarr")[3]
    assert int(row["windows"]) == 20
    image = zarr.open_array(tmp_path / "x.ome.zarr/3/0", mode="r")[:]
    label = zarr.open_array(tmp_path / "x.ome.zarr/3/labels/section/0", mode="r")[:]
    record, whole = client.section_dataset(CORONAL), client.image(int(row["image_id"]))
    index = np.argwhere(label)
    pir = (index + 0.5) * 50.0
    pir[:, 0] = float(row["coordinate_um"])
    x, y = np.rint(parallel(record, record.sections[3], pir, 0)).astype(int).T
    difference = image[(slice(None), *index.T)].T.astype(int) - whole[y, x]
    assert np.abs(difference).mean() < 1.0


def test_the_command_builds_a_collection(emulator, command, tmp_path):
    target = tmp_path / "x.ome.zarr"
    outcome = command(
        "build", SAGITTAL, target, "--mode", "sections", "--resolution", 200, "--detection-xy", "100,200",
        "--plane", "sagittal", "--displacement", "--api-url", emulator.url,
    )  # fmt: skip
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, f"built: {target}")
    request = json.loads((target / "atlaszarr/build.json").read_text())["request"]
    assert (request["mode"], request["detection_xy"], request["displacement"]) == ("sections", [100.0, 200.0], True)
    planned = command("plan", SAGITTAL, "--mode", "sections", "--resolution", 200, "--api-url", emulator.url)
    assert "18 sagittal planes of 66 x 40 pixels, 1 levels" in planned.out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--mode", "slices"), "mode 'slices'"),
        (("--mode", "sections", "--fill", "linear"), "option 'fill'"),
        (("--detection-xy", "1,2"), "option 'detection_xy'"),
        (("--displacement",), "option 'displacement'"),
        (("--mode", "sections", "--detection-xy", "1"), "detection_xy '1'"),
        (("--mode", "sections", "--detection-xy", "nan,2"), "detection_xy 'nan,2'"),
        (("--mode", "sections", "--plane", "coronal"), "coronal"),
        (("--mode", "sections", "--plane", "oblique"), "plane 'oblique'"),
        (("--mode", "sections", "--chunk", "8"), "chunk 8"),
        (("--mode", "sections", "--levels", "20"), "levels 20"),
        (("--mode", "sections", "--interpolation", "area"), "interpolation 'area'"),
        (("--mode", "sections", "--shard", "700"), "shard"),
    ],
)
def test_an_invalid_option_is_refused_in_one_line_and_nothing_is_written(emulator, command, tmp_path, options, named):
    outcome = command("build", SAGITTAL, tmp_path / "x.ome.zarr", *options, "--api-url", emulator.url)
    assert outcome.code == 2
    assert named in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_spelling_of_an_option_is_the_same_option(serve, connect, command, tmp_path):
    record, images = invented(7, plane="transverse", numbers=range(40, 280, 120), size=(6000, 7000))
    api = serve([record], images)
    options = {"mode": "sections", "resolution": 200, "client": connect(api)}
    target = tmp_path / "x.ome.zarr"
    build(7, target, plane="horizontal", detection_xy="center", **options)
    request = json.loads((target / "atlaszarr/build.json").read_text())["request"]
    assert (request["plane"], request["detection_xy"]) == ("transverse", "centre")
    (again,) = build(7, target, plane="transverse", detection_xy="centre", **options).views
    assert again.state == "already finished"
    spelled = ["--plane", "axial", "--detection-xy", "center", "--resolution", 200, "--mode", "sections"]
    outcome = command("build", 7, target, *spelled, "--api-url", api.url, "--json")
    (view,) = json.loads(outcome.out)["views"]
    assert view["state"] == "already finished"
    for plane in ("horizontal", "axial", "transverse"):
        assert list(options["client"].search(plane=plane).index) == [7]


def test_a_target_of_another_mode_is_refused(allen, collection, tmp_path):
    target = tmp_path / "x.ome.zarr"
    shutil.copytree(collection(SAGITTAL, resolution=200, chunk=32, detection_xy=(0.0, 0.0)), target)
    with raises(InputError, "different-options") as caught:
        build(SAGITTAL, target, client=allen, resolution=200, chunk=32)
    assert "mode sections" in str(caught.value)
