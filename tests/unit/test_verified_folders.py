"""verify of a folder of images: those of other programs, links, damaged roots, names that nobody expects."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from atlaszarr import verify
from atlaszarr.cli.commands import main
from atlaszarr.dataset_batch.journal import BATCH, REQUEST, Journal, Row
from atlaszarr.engine.verify import VerifyReport, joined
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises

CHUNK = "0/c/0/0/0"


@pytest.fixture
def root(tmp_path):
    """A folder with two images."""
    for name in ("a.ome.zarr", "named as they like"):
        write_multiscales(np.arange(20**3, dtype="u2").reshape(20, 20, 20), tmp_path / "root" / name, chunk=16)
    return tmp_path / "root"


def found(root):
    return {(defect.kind, defect.key) for defect in verify(root).defects}


def other_group(path):
    zarr.create_group(path).create_array("0", data=np.zeros(3))


def other_array(path):
    zarr.create_array(path, data=np.zeros(3))


def no_json(path):
    path.mkdir()
    (path / "zarr.json").write_bytes(b"\xff{")


def half_a_root(path):
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps({"attributes": {"atlaszarr": {"state": "finished"}}}))


def link_to_itself(path):
    path.symlink_to(path.name)


def link_to_the_folder(path):
    path.symlink_to(".")


def broken_link(path):
    path.symlink_to("nowhere")


def a_file(path):
    path.write_text("")


@pytest.mark.parametrize(
    "make", [other_group, other_array, no_json, half_a_root, link_to_itself, link_to_the_folder, broken_link, a_file]
)
def test_what_atlaszarr_did_not_write_is_left_out(root, make):
    make(root / "other.zarr")
    whole = verify(root)
    assert (whole.ok, whole.objects) == (True, 2 * verify(root / "a.ome.zarr").objects)
    (root / "named as they like" / CHUNK).unlink()
    assert found(root) == {("missing", f"named as they like/{CHUNK}")}


def test_a_folder_of_other_images_alone_holds_nothing_of_atlaszarr(tmp_path):
    other_group(tmp_path / "other.zarr")
    with raises(InputError, "not-atlaszarr"):
        verify(tmp_path)


def test_an_image_that_cannot_be_read_does_not_hide_the_others(root, capsys):
    (root / "z.zarr" / "zarr.json").mkdir(parents=True)
    (root / "a.ome.zarr" / CHUNK).unlink()
    assert found(root) == {("unreadable", "z.zarr"), ("missing", f"a.ome.zarr/{CHUNK}")}
    assert main(["verify", str(root)]) == 1
    assert "z.zarr" in capsys.readouterr().out


def test_an_image_of_another_version_is_a_defect(root):
    document = json.loads((root / "a.ome.zarr" / "zarr.json").read_text())
    document["attributes"]["atlaszarr"]["request"]["layout"] = 1
    (root / "a.ome.zarr" / "zarr.json").write_text(json.dumps(document))
    assert found(root) == {("unreadable", "a.ome.zarr")}


@pytest.mark.parametrize("body", [None, b"{"])
def test_an_image_without_a_ledger_whose_root_is_lost_is_a_defect(root, body):
    folder = root / "a.ome.zarr"
    (folder / "atlaszarr" / "build.json").write_text("{}")
    for path in folder.glob("atlaszarr/ledger*"):
        path.unlink()
    (folder / "zarr.json").unlink()
    if body is not None:
        (folder / "zarr.json").write_bytes(body)
    kind = "missing" if body is None else "metadata"
    assert {(kind, "a.ome.zarr/zarr.json")} <= found(root)
    assert not verify(folder).ok


def test_a_link_to_an_image_is_validated_where_it_leads(root, tmp_path):
    shutil.move(root / "a.ome.zarr", tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / CHUNK).unlink()
    assert found(root) == {("missing", f"link/{CHUNK}")}


def test_control_characters_of_a_name_do_not_reach_the_terminal(root, capsys):
    name = "\x1b[31m\nsound"
    shutil.copytree(root / "a.ome.zarr", root / name)
    (root / name / CHUNK).unlink()
    assert found(root) == {("missing", f"{name}/{CHUNK}")}
    assert main(["verify", str(root)]) == 1
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_target_that_the_journal_calls_finished_and_that_is_gone_is_a_defect(root, left):
    folder = Target(str(root / BATCH))
    folder.write(REQUEST, json.dumps({"request": {"atlas": False}}).encode())
    journal = Journal(folder)
    shutil.copytree(root / "a.ome.zarr", root / "11.ome.zarr")
    for row in (Row(11, "built"), Row(12, "built"), Row(13, "failed")):
        journal.add(row)
    journal.close()
    if left != "nothing":
        Path(root / "12.ome.zarr").mkdir()
    assert found(root) == {("missing", "12.ome.zarr")}
    for name in ("11.ome.zarr", "a.ome.zarr", "named as they like"):
        shutil.rmtree(root / name)
    assert found(root) == {("missing", "11.ome.zarr"), ("missing", "12.ome.zarr")}


def test_a_folder_of_images_and_refinements_counts_both():
    parts = [VerifyReport("a", 3, 2, ()), VerifyReport("b", 4, 0, (), sections=6, fields=4)]
    report = joined("x", parts, [])
    assert report.extent == "7 objects, the levels of 2 blocks, the fields of 4 of 6 sections"
    assert (report.to_dict()["sections"], report.to_dict()["fields"]) == (6, 4)
    assert joined("x", parts[1:], []).extent == "4 objects, the fields of 4 of 6 sections"
    assert "sections" not in joined("x", parts[:1], []).to_dict()
