"""`write_multiscales` of the Dataset of `open_volume` and `open_sections`, as it is and after a user's own steps."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import dask
import distributed
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster

from atlaszarr import build, open_sections, open_volume, plan, verify
from atlaszarr.errors import AtlaszarrWarning, ImageError, InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises
from ran_on_workers import counted_tasks

#: Sagittal, 18 sections.
SAGITTAL = 69289763
#: Coronal, 60 sections, of which 58 are inside the grid of a volume.
CORONAL = 74272479
OPTIONS = {"resolution": 100, "chunk": 32}
FLAT = {"resolution": 100, "chunk": 64}


@pytest.fixture(scope="module")
def built(allen, tmp_path_factory):
    """What `build` writes of the sagittal dataset: a volume and sections."""
    folder = tmp_path_factory.mktemp("built")
    build(SAGITTAL, folder / "volume", client=allen, scheduler="threads", **OPTIONS)
    build(SAGITTAL, folder / "sections", mode="sections", client=allen, scheduler="threads", **FLAT)
    return folder


SCHEDULERS = ["threads", "active client", "in-process client"]
#: Both datasets on threads and on processes; workers of this process share the code of both.
ON_SCHEDULERS = [
    (dataset, one) for dataset in (SAGITTAL, CORONAL) for one in SCHEDULERS[: 3 if dataset == SAGITTAL else 2]
]


@pytest.fixture(params=SCHEDULERS)
def running(request, cluster):
    """Runs what is written on a scheduler: ``with running() as ran``, a Counter of tasks, or None for threads."""

    def start():
        stack = ExitStack()
        if request.param == "active client":
            stack.enter_context(Client(cluster))
            return stack, stack.enter_context(counted_tasks(cluster))
        if request.param == "in-process client":
            local = stack.enter_context(LocalCluster(n_workers=1, processes=False, dashboard_address=":0"))
            stack.enter_context(Client(local))
            return stack, stack.enter_context(counted_tasks(local))
        return stack, None

    return start


def fetched(emulator):
    return emulator.count("section_image_download")


def with_image(opened, image):
    """The Dataset with another dask array as its image."""
    return opened.assign(image=opened.image.copy(data=image))


def mapped(opened):
    # Not a function of this module, which the workers cannot import.
    return with_image(opened, opened.image.data.map_blocks(lambda block: block // 2))


def overlapping(opened):
    def smoothed(block):
        return block // 2 + np.roll(block, 1, axis=1) // 4

    return with_image(
        opened, opened.image.data.map_overlap(smoothed, {1: 2, 2: 2, 3: 2}, boundary="nearest", dtype="uint8")
    )


def own(target, name):
    return (Path(target) / "atlaszarr" / name).read_bytes()


def document(target):
    return json.loads((Path(target) / "zarr.json").read_text())["attributes"]


def levels(target, path=""):
    return [zarr.open_array(level, mode="r")[:] for level in sorted(Path(target, path).glob("[0-9]"))]


def coarsened(image, section):
    """The next level: the mean of the covered voxels of 2 x 2 x 2, of all where none is covered."""
    image = image[np.newaxis] if image.ndim == 3 else image
    pad = [(0, n % 2) for n in section.shape]
    inside = np.pad(np.ones(section.shape), pad)
    covered = np.pad((section != 0).astype(float), pad)
    values = np.pad(image.astype(float), [(0, 0), *pad])

    def sums(array):
        z, y, x = (n // 2 for n in array.shape[-3:])
        return array.reshape(*array.shape[:-3], z, 2, y, 2, x, 2).sum(axis=(-5, -3, -1))

    weights = np.where(sums(covered) > 0, sums(covered), sums(inside))
    return np.where(sums(covered) > 0, sums(values * covered), sums(values)) / weights


@pytest.mark.first(2)
@pytest.mark.parametrize(("dataset", "running"), ON_SCHEDULERS, indirect=["running"])
def test_a_volume_as_it_is_becomes_the_target_of_build(emulator, allen, running, tmp_path, contents, dataset):
    build(dataset, tmp_path / "built.ome.zarr", client=allen, scheduler="threads", **OPTIONS)
    (planned,) = plan(dataset, client=allen, **OPTIONS)
    opened = open_volume(dataset, client=allen, **OPTIONS)
    stack, ran = running()
    with stack:
        emulator.reset()
        assert write_multiscales(opened, tmp_path / "x.ome.zarr").state == "built"
        assert fetched(emulator) == planned.image_requests
        if ran is not None:
            assert ran["write_blocks"] > 0
            assert ran["try_fetch"] == planned.image_requests
        assert write_multiscales(opened, tmp_path / "x.ome.zarr").state == "already finished"
    assert contents(tmp_path / "x.ome.zarr") == contents(tmp_path / "built.ome.zarr")
    for name in ("sections.csv", "failures.csv"):
        assert own(tmp_path / "x.ome.zarr", name) == own(tmp_path / "built.ome.zarr", name)
    records = [json.loads(own(tmp_path / name, "build.json")) for name in ("x.ome.zarr", "built.ome.zarr")]
    for key in ("request", "dataset", "credit", "api", "reference_space"):
        assert records[0][key] == records[1][key]
    # They are one thing: each finishes, checks and repairs the target of the other.
    assert build(dataset, tmp_path / "x.ome.zarr", client=allen, **OPTIONS).views[0].state == "already finished"
    assert verify(tmp_path / "x.ome.zarr", deep=True).ok


@pytest.mark.first(1)
@pytest.mark.parametrize(("dataset", "running"), ON_SCHEDULERS, indirect=["running"])
def test_sections_as_they_are_become_the_target_of_build(emulator, allen, running, tmp_path, contents, dataset):
    build(dataset, tmp_path / "built", mode="sections", client=allen, scheduler="threads", **FLAT)
    (planned,) = plan(dataset, mode="sections", client=allen, **FLAT)
    opened = open_sections(dataset, client=allen, **FLAT)
    stack, ran = running()
    with stack:
        emulator.reset()
        assert write_multiscales(opened, tmp_path / "x").state == "built"
        assert fetched(emulator) == planned.image_requests
        assert ran is None or ran["write_blocks"] > 0
    assert contents(tmp_path / "x") == contents(tmp_path / "built")
    assert own(tmp_path / "x", "sections.csv") == own(tmp_path / "built", "sections.csv")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"chunk": 16}, {"chunk": 16, "shard": 32}, {"levels": 1}, {"ome_zarr": "0.4"}])
def test_options_of_writing_are_those_of_build(allen, tmp_path, contents, options):
    build(SAGITTAL, tmp_path / "built", client=allen, **OPTIONS | options)
    write_multiscales(open_volume(SAGITTAL, client=allen, **OPTIONS), tmp_path / "x", **options)
    assert contents(tmp_path / "x") == contents(tmp_path / "built")


STEPS = {
    "mapped": mapped,
    "overlapping": overlapping,
    "float32": lambda opened: opened.assign(image=opened.image.astype("float32") / 3),
    "inverted": lambda opened: opened.assign(image=255 - opened.image),
    "other chunks": lambda opened: opened.chunk(z=25, y=30, x=41).assign(image=lambda ds: ds.image + 1),
}


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("running", "step"),
    [
        *(("threads", step) for step in STEPS),
        *(("active client", step) for step in STEPS),
        ("in-process client", "overlapping"),
    ],
    indirect=["running"],
)
def test_a_step_of_the_user_changes_the_image_alone(emulator, allen, running, built, tmp_path, step):
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    changed = STEPS[step](opened)
    target = tmp_path / "x"
    stack, ran = running()
    with stack:
        emulator.reset()
        assert write_multiscales(changed, target).state == "built"
        assert fetched(emulator) == 18
        assert ran is None or ran["write_blocks"] > 0
        assert write_multiscales(STEPS[step](opened), target).state == "already finished"
    expected = changed.image.compute(scheduler="threads").values
    first, *coarser = levels(target)
    assert first.dtype == expected.dtype
    np.testing.assert_array_equal(first, expected)
    labels = levels(target, "labels/section")
    for written, wanted in zip(labels, levels(built / "volume", "labels/section"), strict=True):
        np.testing.assert_array_equal(written, wanted)
    for parent, section, level in zip([first, *coarser], labels, coarser, strict=False):
        mean = coarsened(parent, section)
        if level.dtype.kind == "u":
            assert np.abs(level - mean).max() <= 0.5
        else:
            np.testing.assert_allclose(level, mean, rtol=1e-6)
    assert verify(target, deep=True).ok
    assert own(target, "sections.csv") == own(built / "volume", "sections.csv")
    ome, wanted = (document(path)["ome"] for path in (target, built / "volume"))
    assert ome["multiscales"] == wanted["multiscales"]
    assert ome["omero"]["channels"][0]["label"] == "red"
    assert json.loads(own(target, "build.json"))["request"]["steps"]["image"]


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "running"), ON_SCHEDULERS, indirect=["running"])
def test_a_step_on_sections_keeps_the_label_and_the_tables(emulator, allen, running, tmp_path, dataset):
    opened = open_sections(dataset, client=allen, **FLAT)
    build(dataset, tmp_path / "built", mode="sections", client=allen, scheduler="threads", **FLAT)
    stack, _ = running()
    with stack:
        emulator.reset()
        write_multiscales(with_image(opened, opened.image.data.map_blocks(np.copy)), tmp_path / "x")
        assert fetched(emulator) == len(set(opened.image_id.values))
    for member in (0, opened.sizes["section"] - 1):
        for path in ("", "labels/section"):
            found, built = (levels(tmp_path / name, f"{member}/{path}") for name in ("x", "built"))
            for one, other in zip(found, built, strict=True):
                np.testing.assert_array_equal(one, other)
        assert document(tmp_path / f"x/{member}") == document(tmp_path / f"built/{member}")
    assert own(tmp_path / "x", "sections.csv") == own(tmp_path / "built", "sections.csv")
    assert verify(tmp_path / "x", deep=True).ok


def test_selected_sections_and_pixels_keep_their_places(allen, built, tmp_path):
    opened = open_sections(SAGITTAL, client=allen, **FLAT)
    part = opened.isel(section=[2, 5], y=slice(10, 50), x=slice(20, 100), rgb=1)
    write_multiscales(part, tmp_path / "x")
    for member, position in enumerate((2, 5)):
        here, whole = tmp_path / f"x/{member}", built / f"sections/{position}"
        # x of a sagittal plane is p, along which the rows of what is stored run.
        np.testing.assert_array_equal(levels(here)[0], levels(whole)[0][1, 20:100, 10:50])
        labels = (levels(path, "labels/section")[0] for path in (here, whole))
        np.testing.assert_array_equal(next(labels), next(labels)[20:100, 10:50])
        found, wanted = (
            document(path)["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
            for path in (here, whole)
        )
        assert found[0]["scale"] == wanted[0]["scale"][1:]
        offset = np.subtract(found[1]["translation"], wanted[1]["translation"][1:])
        np.testing.assert_allclose(offset, [2.0, 1.0, 0.0], atol=1e-12)
    table = pd.read_csv(tmp_path / "x/atlaszarr/sections.csv")
    assert (table.state == "used").sum() == 2
    assert table.path.dropna().tolist() == [0, 1]


def test_sections_that_are_moved_keep_their_label(allen, built, tmp_path):
    opened = open_sections(SAGITTAL, client=allen, **FLAT)
    um = {"units": "um"}
    moved = opened.assign_coords(y=("y", opened.y.values * 1000 + 1000, um), x=("x", opened.x.values * 1000, um))
    moved = moved.isel(section=[2], y=slice(10, 50))
    write_multiscales(moved, tmp_path / "x")
    label, whole = (levels(path, "labels/section")[0] for path in (tmp_path / "x/0", built / "sections/2"))
    np.testing.assert_array_equal(label, whole[:, 10:50])
    _, translation = document(tmp_path / "x/0")["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert translation["translation"][2] == pytest.approx(2.045)


SELECTIONS = {
    "box": ({"z": slice(10, 50), "y": slice(5, 70), "x": slice(3, 90)}, (3, 40, 65, 87), [1.0, 0.5, 0.3]),
    "plane": ({"z": 20}, (3, 1, 80, 114), [2.0, 0.0, 0.0]),
    "thin": ({"y": [7]}, (3, 132, 1, 114), [0.0, 0.7, 0.0]),
    "channel": ({"c": 0}, (132, 80, 114), [0.0, 0.0, 0.0]),
    "channels": ({"c": [2, 0]}, (2, 132, 80, 114), [0.0, 0.0, 0.0]),
    "every second": ({"z": slice(None, None, 2)}, (3, 66, 80, 114), [0.0, 0.0, 0.0]),
}


@pytest.mark.first(7)
@pytest.mark.parametrize(
    ("unit", "name"),
    [*(("millimeter", name) for name in SELECTIONS), ("um", "box"), ("um", "plane"), (None, "box"), (None, "thin")],
)
def test_a_selection_is_written_at_its_place(allen, tmp_path, name, unit):
    selection, shape, offset = SELECTIONS[name]
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    if unit != "millimeter":
        factor, attrs = (1, {}) if unit is None else (1000, {"units": unit})
        opened = opened.assign_coords({axis: (axis, opened[axis].values * factor, attrs) for axis in "zyx"})
    part = opened.isel(selection)
    write_multiscales(part, tmp_path / "x")
    written = levels(tmp_path / "x")[0]
    assert written.shape == shape
    np.testing.assert_array_equal(np.squeeze(written), part.image.values.squeeze())
    np.testing.assert_array_equal(
        np.squeeze(levels(tmp_path / "x", "labels/section")[0]), part.section.values.squeeze()
    )
    ome = document(tmp_path / "x")["ome"]
    scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    np.testing.assert_allclose(translation["translation"][-3:], np.add(offset, 0.045), atol=1e-12)
    assert {axis.get("unit") for axis in ome["multiscales"][0]["axes"][-3:]} == {"millimeter"}
    assert scale["scale"][-3:] == [0.2 if name == "every second" else 0.1, 0.1, 0.1]
    labels = [channel["label"] for channel in ome["omero"]["channels"]]
    assert labels == {"channel": ["grey"], "channels": ["blue", "red"]}.get(name, ["red", "green", "blue"])
    assert verify(tmp_path / "x", deep=True).ok


REFUSED = {
    "missing-variable": lambda opened: opened[["image"]],
    "unknown-dataset": lambda opened: opened.drop_vars("dataset_id"),
    "missing-coordinate": lambda opened: opened.drop_vars("z"),
    "irregular-grid": lambda opened: opened.isel(z=[1, 2, 5]),
    "invalid-section-label": lambda opened: opened.where(opened.section > 0),
    "unsupported-dtype": lambda opened: opened.assign(image=opened.image > 9),
    "wrong-axes": lambda opened: opened.assign(image=opened.image.expand_dims(t=2)),
    "unknown-unit": lambda opened: opened.assign_coords(
        {axis: (axis, opened[axis].values, {"units": "furlong"}) for axis in "zyx"}
    ),
    "different-units": lambda opened: opened.assign_coords(z=("z", opened.z.values, {"units": "um"})).isel(z=[3]),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_missing_is_named_and_nothing_is_written(allen, tmp_path, code):
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    with raises(InputError, code):
        write_multiscales(REFUSED[code](opened), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_step_on_the_whole_dataset_that_spoils_the_label_is_refused(allen, tmp_path):
    with raises(InputError, "invalid-section-label") as caught:
        write_multiscales(open_volume(SAGITTAL, client=allen, **OPTIONS) * 2, tmp_path / "x")
    assert "variable 'section' holds" in str(caught.value)


@pytest.mark.parametrize("option", [{"rule": "nearest"}, {"labels": {"a": np.ones((2, 2, 2), "u1")}}, {"name": "x"}])
def test_options_that_a_dataset_decides_are_refused(allen, tmp_path, option):
    with raises(InputError, "conflicting-options"):
        write_multiscales(open_volume(SAGITTAL, client=allen, **OPTIONS), tmp_path / "x", **option)


@pytest.mark.slow
def test_views_are_written_one_by_one(allen, tmp_path, contents):
    opened = open_sections(SAGITTAL, client=allen, view=["primary", "expression"], **FLAT)
    with raises(InputError, "several-views"):
        write_multiscales(opened, tmp_path / "x")
    build(SAGITTAL, tmp_path / "built", mode="sections", view=["primary", "expression"], client=allen, **FLAT)
    for name, target in (("image", "built"), ("expression", "built.expression")):
        write_multiscales(opened[[name]], tmp_path / name)
        assert contents(tmp_path / name) == contents(tmp_path / target)


SCRIPT = """
import os, signal, sys
from atlaszarr import AllenClient, open_volume
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
import numpy as np
with AllenClient(sys.argv[1], cache="none", rate=1e9) as client:
    opened = open_volume({dataset}, client=client, resolution=100, chunk=32)
    image = opened.image.data.map_blocks(np.negative)

    def kill(done, total, word):
        if [word] == sys.argv[3:4] and done >= int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

    report = write_multiscales(
        opened.assign(image=opened.image.copy(data=image)), sys.argv[2], workers=1, progress=kill
    )
    print(report.state, report.tasks_done)
