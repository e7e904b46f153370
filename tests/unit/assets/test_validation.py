"""A tree of assets is validated by the rules of the published standard: each fault of each file is named."""

import json
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.assets import document_rules, standard
from atlaszarr.assets.names import Asset, AtlasNames
from atlaszarr.assets.validation import findings, reference_findings
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from tiny_assets import GEOMETRY, NAMES, TERMINOLOGY, tiny_documents, write_tree

SET, TERMS = NAMES.annotation_set.folder, NAMES.terminology.folder
ATLAS, SPACE, TEMPLATE = NAMES.atlas.folder, NAMES.coordinate_space.folder, NAMES.template.folder


def found(root, strict=False):
    return [(defect.kind, defect.key, defect.text) for defect in findings(Target.of(root), strict=strict)]


def change(path, **entries):
    """Set entries of a JSON document; `...` removes one."""
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


@pytest.mark.parametrize("strict", [False, True])
def test_the_standard_has_nothing_against_a_whole_tree(whole, strict):
    assert found(whole, strict) == []


@pytest.mark.parametrize("strict", [False, True])
def test_an_atlas_needs_no_template(tmp_path, strict):
    assert found(write_tree(tmp_path / "tree", template=False), strict) == []


# Each document, damaged in four ways

DOCUMENTS = list(tiny_documents())
#: A wrong reference of each document, or where it has none, another wrong value.
WRONG = {
    f"{ATLAS}/manifest.json": {"templates": [{"name": "x-template", "version": "2026", "location": "/templates/x/1"}]},
    f"{TEMPLATE}/manifest.json": {"coordinate_space": {"name": "other-space", "version": "2026"}},
    f"{SET}/manifest.json": {"terminology": {"name": "tiny-adult-mouse-terminology", "version": "2025"}},
    f"{TERMS}/manifest.json": {"location": "/terminologies/tiny-adult-mouse-terminology/2025"},
    f"{SPACE}/manifest.json": {"template": {**NAMES.template.reference(), "location": "/templates/other/2026"}},
    f"{TEMPLATE}/processing.json": {"data_processes": [{"process_type": "File format conversion"}]},
    **{key: {"modalities": [{"name": "STPT"}]} for key in DOCUMENTS if key.endswith("data_description.json")},
}
#: A key of each kind of document.
KEYS = {"manifest.json": "described_by", "data_description.json": "institution", "processing.json": "data_processes"}


