"""verify names the defects of a target and nothing else; a build repairs these and nothing else."""

import json
import shutil
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from atlaszarr import AllenClient, build, verify
from atlaszarr.cli.commands import main
from atlaszarr.engine.array_layout import Encoding
from atlaszarr.engine.ledger import COMPACT, OPEN, digest, opened, sealed
from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.local import write_whole
from atlaszarr.stores.target import Target
from atlaszarr.testing.emulator import Emulator
from atlaszarr.writing import write_multiscales
from codes import raises
from scripted import Fault, Scripted, StoreFaultError

DATASET = 69289763
OPTIONS = {"resolution": 200, "chunk": 16}
CHUNK, OTHER, COARSE = "0/c/0/1/1/1", "0/c/0/2/1/1", "labels/section/1/c/1/0/0"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with Emulator() as running, AllenClient(running.url, cache=cache, rate=1e9) as client:
        yield client


@pytest.fixture(scope="module", params=["0.5", pytest.param("0.4", marks=pytest.mark.slow)])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def intact(client, version, made_once):
    name = f"volume to damage, OME-Zarr {version}.ome.zarr"
    return made_once(name, lambda target: build(DATASET, target, client=client, ome_zarr=version, **OPTIONS))


@pytest.fixture
def target(intact, tmp_path):
    return Path(shutil.copytree(intact, tmp_path / "x.ome.zarr"))


class Planter:
    """Damages a target; keys are those of OME-Zarr 0.5."""

    def __init__(self, target, version):
        self.target, self.version = target, version

    def key(self, key):
        """The key of the same object in a target of this version."""
        if self.version == "0.5":
            return key
        if "/c/" in key:
            return key.replace("/c/", "/", 1)
        is_array = key.removesuffix("/zarr.json").rsplit("/", 1)[-1].isdigit()
        return key.replace("zarr.json", ".zarray" if is_array else ".zattrs")

    def path(self, key):
        return self.target / self.key(key)

    def edit(self, key, change):
        document = json.loads(self.path(key).read_text())
        change(document.get("attributes", document))
        self.path(key).write_text(json.dumps(document))

    def edit_array(self, key, change):
        document = json.loads(self.path(key).read_text())
        change(document)
        self.path(key).write_text(json.dumps(document))

    def amend(self, key, body):
        """Write an object and record it in the ledger and the root, as a build with a fault does."""
        key = self.key(key)
        old = (self.target / key).read_bytes()
        (self.target / key).write_bytes(body)
        ledger = self.target / COMPACT
        lines = ledger.read_bytes().splitlines()
        (number,) = (number for number, line in enumerate(lines) if f'"{key}": [{len(old)},'.encode() in line)
        record = opened(lines[number])
        record["objects"][key] = (len(body), digest(body))
        lines[number] = sealed(record)
        ledger.write_bytes(b"\n".join((*lines, b"")))
        self.sign()

    def sign(self):
        """Write the digest of the current ledger to the root."""
        lines = (self.target / COMPACT).read_bytes().removesuffix(b"\n").split(b"\n")[:-1]
        self.edit("zarr.json", lambda attributes: attributes["atlaszarr"].update(ledger=digest(b"\n".join(lines))))


def flip_a_bit(path):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 16
    path.write_bytes(bytes(body))


def swap(first, second):
    first_body, second_body = first.read_bytes(), second.read_bytes()
    assert first_body != second_body
    first.write_bytes(second_body)
    second.write_bytes(first_body)


def ome(attributes):
    return attributes.get("ome", attributes)


def scale(attributes):
    ome(attributes)["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"][1] = 0.5


def line(planter, number, text):
    lines = (planter.target / COMPACT).read_text().splitlines()
    lines[number] = text
    (planter.target / COMPACT).write_text("\n".join(lines) + "\n")


def removed_level(planter):
    keys = {str(p.relative_to(planter.target)) for p in (planter.target / "2").rglob("*") if p.is_file()}
    shutil.rmtree(planter.target / "2")
    return {("missing", key) for key in keys}