"""


def test_a_changed_dataset_from_a_file_in_memory_is_not_taken_for_the_opening(allen, tmp_path):
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    changed = with_image(opened, np.invert(opened.image.data)).drop_vars("c")
    changed.to_zarr(tmp_path / "copy.zarr", consolidated=False)
    held = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False).load().assign_coords(c=opened.c.values)
    write_multiscales(held, tmp_path / "x")
    np.testing.assert_array_equal(levels(tmp_path / "x")[0], changed.image.values)
    assert "steps" in json.loads((tmp_path / "x" / "atlaszarr" / "build.json").read_text())["request"]
    with raises(InputError, "different-options"):
        write_multiscales(with_image(held, np.invert(held.image.values)), tmp_path / "x")


@pytest.mark.slow
def test_another_process_resumes_the_same_graph_and_another_graph_is_refused(emulator, allen, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, _, word):
        if word == "blocks" and done >= 3:
            raise StopError

    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    target = tmp_path / "x"
    negative = with_image(opened, opened.image.data.map_blocks(np.negative))
    with pytest.raises(StopError):
        write_multiscales(negative, target, workers=1, progress=stop)
    with raises(InputError, "different-options") as caught:
        write_multiscales(with_image(opened, opened.image.data.map_blocks(np.invert)), target)
    assert "steps" in str(caught.value)
    with raises(InputError, "different-options"):
        write_multiscales(opened, target)
    code = SCRIPT.format(dataset=SAGITTAL)
    ran = subprocess.run([sys.executable, "-c", code, emulator.url, target], check=True, capture_output=True, text=True)
    state, tasks = ran.stdout.split()
    assert state == "resumed"
    assert 0 < int(tasks) < 15
    np.testing.assert_array_equal(levels(target)[0], negative.image.values)


@pytest.mark.slow
@pytest.mark.parametrize("at", [("images", "9"), ("blocks", "4"), ("level 2", "1")])
def test_a_killed_process_is_resumed_to_the_same_bytes(emulator, allen, tmp_path, contents, at):
    code = SCRIPT.format(dataset=SAGITTAL)
    killed = subprocess.run([sys.executable, "-c", code, emulator.url, tmp_path / "x", *at], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert "ome" not in document(tmp_path / "x")
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    changed = with_image(opened, opened.image.data.map_blocks(np.negative))
    assert write_multiscales(changed, tmp_path / "x").state == "resumed"
    write_multiscales(changed, tmp_path / "undisturbed")
    assert contents(tmp_path / "x") == contents(tmp_path / "undisturbed")
    assert own(tmp_path / "x", "sections.csv") == own(tmp_path / "undisturbed", "sections.csv")


def test_a_damaged_chunk_is_named_and_written_again_alone(allen, tmp_path):
    changed = STEPS["mapped"](open_volume(SAGITTAL, client=allen, **OPTIONS))
    write_multiscales(changed, tmp_path / "x")
    chunk = tmp_path / "x/0/c/0/2/1/1"
    chunk.write_bytes(b"damaged")
    report = verify(tmp_path / "x")
    assert [defect.key for defect in report.defects] == ["0/c/0/2/1/1"]
    repaired = write_multiscales(changed, tmp_path / "x")
    assert (repaired.state, repaired.tasks_done) == ("resumed", 1)
    assert verify(tmp_path / "x", deep=True).ok


MISSING = 69177654
LACKING = [
    {"match": {"path": f"section_image_download/{MISSING}"}, "do": "status", "status": 404, "times": None},
]


@pytest.mark.first(1)
@pytest.mark.parametrize("step", ["as it is", "mapped"])
def test_a_missing_image_leaves_the_target_unfinished_until_it_is_there(serve, connect, tmp_path, step):
    from atlaszarr.testing.records import dataset_records, image_records

    records = [r for r in dataset_records() if r["id"] == SAGITTAL]
    images = [r for r in image_records() if r["data_set_id"] == SAGITTAL]
    faulty = serve(records, images, faults=[{**LACKING[0], "times": 1}])
    opened = open_volume(SAGITTAL, client=connect(faulty, cache=tmp_path / "cache", retries=0), **OPTIONS)
    changed = opened if step == "as it is" else STEPS[step](opened)
    with raises(ImageError, "image-missing") as caught:
        write_multiscales(changed, tmp_path / "x")
    assert str(MISSING) in str(caught.value)
    assert f"{MISSING}" in own(tmp_path / "x", "failures.csv").decode()
    faulty.reset()
    assert write_multiscales(changed, tmp_path / "x").state == "resumed"
    assert fetched(faulty) == 1
    np.testing.assert_array_equal(levels(tmp_path / "x")[0], changed.image.values)


@pytest.mark.first(1)
@pytest.mark.parametrize("step", ["as it is", "mapped"])
def test_a_missing_image_that_is_filled_is_listed_and_finishes(serve, connect, tmp_path, step):
    from atlaszarr.testing.records import dataset_records, image_records

    records = [r for r in dataset_records() if r["id"] == SAGITTAL]
    images = [r for r in image_records() if r["data_set_id"] == SAGITTAL]
    opened = open_volume(
        SAGITTAL, client=connect(serve(records, images, faults=LACKING), retries=0), on_missing="fill", **OPTIONS
    )
    changed = opened if step == "as it is" else STEPS[step](opened)
    with pytest.warns(AtlaszarrWarning, match=str(MISSING)):
        assert write_multiscales(changed, tmp_path / "x").state == "built"
    assert opened.attrs["missing"] == [MISSING]
    assert MISSING not in levels(tmp_path / "x", "labels/section")[0]
    assert f"{MISSING}" in own(tmp_path / "x", "failures.csv").decode()


@pytest.mark.first(2)
@pytest.mark.parametrize("where", ["memory", "file", "cluster", "cluster, written by threads"])
@pytest.mark.parametrize("step", ["as it is", "mapped"])
def test_values_that_are_computed_already_are_written_without_a_request(
    emulator, allen, cluster, tmp_path, where, step
):
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    changed = opened if step == "as it is" else STEPS[step](opened)
    write_multiscales(changed, tmp_path / "wanted")
    with ExitStack() as stack:
        scheduler = "threads" if where.endswith("threads") else None
        if where.startswith("cluster"):
            stack.enter_context(Client(cluster))
        if where == "memory":
            held = changed.compute()
        elif where == "file":
            names = changed.c.values  # text of a fixed length is not in the specification of zarr
            changed.drop_vars("c").to_zarr(tmp_path / "copy.zarr", consolidated=False)
            held = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False).assign_coords(c=names)
        else:
            held = changed.persist()
            distributed.wait(held)
        emulator.reset()
        write_multiscales(held, tmp_path / "x", scheduler=scheduler)
        assert fetched(emulator) == 0
    for path in ("", "labels/section"):
        for one, other in zip(levels(tmp_path / "x", path), levels(tmp_path / "wanted", path), strict=True):
            np.testing.assert_array_equal(one, other)
    tables = [pd.read_csv(tmp_path / name / "atlaszarr/sections.csv") for name in ("x", "wanted")]
    assert tables[0].state.tolist() == tables[1].state.tolist()
    assert tables[0].sha256.isna().all()


@pytest.mark.slow
def test_two_views_of_a_dataset_are_combined_and_each_image_is_fetched_once(emulator, allen, tmp_path):
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    mask = open_volume(SAGITTAL, client=allen, view="expression", **OPTIONS)
    changed = opened.assign(image=opened.image.where(mask.image.max("c") > 0, 0))
    emulator.reset()
    write_multiscales(changed, tmp_path / "x")
    assert fetched(emulator) == len({r.path + str(r.query) for r in emulator.requests if "download" in r.kind})
    np.testing.assert_array_equal(levels(tmp_path / "x")[0], changed.image.values)


@pytest.mark.slow
def test_fields_of_the_user_are_kept(allen, tmp_path):
    from atlaszarr import Displacement

    first = open_sections(SAGITTAL, client=allen, **FLAT)
    id = int(first.image_id[9])
    rows, columns = 132, 80  # of the plane (p, i)
    shifted = Displacement.from_affine((columns, rows), [[8.0, 0.0, 50.0], [0.0, 8.0, 40.0]])
    opened = open_sections(SAGITTAL, client=allen, fields={id: shifted}, **FLAT)
    write_multiscales(opened, tmp_path / "x")
    written = levels(tmp_path / "x/9")[0]
    np.testing.assert_array_equal(written[..., 0].transpose(0, 2, 1), np.moveaxis(opened.image[9].values, -1, 0))
    label = levels(tmp_path / "x/9/labels/section")[0][..., 0].T
    assert set(np.unique(label)) == {0, id}


def test_a_graph_that_dask_has_optimized_names_all_images(allen, built, tmp_path):
    opened = open_volume(SAGITTAL, client=allen, **OPTIONS)
    (optimized,) = dask.optimize(STEPS["mapped"](opened))
    write_multiscales(optimized, tmp_path / "x")
    np.testing.assert_array_equal(levels(tmp_path / "x")[0], STEPS["mapped"](opened).image.values)
    tables = [pd.read_csv(path / "atlaszarr/sections.csv") for path in (tmp_path / "x", built / "volume")]
    assert tables[0].state.tolist() == tables[1].state.tolist()


@pytest.mark.slow
def test_slides_of_a_bucket_are_written_and_combined_with_images_of_the_api(serve, connect, tmp_path, contents):
    small = serve()
    small.write_bucket(Target(str(tmp_path / "bucket")), tiers=[5, 6, 7])
    source = connect(small, image_source=tmp_path / "bucket")
    options = {"resolution": 200, "chunk": 16}
    opened = open_volume(CORONAL, client=source, **options)
    build(CORONAL, tmp_path / "built", client=source, **options)
    small.reset()
    write_multiscales(opened, tmp_path / "x")
    write_multiscales(mapped(opened), tmp_path / "y")
    assert fetched(small) == 0
    assert contents(tmp_path / "x") == contents(tmp_path / "built")
    assert own(tmp_path / "x", "sections.csv") == own(tmp_path / "built", "sections.csv")
    assert own(tmp_path / "y", "sections.csv") == own(tmp_path / "built", "sections.csv")
    np.testing.assert_array_equal(levels(tmp_path / "y")[0], mapped(opened).image.values)
    other = open_volume(CORONAL, client=connect(small), **options)
    difference = opened.assign(image=opened.image.astype("i2") - other.image.astype("i2"))
    write_multiscales(difference, tmp_path / "z")
    np.testing.assert_array_equal(levels(tmp_path / "z")[0], difference.image.values)
    assert own(tmp_path / "z", "sections.csv") == own(tmp_path / "built", "sections.csv")
