"""Written metadata follow the JSON schemas of their version of OME-Zarr, and levels the rule that the docs give."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from ngff_zarr.validate import validate

from atlaszarr import build
from atlaszarr.writing import write_multiscales

DATASET = 69289763
#: The schema of a group that has a key.
SCHEMAS = {"multiscales": "image", "image-label": "label", "bioformats2raw.layout": "bf2raw", "series": "ome"}


def volume(target, allen, version):
    build(DATASET, target, client=allen, resolution=200, chunk=16, ome_zarr=version)


def grey(target, allen, version):
    build(DATASET, target, client=allen, resolution=400, chunk=16, ome_zarr=version, grey=True)


def sections(target, allen, version):
    build(DATASET, target, client=allen, resolution=400, chunk=32, ome_zarr=version, mode="sections", displacement=True)


def plane(target, _, version):
    image = np.arange(600, dtype="f4").reshape(20, 30)
    write_multiscales(image, target, labels={"tens": image.astype("u2") // 10}, chunk=8, ome_zarr=version)


def channels(target, _, version):
    image = np.arange(2 * 8**3, dtype="u1").reshape(2, 8, 8, 8)
    write_multiscales(image, target, labels={"tens": image[0] // 10}, chunk=4, ome_zarr=version)


def groups(root):
    """The attributes of every group, by its path."""
    for document in sorted([*root.rglob("zarr.json"), *root.rglob(".zattrs")]):
        content = json.loads(document.read_text())
        if document.name == ".zattrs":
            yield document.parent, content
        elif content["node_type"] == "group":
            yield document.parent, content["attributes"]


@pytest.mark.parametrize("version", ["0.5", "0.4", "0.6"])
@pytest.mark.parametrize("write", [volume, grey, plane, channels, sections])
def test_every_group_follows_the_schemas_of_its_version(write, version, allen, tmp_path):
    write(tmp_path / "x.ome.zarr", allen, version)
    validated = set()
    for folder, attributes in groups(tmp_path / "x.ome.zarr"):
        ome = attributes.get("ome", attributes)
        if "ome" in attributes:
            assert ome["version"] == version != "0.4"
        for key, schema in SCHEMAS.items():
            if key in ome:
                validate(attributes, version, schema)
                validated.add(schema)
        for image in ome.get("multiscales", ()):
            system = image["coordinateSystems"][0] if version == "0.6" else image
            axes = [axis["name"] for axis in system["axes"]]
            for level in image["datasets"]:
                assert dimensions(folder / level["path"]) == (None if version == "0.4" else axes)
    of_sections = {"bf2raw", "ome"} if write is sections and version != "0.4" else set()
    assert validated >= {"image", "label"} | of_sections


def dimensions(array: Path) -> list[str] | None:
    """The names of the dimensions; None in zarr format 2, which has none and whose keys must have slashes."""
    if (array / ".zarray").exists():
        assert json.loads((array / ".zarray").read_text())["dimension_separator"] == "/"
        return None
    return json.loads((array / "zarr.json").read_text())["dimension_names"]


def eights(values, padding):
    """The voxels of each 2 x 2 x 2 along the last axis; those beyond the end are `padding`."""
    padded = np.pad(values.astype(float), [(0, n % 2) for n in values.shape], constant_values=padding)
    z, y, x = (n // 2 for n in padded.shape)
    return padded.reshape(z, 2, y, 2, x, 2).transpose(0, 2, 4, 1, 3, 5).reshape(z, y, x, 8)


def most_frequent(labels):
    """The most frequent of the numbers other than 0, the smallest of equals; 0 without one."""
    found, counts = np.unique(labels[labels > 0], return_counts=True)
    return found[np.argmax(counts)] if len(found) else 0


@pytest.mark.parametrize("background", [0, 200])
def test_a_voxel_that_is_partly_inside_is_the_mean_of_its_voxels_inside(allen, tmp_path, background):
    target = tmp_path / "x.ome.zarr"
    build(DATASET, target, client=allen, resolution=200, chunk=16, fill="none", background=background, levels=4)
    group = zarr.open_group(target, mode="r")
    grown = []
    for level in range(1, 4):
        above, label = group[str(level - 1)][1], group[f"labels/section/{level - 1}"][:]
        image, made = group[str(level)][1], group[f"labels/section/{level}"][:]
        values, labels = eights(above, np.nan), eights(label, -1)
        is_inside = labels > 0
        counts, every = is_inside.sum(axis=-1), labels >= 0
        inside = np.where(is_inside, values, 0).sum(axis=-1) / np.maximum(counts, 1)
        outside = np.where(every, values, 0).sum(axis=-1) / every.sum(axis=-1)
        np.testing.assert_array_equal(image, np.rint(np.where(counts > 0, inside, outside)))
        np.testing.assert_array_equal(made, np.apply_along_axis(most_frequent, -1, labels))
        assert (image[made == 0] == background).all()
        assert ((counts > 0) & (counts < 8)).sum() > 50
        grown.append((made > 0).sum() * 8 / (label > 0).sum())
    assert min(grown) > 1