def older_ledger(planter):
    """Replace the ledger by that of an earlier build of the same target with other chunks."""
    lines = (planter.target / COMPACT).read_bytes().splitlines()
    records = [opened(line) for line in lines]
    for record in records[1:-1]:
        record["objects"] = {key: (size, "0" * 32) for key, (size, _) in record["objects"].items()}
    (planter.target / COMPACT).write_bytes(b"\n".join((*map(sealed, records), b"")))


# The damage to a target, and the kinds and keys that verify must name; keys are those of 0.5.
DEFECTS = {
    "a chunk of level 0 is deleted": (lambda p: p.path(CHUNK).unlink(), [("missing", CHUNK)]),
    "a chunk of a coarser label is deleted": (lambda p: p.path(COARSE).unlink(), [("missing", COARSE)]),
    "a chunk is truncated": (
        lambda p: p.path(CHUNK).write_bytes(p.path(CHUNK).read_bytes()[:-9]),
        [("truncated", CHUNK)],
    ),
    "a chunk is empty": (lambda p: p.path(COARSE).write_bytes(b""), [("truncated", COARSE)]),
    "a bit is flipped": (lambda p: flip_a_bit(p.path(CHUNK)), [("altered", CHUNK)]),
    "a bit is flipped in a label": (lambda p: flip_a_bit(p.path(COARSE)), [("altered", COARSE)]),
    "two chunks of unlike length are swapped": (
        lambda p: swap(p.path(CHUNK), p.path(OTHER)),
        [("truncated", CHUNK), ("truncated", OTHER)],
    ),
    "an extra chunk belongs to no array": (
        lambda p: shutil.copy(p.path(CHUNK), p.path("0/c/0/1/1/77")),
        [("extra", "0/c/0/1/1/77")],
    ),
    "a temporary file is left": (
        lambda p: p.path("0/c/0/1/1/.0a.partial").write_bytes(b"x"),
        [("extra", "0/c/0/1/1/.0a.partial")],
    ),
    "the scale of a level is edited": (lambda p: p.edit("zarr.json", scale), [("metadata", "zarr.json")]),
    "the image's metadata is dropped": (
        lambda p: p.edit("zarr.json", lambda a: ome(a).pop("omero")),
        [("metadata", "zarr.json")],
    ),
    "the dtype of a level is edited": (
        lambda p: p.edit_array(
            "1/zarr.json", lambda d: d.update(dict.fromkeys({"data_type", "dtype"} & set(d), "uint16"))
        ),
        [("metadata", "1/zarr.json")],
    ),
    "the shape of a level is edited": (
        lambda p: p.edit_array("1/zarr.json", lambda d: d.update(shape=[3, 34, 20, 29])),
        [("metadata", "1/zarr.json")],
    ),
    "the metadata of a level is not JSON": (
        lambda p: p.path("1/zarr.json").write_text("{"),
        [("metadata", "1/zarr.json")],
    ),
    "a level lacks its metadata": (lambda p: p.path("2/zarr.json").unlink(), [("missing", "2/zarr.json")]),
    "a level is missing": (removed_level, None),
    "the label group lacks its metadata": (
        lambda p: p.path("labels/section/zarr.json").unlink(),
        [("missing", "labels/section/zarr.json")],
    ),
    "the list of labels is edited": (
        lambda p: p.edit("labels/zarr.json", lambda a: ome(a).update(labels=[])),
        [("metadata", "labels/zarr.json")],
    ),
    "the scale of a label is edited": (
        lambda p: p.edit("labels/section/zarr.json", scale),
        [("metadata", "labels/section/zarr.json")],
    ),
    "a table is missing": (
        lambda p: (p.target / "atlaszarr/sections.csv").unlink(),
        [("missing", "atlaszarr/sections.csv")],
    ),
    "a table is edited": (
        lambda p: (p.target / "atlaszarr/build.json").write_text("{}"),
        [("altered", "atlaszarr/build.json")],
    ),
    "the ledger is missing": (lambda p: (p.target / COMPACT).unlink(), [("ledger", COMPACT)]),
    "a line of the ledger is damaged": (lambda p: line(p, 3, '{"task": "0-'), [("ledger", f"{COMPACT} line 4")]),
    "the header of the ledger is damaged": (lambda p: line(p, 0, "{"), [("ledger", COMPACT)]),
    "the ledger is cut": (
        lambda p: (p.target / COMPACT).write_bytes((p.target / COMPACT).read_bytes()[:200]),
        [("ledger", COMPACT)],
    ),
    "the ledger is empty": (lambda p: (p.target / COMPACT).write_bytes(b""), [("ledger", COMPACT)]),
    "a record of another run is left": (
        lambda p: write_whole(p.target / OPEN / "0-0.0.0.json", sealed({"task": "0-0.0.0", "objects": {}, "from": {}})),
        [("extra", f"{OPEN}/0-0.0.0.json")],
    ),
    "the root is missing": (lambda p: p.path("zarr.json").unlink(), [("missing", "zarr.json")]),
    "the root is cut": (lambda p: p.path("zarr.json").write_text('{"attri'), [("metadata", "zarr.json")]),
    "the ledger is of another build": (older_ledger, [("ledger", COMPACT)]),
}


