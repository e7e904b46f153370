"""build --atlas: a registered dataset as a template of an atlas, listed in its manifests and validated with it."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import ngff_zarr
import pytest

from atlaszarr import AllenClient, build, build_atlas, plan, verify
from atlaszarr.engine.lock import owning
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd, template_nrrd
from atlaszarr.testing.records import image_records
from codes import raises

CORONAL, SAGITTAL = 74272479, 69289763
UM = 200
OPTIONS = {"resolution": UM, "chunk": 32}
ATLAS = "atlases/allen-adult-mouse-ccf-atlas/2017"
ISH = "templates/allen-adult-mouse-ish-nrp1-74272479-template/2015"
REFERENCE = {
    "name": "allen-adult-mouse-ish-nrp1-74272479-template",
    "version": "2015",
    "location": f"/{ISH}",
}


@pytest.fixture(scope="module")
def emulator():
    """Serves every tenth section of the coronal dataset, and every third of the sagittal one."""
    images = {id: [one for one in image_records() if one["data_set_id"] == id] for id in (CORONAL, SAGITTAL)}
    with Emulator(images=[*images[CORONAL][5::10], *images[SAGITTAL][::3]]) as running:
        yield running


@pytest.fixture(scope="module")
def client(emulator):
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        yield client


def build_phantom(target, sources, client, **options):
    """An atlas of the phantom brain."""
    sources.mkdir(exist_ok=True)
    for name, draw in (("annotation", annotation_nrrd), ("template", template_nrrd)):
        if not (sources / f"{name}.nrrd").exists():
            (sources / f"{name}.nrrd").write_bytes(draw(default_phantom(), UM))
    files = {name: sources / f"{name}.nrrd" for name in ("annotation", "template")}
    build_atlas(target, **files, chunk=32, client=client, **options)


@pytest.fixture(scope="module")
def drawn(client, tmp_path_factory):
    """Folders of atlases, by layout, to be copied."""
    base = tmp_path_factory.mktemp("drawn")
    built = {}

    def folder(*layout):
        if layout not in built:
            built[layout] = base / "-".join(layout)
            build_phantom(built[layout], base / "sources", client, layout=list(layout))
        return built[layout]

    return folder


@pytest.fixture
def root(drawn, tmp_path):
    """The tree of an atlas of the layouts assets and brainglobe."""
    return shutil.copytree(drawn("assets", "brainglobe"), tmp_path / "root", symlinks=True)


@pytest.fixture
def plain(drawn, tmp_path):
    """The tree of an atlas of the layout assets alone."""
    return shutil.copytree(drawn("assets"), tmp_path / "plain", symlinks=True)


def read(root, path):
    return json.loads((Path(root) / path).read_text())


def sizes_of(root):
    """The voxel sizes of BrainGlobe's atlases in a tree whose manifest lists the template, and of those that do not."""
    found = {True: set(), False: set()}
    for path in Path(root).glob("atlases/*um/2017/manifest.json"):
        manifest = json.loads(path.read_text())
        found[REFERENCE in manifest["additional_references"]].add(manifest["resolution"][0])
    return found


