"""Displacement fields: constructors, algebra, inversion, files, and warped images."""

import dataclasses
import json
import pickle
from math import cos, sin
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st
from ngff_zarr import from_ngff_zarr

from atlaszarr import Displacement
from atlaszarr.displacement.fields import AffineField, regular, transposed
from atlaszarr.errors import InputError, NotFoundError, TargetError
from atlaszarr.resampling.sampler import footprint, resample
from atlaszarr.stores.target import Target
from codes import raises
from smooth_fields import SHAPE, smooth

MATRIX = np.array([[1.1, 0.2, -3.25], [-0.1, 0.9, 5.5]])
INTERPOLATIONS = ["nearest", "linear", "cubic", "lanczos"]
BORDERS = ["constant", "replicate", "reflect", "reflect_101", "wrap"]

seeds = st.integers(0, 2**32 - 1)


def grid(shape=SHAPE):
    return np.indices(shape, dtype=float)[::-1]


def every_kind(seed):
    """One field of each kind, of the same shape."""
    delta_x, delta_y = smooth(seed)
    arrays = Displacement.from_deltas(delta_x, delta_y)
    lazy = Displacement.from_coordinates(*(da.from_array(part, chunks=(20, 30)) for part in grid() + smooth(seed)))
    affine = Displacement.from_affine(SHAPE, MATRIX)
    return [affine, arrays, lazy, 0.5 * arrays, arrays.compose(affine), affine.compose(lazy)]


# Constructors


def test_an_affine_maps_a_pixel_to_its_matrix_times_x_y_1():
    x, y = grid()
    for matrix in (MATRIX, MATRIX.tolist(), np.vstack([MATRIX, [0, 0, 1]])):
        field = Displacement.from_affine(SHAPE, matrix)
        np.testing.assert_allclose(field.coordinates()[0], 1.1 * x + 0.2 * y - 3.25)
        np.testing.assert_allclose(field.coordinates()[1], -0.1 * x + 0.9 * y + 5.5)


@pytest.mark.parametrize("centred", [True, False])
def test_a_simple_affine_agrees_with_atldld(centred):
    sx, sy, r, s, tx, ty = 1.25, 0.75, 0.3, -0.2, 4.0, -6.0
    centre = np.array([[1, 0, 26.0], [0, 1, 18.0], [0, 0, 1]])  # (w / 2 - 0.5, h / 2 - 0.5)
    parts = np.array([[sx * cos(r), -sy * sin(r + s), tx], [sx * sin(r), sy * cos(r + s), ty], [0, 0, 1]])
    matrix = centre @ parts @ np.linalg.inv(centre) if centred else parts
    field = Displacement.simple_affine(SHAPE, sx, sy, r, s, tx, ty, centred)
    assert field == Displacement.from_affine(SHAPE, matrix)


def test_a_field_is_made_from_points_or_displacements():
    delta = smooth(1).astype("f4")
    by_delta = Displacement.from_deltas(*delta)
    by_point = Displacement.from_coordinates(*(grid() + delta))
    assert by_delta == by_point
    np.testing.assert_array_equal(by_delta.delta_x.compute(), delta[0])
    np.testing.assert_array_equal(by_delta.delta_y.compute(), delta[1])
    np.testing.assert_array_equal(by_point.x.compute(), grid()[0] + delta[0])
    np.testing.assert_array_equal(by_point.y.compute(), grid()[1] + delta[1])
    np.testing.assert_allclose(by_point.norm.compute(), np.hypot(*delta), rtol=1e-6)


def test_a_field_does_not_change_with_its_source_array():
    delta = smooth(1)
    field = Displacement.from_deltas(*delta)
    delta[:] = 0
    assert field != Displacement.identity(SHAPE)
    with pytest.raises(AttributeError):
        field.field = None


