"""All readers of an OME-Zarr apply the same transformations, and raise the same error for the others."""

import json
import math

import numpy as np
import pytest
import zarr

from atlaszarr import Displacement, region_volumes
from atlaszarr.errors import InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.regions.annotation import annotation_of
from atlaszarr.terminology.terminology import Structure, Terminology

VERSIONS = ["0.4", "0.5", "0.6"]
SCALE = {"type": "scale", "scale": [0.1, 0.2, 0.4]}
TERMINOLOGY = Terminology((Structure(1, "root", "root", "#AABBCC", (1,)),))


def written(folder, version, steps, shared=(), field=False, order=("intrinsic", "world")):
    """An image of one level, an annotation or a displacement field, with the given transformations."""
    image = folder / ("field.ome.zarr" if field else "labels.ome.zarr")
    values = np.ones((2, 8, 8), "f8") if field else np.ones((4, 8, 8), "u4")
    group = zarr.create_group(image, zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=values, chunks=values.shape)
    first = {"name": "d", "type": "displacement"} if field else {"name": "z", "type": "space", "unit": "millimeter"}
    axes = [first, *({"name": name, "type": "space", "unit": "millimeter"} for name in "yx")]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    if shared:
        entry["coordinateTransformations"] = list(shared)
    if version == "0.6":
        entry["coordinateSystems"] = [{"name": name, "axes": entry["axes"]} for name in order]
        del entry["axes"]
        ends = {"input": {"path": "0"}, "output": {"name": "intrinsic"}}
        whole = steps[0] if len(steps) == 1 else {"type": "sequence", "transformations": steps}
        entry["datasets"][0]["coordinateTransformations"] = [{**whole, **ends}] if steps else []
        further = {"input": {"name": "intrinsic"}, "output": {"name": "world"}}
        if shared:
            entry["coordinateTransformations"] = [{**further, **step} for step in shared]
    ome = {"multiscales": [entry]}
    if version == "0.4":
        (image / ".zattrs").write_text(json.dumps(ome))
    else:
        document = json.loads((image / "zarr.json").read_text())
        document["attributes"] = {"ome": {"version": version, **ome}}
        (image / "zarr.json").write_text(json.dumps(document))
    return image


def by_regions(image, _):
    voxel = annotation_of(image, 0).geometry.scale
    assert region_volumes(image, TERMINOLOGY).attrs["voxel_mm3"] == pytest.approx(math.prod(voxel))
    return voxel[1:]


def by_reference_volume(image, folder):
    with open_annotation(image, folder, orientation="asl") as volume:
        return tuple(length / 1000 for length in volume.voxel_size[1:])


def by_preview(image, _):
    (plane,) = label_planes(image, PLANES["coronal"], [25.0], 1.0, reference_space(9))
    return tuple(length / 1000 for length in plane.size)


def by_field(image, _):
    found = Displacement.load(image).coordinates() - np.indices((8, 8))[::-1]
    return 1 / float(found[1].mean()), 1 / float(found[0].mean())


READERS = {
    "region volumes": by_regions,
    "reference volume": by_reference_volume,
    "preview": by_preview,
    "displacement field": by_field,
}


def scales(folder, *given, **options):
    """The scale along y and x by each reader, or the code and message of its error."""
    images = {field: written(folder, *given, field=field, **options) for field in (False, True)}
    found = {}
    for name, reader in READERS.items():
        image = images[reader is by_field]
        try:
            found[name] = pytest.approx(reader(image, folder))
        except InputError as error:
            found[name] = error.code, str(error).replace(str(image), "IMAGE")
    return found


def refusal(folder, *given, **options):
    """The code and message of the error that all readers raise."""
    found = scales(folder, *given, **options)
    first = next(iter(found.values()))
    assert found == dict.fromkeys(READERS, first)
    return first


def affine(z, y, x, *more):
    return {"type": "affine", "affine": [[z, 0, 0, 0], [0, y, 0, 0], [0, 0, x, 0], *more]}