def tree(root):
    """The content of all files of a tree, by path; of links their destination."""
    paths = [path for path in sorted(Path(root).rglob("*")) if path.is_symlink() or path.is_file()]
    return {str(path.relative_to(root)): path.readlink() if path.is_symlink() else path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_grey_volume_is_a_template_of_the_atlas_and_a_reference_of_brainglobe(client, root):
    report = build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    (view,) = report.views
    assert Path(view.target) == root / ISH / "template.ome.zarr"
    assert view.asset == f"/{ISH}"
    assert read(root, f"{ATLAS}/manifest.json")["templates"][1:] == [REFERENCE]
    assert sizes_of(root)[True] >= {UM, 2 * UM}
    assert sizes_of(root)[False] == set()
    assert set(view.listed_in) == {
        f"{ATLAS}/manifest.json",
        *(str(path.relative_to(root)) for path in root.glob("atlases/*um/2017/manifest.json")),
    }
    assert {path.name for path in (root / ISH).iterdir()} == {
        "template.ome.zarr",
        "manifest.json",
        "data_description.json",
        "processing.json",
    }
    manifest = read(root, f"{ISH}/manifest.json")
    assert manifest["coordinate_space"] == read(root, f"{ATLAS}/manifest.json")["coordinate_space"]
    assert {name: manifest[name] for name in REFERENCE} == REFERENCE
    described = read(root, f"{ISH}/data_description.json")
    assert "Lein" in described["data_summary"]
    assert f"Section dataset {CORONAL}" in described["data_summary"]
    (source,) = read(root, f"{ISH}/processing.json")["data_processes"][0]["output_parameters"]["sources"]
    assert source["request"]["records_sha256"]
    assert verify(root, deep=True).ok
    assert verify(view.target, deep=True).ok


@pytest.mark.slow
def test_it_lies_on_the_template_and_has_the_words_of_the_atlas_for_its_axes(client, root, plain):
    for tree, sides in ((root, "right-to-left"), (plain, "left-to-right")):
        target = build(CORONAL, tree, atlas=tree, grey=True, client=client, **OPTIONS).views[0].target
        ours = ngff_zarr.from_ngff_zarr(target, validate=True).images[0]
        (template,) = tree.glob("templates/*stpt-template/*/template.ome.zarr")
        theirs = ngff_zarr.from_ngff_zarr(str(template)).images[0]
        assert ours.data.shape == theirs.data.shape
        assert (ours.scale, ours.translation, ours.dims) == (theirs.scale, theirs.translation, theirs.dims)
        assert ours.axes_orientations == theirs.axes_orientations
        assert ours.axes_orientations["x"].value.value == sides


def test_the_voxels_do_not_depend_on_the_atlas(client, root, tmp_path):
    target = build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS).views[0].target
    build(CORONAL, tmp_path / "x.ome.zarr", grey=True, client=client, **OPTIONS)
    for chunk in (tmp_path / "x.ome.zarr").glob("**/c/**/*"):
        if chunk.is_file():
            assert chunk.read_bytes() == (Path(target) / chunk.relative_to(tmp_path / "x.ome.zarr")).read_bytes()


@pytest.mark.parametrize("options", [{}, {"grey": True, "ome_zarr": "0.6"}, {"grey": True, "resolution": 150}])
def test_brainglobe_does_not_list_what_its_reader_cannot_open_as_its_template(client, root, options):
    (view,) = build(CORONAL, root, atlas=root, client=client, **(OPTIONS | options)).views
    assert list(view.listed_in) == [f"{ATLAS}/manifest.json"]
    assert sizes_of(root)[True] == set()
    assert verify(root).ok


def test_a_template_that_no_longer_fits_is_removed_from_the_lists_of_brainglobe(client, root):
    build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    build(CORONAL, root, atlas=root, client=client, overwrite=True, **OPTIONS)
    assert sizes_of(root)[True] == set()
    assert read(root, f"{ATLAS}/manifest.json")["templates"][1:] == [REFERENCE]
    assert verify(root).ok


@pytest.mark.parametrize("form", ["folder", "manifest", "root"])
def test_a_second_build_changes_nothing_however_the_atlas_is_given(client, root, form):
    build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    before = tree(root)
    atlas = {"folder": root / ATLAS, "manifest": root / ATLAS / "manifest.json", "root": root}[form]
    target = root / ISH / "template.ome.zarr"
    report = build(CORONAL, target, atlas=atlas, grey=True, client=client, **OPTIONS)
    assert report.views[0].state == "already finished"
    assert report.views[0].asset == f"/{ISH}"
    assert tree(root) == before


def test_a_target_that_was_built_before_without_the_atlas_is_registered(client, plain):
    """Also what a build that was killed between its commit and the registration leaves."""
    target = plain / ISH / "template.ome.zarr"
    build(CORONAL, target, grey=True, client=client, **OPTIONS)
    assert REFERENCE not in read(plain, f"{ATLAS}/manifest.json")["templates"]
    report = build(CORONAL, target, atlas=plain, grey=True, client=client, **OPTIONS)
    assert report.views[0].state == "already finished"
    assert REFERENCE in read(plain, f"{ATLAS}/manifest.json")["templates"]
    assert verify(plain).ok