@pytest.mark.parametrize("lazy", [False, True])
def test_masked_values_are_nan(lazy):
    delta_x, delta_y = smooth(3)
    masked = np.ma.masked_array(delta_x, mask=delta_x > 0.3)
    given = da.from_array(masked, chunks=(20, 30), asarray=False) if lazy else masked
    expected = np.where(delta_x > 0.3, np.nan, delta_x)
    result = Displacement.from_deltas(given, delta_y)
    np.testing.assert_array_equal(result.delta_x.compute(), expected)
    np.testing.assert_array_equal(result.delta_y.compute(), delta_y)


@pytest.mark.parametrize(
    ("make", "code", "named"),
    [
        (lambda: Displacement.from_affine((0, 3), MATRIX), "invalid-shape", "(0, 3)"),
        (lambda: Displacement.from_affine(3, MATRIX), "invalid-shape", "3"),
        (lambda: Displacement.from_affine(SHAPE, np.eye(4)), "invalid-affine", "matrix"),
        (lambda: Displacement.from_affine(SHAPE, MATRIX * np.nan), "invalid-affine", "nan"),
        (lambda: Displacement.from_affine(SHAPE, [[1, 0, 0], [0, 1, 0], [0, 1, 1]]), "invalid-affine", "[0, 1, 1]"),
        (lambda: Displacement.simple_affine(SHAPE, rotation=np.inf), "not-finite", "rotation inf"),
        (lambda: Displacement.from_deltas(np.zeros((3, 4)), np.zeros((4, 3))), "shape-mismatch", "(3, 4) and (4, 3)"),
        (lambda: Displacement.from_deltas(np.zeros(3), np.zeros(3)), "invalid-array", "(3,)"),
        (lambda: Displacement.from_deltas(np.zeros((3, 4), complex), np.zeros((3, 4))), "invalid-array", "complex128"),
        (
            lambda: Displacement.from_deltas(*(da.ones((9, 9))[da.arange(9) > 3],) * 2),
            "unknown-shape",
            "(nan, 9)",
        ),
        (lambda: Displacement.identity(SHAPE).coordinates(slice(0, 9, 2)), "invalid-slice", "slice(0, 9, 2)"),
        (lambda: Displacement.identity(SHAPE) * np.nan, "not-finite", "nan"),
        (lambda: Displacement.identity(SHAPE).compose(3), "wrong-type", "int"),
        (lambda: Displacement.from_affine(SHAPE, [[1, 2, 0], [2, 4, 0]]).invert(), "not-invertible", "affine"),
        (lambda: Displacement.from_deltas(*np.full((2, 3, 4), np.nan)).invert(), "not-invertible", "(3, 4)"),
        (lambda: Displacement.identity(SHAPE).warp(np.zeros(3)), "invalid-shape", "(3,)"),
        (lambda: Displacement.identity(SHAPE).warp(da.zeros((3, 4), dtype="u4")), "unsupported-dtype", "uint32"),
        (
            lambda: Displacement.identity(SHAPE).warp(da.ones((9, 9))[da.arange(9) > 3]),
            "unknown-shape",
            "(nan, 9)",
        ),
        (lambda: Displacement.identity(SHAPE).warp(da.zeros((3, 4)), "area"), "not-supported", "area"),
        (lambda: Displacement.identity(SHAPE).save("field.txt"), "unknown-suffix", "field.txt"),
        (
            lambda: Displacement.identity(SHAPE).save("field.npy", {"key": "k"}),
            "not-supported",
            "'key'",
        ),
        (lambda: Displacement.identity(SHAPE).save("s3://bucket/field.npy"), "not-supported", "s3://bucket/field.npy"),
    ],
)
def test_wrong_values_are_refused_by_name(make, code, named):
    with raises(InputError, code) as caught:
        make()
    assert named in str(caught.value)


# Blocks


@pytest.mark.parametrize("kind", range(6))
def test_blocks_are_parts_of_the_whole_and_survive_pickling(kind):
    field = every_kind(3)[kind]
    whole = field.coordinates()
    assert whole.shape == (2, *SHAPE)
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(field.coordinates(slice(5, 19), slice(-20, None)), whole[:, 5:19, -20:])
    assert field.coordinates(slice(9, 3)).shape == (2, 0, 53)
    np.testing.assert_array_equal(field.x.compute(), whole[0])
    np.testing.assert_allclose(field.delta_y.compute(), whole[1] - grid()[1], atol=1e-12)
    again = pickle.loads(pickle.dumps(field))
    assert again == field
    assert hash(again) == hash(field)
    assert tokenize(again) == tokenize(field)
    assert field != every_kind(4)[kind] * 1.01
    assert field != Displacement.identity((3, 4))
    assert field != 3
    assert repr(field).startswith("<Displacement of shape (37, 53): ")


