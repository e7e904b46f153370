"""open_sections: lazy planes in the usual orientation, and iter_sections, the loop over them."""

import csv
import pickle
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from atlaszarr import AllenClient, Displacement, build, iter_sections, open_sections
from atlaszarr.errors import ImageError, InputError, RecordError, ServiceError
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.records import invented
from atlaszarr.transforms import image_to_reference
from codes import raises

CORONAL, SAGITTAL = 74272479, 69289763
IMAGES = "section_image_download"
#: Axes across a plane, along its rows and along its columns.
AXES = {"coronal": ("p", "i", "r"), "sagittal": ("r", "i", "p"), "transverse": ("i", "p", "r")}


@pytest.fixture
def client(emulator):
    emulator.reset()
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        yield client


def section_at(opened, position):
    """The section that iter_sections yields for a position of a Dataset."""
    (section,) = iter_sections(opened.isel(section=position))
    return section


def iterated(opened):
    """The SectionImage ids that iter_sections yields."""
    return [section.image_id for section in iter_sections(opened)]


def sampled_at(record, section, pir):
    """For points of a plane: pixels of the image, their points in space, whether these are well inside the brain."""
    trv, tvs = np.array(record.trv), np.array(section.tvs)
    xy = (pir @ trv[:2, :3].T + trv[:2, 3]) @ tvs[:, :2].T + tvs[:, 2]
    own = image_to_reference(xy, section.depth, section.tsv, record.tvr)
    phantom = default_phantom()
    return xy, own, (phantom.distance_to_edge(own) > 100) & (phantom.labels(own) > 0)


def mean_error(dataset, record, k):
    """Mean error of a section against the phantom in the section's plane, in grey levels, well inside the brain."""
    plane = dataset.isel(section=k)
    across, down, along = AXES[dataset.plane_of_section]
    rows, columns = (plane[f"{axis}_um"].values for axis in (down, along))
    pir = np.empty((len(rows), len(columns), 3))
    pir[..., "pir".index(across)] = float(plane.coordinate)
    pir[..., "pir".index(down)] = rows[:, np.newaxis]
    pir[..., "pir".index(along)] = columns
    section = next(each for each in record.sections if each.image_id == int(plane.image_id))
    xy, own, inside = sampled_at(record, section, pir)
    inside &= ((xy > 20) & (xy < np.array([section.width, section.height]) - 20)).all(axis=-1)
    assert inside.sum() > 300
    return np.abs(plane.image.values[inside] - default_phantom().rgb(own[inside])).mean()