def by_dimension(inputs, outputs, parts):
    """A scale along each part of the axes, given by index."""
    members = [
        {
            "transformation": {"type": "scale", "scale": [SCALE["scale"][k] for k in part]},
            inputs: part,
            outputs: part,
        }
        for part in parts
    ]
    return {"type": "byDimension", "transformations": members}


SUPPORTED = {
    "a scale": ([SCALE], (), (0.2, 0.4)),
    "a scale and a translation": ([SCALE, {"type": "translation", "translation": [0, 0.1, 0]}], (), (0.2, 0.4)),
    "the identity": ([{"type": "identity"}], (), (1, 1)),
    "scales one after the other": ([SCALE, SCALE], (), (0.04, 0.16)),
    "a scale of all levels": ([SCALE], [{"type": "scale", "scale": [1, 2, 0.5]}], (0.4, 0.2)),
    "a translation of all levels": ([SCALE], [{"type": "translation", "translation": [0, 0.1, 0]}], (0.2, 0.4)),
    "an affine": ([affine(0.1, 0.2, 0.4)], (), (0.2, 0.4)),
    "an affine of homogeneous coordinates": ([affine(0.1, 0.2, 0.4, [0, 0, 0, 1])], (), (0.2, 0.4)),
    "an affine of all levels": ([SCALE], [affine(1, 2, 0.5)], (0.4, 0.2)),
    "an affine with rounding": (
        [{"type": "affine", "affine": [[0.1, 0, 1e-17, 0], [1e-17, 0.2, 0, 0], [0, -1e-17, 0.4, 0]]}],
        (),
        (0.2, 0.4),
    ),
    "mapAxis in the order of the axes": ([SCALE, {"type": "mapAxis", "mapAxis": [0, 1, 2]}], (), (0.2, 0.4)),
    "byDimension by index": ([by_dimension("inputAxes", "outputAxes", ([0, 2], [1]))], (), (0.2, 0.4)),
    "byDimension by index, as its text names them": (
        [by_dimension("input_axes", "output_axes", ([0, 2], [1]))],
        (),
        (0.2, 0.4),
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", SUPPORTED)
def test_all_readers_apply_the_same_transformations(tmp_path, kind, version):
    steps, shared, expected = SUPPORTED[kind]
    assert scales(tmp_path, version, steps, shared) == dict.fromkeys(READERS, expected)


UNSUPPORTED = {
    "affine": {"affine": [[0.1, 0.1, 0, 0], [0, 0.2, 0, 0], [0, 0, 0.4, 0]]},
    "rotation": {"rotation": [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]},
    "projectAxis": {"projectAxis": [0]},
    "bijection": {"forward": SCALE, "inverse": SCALE},
    "displacements": {"path": "0"},
    "coordinates": {"path": "0"},
    "perspective": {},
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("where", ["alone", "in a sequence", "of all levels"])
@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_all_readers_raise_the_same_error_for_an_unsupported_type(tmp_path, kind, where, version):
    step = {"type": kind, **UNSUPPORTED[kind]}
    steps = {"alone": [step], "in a sequence": [SCALE, step], "of all levels": [SCALE]}[where]
    code, message = refusal(tmp_path, version, steps, [step] if where == "of all levels" else ())
    assert code == "unsupported-transformation"
    assert "IMAGE" in message
    assert repr(kind) in message


NUMBERS = {
    "zero": ("scale", [0.1, 0, 0.4]),
    "negative": ("scale", [0.1, -0.2, 0.4]),
    "not a number": ("scale", [0.1, math.nan, 0.4]),
    "infinite": ("scale", [0.1, math.inf, 0.4]),
    "too few": ("scale", [0.1, 0.2]),
    "one number": ("scale", 2),
    "a path": ("scale", None),
    "text": ("scale", "123"),
    "an infinite translation": ("translation", [0, 0, math.inf]),
    "a short translation": ("translation", [0]),
    "a number of many digits": ("scale", [10**400, 1, 1]),
    "numbers in a list": ("scale", [[1], [1], [1]]),
    "an affine of two rows": ("affine", affine(0.1, 0.2, 0.4)["affine"][:2]),
    "an affine in an array": ("affine", None),
    "an axis twice": ("mapAxis", [0, 1, 1]),
    "an axis that does not exist": ("mapAxis", [0, 1, 3]),
    "mapAxis of true": ("mapAxis", [0, True, 2]),
    "unknown names of axes": ("mapAxis", {"a": "b", "y": "x"}),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", NUMBERS)
def test_all_readers_raise_the_same_error_for_invalid_numbers(tmp_path, kind, version):
    word, numbers = NUMBERS[kind]
    step = {"type": word, "path": "0"} if numbers is None else {"type": word, word: numbers}
    code, message = refusal(tmp_path, version, [SCALE, step] if word == "translation" else [step])
    assert code == "invalid-transformation"
    assert f"{word} {numbers!r}"[:100] in message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "step",
    [affine(0.1, 0.2, -0.4), {"type": "rotation", "rotation": [[1, 0, 0], [0, 0, -1], [0, 1, 0]]}],
    ids=["affine", "rotation"],
)
def test_all_readers_refuse_to_reverse_an_axis_without_an_orientation(tmp_path, step, version):
    code, message = refusal(tmp_path, version, [SCALE, step])
    assert code == "unsupported-transformation"
    assert "IMAGE has a transformation that reverses the axis" in message


@pytest.mark.parametrize("version", VERSIONS)
def test_all_readers_refuse_a_sequence_within_a_sequence(tmp_path, version):
    nested = {"type": "sequence", "transformations": [{"type": "sequence", "transformations": [SCALE]}]}
    code, _ = refusal(tmp_path, version, [nested])
    assert code == "unsupported-transformation"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "steps", [[], [{"type": "translation", "translation": [0, 0, 0]}]], ids=["none", "translation"]
)
def test_all_readers_refuse_a_level_without_a_scale(tmp_path, version, steps):
    found = scales(tmp_path, version, steps)
    assert [code for code, _ in found.values()] == ["missing-voxel-size"] * 3 + ["missing-scale"]
    assert all("scale" in message and "IMAGE" in message for _, message in found.values())


BY_DIMENSION = {
    "one axis of three": [{"type": "scale", "scale": [2.0], "input": ["y"], "output": ["y"]}],
    "an axis twice": [{"type": "scale", "scale": [2.0, 2.0, 2.0], "inputAxes": [0, 0, 2], "outputAxes": [0, 1, 2]}],
    "two inputs, one output": [{"type": "scale", "scale": [2.0], "inputAxes": [0, 1], "outputAxes": [0]}],
    "no axes": [{"type": "scale", "scale": [2.0]}],
}


@pytest.mark.parametrize("kind", BY_DIMENSION)
def test_all_readers_refuse_a_transformation_by_dimension_that_is_incomplete(tmp_path, kind):
    code, message = refusal(tmp_path, "0.5", [{"type": "byDimension", "transformations": BY_DIMENSION[kind]}])
    assert code == "invalid-transformation"
    assert "byDimension" in message


@pytest.mark.parametrize("order", [("intrinsic", "world"), ("world", "intrinsic")])
def test_a_transformation_from_another_coordinate_system_is_ignored(tmp_path, order):
    step = {"type": "affine", "affine": [], "input": {"name": "world"}, "output": {"name": "elsewhere"}}
    assert scales(tmp_path, "0.6", [SCALE], [step], order=order) == dict.fromkeys(READERS, (0.2, 0.4))


def test_transformations_to_two_coordinate_systems_are_refused(tmp_path):
    code, message = refusal(tmp_path, "0.6", [SCALE], [SCALE, {**SCALE, "output": {"name": "atlas"}}])
    assert code == "ambiguous-transformation"
    assert "'intrinsic'" in message