def test_a_field_is_computed_only_where_it_is_needed():
    computed = []

    def part(block_info):
        computed.append(block_info[None]["chunk-location"])
        return np.zeros(block_info[None]["chunk-shape"])

    lazy = da.map_blocks(part, chunks=((50, 50), (60, 60, 60)), dtype=float, meta=np.empty((0, 0)))
    field = 2 * Displacement.from_deltas(lazy, lazy).compose(Displacement.identity((100, 180)))
    rows = field.x
    assert computed == []
    field.coordinates(slice(0, 10), slice(0, 10))
    assert computed == [(0, 0)]
    rows[60:, 130:].compute()
    assert set(computed) <= {(0, 0), (1, 2), *((i, j) for i in (0, 1) for j in (0, 1, 2))}


# Algebra


@pytest.mark.parametrize("factor", [2, -0.5, np.float64(1.5), np.int32(3), 0])
def test_a_number_scales_displacements_from_either_side(factor):
    for field in every_kind(5):
        scaled = field * factor
        assert scaled == factor * field
        points = grid() + float(factor) * (field.coordinates() - grid())
        np.testing.assert_allclose(scaled.coordinates(), points, atol=1e-12)
    with pytest.raises(TypeError):
        Displacement.identity(SHAPE) * "2"
    with pytest.raises(TypeError):
        np.ones(3) * Displacement.identity(SHAPE)


def bilinear(values, x, y):
    """Displacements at a point, by the nearest cell of the grid."""
    h, w = values.shape
    i, j = int(np.clip(np.floor(y), 0, h - 2)), int(np.clip(np.floor(x), 0, w - 2))
    v, u = y - i, x - j
    part = values[i : i + 2, j : j + 2]
    return np.array([1 - v, v]) @ part @ np.array([1 - u, u])


@settings(max_examples=15)
@given(seeds)
def test_composing_interpolates_and_extrapolates_the_outer_field(seed):
    delta = smooth(seed)
    outer = Displacement.from_deltas(*delta)
    inner = Displacement.from_affine((20, 24), MATRIX * 1.5)
    result = outer.compose(inner).coordinates()
    points = inner.coordinates()
    assert (points[0] < 0).any() or (points[0] > 53).any() or (points[1] > 37).any()
    for at in np.random.default_rng(seed).integers(0, (20, 24), (40, 2)):
        x, y = points[(slice(None), *at)]
        value = [x + bilinear(delta[0], x, y), y + bilinear(delta[1], x, y)]
        np.testing.assert_allclose(result[(slice(None), *at)], value, atol=1e-9)


@settings(max_examples=15)
@given(seeds)
def test_composing_with_affines_is_exact_and_associative(seed):
    one = Displacement.from_affine(SHAPE, np.random.default_rng(seed).uniform(-2, 2, (2, 3)))
    other = Displacement.from_affine((20, 30), MATRIX)
    by_arrays = Displacement.from_coordinates(*one.coordinates())
    assert one.compose(other) == by_arrays.compose(other)  # beyond its grid too
    bent = Displacement.from_deltas(*smooth(seed))
    assert one.compose(bent).compose(other) == one.compose(bent.compose(other))
    assert bent.compose(one).compose(other) == bent.compose(one.compose(other))
    assert bent.compose(Displacement.identity(SHAPE)) == bent


def test_nan_stays_nan_and_does_not_spread_to_neighbours():
    delta = smooth(1)
    delta[:, 10, 12] = np.nan
    field = Displacement.from_deltas(*delta)
    assert np.isnan(field.compose(Displacement.identity(SHAPE)).x.compute()).sum() == 1
    back = Displacement.identity(SHAPE).compose(field)
    assert np.isnan(back.coordinates()).sum() == 2
    assert back == field
    one_row = Displacement.from_deltas(np.ones((1, 5)), np.zeros((1, 5)))
    assert one_row.compose(Displacement.identity((3, 9))) == Displacement.from_affine((3, 9), [[1, 0, 1], [0, 1, 0]])