@pytest.mark.parametrize(
    ("dataset", "shape", "axes"), [(CORONAL, (60, 160, 228, 3), "ir"), (SAGITTAL, (18, 160, 264, 3), "ip")]
)
def test_a_plane_is_in_the_usual_orientation_and_agrees_with_the_phantom(client, dataset, shape, axes):
    opened = open_sections(dataset, 50, client=client)
    assert opened.image.shape == shape
    assert opened.image.dims == ("section", "y", "x", "rgb")
    for dimension, axis in zip("yx", axes, strict=True):
        um = (np.arange(opened.sizes[dimension]) + 0.5) * 50.0
        np.testing.assert_array_equal(opened[f"{axis}_um"], um)
        np.testing.assert_allclose(opened[dimension], (um - 5) / 1000, atol=1e-12)
        assert opened[f"{axis}_um"].dims == (dimension,)
    record = client.section_dataset(dataset)
    assert list(opened.image_id) == [section.image_id for section in record.sections]
    assert list(opened.section_number) == [section.section_number for section in record.sections]
    assert mean_error(opened, record, shape[0] // 2) < 1.0


@pytest.mark.parametrize("point", ["centre", "center"])
def test_anterior_is_up_in_transverse_planes(serve, connect, point):
    record, images = invented(7, plane="transverse", numbers=range(40, 280, 60), size=(6000, 7000))
    client = connect(serve([record], images))
    opened = open_sections(7, 100, client=client, detection_xy=point)
    assert opened.attrs["plane_of_section"] == "transverse"
    assert opened.image.shape == (4, 132, 114, 3)
    assert opened.coordinate.attrs == {"units": "um", "axis": "i"}
    np.testing.assert_allclose(opened.coordinate, [1000, 2500, 4000, 5500], atol=1e-6)
    assert mean_error(opened, client.section_dataset(7), 2) < 1.0


@pytest.mark.parametrize("point", [(0.0, 0.0), (4000.0, 1234.5)])
def test_a_slice_coordinate_is_that_of_the_detection_point(client, point):
    for dataset, axis in ((CORONAL, 0), (SAGITTAL, 2)):
        record = client.section_dataset(dataset)
        opened = open_sections(record, 100, client=client, detection_xy=point)
        for k, section in enumerate(record.sections):
            pir = image_to_reference(point, section.depth, section.tsv, record.tvr)
            assert float(opened.coordinate[k]) == pytest.approx(pir[axis], abs=1e-8)
        mirrored = open_sections(record, 100, client=client, detection_xy=point, mirror=True)
        expected = 11400 - opened.coordinate if axis == 2 else opened.coordinate
        np.testing.assert_allclose(mirrored.coordinate, expected, atol=1e-8)


def test_only_the_images_of_computed_planes_are_fetched(emulator, client):
    opened = open_sections(CORONAL, 25, view=("primary", "expression"), client=client)
    assert emulator.count(IMAGES) == 0
    opened.image.isel(section=slice(20, 23)).compute()
    assert emulator.count(IMAGES) == 3
    emulator.reset()
    dask.compute(opened.image.isel(section=30), opened.expression.isel(section=30))
    assert sorted(request.query.get("view", "") for request in emulator.requests) == ["", "expression"]


@pytest.mark.slow
def test_a_block_of_a_fine_grid_fetches_the_windows_it_samples_once(emulator, client):
    opened = open_sections(CORONAL, 1, client=client)
    assert opened.image.shape == (60, 8000, 11400, 3)
    emulator.reset()
    part = opened.image[30, 3900:4300, 5200:5900].compute()
    windows = [request.query for request in emulator.requests]
    assert 0 < len(windows) == len({str(query) for query in windows}) <= 6
    assert all(int(query["width"]) * int(query["height"]) <= 2048**2 for query in windows)
    record = client.section_dataset(CORONAL)
    pir = np.stack(np.broadcast_arrays(float(part.coordinate), part.i_um.values[:, None], part.r_um.values), axis=-1)
    _, own, inside = sampled_at(record, record.sections[30], pir)
    assert np.abs(part.values[inside] - default_phantom().rgb(own[inside])).mean() < 1.0


def test_blocks_of_a_plane_agree_with_the_warp_of_the_whole_image(client):
    opened = open_sections(SAGITTAL, 15, client=client).isel(section=8)
    (section,) = iter_sections(opened)
    whole = section.displacement.warp(section.image, border="replicate")
    x, y = section.displacement.coordinates()
    height, width = section.image.shape[:2]
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    assert opened.image.data.numblocks == (2, 2, 1)
    np.testing.assert_array_equal(opened.image.values, np.where(inside[..., np.newaxis], whole, 0))


def test_iter_sections_fetches_a_few_sections_ahead(emulator, client):
    opened = open_sections(SAGITTAL, 50, view=("primary", "expression"), client=client)
    assert opened.sizes["section"] == 18
    emulator.reset()
    for k, (image_id, coordinate, image, expression, displacement) in enumerate(iter_sections(opened)):
        assert 2 * (k + 1) <= emulator.count(IMAGES) <= 2 * (k + 1 + 4)
        assert (image_id, coordinate) == (int(opened.image_id[k]), float(opened.coordinate[k]))
        assert image.dtype == expression.dtype == np.uint8
        assert image.shape == expression.shape
        registered = displacement.warp(image)
        assert registered.shape == (160, 264, 3)
        if k == 4:
            break
    assert iterated(opened.isel(section=[9, 2])) == opened.image_id[[9, 2]].values.tolist()
    (alone,) = iter_sections(opened.isel(section=7))
    assert alone.image_id == int(opened.image_id[7])


def test_iter_sections_takes_a_dataset_as_open_sections_does(client):
    options = {"resolution": 100, "view": ("primary", "expression"), "detection_xy": "centre"}
    opened = iter_sections(open_sections(SAGITTAL, client=client, **options))
    for one, other in zip(iter_sections(SAGITTAL, client=client, **options), opened, strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.expression, other.expression)
        np.testing.assert_array_equal(one.displacement.coordinates(), other.displacement.coordinates())
    with raises(InputError, "not-supported"):
        iter_sections(open_sections(SAGITTAL, client=client), resolution=50)


def test_iter_sections_of_a_dataset_needs_neither_xarray_nor_dask(emulator):
    program = (
        "import sys; from atlaszarr import AllenClient, iter_sections\n"
        f"with AllenClient({emulator.url!r}, cache='none') as client:\n"
        f"    section = next(iter_sections({SAGITTAL}, resolution=100, client=client))\n"
        "    section.displacement.warp(section.image)\n"
        "print({'xarray', 'dask', 'pandas', 'zarr'} & sys.modules.keys() or '')"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_the_expression_image_is_none_if_the_view_was_not_opened(client):
    section = section_at(open_sections(SAGITTAL, 100, client=client), 0)
    assert section.expression is None


@pytest.mark.slow
def test_a_large_image_is_yielded_lazily_in_windows(emulator, client):
    opened = open_sections(CORONAL, 100, client=client, downsample=0)
    section = section_at(opened, 30)
    assert emulator.count(IMAGES) == 0
    assert isinstance(section.image, da.Array)
    record = client.section_dataset(CORONAL).sections[30]
    assert section.image.shape == (record.height, record.width, 3)
    registered = section.displacement.warp(section.image)
    emulator.reset()
    pixels = opened.image.isel(section=30).values
    inside = pixels.any(axis=-1)
    difference = registered.compute()[inside].astype(int) - pixels[inside]
    assert np.abs(difference).mean() < 0.1  # the constant takes part in the interpolation at the border


def test_a_section_without_a_view_is_background(serve, connect, records):
    datasets, images = records
    images[2]["expression_path"] = None
    client = connect(serve(datasets, images))
    opened = open_sections(CORONAL, 100, view=("primary", "expression"), client=client, background=7)
    pixels = opened.expression.values
    assert (pixels[2] == 7).all()
    assert all((pixels[k] != 7).any() for k in (0, 1, 3, 4, 5))
    assert section_at(opened, 2).expression is None


@pytest.mark.parametrize("views", [("primary", "expression"), ("expression", "primary")])
def test_iter_sections_yields_the_same_images_for_any_order_of_views(serve, connect, records, views):
    datasets, images = records
    images[2]["expression_path"] = None
    client = connect(serve(datasets, images))
    opened = open_sections(CORONAL, 100, view=views, client=client)
    plain = open_sections(CORONAL, 100, client=client)
    assert list(opened.data_vars) == ["image" if view == "primary" else view for view in views]
    assert list(opened.image_id) == list(plain.image_id)
    for k in (2, 3):
        np.testing.assert_array_equal(section_at(opened, k).image, section_at(plain, k).image)
        assert (section_at(opened, k).expression is None) == (k == 2)


def test_a_given_field_replaces_the_affine_one(client):
    opened = open_sections(CORONAL, 50, client=client)
    first, other = (section_at(opened, k) for k in (30, 31))
    rows, columns = first.displacement.shape
    moved = first.displacement.compose(Displacement.from_affine((rows, columns), [[1, 0, 5], [0, 1, -3]]))
    again = open_sections(CORONAL, 50, client=client, fields={first.image_id: moved})
    pixels, before = again.image.isel(section=30).values, opened.image.isel(section=30).values
    np.testing.assert_array_equal(pixels[3:, :-5], before[:-3, 5:])
    assert section_at(again, 30).displacement == moved
    assert section_at(again, 31).displacement == other.displacement
    bent = Displacement.from_coordinates(first.displacement.x + 2.0, first.displacement.y)
    field = open_sections(CORONAL, 50, client=client, fields={first.image_id: bent}).isel(section=30)
    expected = bent.warp(first.image, border="replicate")
    inside = field.image.values.any(axis=-1)
    np.testing.assert_array_equal(field.image.values[inside], expected[inside])


@pytest.mark.slow
def test_the_fields_of_a_built_collection_agree_with_iter_sections(client, tmp_path):
    for dataset in (CORONAL, SAGITTAL):
        target = tmp_path / f"{dataset}.ome.zarr"
        assert build(dataset, target, mode="sections", resolution=200, chunk=256, displacement=True, client=client).ok
        opened = open_sections(dataset, 200, client=client)
        with (target / "atlaszarr/sections.csv").open() as file:
            paths = {int(row["image_id"]): row["path"] for row in csv.DictReader(file)}
        for k in (9, 12):
            section = section_at(opened, k)
            loaded = Displacement.load(target / paths[section.image_id] / "displacement")
            assert loaded.shape == section.displacement.shape
            np.testing.assert_allclose(loaded.coordinates(), section.displacement.coordinates(), atol=1e-6)


@pytest.mark.slow
def test_the_planes_agree_with_a_built_collection(client, tmp_path):
    import zarr

    for dataset in (CORONAL, SAGITTAL):
        target = tmp_path / f"{dataset}.ome.zarr"
        assert build(dataset, target, mode="sections", resolution=200, chunk=64, client=client).ok
        pixels = open_sections(dataset, 200, client=client).image.isel(section=10).values
        stored = zarr.open_array(target / "10/0", mode="r")[:].squeeze()
        stored = stored.transpose(2, 1, 0) if dataset == SAGITTAL else stored.transpose(1, 2, 0)
        np.testing.assert_array_equal(stored, pixels)


def test_iter_sections_works_after_selection_conversion_and_pickling(client, tmp_path):
    opened = open_sections(SAGITTAL, 200, client=client)
    ids = opened.image_id.values.tolist()
    assert iterated(opened.set_xindex("image_id").sel(image_id=ids[3])) == ids[3:4]
    assert iterated(opened.sortby("coordinate", ascending=False).isel(section=slice(4))) == ids[:-5:-1]
    few = opened.isel(section=slice(3))
    assert iterated(few.astype("float32")) == iterated(few + 1) == iterated(few.copy(deep=True)) == ids[:3]
    filtered = few.where(few.coordinate != few.coordinate[1], drop=True)
    assert iterated(filtered) == iterated(filtered.astype("int16")) == [ids[0], ids[2]]
    assert iterated(pickle.loads(pickle.dumps(filtered))) == [ids[0], ids[2]]
    (one,), (again,) = (iter_sections(some.isel(section=[2])) for some in (opened, pickle.loads(pickle.dumps(opened))))
    np.testing.assert_array_equal(one.image, again.image)
    assert one.displacement == again.displacement
    computed = few.compute()
    assert iterated(computed) == ids[:3]
    computed.to_zarr(tmp_path / "x.zarr", zarr_format=2, consolidated=False)
    for foreign in (xr.Dataset({"image": ("section", [1])}), xr.open_zarr(tmp_path / "x.zarr", consolidated=False)):
        with raises(InputError, "unknown-dataset"):
            iter_sections(foreign)


def test_a_missing_image_is_an_error_that_names_it(serve, connect, records):
    _, images = records
    fault = {"do": "status", "match": {"path": f"{IMAGES}/{images[1]['id']}"}, "times": 99, "status": 500}
    opened = open_sections(CORONAL, 100, client=connect(serve(faults=[fault])))
    opened.image.isel(section=0).compute()
    with pytest.raises((ImageError, ServiceError), match=str(images[1]["id"])):
        opened.image.isel(section=1).compute()
    with pytest.raises((ImageError, ServiceError), match=str(images[1]["id"])):
        _ = section_at(opened, 1)


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"resolution": 0}, "out-of-range", "resolution 0"),
        ({"plane": "coronal"}, "wrong-plane", "coronal"),
        ({"plane": "oblique"}, "unknown-value", "plane 'oblique'"),
        ({"view": ("primary", "primary")}, "invalid-views", "primary, primary"),
        ({"view": ()}, "invalid-views", "view"),
        ({"view": "volume"}, None, "view 'volume'"),
        ({"interpolation": "area"}, "not-supported", "'area'"),
        ({"detection_xy": "middle"}, "invalid-value", "detection_xy 'middle'"),
        ({"detection_xy": "12"}, "invalid-value", "detection_xy '12'"),
        ({"detection_xy": (1, float("nan"))}, "invalid-value", "detection_xy (1, nan)"),
        ({"background": None}, "missing-value", "background"),
        ({"background": 256}, "out-of-range", "background 256"),
        ({"downsample": 30}, None, "downsample 30"),
        ({"space": "native"}, "removed-option", "--mirror"),
        ({"resoluton": 25}, "unknown-option", "resoluton"),
        ({"levels": 3}, "unknown-option", "'levels'"),
        ({"fields": {1: Displacement.identity((80, 132))}}, "unknown-section", "section image 1,"),
        ({"fields": {69177654: Displacement.identity((80, 100))}}, "shape-mismatch", "80 x 100"),
        ({"fields": {69177654: np.zeros((80, 132))}}, "wrong-type", "ndarray"),
        ({"fields": {"a": Displacement.identity((80, 132)), 1: None}}, "unknown-section", "section image 1,"),
        ({"fields": Displacement.identity((80, 132))}, "wrong-type", "type Displacement"),
        ({"fields": True}, "wrong-type", "type bool"),
        ({"displacement": {69177654: Displacement.identity((80, 132))}}, "removed-option", "to fields"),
    ],
)
def test_wrong_options_are_refused_before_any_image_is_fetched(emulator, client, options, code, named):
    with pytest.raises(InputError) as caught:
        open_sections(SAGITTAL, **{"resolution": 100, "client": client, **options})
    assert code in (None, caught.value.code)
    assert named in str(caught.value)
    assert emulator.count(IMAGES) == 0


def test_a_dataset_without_alignment_is_refused(serve, connect, records):
    datasets, images = records
    datasets[0]["alignment3d"] = None
    with pytest.raises(RecordError, match=str(CORONAL)):
        open_sections(CORONAL, 100, client=connect(serve(datasets, images)))