def test_further_views_and_other_names_are_templates_of_their_own(client, root):
    views = ("primary", "expression")
    report = build(SAGITTAL, root, atlas=root, view=views, grey=True, client=client, **OPTIONS)
    name = "allen-adult-mouse-ish-prox1-69289763"
    assert [view.asset for view in report.views] == [
        f"/templates/{name}-template/2015",
        f"/templates/{name}-expression-template/2015",
    ]
    target = root / "templates/my-own-template/2026/template.ome.zarr"
    report = build(SAGITTAL, target, atlas=root, view=views, grey=True, client=client, **OPTIONS)
    assert [view.asset for view in report.views] == [
        "/templates/my-own-template/2026",
        "/templates/my-own-expression-template/2026",
    ]
    assert len(read(root, f"{ATLAS}/manifest.json")["templates"]) == 5
    assert verify(root).ok


@pytest.mark.slow
def test_an_atlas_that_is_built_again_keeps_what_is_registered_in_it(client, drawn, root):
    layout = {"layout": ["assets", "brainglobe"]}
    build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    before = {key: body for key, body in tree(root).items() if not key.startswith("atlaszarr/")}
    sources = drawn("assets", "brainglobe").parent / "sources"
    for options in ({}, {"overwrite": True}):
        build_phantom(root, sources, client, **layout, **options)
        after = tree(root)
        assert {key for key in before if "/manifest.json" in key and before[key] != after[key]} == set()
        assert verify(root).ok


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["the record", "a manifest of BrainGlobe"])
def test_an_atlas_keeps_it_if_one_of_its_documents_is_lost(client, drawn, root, lost):
    build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    (record,) = root.glob("atlaszarr/*.json")
    manifest = sorted(root.glob("atlases/*um/2017/manifest.json"))[0]
    (record if lost == "the record" else manifest).write_text("{")
    assert not verify(root).ok
    build_phantom(root, drawn("assets").parent / "sources", client, layout=["assets", "brainglobe"])
    assert REFERENCE in json.loads(manifest.read_text())["additional_references"]
    assert verify(root).ok