@settings(max_examples=15)
@given(seeds, st.booleans())
def test_composing_with_the_inverse_is_the_identity(seed, scaled):
    matrix = [[2.5, 0.3, -4], [-0.2, 2.0, 7]] if scaled else np.eye(3)
    field = Displacement.from_affine(SHAPE, matrix).compose(Displacement.from_deltas(*smooth(seed)))
    image = (90, 140) if scaled else SHAPE
    inverse, residual = field.invert(image)
    assert inverse.shape == residual.shape == image
    assert residual.compute().max() < 1e-8
    assert field.compose(inverse).norm.max().compute() < 1e-8
    # The inverse is curved between its pixels, where it is interpolated; beyond its ends it is extrapolated.
    points = field.coordinates()
    within = (points[0] >= 0) & (points[0] <= image[1] - 1) & (points[1] >= 0) & (points[1] <= image[0] - 1)
    assert inverse.compose(field).norm.compute()[within].max() < 0.05


@pytest.mark.parametrize("write", [True, False])
def test_a_field_may_be_stored_in_any_order(write):
    rows, columns = np.mgrid[:5, :7].astype(float)
    arrays = [np.asfortranarray(columns + 0.5), np.asfortranarray(rows - 0.25)]
    for array in arrays:
        array.setflags(write=write)
    field, plain = Displacement.from_coordinates(*arrays), Displacement.from_coordinates(columns + 0.5, rows - 0.25)
    np.testing.assert_array_equal(field.compose(field).coordinates(), plain.compose(plain).coordinates())


def test_an_affine_is_inverted_exactly():
    inverse, residual = Displacement.from_affine((900, 1500), MATRIX).invert((1200, 700))
    whole = np.vstack([MATRIX, [0, 0, 1]])
    assert inverse == Displacement.from_affine((1200, 700), np.linalg.inv(whole))
    assert residual.max().compute() < 1e-9


def test_the_residual_is_large_where_a_field_folds():
    x, y = grid()
    folded = Displacement.from_coordinates(np.abs(x - 20), y)
    _, residual = folded.invert()
    assert residual[:, :30].max().compute() < 1e-8
    delta = smooth(1)
    delta[:, 5:20, 5:20] = np.nan
    _, residual = Displacement.from_deltas(*delta).invert()
    residual = residual.compute()
    assert residual[30:].max() < 1e-8
    assert not (residual[10:15, 10:15] < 1e-8).any()


# Sampling an image


@dataclasses.dataclass(frozen=True)
class BlockedAffine(AffineField):
    """An affine with square blocks."""

    side: int = 0
    chunks = property(lambda self: regular(self.shape, self.side))


@dataclasses.dataclass(frozen=True)
class Blocked:
    """Any other field with square blocks."""

    inner: Any
    side: int
    shape = property(lambda self: self.inner.shape)
    chunks = property(lambda self: regular(self.shape, self.side))

    def coordinates(self, rows, columns):
        return self.inner.coordinates(rows, columns)


def blocked(field, side):
    if isinstance(field, AffineField):
        return BlockedAffine(field.shape, field.matrix, side)
    return Blocked(field, side)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "rgb"])
def test_warping_samples_the_image_at_the_points_of_the_field(lazy, channels):
    image = np.random.default_rng(1).integers(0, 256, (60, 70, *channels), np.uint8)
    for field in every_kind(6):
        given = da.from_array(image, chunks=25) if lazy else image
        result = field.warp(given, "cubic", "reflect")
        assert isinstance(result, da.Array if lazy else np.ndarray)
        assert (result.shape, result.dtype) == ((*SHAPE, *channels), image.dtype)
        np.testing.assert_array_equal(np.asarray(result), resample(image, field.coordinates(), "cubic", "reflect"))