@pytest.mark.parametrize("damage", ["missing", "truncated", "wrong reference", "renamed key"])
@pytest.mark.parametrize("key", DOCUMENTS)
def test_each_document_damaged_in_any_way_is_named(tree, key, damage):
    path = tree / key
    body = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(body[: len(body) // 2])
    elif damage == "wrong reference":
        change(path, **WRONG[key])
    else:
        name = KEYS[path.name]
        change(path, **{name: ..., f"{name}s": json.loads(body)[name]})
    kinds = {where: kind for kind, where, _ in found(tree, strict=path.name == "processing.json")}
    expected = {"missing": ("missing",), "wrong reference": ("inconsistent", "metadata")}.get(damage, ("metadata",))
    assert kinds[key] in expected


# Faults by rule


def row(text, new):
    """A terminology with one text replaced."""

    def damage(root):
        assert text in TERMINOLOGY
        (root / TERMS / "terminology.csv").write_text(TERMINOLOGY.replace(text, new))

    return damage


def entries(key, **changed):
    return lambda root: change(root / key, **changed)


def image(key, **options):
    """Write an image again with other options."""

    def damage(root):
        shutil.rmtree(root / key)
        write_multiscales(np.ones((8, 8, 8), np.uint16), root / key, geometry=GEOMETRY, levels=1, **options)

    return damage


def attributes(key, function):
    def damage(root):
        path = root / key / "zarr.json"
        content = json.loads(path.read_text())
        function(content["attributes"]["ome"])
        path.write_text(json.dumps(content))

    return damage


def other_unit(ome):
    for axis in ome["multiscales"][0]["axes"]:
        axis.update({"unit": "micrometer"} if axis["type"] == "space" else {})


def uncompressed(root):
    path = root / TEMPLATE / "template.ome.zarr/0/zarr.json"
    content = json.loads(path.read_text())
    content["codecs"] = content["codecs"][:1]
    path.write_text(json.dumps(content))


def fewer_values(root):
    shutil.rmtree(root / SET / "annotations.ome.zarr/annotation_values")
    group = zarr.open_group(root / SET / "annotations.ome.zarr", mode="a", use_consolidated=False)
    group.create_array("annotation_values", data=np.array([3], np.uint32))


SPACE_OF_ANOTHER = AtlasNames.of("other", "2026").coordinate_space.reference()
TABLE, INFO = f"{TERMS}/terminology.csv", f"{SET}/annotations.precomputed/info"
MASKS, IMAGE = f"{SET}/annotations.ome.zarr", f"{TEMPLATE}/template.ome.zarr"
FAULTS = {
    "a reference without a version": (
        entries(f"{ATLAS}/manifest.json", annotation_sets=[{"name": "x-annotation"}]),
        ("inconsistent", f"{ATLAS}/manifest.json", "without a name and a version"),
    ),
    "a reference out of the tree": (
        entries(f"{SET}/manifest.json", template={**NAMES.template.reference(), "location": "/templates/../x"}),
        ("inconsistent", f"{SET}/manifest.json", "'templates/../x'"),
    ),
    "a name out of the tree": (
        entries(f"{SET}/manifest.json", template={"name": "..", "version": ".."}),
        ("inconsistent", f"{SET}/manifest.json", "'templates/../..'"),
    ),
    "the location of another asset": (
        entries(f"{SET}/manifest.json", template={**NAMES.template.reference(), "version": "2025"}),
        ("inconsistent", f"{SET}/manifest.json", "'tiny-adult-mouse-template 2025'"),
    ),
    "a template in another space": (
        entries(f"{TEMPLATE}/manifest.json", coordinate_space=SPACE_OF_ANOTHER),
        ("inconsistent", f"{ATLAS}/manifest.json", "'other-space 2026'"),
    ),
    "no annotation set": (
        entries(f"{ATLAS}/manifest.json", annotation_sets=[]),
        ("metadata", f"{ATLAS}/manifest.json", "annotation_sets []"),
    ),
    "the version of another folder": (
        entries(f"{SET}/manifest.json", version="2025"),
        ("metadata", f"{SET}/manifest.json", "'2025'"),
    ),
    "a schema version that is none": (
        entries(f"{SET}/manifest.json", schema_version="new"),
        ("metadata", f"{SET}/manifest.json", "'new'"),
    ),
    "the page of another kind": (
        entries(f"{SET}/manifest.json", described_by=standard.KINDS["atlases"].url),
        ("metadata", f"{SET}/manifest.json", "annotation_set.html"),
    ),
    "no page": (
        entries(f"{SET}/manifest.json", described_by="annotation_set.html"),
        ("metadata", f"{SET}/manifest.json", "is not a URL"),
    ),
    "no spacing": (
        entries(f"{SPACE}/manifest.json", spacing=...),
        ("metadata", f"{SPACE}/manifest.json", "lacks the key spacing"),
    ),
    "a modality of an annotation set": (
        entries(f"{SET}/data_description.json", modalities=[{"abbreviation": "STPT"}]),
        ("metadata", f"{SET}/data_description.json", "only templates and atlases"),
    ),
    "a key that the schema lacks": (
        entries(f"{SET}/data_description.json", licence="MIT"),
        ("metadata", f"{SET}/data_description.json", "'licence'"),
    ),
    "no investigators": (
        entries(f"{SET}/data_description.json", investigators=[]),
        ("metadata", f"{SET}/data_description.json", "investigators []"),
    ),
    "a subject with an underscore": (
        entries(f"{SET}/data_description.json", subject_id="a_b"),
        ("metadata", f"{SET}/data_description.json", "'a_b'"),
    ),
    "scales that the masks lack": (
        entries(f"{SET}/manifest.json", scales=[25, 100]),
        ("inconsistent", MASKS, "[25, 100]"),
    ),
    "scales that are no sizes": (
        entries(f"{SET}/manifest.json", scales=["25"]),
        ("metadata", f"{SET}/manifest.json", "['25']"),
    ),
    "a column is missing": (row("abbreviation", "acronym"), ("inconsistent", TABLE, "column abbreviation")),
    "an identifier twice": (row("MBA:3,MBA:8,3", "MBA:8,MBA:8,3"), ("inconsistent", TABLE, "identifier 'MBA:8' more")),
    "a value twice": (row("MBA:3,MBA:8,3", "MBA:3,MBA:8,8"), ("inconsistent", TABLE, "annotation_value '8' more")),
    "a value that is no number": (row("MBA:3,MBA:8,3", "MBA:3,MBA:8,3.0"), ("inconsistent", TABLE, "'3.0'")),
    "no identifier": (row("MBA:3,MBA:8,3", ",,3"), ("inconsistent", TABLE, "row 4")),
    "no parent": (row("MBA:3,MBA:8,3", "MBA:3,MBA:9,3"), ("inconsistent", TABLE, "'MBA:9'")),
    "a cycle": (row("MBA:8,MBA:997,8", "MBA:8,MBA:3,8"), ("inconsistent", TABLE, "cycle")),
    "a colour": (row("#FF7080", "FF7080"), ("inconsistent", TABLE, "'FF7080'")),
    "a foreign descendant": (row("['MBA:3'],[3]", "\"['MBA:3', 'MBA:8']\",[3]"), ("inconsistent", TABLE, "'MBA:3'")),
    "a descendant is missing": (
        row("[997, 8, 3]", "[997, 8]"),
        ("inconsistent", TABLE, "descendant_annotation_values"),
    ),
    "no table": (lambda root: (root / TABLE).write_bytes(b"\xff\xfe"), ("metadata", TABLE, "as a table")),
    "no terminology": (lambda root: (root / TABLE).unlink(), ("missing", TABLE, "is missing")),
    "volumes without a column": (
        lambda root: (root / SET / "parcellation_volumes.csv").write_text("identifier,volume_mm3\n"),
        ("inconsistent", f"{SET}/parcellation_volumes.csv", "voxel_count"),
    ),
    "a file instead of the masks": (
        lambda root: (shutil.rmtree(root / MASKS), (root / MASKS).write_text("")),
        ("missing", MASKS, "must be a folder"),
    ),
    "no masks": (lambda root: shutil.rmtree(root / MASKS), ("missing", MASKS, "is missing")),
    "no segmentation": (
        lambda root: shutil.rmtree(root / SET / "annotations.precomputed"),
        ("missing", f"{SET}/annotations.precomputed", "is missing"),
    ),
    "no info": (lambda root: (root / INFO).unlink(), ("missing", INFO, "is missing")),
    "no properties": (
        lambda root: (root / SET / "annotations.precomputed/segment_properties/info").unlink(),
        ("missing", f"{SET}/annotations.precomputed/segment_properties/info", "is missing"),
    ),
    "an info that leads elsewhere": (entries(INFO, mesh="../mesh"), ("metadata", INFO, "'../mesh'")),
    "OME-Zarr 0.4": (image(IMAGE, ome_zarr="0.4"), ("metadata", IMAGE, "0.4")),
    "micrometres": (attributes(IMAGE, other_unit), ("metadata", IMAGE, "'micrometer'")),
    "no orientation": (
        attributes(IMAGE, lambda ome: [axis.pop("orientation") for axis in ome["multiscales"][0]["axes"]]),
        ("metadata", IMAGE, "no orientation along z"),
    ),
    "levels from coarse to fine": (
        attributes(IMAGE, lambda ome: ome["multiscales"][0]["datasets"].reverse()),
        ("inconsistent", IMAGE, "fine to coarse"),
    ),
    "a level is missing": (lambda root: shutil.rmtree(root / IMAGE / "1"), ("metadata", IMAGE, "/1 is not a zarr")),
    "no compression": (uncompressed, ("metadata", IMAGE, "not compressed")),
    "no image": (attributes(IMAGE, lambda ome: ome.clear()), ("metadata", IMAGE, "not an OME-Zarr image")),
    "masks along three axes": (image(MASKS), ("metadata", MASKS, "z, y, x")),
    "no values of the masks": (
        lambda root: shutil.rmtree(root / MASKS / "annotation_values"),
        ("missing", MASKS, "annotation_values"),
    ),
    "fewer values than masks": (fewer_values, ("inconsistent", MASKS, "3 masks")),
    "no version": (lambda root: shutil.rmtree(root / TERMS), ("missing", TERMS.rpartition("/")[0], "no folder")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_its_file(tree, fault):
    damage, (kind, key, words) = FAULTS[fault]
    damage(tree)
    assert any(one[:2] == (kind, key) and words in one[2] for one in found(tree)), found(tree)


# Names


NAMED = {
    "a folder at the root": ("atlaszarr/record.json", ("extra", "atlaszarr")),
    "a file at the root": ("README.md", ("extra", "README.md")),
    "a file among assets": ("atlases/custom_atlases.conf", ("extra", "atlases/custom_atlases.conf")),
    "a file among versions": ("templates/tiny-template/x.txt", ("extra", "templates/tiny-template/x.txt")),
    "a file of an asset": (f"{SET}/terminology.csv", ("extra", f"{SET}/terminology.csv")),
    "a folder of an asset": (f"{SET}/annotation.ome.zarr/x", ("extra", f"{SET}/annotation.ome.zarr")),
}


@pytest.mark.parametrize("case", NAMED)
def test_a_name_that_the_standard_lacks_is_named_only_if_asked_for(tree, case):
    key, (kind, named) = NAMED[case]
    (tree / key).parent.mkdir(parents=True, exist_ok=True)
    (tree / key).write_text("x")
    strict = [one[:2] for one in found(tree, strict=True)]
    assert (kind, named) in strict
    assert (kind, named) not in [one[:2] for one in found(tree)]


def test_names_and_versions_of_assets_are_named_only_if_asked_for(tree):
    asset = AtlasNames.of("tiny_25um", "3.0").atlas
    folder = f"atlases/{asset.name.removesuffix('-atlas')}/3_0"
    shutil.copytree(tree / ATLAS, tree / folder)
    change(tree / folder / "manifest.json", location=f"/{folder}")
    assert found(tree) == []
    assert [one[:2] for one in found(tree, strict=True)] == [("extra", "atlases/tiny_25um"), ("extra", folder)]


def test_templates_without_processing_are_named_only_if_asked_for(tree):
    (tree / TEMPLATE / "processing.json").unlink()
    assert found(tree) == []
    assert [one[:2] for one in found(tree, strict=True)] == [("missing", f"{TEMPLATE}/processing.json")]


def test_every_name_of_the_standard_may_be_in_an_asset(tree):
    for name in ("template.nii.gz", "template_25.nii.gz", "template_10um.nii.gz"):
        (tree / TEMPLATE / name).write_bytes(b"")
    for name in ("annotations_compressed_25.nii.gz", "annotations_smooth.precomputed/info"):
        (tree / SET / name).parent.mkdir(exist_ok=True)
        (tree / SET / name).write_bytes(b"")
    (tree / TERMS / "legacy_files").mkdir()
    (tree / TERMS / "legacy_files/ontology.json").write_text("[]")
    assert found(tree, strict=True) == []


def test_lists_of_descendants_may_leave_out_the_structure_itself(tree):
    text = TERMINOLOGY.replace("\"['MBA:997', 'MBA:8', 'MBA:3']\",\"[997, 8, 3]\"", "MBA:8|MBA:3,8|3")
    text = text.replace("\"['MBA:8', 'MBA:3']\",\"[8, 3]\"", "MBA:3,3").replace("['MBA:3'],[3],", "[],[],")
    (tree / TERMS / "terminology.csv").write_text(text)
    assert found(tree) == []


def test_a_large_table_is_refused_before_it_is_read(tree):
    (tree / TABLE).write_bytes(TERMINOLOGY.encode() + b" " * standard.LARGEST)
    ((kind, key, text),) = found(tree)
    assert (kind, key) == ("metadata", TABLE)
    assert str(standard.LARGEST) in text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cannot be read as a table"),
        (b"," * 5000, "5001 columns, and must have 1 to 1000"),
        (b'"' + b"x" * 200_000, "cannot be read as a table"),
        (b"identifier\n" * 1_200_000, "more than 1000000 rows"),
        (b"identifier,name\n1,2,3\n", "3 cells for 2 columns in row 2"),
        (b"identifier,name\n1,2\n1,2,3\n", "3 cells for 2 columns in row 3"),
        (b"identifier,name\n1\n", "1 cells for 2 columns in row 2"),
        (b"name,name\n1,2\n", "the column 'name' more than once"),
        (b"a\r" * 1_200_000, "more than 1000000 rows"),
        (b"\n" + b"," * 5000, "columns"),
        (b"," * 999 + b"\n" + b"a\n" * 100_000, "more than once"),
        (b"\0\0,\xff\n", "cannot be read as a table"),
    ],
    ids=[*"empty columns long rows wide ragged short twice returns blank sparse binary".split()],  # noqa: SIM905
)
def test_a_table_that_is_none_is_named(tree, body, words):
    (tree / TABLE).write_bytes(body)
    ((kind, key, text),) = found(tree)
    assert (kind, key) == ("metadata", TABLE)
    assert words in text


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(DOCUMENTS), data=st.data())
def test_any_value_of_any_key_of_a_document_gives_texts_and_no_error(key, data):
    kind, name, version, document = key.split("/")
    content = json.loads(tiny_documents()[key])
    changed = data.draw(st.sampled_from(list(content)))
    content[changed] = data.draw(JSON)
    asset = Asset(kind, name, version)
    faults = {
        "manifest.json": lambda: document_rules.manifest_faults(content, asset, asset.folder),
        "data_description.json": lambda: document_rules.description_faults(content, standard.KINDS[kind]),
        "processing.json": lambda: document_rules.processing_faults(content),
    }[document]()
    assert all(isinstance(text, str) and len(text) < 300 for text in faults)


@given(JSON, st.sampled_from(["template", "templates", "coordinate_space", "more"]))
def test_any_reference_gives_texts_and_no_error(value, key):
    target = Target.of("memory://no-references")
    manifest = {key: value, "annotation_sets": [{"location": value, "name": value, "version": value}]}
    asset = NAMES.atlas
    assert all(one.kind == "inconsistent" for one in reference_findings(target, asset, asset.folder, manifest))


def test_a_manifest_that_is_too_large_is_named_once(tree):
    (tree / SPACE / "manifest.json").write_bytes(b"{}" + b" " * standard.LARGEST)
    ((kind, key, text),) = found(tree)
    assert (kind, key) == ("metadata", f"{SPACE}/manifest.json")
    assert str(standard.LARGEST) in text


def test_a_link_to_itself_is_left_out(tree):
    (tree / SET / "circle").symlink_to("circle")
    (tree / SET / "broken").symlink_to("nowhere")
    assert found(tree, strict=True) == []


def test_a_deep_chain_of_structures_is_read(tree):
    rows = [f"{i},{i - 1 if i else ''},,name,s{i},#000000" for i in range(20_000)]
    text = "identifier,parent_identifier,annotation_value,name,abbreviation,color_hex_triplet\n" + "\n".join(rows)
    (tree / TABLE).write_text(text)
    assert found(tree) == []


def test_a_table_in_parquet_has_the_columns_and_rows_of_the_table_in_csv(tree):
    import pandas as pd

    frame = pd.read_csv(tree / TABLE)
    frame.to_parquet(tree / TERMS / "terminology.parquet")
    assert found(tree, strict=True) == []
    frame[:2].to_parquet(tree / TERMS / "terminology.parquet")
    assert [one[:2] for one in found(tree)] == [("inconsistent", f"{TERMS}/terminology.parquet")]
    frame.drop(columns="name").to_parquet(tree / TERMS / "terminology.parquet")
    assert [one[:2] for one in found(tree)] == [("inconsistent", f"{TERMS}/terminology.parquet")]
    (tree / TERMS / "terminology.parquet").write_bytes(b"PAR1")
    assert [one[:2] for one in found(tree)] == [("inconsistent", f"{TERMS}/terminology.parquet")]


def test_the_labels_under_a_second_name_may_be_a_link(tree):
    shutil.move(tree / SET / "annotations_compressed.ome.zarr", tree / SET / "annotation.ome.zarr")
    (tree / SET / "annotations_compressed.ome.zarr").symlink_to("annotation.ome.zarr")
    assert found(tree) == []
    (tree / SET / "annotations_compressed.ome.zarr/zarr.json").unlink()
    assert ("metadata", f"{SET}/annotations_compressed.ome.zarr") in [one[:2] for one in found(tree)]


def test_a_tree_is_validated_in_an_object_store(tree):
    import fsspec

    target = Target.of(f"memory://validated-{tree.parent.name}")
    for path in tree.rglob("*"):
        if path.is_file():
            target.write(str(path.relative_to(tree)), path.read_bytes())
    assert list(findings(target, strict=True)) == []
    target.remove(f"{SET}/manifest.json")
    assert ("missing", f"{SET}/manifest.json") in [(one.kind, one.key) for one in findings(target)]
    fsspec.filesystem("memory").rm(f"/validated-{tree.parent.name}", recursive=True)