def flipped(body):
    """A body with one bit flipped, at a third of its length."""
    return body[: len(body) // 3] + bytes([body[len(body) // 3] ^ 1]) + body[len(body) // 3 + 1 :]


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "changed": lambda path: path.write_bytes(flipped(path.read_bytes())),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_what_is_registered_is_named_and_repaired(client, root, damage):
    build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    before = tree(root)
    names = ["manifest.json", "data_description.json", "processing.json", "template.ome.zarr/zarr.json"]
    chunk = next(path for path in sorted((root / ISH / "template.ome.zarr/0/c").rglob("*")) if path.is_file())
    paths = [*(root / ISH / name for name in names), chunk]
    keys = {str(path.relative_to(root)) for path in paths}
    for path in paths:
        DAMAGE[damage](path)
    assert keys <= {defect.key for defect in verify(root).defects}
    build(CORONAL, root, atlas=root, grey=True, client=client, **OPTIONS)
    assert verify(root).ok
    assert {key: body for key, body in tree(root).items() if key in keys} == {key: before[key] for key in keys}


def other_place(root):
    return {"target": root.parent / "x.ome.zarr"}


def other_name(root):
    return {"target": root / "templates" / "Mine" / "2026" / "template.ome.zarr"}


def own_template(root):
    (path,) = root.glob("templates/*stpt-template/*/template.ome.zarr")
    return {"target": path, "overwrite": True}


def another_atlas(root):
    shutil.copytree(root / ATLAS, root / "atlases/other-atlas/2026")
    return {}


def no_atlas(root):
    (root / ATLAS / "manifest.json").unlink()
    return {}


def no_annotation_set(root):
    (root / ATLAS / "manifest.json").write_text('{"templates": [], "coordinate_space": {}}')
    return {}


def outside(root):
    manifest = read(root, f"{ATLAS}/manifest.json")
    manifest["annotation_sets"][0]["location"] = "/annotation-sets/../../x"
    (root / ATLAS / "manifest.json").write_text(json.dumps(manifest))
    return {}


def no_json(root):
    (root / ATLAS / "manifest.json").write_text("{")
    return {}


def elsewhere(root):
    path = next(root.glob("annotation-sets/*/2017/annotation.ome.zarr/zarr.json"))
    path.write_text(path.read_text().replace("0.095", "0.5"))
    return {}


def turned(root):
    path = next(root.glob("annotation-sets/*/2017/annotation.ome.zarr/zarr.json"))
    path.write_text(path.read_text().replace("anterior-to-posterior", "posterior-to-anterior"))
    return {}


REFUSED = {
    turned: ("unsupported-orientation", "posterior-to-anterior"),
    other_place: ("not-a-template-path", "x.ome.zarr"),
    other_name: ("not-a-template-path", "Mine"),
    own_template: ("target-is-template", "stpt-template"),
    another_atlas: ("ambiguous-asset", "other-atlas"),
    no_atlas: ("not-an-atlas", "--layout assets"),
    no_annotation_set: ("damaged-manifest", "annotation_sets"),
    outside: ("damaged-manifest", "/annotation-sets/../../x"),
    no_json: ("damaged-manifest", ATLAS),
    elsewhere: ("wrong-reference-space", "0.5"),
}


@pytest.mark.first(4)
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_what_cannot_be_registered_is_refused_before_anything_is_written(client, root, case):
    given = {"target": root, **case(root)}
    before = tree(root)
    code, named = REFUSED[case]
    for call in (build, plan):
        if call is plan:
            given.pop("overwrite", None)
        with raises(InputError, code) as caught:
            call(
                CORONAL,
                given["target"],
                atlas=root,
                client=client,
                **OPTIONS,
                **{key: value for key, value in given.items() if key != "target"},
            )
        assert named in str(caught.value)
    assert tree(root) == before


def test_the_documents_of_another_template_are_not_overwritten(client, root):
    (root / ISH).mkdir(parents=True)
    (root / ISH / "manifest.json").write_text("mine")
    with raises(InputError, "target-not-empty") as caught:
        build(CORONAL, root, atlas=root, client=client, **OPTIONS)
    assert ISH in str(caught.value)
    assert "manifest.json" in str(caught.value)
    assert tree(root / ISH) == {"manifest.json": b"mine"}
    build(CORONAL, root, atlas=root, client=client, overwrite=True, **OPTIONS)
    assert verify(root).ok


@pytest.mark.parametrize(
    ("genes", "name"),
    [
        (("Nrp1",), "ish-nrp1-74272479"),
        (("A830018L16Rik", "Nrp1"), "ish-a830018l16rik-74272479"),
        (("H2-Q2 (b)",), "ish-h2-q2-b-74272479"),
        (("*",), "sections-74272479"),
        ((), "sections-74272479"),
    ],
)
def test_a_template_is_named_after_the_first_gene_in_the_characters_of_the_standard(client, root, genes, name):
    dataset = replace(client.section_dataset(CORONAL), genes=genes)
    (planned,) = plan(dataset, atlas=root, client=client, **OPTIONS)
    assert Path(planned.target).parent == root / f"templates/allen-adult-mouse-{name}-template/2015"


@pytest.mark.parametrize(
    ("options", "code"), [({"mode": "sections"}, "conflicting-options"), ({"ome_zarr": "0.4"}, "not-supported")]
)
def test_options_that_make_no_template_are_refused(client, root, options, code):
    with raises(InputError, code):
        build(CORONAL, root, atlas=root, client=client, resolution=UM, **options)


def test_a_plan_names_the_default_target(client, root):
    (planned,) = plan(CORONAL, atlas=root, client=client, grey=True, **OPTIONS)
    assert Path(planned.target) == root / ISH / "template.ome.zarr"
    report = build(CORONAL, root, atlas=root, client=client, grey=True, **OPTIONS)
    assert report.views[0].plan == planned


def test_the_commands_register_and_say_so(command, emulator, root):
    api = ("--api-url", emulator.url, "--cache", "none", "--resolution", UM, "--chunk", 32, "--grey")
    planned = command("plan", CORONAL, "--atlas", root, *api, "--json")
    assert json.loads(planned.out)[0]["target"] == str(root / ISH / "template.ome.zarr")
    built = command("build", CORONAL, root, "--atlas", root, *api)
    assert built.code == 0, built.err
    assert f"registered: /{ISH} in {ATLAS}/manifest.json" in built.out
    assert command("verify", root).code == 0
    refused = command("build", CORONAL, root / "x.ome.zarr", "--atlas", root, *api)
    assert refused.code == 2
    assert f"{root}/{ISH}/template.ome.zarr" in refused.err


#: Registers several templates of one atlas, one after another.
REGISTER = """
import json, sys
from atlaszarr.assets.names import Asset
from atlaszarr.atlas.registration import AtlasAsset, register
from atlaszarr.stores.target import Target

url, options, first = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
atlas = AtlasAsset.at(Target.of(url, options))
for number in range(first, first + 4):
    asset = Asset("templates", f"t{number}-template", "2026")
    register(atlas, asset, {"manifest.json": b"{}"}, {200.0: (66, 40, 57)})
"""


def missing(root):
    """The names of the assets whose files are missing."""
    return {defect.key.split("/")[1] for defect in verify(root).defects if defect.kind == "missing"}


@pytest.mark.slow
def test_builds_at_the_same_time_lose_no_entry(root):
    register = [sys.executable, "-c", REGISTER, str(root), "{}"]
    running = [subprocess.Popen([*register, str(first)]) for first in (0, 4, 8)]
    assert [process.wait() for process in running] == [0, 0, 0]
    names = {f"t{number}-template" for number in range(12)}
    assert {one["name"] for one in read(root, f"{ATLAS}/manifest.json")["templates"][1:]} == names
    (manifest,) = root.glob(f"atlases/*_{UM}um/2017/manifest.json")
    assert {one["name"] for one in json.loads(manifest.read_text())["additional_references"]} == names
    (record,) = root.glob("atlaszarr/*.json")
    assert len(json.loads(record.read_text())["registered"]) == 12
    assert missing(root) == names  # none has an image


@pytest.mark.slow
def test_what_a_killed_build_did_not_register_is_registered_by_the_next(root):
    register = [sys.executable, "-c", REGISTER, str(root), "{}", "0"]
    for count in (1, 2, 3):
        process = subprocess.Popen(register)
        while process.poll() is None and len(read(root, f"{ATLAS}/manifest.json")["templates"]) <= count:
            time.sleep(0.01)
        process.kill()
        process.wait()
    subprocess.run(register, check=True)
    names = {f"t{number}-template" for number in range(4)}
    assert {one["name"] for one in read(root, f"{ATLAS}/manifest.json")["templates"][1:]} == names
    assert missing(root) == names


@pytest.mark.slow
def test_a_registration_waits_for_another_change_of_the_tree(root):
    with owning(Target.of(root)):
        process = subprocess.Popen([sys.executable, "-c", REGISTER, str(root), "{}", "0"])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        assert len(read(root, f"{ATLAS}/manifest.json")["templates"]) == 1
    assert process.wait() == 0
    assert len(read(root, f"{ATLAS}/manifest.json")["templates"]) == 5


@pytest.mark.slow
def test_on_s3_it_is_the_same(client, drawn, root, remote):
    url, options = remote.url("tree"), remote.options
    sources = drawn("assets", "brainglobe").parent / "sources"
    build_phantom(url, sources, client, layout=["assets", "brainglobe"], storage_options=options)
    for tree in (root, url):
        storage = {"storage_options": options} if tree is url else {}
        for _ in range(2):
            report = build(CORONAL, tree, atlas=tree, grey=True, client=client, **storage, **OPTIONS)
    target = Target.of(url, options)
    for key in report.views[0].listed_in:
        assert json.loads(target.read(key)) == read(root, key)
    assert target.read(f"{ISH}/manifest.json") == (root / ISH / "manifest.json").read_bytes()
    assert verify(url, storage_options=options).ok
    running = [
        subprocess.Popen([sys.executable, "-c", REGISTER, url, json.dumps(options), str(first)]) for first in (0, 4)
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert len(json.loads(target.read(f"{ATLAS}/manifest.json"))["templates"]) == 10