@settings(max_examples=20)
@given(
    seeds,
    st.integers(0, 5),
    st.integers(5, 60),
    st.tuples(st.integers(5, 80), st.integers(5, 80)),
    st.sampled_from(INTERPOLATIONS),
    st.sampled_from(BORDERS),
    st.sampled_from(["u1", "f4"]),
)
@pytest.mark.slow
def test_blocks_and_chunks_of_any_size_give_the_same_bytes(seed, kind, size, chunks, interpolation, border, dtype):
    image = np.random.default_rng(seed).integers(0, 256, (41, 67, 3)).astype(dtype)
    field = every_kind(seed)[kind]
    whole = field.warp(image, interpolation, border, (1, 2, 3))
    cut = Displacement(blocked(field.field, size))
    np.testing.assert_array_equal(cut.warp(image, interpolation, border, (1, 2, 3)), whole)
    lazy = cut.warp(da.from_array(image, chunks=(*chunks, 2)), interpolation, border, (1, 2, 3))
    assert max(lazy.chunks[0] + lazy.chunks[1]) <= size
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), whole)


class Counted:
    """An array that records which of its parts are read."""

    def __init__(self, values):
        self.values, self.read = values, []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, region):
        self.read.append(tuple(axis.start for axis in region[:2]))
        return self.values[region]


@pytest.mark.parametrize("affine", [True, False])
def test_a_warp_reads_the_chunks_in_its_footprint_once_and_no_others(affine):
    image = Counted(np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8))
    lazy = da.from_array(image, chunks=(50, 50, 3), asarray=False, meta=image.values)
    field = Displacement.from_affine((1024, 1536), [[1.5 / 16, 0.1 / 16, 90], [-0.1 / 16, 1.2 / 16, 120]])
    if not affine:
        field = Displacement.from_coordinates(*field.coordinates())
    warped = field.warp(lazy, "linear")
    assert image.read == []
    for rows, columns in ((slice(0, 1024), slice(0, 1536)), (slice(512, 1024), slice(0, 512))):
        image.read.clear()
        warped[rows, columns].compute()
        left, top, right, bottom = footprint(field.coordinates(rows, columns), (400, 300), "linear", "constant")
        within = {(y, x) for y in range(0, 300, 50) for x in range(0, 400, 50)}
        within = {(y, x) for y, x in within if y < bottom and top < y + 50 and x < right and left < x + 50}
        assert set(image.read) <= within
        assert len(image.read) == len(set(image.read))
    # A single block needs all the chunks in its footprint.
    assert set(image.read) == within


def test_a_warp_outside_the_image_reads_nothing():
    image = Counted(np.ones((30, 40), np.uint8))
    lazy = da.from_array(image, chunks=10, asarray=False, meta=image.values)
    away = Displacement.from_affine(SHAPE, [[1, 0, 1e30], [0, 1, 0]])
    nowhere = Displacement.from_deltas(*np.full((2, *SHAPE), np.nan))
    for field in (away, nowhere):
        assert (field.warp(lazy, constant=7).compute() == 7).all()
    assert image.read == []


@dataclasses.dataclass(frozen=True)
class Watched(AffineField):
    """An affine that records the sizes of its computed blocks."""

    sizes: list[int] = dataclasses.field(default_factory=list)

    def coordinates(self, rows, columns):
        self.sizes.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return super().coordinates(rows, columns)


def test_a_numpy_image_is_warped_with_one_block_of_the_field_in_memory():
    watched = Watched.of((3000, 2000), MATRIX / 30)
    Displacement(watched).warp(np.zeros((100, 100), np.uint8))
    assert max(watched.sizes) == 512**2
    assert sum(watched.sizes) == 3000 * 2000


# Files


