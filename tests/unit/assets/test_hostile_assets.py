"""A hostile document, table or image of a tree of assets is named in one short sentence, soon and in little memory."""

import json
import shutil

import numpy as np
import pytest
import zarr

from atlaszarr import region_volumes
from atlaszarr.assets.validation import findings
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from codes import raises
from tiny_assets import NAMES, TERMINOLOGY

SET, TERMS = NAMES.annotation_set.folder, NAMES.terminology.folder
ATLAS, SPACE, TEMPLATE = NAMES.atlas.folder, NAMES.coordinate_space.folder, NAMES.template.folder
MANIFEST, DESCRIPTION = f"{SET}/manifest.json", f"{SET}/data_description.json"
TABLE, PARQUET, VOLUMES = f"{TERMS}/terminology.csv", f"{TERMS}/terminology.parquet", f"{SET}/parcellation_volumes.csv"
MASKS, IMAGE = f"{SET}/annotations.ome.zarr", f"{TEMPLATE}/template.ome.zarr"
SEGMENTATION = f"{SET}/annotations.precomputed"
INFO = f"{SEGMENTATION}/info"


def found(root):
    return [(defect.kind, defect.key, defect.text) for defect in findings(Target.of(root))]


def entries(key, **changed):
    """Set entries of a JSON document."""

    def damage(root):
        path = root / key
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return damage


def text(key, body):
    return lambda root: (root / key).write_text(body)


def folder(key):
    """Put a folder in the place of a file."""
    return lambda root: ((root / key).unlink(), (root / key).mkdir())


def multiscales(key, function):
    def damage(root):
        path = root / key / "zarr.json"
        content = json.loads(path.read_text())
        function(content["attributes"]["ome"])
        path.write_text(json.dumps(content))

    return damage


def level(number, **changed):
    return multiscales(IMAGE, lambda ome: ome["multiscales"][0]["datasets"][number].update(changed))


def array(key, function):
    def damage(root):
        path = root / key / "zarr.json"
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    return damage


def fewer_masks(content):
    content["shape"][0] = 2


def without_an_axis(content):
    for sizes in (content, content["chunk_grid"]["configuration"]):
        for name in {"shape", "chunk_shape"} & sizes.keys():
            sizes[name] = sizes[name][1:]
    del content["dimension_names"]


def values_of_masks(values):
    def damage(root):
        shutil.rmtree(root / MASKS / "annotation_values")
        group = zarr.open_group(root / MASKS, mode="a", use_consolidated=False)
        group.create_array("annotation_values", data=np.array(values))

    return damage