@pytest.mark.first(8)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_named_and_repaired_and_nothing_else(name, intact, target, version, client, contents):
    plant, expected = DEFECTS[name]
    planter = Planter(target, version)
    planted = plant(planter)
    named = planted if expected is None else {(kind, planter.key(key)) for kind, key in expected}
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    report = verify(target)
    assert {(defect.kind, defect.key) for defect in report.defects} == named
    assert len(report.defects) == len(named)
    assert not report.ok
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before, "verify wrote"

    repaired = build(DATASET, target, client=client, ome_zarr=version, **OPTIONS)
    assert contents(target) == contents(intact)
    assert verify(target, deep=True).ok
    damaged = {key for kind, key in named if kind in ("missing", "truncated", "altered") and "zarr" not in key}
    written = {
        str(path.relative_to(target)) for path in target.rglob("*") if before.get(path) != path.stat().st_mtime_ns
    }
    chunks = {key for key in written if (target / key).is_file() and key.rsplit("/", 1)[-1].isdigit()}
    if "ledger" not in {kind for kind, _ in named}:
        assert chunks >= {key for key in damaged if key.rsplit("/", 1)[-1].isdigit()}
        # A block of level 0 writes eight chunks of level 0 and one of level 1, in two arrays.
        assert len(chunks) <= 18 * repaired.views[0].tasks_done
        assert repaired.views[0].tasks_done <= len(damaged)


def test_an_intact_target_has_no_defects(intact):
    report = verify(intact, deep=True)
    assert report.ok
    assert report.objects > 70
    assert report.blocks > 8


def test_a_coarser_level_that_differs_from_the_downsampled_level_before_is_named(target, version):
    planter = Planter(target, version)
    key = "1/c/0/0/0/0"
    values = np.full((3, 16, 16, 16), 200, "uint8")
    encoding = Encoding(zarr_format=2 if version == "0.4" else 3)
    planter.amend(key, encoding.layout(values.shape, values.shape, values.dtype).encode(values))
    assert {(d.kind, d.key) for d in verify(target, deep=True).defects} >= {("inconsistent", planter.key(key))}
    assert {d.kind for d in verify(target, deep=True).defects} == {"inconsistent"}


def test_a_repair_that_is_killed_as_it_begins_is_completed_by_the_next_build(tmp_path):
    image, place = np.random.default_rng(0).integers(0, 255, (32, 32, 32), "uint8"), "scripted://killed/x.ome.zarr"
    write_multiscales(image, tmp_path / "x.ome.zarr", chunk=16, identity="x")
    layout = Encoding().layout((16,) * 3, (16,) * 3, "uint8")
    Planter(tmp_path / "x.ome.zarr", "0.5").amend("1/c/0/0/0", layout.encode(np.full((16,) * 3, 200, "uint8")))
    Target.of(place).write_all(Target.of(tmp_path / "x.ome.zarr").read_all("").items())
    assert {defect.kind for defect in verify(place, deep=True).defects} == {"inconsistent"}
    Scripted.faults[:] = [Fault("put", "x.ome.zarr/zarr.json", StoreFaultError("killed"), done=True)]
    with raises(TargetError, "store-error"):
        write_multiscales(image, place, chunk=16, identity="x")
    assert write_multiscales(image, place, chunk=16, identity="x").state == "resumed"
    assert verify(place, deep=True).ok


