"""OME-Zarr images as other programs write them are read right by every reader, or refused in one sentence."""

import json
import math
import re
import struct
import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from ngff_zarr import from_ngff_zarr, to_ngff_image, to_ngff_zarr
from ngff_zarr import to_multiscales as to_ngff_multiscales
from numcodecs import BZ2, LZ4, Blosc, GZip, Zlib, Zstd

import lumps
from atlaszarr import Terminology, region_volumes
from atlaszarr.cli.commands import main
from atlaszarr.engine.array_layout import ArrayLayout
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.errors import AtlaszarrWarning, InputError, TargetError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import ORIENTATION, reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from atlaszarr.writing import write_multiscales
from codes import raises

PATHS = {997: (997,), 8: (997, 8), 10: (997, 8, 10), 20: (997, 8, 20), 614454277: (997, 8, 614454277)}
TERMINOLOGY = Terminology(
    tuple(Structure(id, acronym, name, colour, PATHS[id]) for id, _, name, acronym, colour in lumps.ROWS)
)
TYPES = {"t": "time", "c": "channel"}
SIZE = {"type": "scale", "scale": [200.0] * 3}


def axes_of(order, unit="micrometer"):
    described = []
    for name in order:
        axis = {"name": name, "type": TYPES.get(name, "space")}
        if name in ORIENTATION:
            axis["orientation"] = {"type": "anatomical", "value": ORIENTATION[name]}
            if unit is not ...:
                axis["unit"] = unit
        described.append(axis)
    return described


def ordered(values, order):
    """Values along (z, y, x), along other axes; t and c have length 1."""
    for name in order:
        if name not in "zyx":
            values = values[np.newaxis]
    front = [name for name in order if name not in "zyx"] + ["z", "y", "x"]
    return np.ascontiguousarray(values.transpose([front.index(name) for name in order]))


def put(folder, entry, version="0.5", **attributes):
    """The metadata of an image in a group."""
    if version in ("0.4", "0.3", "0.1"):
        document = {"multiscales": [{**entry, "version": version}], **attributes}
        zarr.open_group(folder, mode="a", zarr_format=2).attrs.update(document)
    else:
        document = {"ome": {"version": version, "multiscales": [entry]}, **attributes}
        zarr.open_group(folder, mode="a", zarr_format=3).attrs.update(document)


def foreign(folder, values=None, order="zyx", version="0.5", steps=None, path="0", unit="micrometer", **options):
    """An image of one level, without a ledger; along `order`, given values along (z, y, x)."""
    values = lumps.labels() if values is None else values
    values = ordered(values, order) if values.ndim == 3 else values
    is_v2 = version == "0.4"
    group = zarr.open_group(folder, mode="w", zarr_format=2 if is_v2 else 3)
    array = group.create_array(
        path,
        shape=values.shape,
        dtype=options.pop("dtype", values.dtype),
        **{"chunks": tuple(min(32, n) for n in values.shape), **options},
    )
    array[:] = values
    if steps is None:
        steps = [{"type": "scale", "scale": [200.0 if name in "zyx" else 1.0 for name in order]}]
    entry = {"axes": axes_of(order, unit), "datasets": [{"path": path, "coordinateTransformations": steps}]}
    if version == "0.6":
        (entry["datasets"][0]["coordinateTransformations"],) = (
            [{**step, "input": {"path": path}, "output": {"name": "physical"}}] for step in steps
        )
        entry["coordinateSystems"] = [{"name": "physical", "axes": entry.pop("axes")}]
    put(folder, entry, version)
    return folder