HOSTILE = {
    "millions of digits": (entries(MANIFEST, schema_version="1" * 2**21 + " "), ("metadata", MANIFEST, "'1111")),
    "digits and dots": (entries(MANIFEST, schema_version="1." * 2**20), ("metadata", MANIFEST, "'1.1.")),
    "a location of lists": (entries(MANIFEST, location=[[["x"]]]), ("metadata", MANIFEST, "location [[['x']]]")),
    "100,000 unknown keys": (
        entries(DESCRIPTION, **{f"k{i}": 0 for i in range(100_000)}),
        ("metadata", DESCRIPTION, "'k0' (and 99999 more)"),
    ),
    "a number of thousands of digits": (
        text(DESCRIPTION, f'{{"creation_time": {"9" * 5000}}}'),
        ("metadata", DESCRIPTION, "cannot be read as JSON"),
    ),
    "no number": (
        lambda root: (root / MANIFEST).write_text((root / MANIFEST).read_text().replace("25", "NaN", 1)),
        ("metadata", MANIFEST, "nan"),
    ),
    "a name that no disk can have": (
        entries(MANIFEST, template={"name": "x" * 5000, "version": "2026"}),
        ("inconsistent", MANIFEST, "xxx"),
    ),
    "100,000 references to nothing": (
        lambda root: (root / MANIFEST).write_text(json.dumps({"template": [1] * 100_000})),
        ("inconsistent", MANIFEST, "has 99990 more faults of references"),
    ),
    "120,000 references": (
        lambda root: (root / MANIFEST).write_text(
            json.dumps({"template": [{"name": f"a{i}", "version": "1"} for i in range(120_000)]})
        ),
        ("inconsistent", MANIFEST, "refers to 120000 assets; at most 100000 are read"),
    ),
    "a document that is a folder": (folder(f"{SPACE}/manifest.json"), ("missing", f"{SPACE}/manifest.json", "folder")),
    "a segmentation of nothing": (text(INFO, "{}"), ("metadata", INFO, "the type None, and must have 'segmentation'")),
    "a segmentation without labels": (entries(INFO, scales=[]), ("metadata", INFO, "lacks scales")),
    "no meshes": (entries(INFO, mesh=None), ("metadata", INFO, "lacks mesh")),
    "meshes of another type": (
        entries(f"{SEGMENTATION}/mesh/info", **{"@type": ["x"]}),
        ("metadata", f"{SEGMENTATION}/mesh/info", "the @type ['x']"),
    ),
    "no names": (
        entries(f"{SEGMENTATION}/segment_properties/info", inline=3),
        ("metadata", f"{SEGMENTATION}/segment_properties/info", "lacks inline ids and properties"),
    ),
    "fewer names than structures": (
        entries(
            f"{SEGMENTATION}/segment_properties/info", inline={"ids": ["3", "8"], "properties": [{"values": ["a"]}]}
        ),
        ("metadata", f"{SEGMENTATION}/segment_properties/info", "for each of the 2 ids"),
    ),
    "meshes that no disk can have": (entries(INFO, mesh="m" * 5000), ("metadata", INFO, "'mmm")),
    "meshes with a null byte": (entries(INFO, mesh="a\0b"), ("metadata", INFO, "'a\\x00b'")),
    "meshes with half of a character": (entries(INFO, mesh="\ud800"), ("metadata", INFO, "'\\ud800'")),
    "meshes at the root": (entries(INFO, mesh="/etc"), ("metadata", INFO, "'/etc'")),
    "meshes in a file": (entries(INFO, mesh="info"), ("missing", f"{INFO}/info", "is missing")),
    "an info that is a folder": (
        folder(f"{SEGMENTATION}/mesh/info"),
        ("metadata", f"{SEGMENTATION}/mesh/info", "cannot be read: Is a directory"),
    ),
    "a version of thousands of digits": (
        multiscales(IMAGE, lambda ome: ome.update(version="9" * 5000 + ".5")),
        ("metadata", IMAGE, "is OME-Zarr '999"),
    ),
    "a version of a megabyte": (
        multiscales(IMAGE, lambda ome: ome.update(version="0.4" + "x" * 2**20)),
        ("metadata", IMAGE, "is OME-Zarr '0.4x"),
    ),
    "a level that no disk can have": (level(0, path="p" * 1000), ("metadata", IMAGE, "the path 'ppp")),
    "a level with half of a character": (level(0, path="p\ud800"), ("metadata", IMAGE, "the path 'p")),
    "a level without a scale": (level(1, coordinateTransformations=[]), ("metadata", IMAGE, "the size of its voxels")),
    "a level with fewer axes": (array(f"{IMAGE}/1", without_an_axis), ("metadata", IMAGE, "2 axes in the array '1'")),
    "an array that is a folder": (folder(f"{IMAGE}/1/zarr.json"), ("metadata", IMAGE, "Is a directory")),
    "an axis of thousands of letters": (
        multiscales(IMAGE, lambda ome: ome["multiscales"][0].update(axes=["z" * 3000, "y", "x"])),
        ("metadata", IMAGE, "has damaged OME-Zarr metadata"),
    ),
    "voxels of infinite size": (
        multiscales(
            MASKS,
            lambda ome: [
                one["coordinateTransformations"][0].update(scale=[1.0, *[1e308] * 3])
                for one in ome["multiscales"][0]["datasets"]
            ],
        ),
        ("inconsistent", MASKS, "levels of inf, inf um"),
    ),
    "a level with fewer masks": (array(f"{MASKS}/1", fewer_masks), ("inconsistent", MASKS, "has 2 masks")),
    "labels of masks that are no numbers": (values_of_masks([3.0, 8.5, 997.0]), ("metadata", MASKS, "float64")),
    "a value with zeros": (
        text(TABLE, TERMINOLOGY.replace("MBA:3,MBA:8,3", "MBA:3,MBA:8,08")),
        ("inconsistent", TABLE, "'8'"),
    ),
    "a value of thousands of digits": (
        text(TABLE, TERMINOLOGY.replace("MBA:3,MBA:8,3", f"MBA:3,MBA:8,{'9' * 100_000}")),
        ("inconsistent", TABLE, "not a whole number"),
    ),
    "a table that is a folder": (folder(TABLE), ("missing", TABLE, "must be a file")),
    "negative voxels": (
        text(VOLUMES, "identifier,voxel_count,volume_mm3\n3,-5,1\n8,1e3,1\n"),
        ("inconsistent", VOLUMES, "voxel_count '-5' (and 1 more)"),
    ),
    "volumes that are no numbers": (
        text(VOLUMES, "identifier,voxel_count,volume_mm3\n3,5,nan\n8,5,inf\n9,5,\n"),
        ("inconsistent", VOLUMES, "volume_mm3 'nan' (and 2 more)"),
    ),
    "a structure measured twice": (
        text(VOLUMES, "identifier,voxel_count,volume_mm3\n3,5,1\n3,5,1\n"),
        ("inconsistent", VOLUMES, "identifier '3' more than once"),
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_hostile_is_named_in_one_short_sentence(tree, case):
    damage, (kind, key, words) = HOSTILE[case]
    damage(tree)
    texts = [one for one in found(tree) if one[1] == key]
    assert any(one[0] == kind and words in one[2] for one in texts), found(tree)
    assert len(texts) < 25
    assert all(len(one[2]) < 400 and "\n" not in one[2] for one in texts)


def test_meshes_of_the_legacy_format_need_no_info(tree):
    info = tree / SEGMENTATION / "mesh/info"
    info.unlink()
    assert found(tree) == [("missing", f"{SEGMENTATION}/mesh/info", "is missing")]
    (info.parent / "3:0").write_text('{"fragments": []}')
    assert found(tree) == []
    info.write_text('{"@type": "neuroglancer_legacy_mesh"}')
    assert found(tree) == []


def test_a_manifest_that_is_too_large_hides_no_broken_reference(tree):
    lost = [{"name": f"lost{number}-template", "version": "2026"} for number in range(3)]
    entries(f"{ATLAS}/manifest.json", templates=[NAMES.template.reference(), *lost])(tree)
    (tree / TEMPLATE / "manifest.json").write_bytes(b"{}" + b" " * 2**24)
    named = {one[2].split(",")[0] for one in found(tree) if one[1] == f"{ATLAS}/manifest.json"}
    assert named == {f"refers to templates/lost{number}-template/2026" for number in range(3)}


@pytest.mark.parametrize("path", ["p" * 300, "a/" * 600, "\ud800"])
def test_every_reader_refuses_a_level_whose_path_no_store_can_have(tree, path):
    labels = f"{SET}/annotations_compressed.ome.zarr"
    multiscales(labels, lambda ome: ome["multiscales"][0]["datasets"][0].update(path=path))(tree)
    with raises(InputError, "damaged-metadata") as caught:
        region_volumes(tree / labels, tree / TABLE)
    assert "a level has the path" in str(caught.value)


def write_parquet(root, change=lambda frame: frame):
    import pandas as pd

    change(pd.read_csv(root / TABLE)).to_parquet(root / PARQUET)


def with_cell(column, value):
    def change(frame):
        frame.loc[1, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("column", "value"),
    [("name", "another"), ("abbreviation", "B"), ("annotation_value", 9), ("parent_identifier", None)],
)
def test_a_table_in_parquet_has_the_values_of_the_table_in_csv(tree, column, value):
    write_parquet(tree)
    assert found(tree) == []
    write_parquet(tree, with_cell(column, value))
    ((kind, key, words),) = found(tree)
    assert (kind, key) == ("inconsistent", PARQUET)
    assert words.startswith(f"has the {column} {value!r} where terminology.csv has ")


def test_a_table_in_parquet_of_damaged_pages_is_named(tree):
    write_parquet(tree)
    body = bytearray((tree / PARQUET).read_bytes())
    body[4:200] = bytes(196)
    (tree / PARQUET).write_bytes(bytes(body))
    ((kind, key, words),) = found(tree)
    assert (kind, key) == ("inconsistent", PARQUET)
    assert "cannot be read" in words