def test_npy_files_agree_with_atldld_in_both_directions(tmp_path):
    delta = smooth(1, (1100, 40), 9.0).astype("f4")  # rows of several blocks
    np.save(tmp_path / "classic.npy", np.stack([delta[0], delta[1]], axis=2))
    field = Displacement.load(tmp_path / "classic.npy")
    assert field == Displacement.from_deltas(*delta)
    field.save(tmp_path / "ours.npy")
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "classic.npy").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classic.npy", "ours.npy"]
    target = Target.of("memory://fields")
    target.write("classic.npy", (tmp_path / "classic.npy").read_bytes())
    assert Displacement.load("memory://fields/classic.npy") == pickle.loads(pickle.dumps(field)) == field


def test_an_error_while_a_field_is_computed_is_raised_unchanged_and_leaves_no_file(tmp_path):
    error = OSError(5, "the field's own source")

    def fail(_block):
        raise error

    broken = da.zeros((4, 5), chunks=(2, 5)).map_blocks(fail, dtype="f8", meta=np.empty((0, 0)))
    with pytest.raises(OSError, match="own source") as caught:
        Displacement.from_deltas(broken, broken).save(tmp_path / "field.npy")
    assert not isinstance(caught.value, TargetError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["field.zarr", "field.ome.zarr", "memory://kept/field.ome.zarr"])
@pytest.mark.parametrize("kind", range(6))
def test_a_field_is_the_same_after_saving_and_loading_zarr(tmp_path, name, kind):
    target = name if "://" in name else tmp_path / name
    field = every_kind(2)[kind]
    if "://" in name:
        Target.of(name).remove()
    field.save(target)
    loaded = Displacement.load(target)
    assert loaded == field
    np.testing.assert_array_equal(loaded.delta_x.compute(), field.delta_x.compute())
    assert pickle.loads(pickle.dumps(loaded)) == field


def test_ngff_zarr_validates_a_saved_field_and_reads_the_transform(tmp_path):
    field = Displacement.from_deltas(*smooth(1, (700, 600), 9.0))
    field.save(tmp_path / "field.ome.zarr")
    read = from_ngff_zarr(str(tmp_path / "field.ome.zarr"), validate=True)
    (declared,) = read.metadata.coordinateTransformations
    assert (declared.type, declared.path) == ("displacements", "0")
    image = read.images[0]
    assert (list(image.dims), image.axes_types) == (["c", "y", "x"], {"c": "displacement"})
    assert image.scale == {"c": 1.0, "y": 1.0, "x": 1.0}
    assert set(image.axes_units.values()) == {None}
    stored = image.data.compute()
    assert stored.dtype == np.float64
    np.testing.assert_array_equal(stored, np.stack([field.delta_y.compute(), field.delta_x.compute()]))
    assert zarr.open_array(tmp_path / "field.ome.zarr" / "0").chunks == (2, 512, 512)


def physical(target, values, axes, scale, translation, frame=None, version="0.6"):
    """Write a field as another program may: float32, in physical units."""
    root = zarr.create_group(target)
    root.create_array("fields/level", data=values.astype("f4"), chunks=tuple(min(n, 16) for n in values.shape))
    described = [{"name": "d", "type": "displacement"}, *({"name": a, "type": "space", "unit": "mm"} for a in axes)]
    steps = [{"type": "scale", "scale": [1, *scale]}, {"type": "translation", "translation": [0, *translation]}]
    sequence = {"type": "sequence", "transformations": steps}
    entry = {
        "coordinateSystems": [{"name": "world", "axes": described[1:]}, {"name": "own", "axes": described}],
        "datasets": [{"path": "fields/level", "coordinateTransformations": [sequence]}],
    }
    root.attrs["ome"] = {"version": version, "multiscales": [entry]}
    if frame:
        root.attrs["atlaszarr"] = {"image": frame}