def quietly(function, *given, **options):
    """The result of a function, without its warnings of absent chunks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*absent and read as background.*", AtlaszarrWarning)
        return function(*given, **options)


def voxels(image, folder, **options):
    """The labels that an atlas reads."""
    with open_annotation(image, folder, **options) as volume:
        return np.asarray(volume.array), volume.voxel_size


def assert_read_right(image, folder):
    """By `region_volumes`, as the annotation of an atlas, and under a preview."""
    table = quietly(region_volumes, image, TERMINOLOGY, by_hemisphere=True)
    assert table.loc[10, "volume_mm3"] == pytest.approx(lumps.LL_MM3)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    found, size = voxels(image, folder)
    np.testing.assert_array_equal(found, lumps.labels())
    assert size == pytest.approx((200.0,) * 3)
    (plane,) = quietly(label_planes, image, PLANES["coronal"], [25 * 200 + 100.0], 200.0, reference_space(9))
    np.testing.assert_array_equal(plane.labels, lumps.labels()[25])
    assert plane.size == pytest.approx((200.0, 200.0))


def refused(code, image, folder, **options):
    """The message of the error that all three readers raise."""
    found = set()
    for read in (
        lambda: region_volumes(image, TERMINOLOGY),
        lambda: voxels(image, folder, **options),
        lambda: label_planes(image, PLANES["coronal"], [5100.0], 200.0, reference_space(9)),
    ):
        with raises(InputError, code) as caught:
            read()
        found.add(str(caught.value))
    (message,) = found
    return message


# Layouts


LAYOUTS = {
    "0.4": {"version": "0.4"},
    "0.6": {"version": "0.6"},
    "x, y, z": {"order": "xyz"},
    "y, x, z of 0.4": {"order": "yxz", "version": "0.4"},
    "c, z, y, x": {"order": "czyx"},
    "c, x, y, z": {"order": "cxyz"},
    "z, c, y, x": {"order": "zcyx"},
    "t, c, z, y, x": {"order": "tczyx", "version": "0.4"},
    "x, y, z, c": {"order": "xyzc"},
    "a path of two parts": {"path": "scale0/image"},
    "shards": {"chunks": (8, 8, 8), "shards": (32, 32, 32)},
    "shards of c, x, y, z": {"order": "cxyz", "chunks": (1, 8, 8, 8), "shards": (1, 32, 32, 32)},
    "keys with dots": {"version": "0.4", "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "keys with slashes": {"version": "0.4", "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "keys of v2 in v3": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "int64": {"dtype": "i8"},
    "big-endian": {"version": "0.4", "dtype": ">u4"},
    "Fortran order": {"version": "0.4", "order_in_chunk": "F"},
    "one chunk": {"chunks": lumps.SHAPE},
    "chunks larger than the array": {"chunks": (128, 128, 128)},
    "a fill value": {"fill_value": 20},
    "not compressed": {"compressors": None},
    **{
        f"{type(codec).__name__} of 0.4": {"version": "0.4", "compressors": codec}
        for codec in (Zlib(), BZ2(), LZ4(), GZip(), Zstd(), Blosc("lz4"))
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_right(tmp_path, layout):
    options = dict(LAYOUTS[layout])
    if "order_in_chunk" in options:
        options["config"] = {"order": options["order_in_chunk"]}
        del options["order_in_chunk"]
        image = foreign(tmp_path / "x.ome.zarr", **{k: v for k, v in options.items() if k != "config"})
        metadata = json.loads((image / "0/.zarray").read_text())
        (image / "0/.zarray").write_text(json.dumps({**metadata, "order": "F"}))
        zarr.open_array(image / "0", mode="r+")[:] = lumps.labels()
    else:
        image = foreign(tmp_path / "x.ome.zarr", **options)
    assert_read_right(image, tmp_path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_of_ngff_zarr_is_read_right(tmp_path, version):
    source = to_ngff_image(lumps.labels(), dims="zyx", scale=dict.fromkeys("zyx", 200.0), name="labels")
    source.axes_units = dict.fromkeys("zyx", "micrometer")
    to_ngff_zarr(tmp_path / "x.ome.zarr", to_ngff_multiscales(source, cache=False, scale_factors=[]), version=version)
    table = quietly(region_volumes, tmp_path / "x.ome.zarr", TERMINOLOGY, by_hemisphere=True)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    np.testing.assert_array_equal(
        voxels(tmp_path / "x.ome.zarr", tmp_path, orientation="asl")[0],
        from_ngff_zarr(tmp_path / "x.ome.zarr").images[0].data,
    )


def test_orientations_decide_the_axes_of_an_atlas_whatever_their_names(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr", np.ascontiguousarray(lumps.labels()[::-1].transpose(2, 1, 0)))
    group = zarr.open_group(image, mode="r+")
    ome = group.attrs["ome"]
    for axis, runs in zip(
        ome["multiscales"][0]["axes"], ("left-to-right", "superior-to-inferior", "posterior-to-anterior"), strict=True
    ):
        axis["orientation"]["value"] = runs
    group.attrs["ome"] = ome
    np.testing.assert_array_equal(voxels(image, tmp_path)[0], lumps.labels())


def test_several_channels_are_refused_with_their_number(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr", np.stack([lumps.labels()] * 2), order="czyx")
    assert "2 entries along c" in refused("wrong-dimensions", image, tmp_path)
    image = foreign(tmp_path / "y.ome.zarr", np.stack([lumps.labels().T] * 2), order="cxyz")
    assert "2 entries along c" in refused("wrong-dimensions", image, tmp_path)


def test_every_command_takes_a_label_group_and_a_single_level(tmp_path, capsys):
    """`atlas` and `volumes`; a preview reads the same planes, see `assert_read_right`."""
    geometry = Geometry((0.2,) * 3, orientation=ORIENTATION)
    image = tmp_path / "x.ome.zarr"
    write_multiscales(lumps.template(), image, labels={"x": lumps.labels()}, geometry=geometry)
    (tmp_path / "terms.csv").write_text(TERMINOLOGY.to_csv())
    options = ["--ontology", str(tmp_path / "terms.csv"), "-q"]
    for k, (annotation, template) in enumerate(((image / "labels/x", image), (image / "labels/x/0", image / "0"))):
        target = tmp_path / f"atlas{k}"
        given = ["atlas", str(target), "--annotation", str(annotation), "--template", str(template), *options]
        assert main(given) == 0, capsys.readouterr().err
        (made,) = target.rglob("annotation.ome.zarr")
        table = region_volumes(made, TERMINOLOGY, by_hemisphere=True)
        assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
        given = ["volumes", str(annotation), "--terminology", str(tmp_path / "terms.csv"), "--region", "LL"]
        capsys.readouterr()
        assert main([*given, "--format", "csv"]) == 0
        assert "3.84" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["yx", "zy", "zyw"])
def test_an_image_without_z_y_and_x_is_refused(tmp_path, order):
    values = lumps.labels() if len(order) == 3 else lumps.labels()[0]
    image = foreign(tmp_path / "x.ome.zarr", values)
    group = zarr.open_group(image, mode="r+")
    entry = group.attrs["ome"]["multiscales"][0]
    entry["axes"] = axes_of(order)
    entry["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [200.0] * len(order)}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    assert ", ".join(order) in refused("missing-axis", image, tmp_path)


# Levels, label groups, arrays


def ours(folder, **options):
    geometry = Geometry((0.2,) * 3, orientation=ORIENTATION)
    write_multiscales(lumps.labels(), folder, rule="mode", chunk=16, levels=3, geometry=geometry, **options)
    return folder


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("ome_zarr", ["0.4", "0.5", "0.6"])
def test_a_level_is_read_like_that_level_of_its_image(tmp_path, level, ome_zarr):
    image = ours(tmp_path / "x.ome.zarr", ome_zarr=ome_zarr)
    expected = region_volumes(image, TERMINOLOGY, level, by_hemisphere=True)
    found = region_volumes(image / str(level), TERMINOLOGY, by_hemisphere=True)
    assert found.attrs["voxel_mm3"] == expected.attrs["voxel_mm3"]
    assert found.equals(expected)
    assert voxels(image / str(level), tmp_path)[1] == (200.0 * 2**level,) * 3
    with raises(InputError, "level-not-found"):
        region_volumes(image / str(level), TERMINOLOGY, 1)


def test_a_label_group_is_read_like_an_image(tmp_path):
    labels = lumps.labels()
    geometry = Geometry((0.2,) * 3, orientation=ORIENTATION)
    write_multiscales(lumps.template(), tmp_path / "x.ome.zarr", labels={"x": labels}, geometry=geometry)
    assert_read_right(tmp_path / "x.ome.zarr/labels/x", tmp_path)
    assert_read_right(tmp_path / "x.ome.zarr/labels/x/0", tmp_path)


def test_a_level_through_a_link_is_read(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr")
    (tmp_path / "level").symlink_to(image / "0")
    assert_read_right(tmp_path / "level", tmp_path)


def test_a_level_of_an_unfinished_image_is_refused(tmp_path):
    image = ours(tmp_path / "x.ome.zarr")
    document = json.loads((image / "zarr.json").read_text())
    document["attributes"] = {"atlaszarr": {"state": "unfinished"}}
    (image / "zarr.json").write_text(json.dumps(document))
    assert str(image) in refused("target-unfinished", image / "0", tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_without_an_image_needs_a_voxel_size(tmp_path, zarr_format):
    array = tmp_path / "x.zarr"
    zarr.save_array(array, lumps.labels(), zarr_format=zarr_format)
    with raises(InputError, "missing-voxel-size") as caught:
        region_volumes(array, TERMINOLOGY)
    assert "no scale" in str(caught.value)
    assert "--voxel-size" in str(caught.value)
    table = region_volumes(array, TERMINOLOGY, voxel_size=(200.0, 200.0, 200.0), by_hemisphere=True)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    np.testing.assert_array_equal(
        voxels(array, tmp_path, voxel_size=200.0)[0], lumps.labels()
    )  # the CCF, by its extent
    np.testing.assert_array_equal(voxels(array, tmp_path, voxel_size=200.0, orientation="asl")[0], lumps.labels())


def test_the_dimension_names_of_an_array_are_its_axes(tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=lumps.labels().T.copy(), dimension_names=["x", "y", "z"])
    table = quietly(region_volumes, tmp_path / "x.zarr", TERMINOLOGY, by_hemisphere=True, voxel_size=200.0)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)


def test_an_array_of_other_dimensions_without_an_image_is_refused(tmp_path):
    zarr.save_array(tmp_path / "x.zarr", np.zeros((2, 3, 4, 5), "u1"))
    assert "(2, 3, 4, 5)" in refused("not-an-image", tmp_path / "x.zarr", tmp_path)


# Groups that are no image


def group(folder, zarr_format=2, **attributes):
    zarr.open_group(folder, mode="a", zarr_format=zarr_format).attrs.update(attributes)
    return folder


def test_a_collection_names_its_images(tmp_path):
    root = group(tmp_path / "x.zarr", **{"bioformats2raw.layout": 3})
    foreign(root / "0", version="0.4")
    message = refused("not-an-image", root, tmp_path)
    assert "bioformats2raw" in message
    assert message.endswith(f"{root}/0")
    assert_read_right(root / "0", tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_collection_names_the_images_of_its_series(tmp_path, zarr_format):
    layout, series = {"bioformats2raw.layout": 3}, {"series": ["first", "second", "third", "fourth", "fifth"]}
    root = group(tmp_path / "x.zarr", zarr_format, **(layout if zarr_format == 2 else {"ome": layout}))
    group(root / "OME", zarr_format, **(series if zarr_format == 2 else {"ome": series}))
    message = refused("not-an-image", root, tmp_path)
    assert f"{root}/first, {root}/second, {root}/third (and 2 more)" in message


CONTAINERS = {
    "a plate": ({"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, "plate", "A/1/0"),
    "a well": ({"well": {"images": [{"path": "0"}, {"path": "1"}]}}, "well", "/1"),
    "a group of labels": ({"labels": ["cells", "nuclei"]}, "labels", "/nuclei"),
    "another group": ({"spatialdata_attrs": {"version": "0.2"}}, "without an image", "below"),
    "a plate without wells": ({"plate": 3}, "without an image", "below"),
    "labels that are no list": ({"labels": 3}, "without an image", "below"),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_group_is_named_for_what_it_is(tmp_path, kind):
    attributes, word, named = CONTAINERS[kind]
    message = refused("not-an-image", group(tmp_path / "x.zarr", **attributes), tmp_path)
    assert word in message
    assert named in message


def test_a_folder_names_the_images_below_it(tmp_path):
    root = group(tmp_path / "x.zarr", 3, spatialdata_attrs={"version": "0.2"})
    group(root / "labels", 3)
    foreign(root / "labels/cells")
    assert f"{root}/labels/cells" in refused("not-an-image", root, tmp_path)
    atlas = tmp_path / "atlas"
    foreign(atlas / "sets/a/2017/annotation.ome.zarr")
    assert f"{atlas}/sets/a/2017/annotation.ome.zarr" in refused("not-an-image", atlas, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "give the path or URL of one" in refused("not-an-image", tmp_path / "empty", tmp_path)


def test_a_file_is_named_as_one(tmp_path):
    (tmp_path / "x.ome.zarr.zip").write_bytes(b"PK")
    with raises(InputError, "not-an-image") as caught:
        region_volumes(tmp_path / "x.ome.zarr.zip", TERMINOLOGY)
    assert "is a file" in str(caught.value)


# Transformations


def test_an_affine_of_scale_and_axis_order_is_followed(tmp_path):
    step = {"type": "affine", "affine": [[0, 0, 200, 0], [0, 200, 0, 0], [200, 0, 0, 0]]}
    image = foreign(tmp_path / "x.ome.zarr", lumps.labels().T.copy(), version="0.6", steps=[step])
    assert StoredImage.at(Target(str(image))).names == ("x", "y", "z")
    assert_read_right(image, tmp_path)


@pytest.mark.parametrize("order", [[2, 1, 0], {"z": "x", "y": "y", "x": "z"}], ids=["indices", "names"])
def test_a_map_of_axes_is_followed(tmp_path, order):
    steps = {"type": "sequence", "transformations": [SIZE, {"type": "mapAxis", "mapAxis": order}]}
    assert_read_right(foreign(tmp_path / "x.ome.zarr", lumps.labels().T.copy(), version="0.6", steps=[steps]), tmp_path)


def test_a_cyclic_map_of_axes_gives_each_output_the_input_that_it_names(tmp_path):
    """Stored along x, z, y: output 0 (z) is input 1, output 1 (y) is input 2, output 2 (x) is input 0."""
    steps = {"type": "sequence", "transformations": [SIZE, {"type": "mapAxis", "mapAxis": [1, 2, 0]}]}
    values = np.ascontiguousarray(lumps.labels().transpose(2, 0, 1))
    assert_read_right(foreign(tmp_path / "x.ome.zarr", values, version="0.6", steps=[steps]), tmp_path)


def test_transformations_are_composed_in_order(tmp_path):
    members = [
        {"transformation": {"type": "scale", "scale": [2.0, 3.0]}, "inputAxes": [0, 1], "outputAxes": [2, 0]},
        {"transformation": {"type": "translation", "translation": [7.0]}, "inputAxes": [2], "outputAxes": [1]},
    ]
    steps = [
        {"type": "scale", "scale": [10.0, 20.0, 30.0]},
        {"type": "translation", "translation": [1.0, 2.0, 3.0]},
        {"type": "byDimension", "transformations": members},
        {"type": "affine", "affine": [[0, 0.1, 0, 5], [0.1, 0, 0, 6], [0, 0, 0.1, 7]]},
    ]
    image = StoredImage.at(Target(str(foreign(tmp_path / "x.ome.zarr", steps=steps))))
    # Array axes a, b, c: 10 a + 1, 20 b + 2, 30 c + 3; then (3 (20 b + 2), 30 c + 3 + 7, 2 (10 a + 1)); then
    # (0.1 (30 c + 10) + 5, 0.1 (60 b + 6) + 6, 0.1 (20 a + 2) + 7).
    assert image.names == ("x", "y", "z")
    assert image.scales[0] == pytest.approx((2.0, 6.0, 3.0))
    assert image.translations[0] == pytest.approx((7.2, 6.6, 6.0))


def test_coordinate_systems_of_the_whole_document_are_read(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr", version="0.6")
    opened = zarr.open_group(image, mode="r+")
    ome = opened.attrs["ome"]
    ome["coordinateSystems"] = ome["multiscales"][0].pop("coordinateSystems")
    opened.attrs["ome"] = ome
    assert_read_right(image, tmp_path)


def test_levels_of_different_axis_orders_are_refused(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr", np.zeros((4, 4, 4), "u1"))
    other = {"type": "affine", "affine": [[0, 0, 200, 0], [0, 200, 0, 0], [200, 0, 0, 0]]}
    level = {"path": "0", "coordinateTransformations": [SIZE]}
    put(image, {"axes": axes_of("zyx"), "datasets": [level, {"path": "0", "coordinateTransformations": [other]}]})
    refused("wrong-axes", image, tmp_path)


# Sizes and units


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("um", 1),
        ("\u00b5m", 1),
        ("\u03bcm", 1),
        ("micron", 1),
        ("micrometre", 1),
        ("Micrometer", 1),
        ("nm", 1e-3),
        ("cm", 1e4),
    ],
)
def test_every_name_of_a_unit_is_known(tmp_path, unit, um):
    steps = [{"type": "scale", "scale": [200.0 / um] * 3}]
    assert_read_right(foreign(tmp_path / "x.ome.zarr", unit=unit, steps=steps), tmp_path)


def test_axes_of_different_lengths_are_converted(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr", steps=[{"type": "scale", "scale": [0.2, 200.0, 200.0]}])
    opened = zarr.open_group(image, mode="r+")
    ome = opened.attrs["ome"]
    ome["multiscales"][0]["axes"][0]["unit"] = "millimeter"
    opened.attrs["ome"] = ome
    assert_read_right(image, tmp_path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": []}, "no scale"),
        ({"steps": [{"type": "translation", "translation": [0, 0, 0]}]}, "no scale"),
        ({"unit": None}, "scale 200, 200, 200"),
        ({"unit": ...}, "no unit"),
        ({"unit": "pixel"}, "'pixel'"),
    ],
    ids=["no scale", "translation", "null", "absent", "pixel"],
)
def test_a_size_that_is_not_known_is_refused_with_the_numbers_of_the_metadata(tmp_path, options, named):
    image = foreign(tmp_path / "x.ome.zarr", **options)
    for read in (
        lambda: region_volumes(image, TERMINOLOGY),
        lambda: voxels(image, tmp_path),
        lambda: label_planes(image, PLANES["coronal"], [5100.0], 200.0, reference_space(9)),
    ):
        with raises(InputError, "missing-voxel-size") as caught:
            read()
        assert named in str(caught.value)
    for given in (200.0, [200.0] * 3, np.full(3, 200.0)):
        table = quietly(region_volumes, image, TERMINOLOGY, voxel_size=given)
        assert table.loc[10, "volume_mm3"] == pytest.approx(lumps.LL_MM3)
    np.testing.assert_array_equal(voxels(image, tmp_path, voxel_size=200.0)[0], lumps.labels())


@pytest.mark.parametrize("number", [-200.0, 0.0, math.nan, math.inf, "200", None, [200.0]], ids=repr)
def test_a_scale_that_is_no_length_is_refused_and_named(tmp_path, number):
    steps = [{"type": "scale", "scale": [200.0, 200.0, number]}]
    image = foreign(tmp_path / "x.ome.zarr", steps=steps)
    assert str(steps[0]["scale"]) in refused("invalid-transformation", image, tmp_path)


def test_a_given_size_that_contradicts_the_metadata_is_remarked_on(tmp_path):
    image = foreign(tmp_path / "x.ome.zarr", chunks=lumps.SHAPE)
    with pytest.warns(AtlaszarrWarning, match=r"scale 200, 200, 200.*100 x 200 x 200 um, as given"):
        table = region_volumes(image, TERMINOLOGY, voxel_size=(100.0, 200.0, 200.0))
    assert table.loc[10, "volume_mm3"] == pytest.approx(lumps.LL_MM3 / 2)
    region_volumes(image, TERMINOLOGY, voxel_size=200.0)


@pytest.mark.parametrize("given", [0, -1.0, math.nan, "x", [1, 2], [1, 2, -3], [[1, 2, 3]], (1, "x", 3)], ids=repr)
def test_a_size_that_is_no_length_is_refused(tmp_path, given):
    image = foreign(tmp_path / "x.ome.zarr", chunks=lumps.SHAPE)
    with raises(InputError, "invalid-voxel-size") as caught:
        region_volumes(image, TERMINOLOGY, voxel_size=given)
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize("version", ["0.1", "0.3"])
def test_older_metadata_is_read_without_a_size(tmp_path, version):
    image = foreign(tmp_path / "x.ome.zarr", order="tczyx", version="0.4")
    entry = {"datasets": [{"path": "0"}]} | ({"axes": list("tczyx")} if version == "0.3" else {})
    (image / ".zattrs").write_text(json.dumps({"multiscales": [{**entry, "version": version}]}))
    with raises(InputError, "missing-voxel-size"):
        region_volumes(image, TERMINOLOGY)
    table = quietly(region_volumes, image, TERMINOLOGY, voxel_size=200.0, by_hemisphere=True)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)


def test_negative_labels_of_one_side_are_refused(tmp_path):
    values = lumps.labels().astype("i4")
    values[:, :, 28:] *= -1
    image = foreign(tmp_path / "x.ome.zarr", values)
    with raises(InputError, "invalid-label") as caught:
        quietly(region_volumes, image, TERMINOLOGY)
    assert re.search(r"label -(20|614454277).*side", str(caught.value))
    with raises(InputError, "invalid-label") as caught:
        voxels(image, tmp_path)
    assert "-20" in str(caught.value)
    assert "side" in str(caught.value)


# Bounds


def edited(image, **changes):
    """Replace parts of the metadata of the first array."""
    path = image / "0" / ("zarr.json" if (image / "0/zarr.json").exists() else ".zarray")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return image


def grid(*chunk):
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}}}


CLAIMS = {
    "a million cubed": ({"shape": [10**6] * 3}, "array-too-large"),
    "a million cubed in one chunk": ({"shape": [10**6] * 3, **grid(*[10**6] * 3)}, "damaged-metadata"),
    "chunks of zero": (grid(0, 32, 32), "damaged-metadata"),
    "negative chunks": (grid(-32, 32, 32), "damaged-metadata"),
    "chunks of text": (grid("32", 32, 32), "damaged-metadata"),
    "fractions": (grid(32.0, 32, 32), "damaged-metadata"),
    "two chunk lengths": (grid(32, 32), "damaged-metadata"),
    "a negative shape": ({"shape": [-66, 40, 57]}, "damaged-metadata"),
    "a shape of true": ({"shape": [True, 40, 57]}, "damaged-metadata"),
    "no shape": ({"shape": None}, "damaged-metadata"),
    "a thousand axes": ({"shape": [1] * 1000, **grid(*[1] * 1000)}, "damaged-metadata"),
    "a fill value out of range": ({"fill_value": -1}, "damaged-metadata"),
    "a fill value of many digits": ({"fill_value": "0x" + "f" * 100}, "damaged-metadata"),
    "no codecs": ({"codecs": []}, "damaged-metadata"),
    "codecs that are no list": ({"codecs": 3}, "damaged-metadata"),
    "another data type": ({"data_type": "string"}, "damaged-metadata"),
    "a data type of an extension": ({"data_type": {"name": "x"}}, "damaged-metadata"),
    "another grid": ({"chunk_grid": {"name": "rectilinear"}}, "damaged-metadata"),
    "another format": ({"zarr_format": 4}, "damaged-metadata"),
    "another separator": (
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "_"}}},
        "damaged-metadata",
    ),
    "a separator that is no text": (
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": {}}}},
        "damaged-metadata",
    ),
    "other chunk keys": ({"chunk_key_encoding": {"name": "suffix"}}, "damaged-metadata"),
    "storage transformers": ({"storage_transformers": [{"name": "x"}]}, "damaged-metadata"),
    "a shard of ten to the ninth chunks": (
        {
            **grid(1024, 1024, 1024),
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [1, 1, 1],
                        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                    },
                }
            ],
        },
        "damaged-metadata",
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_metadata_claim_is_checked_before_anything_is_read(tmp_path, claim):
    changes, code = CLAIMS[claim]
    image = edited(foreign(tmp_path / "x.ome.zarr"), **changes)
    assert str(image) in refused(code, image, tmp_path)


@pytest.mark.parametrize("claim", ["a million cubed", "chunks of zero", "no shape"])
def test_what_the_metadata_of_zarr_2_claim_is_checked_too(tmp_path, claim):
    changes, code = {
        "a million cubed": ({"shape": [10**6] * 3}, "array-too-large"),
        "chunks of zero": ({"chunks": [0, 32, 32]}, "damaged-metadata"),
        "no shape": ({"shape": None}, "damaged-metadata"),
    }[claim]
    refused(code, edited(foreign(tmp_path / "x.ome.zarr", version="0.4"), **changes), tmp_path)


@pytest.mark.parametrize("where", ["zarr.json", "0/zarr.json"])
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b'{"a": %s}' % (b"1" * 5000), b"\xff\xfe"]
)
def test_metadata_that_python_cannot_parse_are_refused(tmp_path, where, body):
    image = foreign(tmp_path / "x.ome.zarr")
    (image / where).write_bytes(body)
    assert where in refused("damaged-metadata", image, tmp_path)


@pytest.mark.parametrize("where", ["zarr.json", "0/zarr.json"])
def test_metadata_that_are_too_large_are_refused_before_they_are_read(tmp_path, where):
    image = foreign(tmp_path / "x.ome.zarr")
    with (image / where).open("r+b") as file:
        file.truncate(10**12)
    assert where in refused("file-too-large", image, tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"axes": axes_of("zyx"), "datasets": [{"path": "0", "coordinateTransformations": [SIZE]}] * 10**4},
        {"axes": axes_of("zyx") * 100, "datasets": [{"path": "0", "coordinateTransformations": [SIZE]}]},
        {"axes": axes_of("zyx"), "datasets": []},
        {"axes": axes_of("zyx"), "datasets": {}},
        {"axes": axes_of("zyx"), "datasets": [{"path": "../../etc", "coordinateTransformations": [SIZE]}]},
        {"axes": axes_of("zyx"), "datasets": [{"path": "\0", "coordinateTransformations": [SIZE]}]},
        {
            "axes": [{"name": {"z": 1}}, *axes_of("yx")],
            "datasets": [{"path": "0", "coordinateTransformations": [SIZE]}],
        },
        {"axes": axes_of("zyx", "u" * 10**6), "datasets": [{"path": "0", "coordinateTransformations": [SIZE]}]},
        {"axes": [3, 4, 5], "datasets": [{"path": "0", "coordinateTransformations": [SIZE]}]},
        {"axes": axes_of("zyx"), "datasets": [{"path": "0", "coordinateTransformations": [{"type": "byDimension"}]}]},
        {"axes": axes_of("zyx"), "datasets": [{"path": "0", "coordinateTransformations": [3]}]},
        {"coordinateSystems": [], "datasets": [{"path": "0"}]},
    ],
    ids=[
        "levels",
        "axes",
        "no level",
        "an object",
        "outside",
        "a null byte",
        "a name of an object",
        "a long unit",
        "numbers",
        "no members",
        "a number",
        "no systems",
    ],
)
def test_an_image_that_cannot_be_is_refused(tmp_path, entry):
    image = foreign(tmp_path / "x.ome.zarr")
    put(image, entry)
    assert len(refused("damaged-metadata", image, tmp_path)) < 1000


def zstd_bomb(size):
    """A zstd frame of `size` zeros that does not record its size, of 4 bytes for every 128 kB (RFC 8878)."""
    most, blocks = 2**17, []
    count = -(-size // most)
    for k in range(count):
        length = min(most, size - k * most)
        blocks.append(struct.pack("<I", (length << 3) | (1 << 1) | (k == count - 1))[:3] + b"\0")
    return b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x58" + b"".join(blocks)


def test_the_bomb_is_a_frame():
    assert bytes(Zstd().decode(zstd_bomb(300_000))) == bytes(300_000)


LARGE = 2**29
BOMBS = {
    "zstd": ("0.5", None, lambda: Zstd().encode(np.zeros(LARGE, "u1"))),
    "zstd without a size": ("0.5", None, lambda: zstd_bomb(LARGE)),
    "blosc": ("0.4", Blosc("zstd"), lambda: Blosc("zstd").encode(np.zeros(LARGE, "u1"))),
    "gzip": ("0.4", GZip(), lambda: GZip(1).encode(np.zeros(LARGE, "u1"))),
    "zlib": ("0.4", Zlib(), lambda: Zlib(1).encode(np.zeros(LARGE, "u1"))),
    "bz2": ("0.4", BZ2(), lambda: BZ2(1).encode(np.zeros(LARGE // 8, "u1"))),
    "lz4": ("0.4", LZ4(), lambda: LZ4().encode(np.zeros(LARGE, "u1"))),
    "zstd in Fortran order": ("0.4", Zstd(), lambda: Zstd().encode(np.zeros(LARGE, "u1"))),
}


def peak(function):
    """The largest memory that Python allocates during a call, in bytes; NumPy and the codecs report theirs."""
    import tracemalloc

    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.first(4)
@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_decodes_into_what_its_metadata_state_and_no_more(tmp_path, kind):
    version, compressor, make = BOMBS[kind]
    options = {"compressors": compressor} if compressor else {"compressors": zarr.codecs.ZstdCodec()}
    image = foreign(tmp_path / "x.ome.zarr", version=version, chunks=lumps.SHAPE, **options)
    if kind.endswith("order"):
        edited(image, order="F")
    (chunk,) = (path for path in (image / "0").rglob("*") if path.is_file() and path.name.strip("0.") == "")
    chunk.write_bytes(make())

    def read():
        with pytest.raises((InputError, TargetError)) as caught:
            region_volumes(image, TERMINOLOGY)
        # With some codecs the bomb is larger than any chunk of this size, and is not read.
        assert caught.value.code in ("damaged-chunk", "file-too-large")
        assert str(chunk) in str(caught.value)

    assert peak(read) < LARGE / 8


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_file_that_is_too_large_is_refused_before_it_is_read(tmp_path, version):
    image = foreign(tmp_path / "x.ome.zarr", version=version, chunks=lumps.SHAPE)
    (chunk,) = (path for path in (image / "0").rglob("*") if path.is_file() and path.name.strip("0.") == "")
    with chunk.open("r+b") as file:
        file.truncate(10**12)
    with raises(InputError, "file-too-large") as caught:
        region_volumes(image, TERMINOLOGY)
    assert str(chunk) in str(caught.value)
    with raises(InputError, "file-too-large"):
        voxels(image, tmp_path)


def test_noise_is_never_larger_than_the_bound():
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 16), "u1")
    for codec in (Zstd(), Blosc(), GZip(), BZ2(), Zlib(), LZ4()):
        document = {"zarr_format": 2, "shape": values.shape, "chunks": values.shape, "dtype": "|u1", "order": "C"}
        document |= {"compressor": codec.get_config(), "filters": None, "fill_value": 0}
        layout = ArrayLayout.of(document)
        body = bytes(codec.encode(values.ravel()))
        assert len(body) <= layout.largest
        np.testing.assert_array_equal(layout.decode(body), values)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
@pytest.mark.parametrize("order", ["zyx", "cxyz"])
def test_a_damaged_chunk_is_named(tmp_path, damage, order):
    image = foreign(tmp_path / "x.ome.zarr", order=order, fill_value=7)
    chunk = sorted(path for path in (image / "0/c").rglob("*") if path.is_file())[0]
    body = chunk.read_bytes()
    chunk.write_bytes({"cut": body[: len(body) // 2], "flip": bytes([body[0] ^ 1]) + body[1:], "empty": b""}[damage])
    for read in (lambda: region_volumes(image, TERMINOLOGY), lambda: voxels(image, tmp_path)):
        with raises(TargetError, "damaged-chunk") as caught:
            read()
        assert str(chunk) in str(caught.value)
    with raises(TargetError, "damaged-chunk"):
        write_multiscales(zarr.open_array(image / "0", mode="r"), tmp_path / "copy.ome.zarr")
    with raises(InputError, "target-unfinished"):
        region_volumes(tmp_path / "copy.ome.zarr", TERMINOLOGY)


# Sources that are written again


@pytest.mark.parametrize("dims", ["xyz", "zyx", "tzyx", "yxz"])
def test_arrays_of_any_axis_order_are_written_along_z_y_x(tmp_path, dims):
    values = ordered(lumps.labels(), dims)
    named = {name: np.arange(n) * 0.2 for name, n in zip(dims, values.shape, strict=True) if name != "t"}
    stored = zarr.create_array(tmp_path / "source.zarr", data=values, chunks=values.shape)
    for name, data in {"numpy": values, "dask": da.from_array(values), "zarr": da.from_zarr(stored)}.items():
        image = xr.DataArray(data, dims=list(dims), coords=named)
        for axis in named:
            image.coords[axis].attrs["units"] = "mm"
        target = tmp_path / f"{name}.ome.zarr"
        write_multiscales(image, target, rule="mode", levels=1)
        np.testing.assert_array_equal(StoredArray.at(Target(str(target)), "0")[...], lumps.labels())
        table = region_volumes(target, TERMINOLOGY, by_hemisphere=True)
        assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
        again = write_multiscales(image, target, rule="mode", levels=1)
        assert again.state == "already finished"


def test_the_absent_chunks_of_a_source_of_another_axis_order_are_counted(tmp_path):
    values = ordered(lumps.labels(), "xyz")
    stored = zarr.create_array(tmp_path / "source.zarr", data=values, chunks=(16, 16, 16))
    image = xr.DataArray(da.from_zarr(stored), dims=list("xyz"))
    with pytest.warns(AtlaszarrWarning, match="36 of 60 chunks"):
        write_multiscales(image, tmp_path / "x.ome.zarr", rule="mode", levels=1)


def test_a_chunk_that_a_source_of_another_axis_order_lost_is_named(tmp_path):
    source = ours(tmp_path / "source.ome.zarr")
    (source / "0/c/1/1/1").unlink()
    image = xr.DataArray(da.from_zarr(zarr.open_array(source / "0", mode="r")), dims=list("xyz"))
    with raises(TargetError, "missing-chunk") as caught:
        write_multiscales(image, tmp_path / "x.ome.zarr", rule="mode", levels=1)
    assert "0/c/1/1/1" in str(caught.value)


def test_axes_that_are_not_supported_are_refused(tmp_path):
    for dims, shape in (("tzyx", (2, 4, 4, 4)), ("zyw", (4, 4, 4)), ("zx", (4, 4))):
        with raises(InputError, "wrong-axes"):
            write_multiscales(xr.DataArray(np.zeros(shape, "u1"), dims=list(dims)), tmp_path / "x.ome.zarr")


def test_a_source_that_changes_under_its_path_is_not_finished_already(tmp_path):
    stored = zarr.create_array(tmp_path / "s.zarr", data=lumps.labels(), chunks=lumps.SHAPE)
    write_multiscales(stored, tmp_path / "x.ome.zarr", rule="mode", levels=1)
    stored[0, 0, 0] = 5
    with raises(InputError, "different-options"):
        write_multiscales(stored, tmp_path / "x.ome.zarr", rule="mode", levels=1)
    write_multiscales(stored, tmp_path / "x.ome.zarr", rule="mode", levels=1, overwrite=True)
    assert StoredArray.at(Target(str(tmp_path / "x.ome.zarr")), "0")[0, 0, 0] == 5


@pytest.mark.parametrize("through", ["link", "target"])
def test_a_source_is_not_overwritten_through_a_link(tmp_path, through):
    image = ours(tmp_path / "real.ome.zarr")
    (tmp_path / "link.ome.zarr").symlink_to(image)
    source, target = (image, tmp_path / "link.ome.zarr")[:: 1 if through == "link" else -1]
    for overwrite in (False, True):
        with raises(InputError, "target-overlaps-source"):
            write_multiscales(zarr.open_array(source / "0", mode="r"), target, rule="mode", overwrite=overwrite)
    table = region_volumes(image, TERMINOLOGY)
    assert table.loc[10, "volume_mm3"] == pytest.approx(lumps.LL_MM3)


# The command line


@pytest.mark.parametrize("kind", ["collection", "rotation", "no scale", "a million cubed", "a damaged chunk"])
def test_the_command_line_refuses_in_one_sentence(tmp_path, kind, capsys):
    image = foreign(tmp_path / "x.ome.zarr", steps=[] if kind == "no scale" else None)
    if kind == "collection":
        image = group(tmp_path / "y.zarr", **{"bioformats2raw.layout": 3})
    elif kind == "rotation":
        rotation = {"type": "rotation", "rotation": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}
        foreign(image, version="0.6", steps=[rotation])
    elif kind == "a million cubed":
        edited(image, shape=[10**6] * 3)
    elif kind == "a damaged chunk":
        next(path for path in (image / "0/c").rglob("*") if path.is_file()).write_bytes(b"x")
    (tmp_path / "terms.csv").write_text(TERMINOLOGY.to_csv())
    assert main(["volumes", str(image), "--terminology", str(tmp_path / "terms.csv")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