def test_a_label_that_the_metadata_does_not_list_is_named(target, version):
    planter = Planter(target, version)
    layout = Encoding(zarr_format=2 if version == "0.4" else 3).layout((16,) * 3, (16,) * 3, "uint32")
    key = "labels/section/0/c/1/1/1"
    values = layout.decode(planter.path(key).read_bytes()).copy()
    values[0, 0, 0] = 7
    planter.amend(key, layout.encode(values))
    found = verify(target, deep=True).defects
    assert ("label", planter.key(key)) in {(d.kind, d.key) for d in found}
    assert "label 7" in str(next(d for d in found if d.kind == "label"))


def test_several_defects_are_all_named(target, version):
    planter = Planter(target, version)
    planter.path(CHUNK).unlink()
    flip_a_bit(planter.path(COARSE))
    planter.path("1/zarr.json").unlink()
    keys = {planter.key(key) for key in (CHUNK, COARSE, "1/zarr.json")}
    assert {defect.key for defect in verify(target).defects} == keys


def test_an_unfinished_target_is_a_defect(target, version):
    Planter(target, version).edit("zarr.json", lambda a: a["atlaszarr"].update(state="unfinished"))
    (defect,) = verify(target).defects
    assert (defect.kind, str(defect)) == ("unfinished", "the target is unfinished; run the same command to resume")


def test_the_command_names_each_defect_on_a_line_and_exits_1(target, version, capsys):
    planter = Planter(target, version)
    assert main(["verify", str(target)]) == 0
    assert capsys.readouterr().out.startswith("sound: ")
    planter.path(CHUNK).unlink()
    assert main(["verify", str(target)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"missing: {planter.key(CHUNK)}: is missing"
    assert last.startswith("1 defect: ")
    assert main(["verify", str(target), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["defects"] == [
        {"kind": "missing", "key": planter.key(CHUNK), "text": "is missing"}
    ]


def test_a_target_without_output_of_atlaszarr_makes_the_command_exit_2(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    with pytest.raises((InputError, TargetError)):
        verify("s3://nowhere/x.ome.zarr", storage_options={"endpoint_url": "http://127.0.0.1:9", "anon": True})


def test_a_repair_that_was_killed_at_its_start_is_resumed(tmp_path, contents):
    image = da.random.default_rng(0).integers(0, 200, (40, 40, 40), chunks=20).astype("uint8")
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=8, identity="random")
    before = contents(target)
    flip_a_bit(target / "0/c/1/1/1")
    root = json.loads((target / "zarr.json").read_text())
    root["attributes"] = {"atlaszarr": root["attributes"]["atlaszarr"] | {"state": "unfinished"}}
    (target / "zarr.json").write_text(json.dumps(root))
    assert write_multiscales(image, target, chunk=8, identity="random").tasks_done == 1
    assert contents(target) == before


@pytest.mark.parametrize("left", [".zgroup", ".0a.partial", "atlaszarr/owner.json", "atlaszarr/owner.json.0a"])
def test_the_leftovers_of_a_build_that_was_killed_at_its_first_write_do_not_stop_the_next(tmp_path, left):
    write_whole(tmp_path / "x.ome.zarr" / left, b"{}")
    assert write_multiscales(np.zeros((9, 9, 9), "uint8"), tmp_path / "x.ome.zarr").state == "built"
    assert verify(tmp_path / "x.ome.zarr").ok


def test_overwriting_keeps_other_files_next_to_the_image(tmp_path):
    target = tmp_path / "x.ome.zarr"
    write_multiscales(np.zeros((9, 9, 9), "uint8"), target)
    (target / "notes.txt").write_text("mine")
    write_multiscales(np.ones((9, 9, 9), "uint8"), target, overwrite=True)
    assert (target / "notes.txt").read_text() == "mine"
    assert verify(target).ok


def test_writing_an_image_again_repairs_it(tmp_path, contents):
    image = da.random.default_rng(0).integers(0, 200, (40, 40, 40), chunks=20).astype("uint8")
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=8, shard=16, identity="random")
    before = contents(target)
    flip_a_bit(target / "0/c/1/0/1")
    assert [(d.kind, d.key) for d in verify(target).defects] == [("altered", "0/c/1/0/1")]
    assert write_multiscales(image, target, chunk=8, shard=16, identity="random").tasks_done == 1
    assert contents(target) == before