@pytest.mark.parametrize("axis", [None, 0, 1, 2], ids=["2-D", "z", "y", "x"])
@pytest.mark.parametrize("framed", [False, True])
def test_physical_displacements_become_pixels_of_the_image(tmp_path, axis, framed):
    delta_y, delta_x = smooth(1)
    values, scale, translation = np.stack([delta_y, delta_x]), [0.5, 0.25], [3.0, -2.0]
    frame = {"scale": [0.1, 0.2], "translation": [1.0, -4.0]} if framed else None
    axes = "yx"
    if axis is not None:
        values = np.insert(np.expand_dims(values, axis + 1), axis, 99.0, axis=0)
        for lengths in (scale, translation, *(frame.values() if frame else ())):
            lengths.insert(axis, 7.0)
        axes = "zyx"
    physical(tmp_path / "f.ome.zarr", values, axes, scale, translation, frame)
    field = Displacement.load(tmp_path / "f.ome.zarr")
    x, y = grid()
    if framed:
        expected = (-2 + 0.25 * x + delta_x + 4) / 0.2, (3 + 0.5 * y + delta_y - 1) / 0.1
    else:
        expected = x + delta_x / 0.25, y + delta_y / 0.5
    np.testing.assert_allclose(field.coordinates(), expected, atol=1e-5)


def test_a_field_of_a_single_row_is_read_if_the_axes_of_the_image_are_recorded(tmp_path):
    frame = {"axes": ["y", "z"], "scale": [1.0, 1.0, 7.0], "translation": [0.0, 0.0, 5.0]}
    for shape in ((1, 1), (1, 6), (6, 1)):
        delta_y, delta_x = smooth(1, shape)
        values = np.stack([delta_x.T, delta_y.T, 99.0 * np.ones(shape[::-1])])[..., np.newaxis]
        target = tmp_path / f"{shape}.ome.zarr"
        physical(target, values, "zyx", [1.0, 1.0, 7.0], [0.0, 0.0, 5.0], frame)
        np.testing.assert_allclose(
            Displacement.load(target).coordinates(), grid(shape) + np.stack([delta_x, delta_y]), atol=1e-6
        )


def edited(change):
    def make(target):
        Displacement.from_deltas(*smooth(1)).save(target)
        path = target / "zarr.json"
        document = json.loads(path.read_text())
        change(document["attributes"])
        path.write_text(json.dumps(document))

    return make


def entry(attributes):
    return attributes["ome"]["multiscales"][0]


def systems(attributes):
    return entry(attributes)["coordinateSystems"][0]["axes"]


def steps(attributes):
    return entry(attributes)["datasets"][0]["coordinateTransformations"][0]["transformations"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda target: target.mkdir(), None),
        (edited(lambda a: systems(a)[0].update(type="channel")), "not-a-displacement-field"),
        (edited(lambda a: systems(a).reverse()), "wrong-axes"),
        (edited(lambda a: entry(a).pop("datasets")), None),
        (edited(lambda a: entry(a)["datasets"][0].update(path="1")), None),
        (edited(lambda a: steps(a)[0].update(type="rotation")), None),
        (edited(lambda a: steps(a)[0].update(scale=[1, 1])), None),
        (edited(lambda a: steps(a)[0].update(scale=[1, 0, 1])), None),
        (edited(lambda a: a.update(atlaszarr={"image": {"scale": [1, 1]}})), "damaged-metadata"),
        (edited(lambda a: a.update(atlaszarr={"image": {"scale": [1], "translation": [0]}})), "shape-mismatch"),
        (lambda p: physical(p, np.zeros((3, 4, 5, 6)), "zyx", [1] * 3, [0] * 3), "shape-mismatch"),
        (lambda p: physical(p, np.zeros((3, 1, 1, 6)), "zyx", [1] * 3, [0] * 3), "shape-mismatch"),
        (lambda p: physical(p, np.zeros((3, 5, 6)), "yx", [1] * 2, [0] * 2), "shape-mismatch"),
    ],
    ids=range(13),
)
def test_an_ome_zarr_that_is_not_a_two_dimensional_field_is_refused(tmp_path, make, code):
    make(tmp_path / "x.ome.zarr")
    with pytest.raises(InputError, match=r"x\.ome\.zarr") as caught:
        Displacement.load(tmp_path / "x.ome.zarr")
    # The other codes are those of the reader of OME-Zarr.
    assert code in (None, caught.value.code)


def test_a_npy_file_that_is_not_a_field_is_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    (tmp_path / "text.npy").write_text("no array")
    for name, code in (("flat", "invalid-array"), ("text", "damaged-file")):
        with raises(InputError, code) as caught:
            Displacement.load(tmp_path / f"{name}.npy")
        assert f"{name}.npy" in str(caught.value)
    with pytest.raises(NotFoundError, match=r"none\.npy"):
        Displacement.load(tmp_path / "none.npy")


