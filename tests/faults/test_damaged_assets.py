"""Every file of an atlas damaged in four ways: `verify` names it, the next build repairs it or says what to do."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from atlaszarr import Terminology, build_atlas, verify
from atlaszarr.errors import InputError
from codes import raises
from tiny_atlas import GRAPH, files, write_sources

LAYOUTS = {"both": {"layout": ["assets", "brainglobe"]}, "strict": {"layout": "assets", "strict": True}}
ONTOLOGY = Terminology.from_structure_graph(json.loads(json.dumps(GRAPH).replace('"a1"', '"A2"')))
LINK = "annotation-sets/tiny-annotation/2026/annotations_compressed.ome.zarr"
RECORDS = ("atlaszarr/tiny-2026.json", "atlaszarr/atlas.json")
#: Objects that stand for all of their kind: parts of a key that differ between objects of one kind.
KIND = re.compile(r"(?<=/c/)[\d/]+|(?<=/)\d+(?=/)|\d+(?=\.nii\.gz|um/)|(?<=/)\d+_\d+_\d+/[\d_-]+|(?<=mesh/)\d+")

#: Of the layout whose annotation has a second name.
NOT_STRICT = pytest.mark.parametrize("layout", ["both"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def build(tmp_path_factory, layout):
    """Build the atlas into a folder."""
    given = write_sources(tmp_path_factory.mktemp("damaged") / "sources")
    given |= {"version": "2026", "ontology": ONTOLOGY, "chunk": 32, "workers": 1, **LAYOUTS[layout]}
    return lambda target: build_atlas(target, **given)


@pytest.fixture(scope="module")
def intact(tmp_path_factory, build):
    folder = tmp_path_factory.mktemp("intact") / "atlas"
    build(folder)
    return folder


def kinds(folder):
    """A file of each kind in a tree, none of them by a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = path.relative_to(folder).as_posix()
            found.setdefault(KIND.sub("#", key), key)
    return sorted(found.values())


def content(folder):
    """All files, without what has the time of a build."""
    found = files(folder)
    for name, body in found.items():
        if name.endswith(("data_description.json", "ledger.jsonl", *RECORDS)):
            found[name] = b""
        elif name.endswith("processing.json"):
            found[name] = re.sub(rb'"(start|end)_date_time": "[^"]*"', b"", body)
    return found


def truncate(path, _):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, _):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))


def replace(path, others):
    """Write the content of another file, if there is one of the same name."""
    ours = path.read_bytes()
    different = [other for other in others if other != path and other.read_bytes() != ours]
    same = [other for other in different if other.name == path.name]
    alike = [other for other in different if other.suffix == path.suffix]
    path.write_bytes((same or alike or different)[0].read_bytes())


DAMAGES = {"removed": lambda path, _: path.unlink(), "truncated": truncate, "flipped": flip, "replaced": replace}
#: So many groups of files that no two files of an image are in one: an image has up to seven kinds of them.
GROUPS = 8
#: What `verify` cannot know: BrainGlobe's own list, which its reader fetches, may hold any names.
UNKNOWN = {("atlases/last_versions.conf", "replaced")}


def damaged(build, intact, folder, keys, damage):
    """What is wrong after files are damaged and the atlas is built again, in one line; None if nothing is."""
    target = folder / "atlas"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(intact, target, symlinks=True)
    others = [target / other for other in kinds(intact)]
    for key in keys:
        DAMAGES[damage](target / key, others)
    named = [defect.key for defect in verify(target).defects]
    for key in keys:
        image = re.match(r".*?\.(zarr|precomputed)/", key)
        if key not in named and not (image and any(name.startswith(image[0]) for name in named)):
            return f"{key} {damage}: not named, but {named[:3]}"
    try:
        build(target)
    except InputError as error:
        if len(keys) > 1:
            return next(filter(None, (damaged(build, intact, folder, [key], damage) for key in keys)), None)
        return None if keys[0] in str(error) and "; " in str(error) else f"{keys} {damage}: {error}"
    if not (report := verify(target, deep=True)).ok:
        return f"{keys} {damage}: not repaired, {report.defects[:3]}"
    before, after = content(intact), content(target)
    changed = [name for name in {*before, *after} if before.get(name) != after.get(name) and name not in keys]
    return f"{keys} {damage}: {changed[:3]} changed" if changed else None


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_file_is_named_and_repaired(build, layout, intact, tmp_path, damage):
    keys = [key for key in kinds(intact) if (key, damage) not in UNKNOWN]
    if layout == "strict":  # these are also in the other layout: one kind of damage for each
        keys = keys[list(DAMAGES).index(damage) :: len(DAMAGES)]
    # What is missing is repaired alone, and so is the record, without which nothing else is known; other damage in
    # several files of different images at once.
    alone = [key for key in keys if damage == "removed" or key.endswith(RECORDS)]
    others = [key for key in keys if key not in alone]
    groups = [*([key] for key in alone), *(others[first::GROUPS] for first in range(GROUPS))]
    wrong = [damaged(build, intact, tmp_path, group, damage) for group in groups if group]
    assert [text for text in wrong if text] == []


@pytest.mark.first(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_written_again(build, intact, tmp_path, damage):
    (key,) = (key for key in files(intact) if key.endswith(RECORDS))
    assert damaged(build, intact, tmp_path, [key], damage) is None


def test_any_bit_of_a_record_is_missed(intact, tmp_path):
    target = Path(shutil.copytree(intact, tmp_path / "atlas", symlinks=True))
    (key,) = (key for key in files(intact) if key.endswith(RECORDS))
    body = (target / key).read_bytes()
    for place in range(0, len(body), 97):
        (target / key).write_bytes(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])
        assert key in [defect.key for defect in verify(target).defects], body[place - 20 : place + 20]


@pytest.fixture
def linked(intact, tmp_path):
    """A copy of the tree whose annotation has a second name."""
    return Path(shutil.copytree(intact, tmp_path / "atlas", symlinks=True))


def copy(link, change=None):
    """Replace a link by a copy in which one object has other bytes."""
    source = link.resolve()
    link.unlink()
    shutil.copytree(source, link)
    if change:
        flip(link / change, None)


LINKS = {
    "removed": Path.unlink,
    "to another image": lambda link: (link.unlink(), link.symlink_to("hemispheres.ome.zarr")),
    "broken": lambda link: (link.unlink(), link.symlink_to("nothing")),
    "an empty folder": lambda link: (link.unlink(), link.mkdir()),
    "a copy with a damaged chunk": lambda link: copy(link, "0/c/0/0/0"),
    "a copy with damaged metadata": lambda link: copy(link, "1/zarr.json"),
    "a copy with a damaged root": lambda link: copy(link, "zarr.json"),
}


@pytest.mark.first(2)
@NOT_STRICT
@pytest.mark.parametrize("damage", LINKS)
def test_a_damaged_second_name_is_named_and_repaired(build, linked, damage):
    LINKS[damage](linked / LINK)
    assert any(defect.key.startswith(LINK) for defect in verify(linked).defects)
    build(linked)
    assert verify(linked, deep=True).ok
    original = linked / os.path.dirname(LINK) / "annotation.ome.zarr"  # noqa: PTH120
    assert files((linked / LINK).resolve()) == files(original)


@NOT_STRICT
def test_an_intact_copy_is_a_second_name_and_stays(build, linked):
    copy(linked / LINK)
    assert verify(linked).ok
    build(linked)
    assert not (linked / LINK).is_symlink()
    assert verify(linked).ok


@NOT_STRICT
def test_a_list_of_atlases_that_cannot_be_read_is_named_with_what_to_do(build, linked):
    path = linked / "atlases/custom_atlases.conf"
    truncate(path, None)
    with raises(InputError, "not-a-list-of-atlases") as caught:
        build(linked)
    assert str(path) in str(caught.value)
    assert "correct or remove it" in str(caught.value)
    path.unlink()
    build(linked)
    assert verify(linked).ok