@pytest.mark.parametrize("name", ["field.npy", "field.ome.zarr"])
def test_an_existing_target_is_not_overwritten(tmp_path, name):
    first = Displacement.from_affine(SHAPE, MATRIX)
    first.save(tmp_path / name)
    with raises(InputError, "target-exists" if name.endswith("npy") else "target-not-empty"):
        Displacement.identity(SHAPE).save(tmp_path / name)
    assert np.allclose(Displacement.load(tmp_path / name).x.compute(), first.x.compute(), atol=1e-5)


def test_a_field_is_not_saved_into_its_own_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Displacement.from_affine(SHAPE, MATRIX).save("field.ome.zarr")
    (tmp_path / "link").symlink_to(tmp_path / "field.ome.zarr")
    loaded = Displacement.load("../" + tmp_path.name + "/link")
    before = sorted(tmp_path.rglob("*"))
    for field in (loaded, loaded * 0.5, loaded.compose(Displacement.identity(SHAPE))):
        for name in ("field.ome.zarr/0/inner.zarr", "link/0/inner.zarr", "link/0/inner.npy"):
            with raises(InputError, "target-overlaps-source"):
                field.save(name)
    assert sorted(tmp_path.rglob("*")) == before
    loaded.save("other.zarr")


@pytest.mark.parametrize("name", ["field.npy", "field.zarr"])
def test_a_field_is_saved_and_loaded_by_any_kind_of_path(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    Displacement.from_affine(SHAPE, MATRIX).save(f"~/{name}")
    assert (tmp_path / name).exists()
    for path in (f"../{name}", f"~/here/../{name}", f"file://{tmp_path}/{name}", f"local://../{name}"):
        assert Displacement.load(path).shape == SHAPE


@pytest.mark.parametrize("kind", ["affine", "arrays"])
def test_a_transposed_field_has_the_same_points_at_exchanged_rows_and_columns(kind):
    field = (
        Displacement.simple_affine(SHAPE, 1.2, 0.9, 0.1) if kind == "affine" else Displacement.from_deltas(*smooth(8))
    )
    turned = Displacement(transposed(field.field))
    assert turned.shape == SHAPE[::-1]
    assert isinstance(turned.field, AffineField) is (kind == "affine")
    points = field.coordinates().swapaxes(1, 2)
    np.testing.assert_allclose(turned.coordinates(), points, atol=1e-12)
    np.testing.assert_array_equal(turned.coordinates(slice(3, 20), slice(5, 9)), turned.coordinates()[:, 3:20, 5:9])
    x, y = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]))
    np.testing.assert_allclose(np.stack([turned.delta_x, turned.delta_y]), points - np.stack([x, y]), atol=1e-12)
    between = np.stack([x + 0.25, y - 0.5])
    np.testing.assert_allclose(turned.field.at(between), field.field.at(between[::-1].copy()), atol=1e-12)
    assert Displacement(transposed(turned.field)) == field
    assert pickle.loads(pickle.dumps(turned)) == turned


@pytest.mark.parametrize("name", ["field.npy", "field.ome.zarr"])
def test_an_interrupted_save_does_not_open_as_a_field(tmp_path, name):
    def last(block_info):
        if block_info[None]["chunk-location"] == (1, 1):
            raise KeyboardInterrupt
        return np.zeros(block_info[None]["chunk-shape"])

    lazy = da.map_blocks(last, chunks=((700, 10), (600, 10)), dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(KeyboardInterrupt):
        Displacement.from_deltas(lazy, lazy).save(tmp_path / name)
    with pytest.raises((InputError, NotFoundError)):
        Displacement.load(tmp_path / name)
    with pytest.raises(TargetError, match="No such file or directory"):
        Displacement.identity(SHAPE).save(tmp_path / "none" / "field.npy")
    if name.endswith("npy"):
        assert list(tmp_path.iterdir()) == []
