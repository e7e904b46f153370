"""Absent chunks raise an error if a ledger records them, and are counted otherwise, in any store."""

import json
import pickle
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import boto3
import dask.array as da
import numpy as np
import pytest
import zarr
from ngff_zarr import from_ngff_zarr

from atlaszarr import Displacement, Terminology, build, build_atlas, preview, region_mask, region_volumes
from atlaszarr.engine.absent_chunks import AbsentChunks
from atlaszarr.engine.array_layout import ArrayLayout
from atlaszarr.engine.label_index import add_index
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError, SourceError, TargetError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from atlaszarr.writing import write_multiscales
from codes import raises
from quiet_web import Forbidding, Quiet, web
from s3_server import S3Server

TERMINOLOGY = Terminology(
    (Structure(1, "root", "root", "#AABBCC", (1,)), Structure(2, "A", "Area A", "#AABBCC", (1, 2)))
)
SHAPE = (40, 30, 20)
#: Of chunks of 16: 3 x 2 x 2.
ABSENT = "1 of 12 chunks of (level 0 of )?{}(/0)? are absent and read as background"


def labels():
    return np.random.default_rng(0).integers(1, 3, SHAPE).astype("uint32")


def ours(folder, **options):
    """An image of atlaszarr."""
    geometry = Geometry((0.1,) * 3, orientation=ORIENTATION)
    write_multiscales(labels(), folder, rule="mode", chunk=16, levels=1, geometry=geometry, **options)


def foreign(folder, **options):
    """An image without a ledger, as other programs write it."""
    axes = [
        {"name": name, "type": "space", "unit": "millimeter", "orientation": {"type": "anatomical", "value": runs}}
        for name, runs in ORIENTATION.items()
    ]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.1] * 3}]}
    ome = {"multiscales": [{"axes": axes, "datasets": [level], "version": "0.4"}]}
    v2 = options.get("zarr_format") == 2
    attributes = ome if v2 else {"ome": {"version": "0.5", **ome}}
    zarr.open_group(folder, mode="w", zarr_format=2 if v2 else 3, attributes=attributes)
    array = zarr.create_array(
        folder, name="0", shape=SHAPE, dtype="uint32", fill_value=0, **{"chunks": (16, 16, 16), **options}
    )
    array[:] = labels()


def expected():
    """The labels, 0 in the chunk that is removed."""
    values = labels()
    values[16:32, :16, 16:] = 0
    return values


GONE = "0/c/1/0/1"


@pytest.fixture(scope="module")
def moto():
    server = S3Server()
    server.start()
    options = {"key": "k", "secret": "s", "endpoint_url": server.url}
    boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        aws_access_key_id="k",
        aws_secret_access_key="s",
        region_name="us-east-1",
    ).create_bucket(Bucket="atlas")
    yield options
    server.stop()


@pytest.fixture(params=["disk", "web server", "public bucket", "S3"])
def served(request, tmp_path):
    """Make an image, remove one of its chunks and serve it: yields its location and storage options."""

    @contextmanager
    def serve(make, gone=GONE, **options):
        folder = tmp_path / "x.ome.zarr"
        make(folder, **options)
        (folder / gone).unlink()
        if request.param == "disk":
            yield str(folder), {}
        elif request.param == "S3":
            given = request.getfixturevalue("moto")
            place = f"s3://atlas/{tmp_path.name}/x.ome.zarr"
            Target.of(place, given).write_all(Target.of(folder).read_all("").items())
            yield place, given
        else:
            with web(tmp_path, Forbidding if request.param == "public bucket" else Quiet) as url:
                yield f"{url}/x.ome.zarr", {}

    return serve


def volumes(place, options, _):
    return region_volumes(place, TERMINOLOGY, storage_options=options)


def mask(place, options, _):
    return region_mask(place, TERMINOLOGY, "root", storage_options=options).compute()


def written(place, options, folder):
    # Without the format, zarr would request an object that a public bucket forbids to read.
    version = {"zarr_format": 3} if str(place).startswith("http") else {}
    array = zarr.open_array(f"{place}/0", mode="r", storage_options=options or None, **version)
    write_multiscales(array, folder / "y.ome.zarr", chunk=16, levels=1, rule="mode")
    return zarr.open_array(folder / "y.ome.zarr/0", mode="r")[:]


USES = {"volumes": volumes, "mask": mask, "write_multiscales": written}


@pytest.mark.first(6)
@pytest.mark.parametrize("use", USES)
def test_an_absent_chunk_that_a_ledger_records_is_named(served, tmp_path, use):
    with served(ours) as (place, options):
        with raises(TargetError, "missing-chunk") as caught:
            USES[use](place, options, tmp_path)
        assert f"{place}/{GONE}" in str(caught.value)
        assert not (tmp_path / "y.ome.zarr/zarr.json").exists() or place.startswith("http")


@pytest.mark.first(6)
@pytest.mark.parametrize("use", USES)
def test_absent_chunks_that_no_ledger_records_are_counted(served, tmp_path, use):
    with served(foreign) as (place, options):
        with pytest.warns(AtlaszarrWarning, match=ABSENT.format(place)) as warned:
            found = USES[use](place, options, tmp_path)
        assert len(warned) == 1
    if use == "volumes":
        assert found.loc[2, "voxels"] == np.count_nonzero(expected() == 2)
    else:
        np.testing.assert_array_equal(found, expected() > 0 if use == "mask" else expected())


@pytest.mark.slow
def test_absent_chunks_that_other_processes_find_are_counted_too(cluster, tmp_path):
    foreign(tmp_path / "x.ome.zarr")
    (tmp_path / "x.ome.zarr" / GONE).unlink()
    with web(tmp_path) as url:
        array = zarr.open_array(f"{url}/x.ome.zarr/0", mode="r", zarr_format=3)
        with pytest.warns(AtlaszarrWarning, match=ABSENT.format(f"{url}/x.ome.zarr")) as warned:
            write_multiscales(array, tmp_path / "y.ome.zarr", chunk=8, levels=1, scheduler=cluster)
        assert len(warned) == 1


def test_an_image_of_zarr_v2_in_a_public_bucket_is_read(tmp_path):
    foreign(tmp_path / "x.ome.zarr", zarr_format=2)
    with web(tmp_path, Forbidding) as url:
        found = region_volumes(f"{url}/x.ome.zarr", TERMINOLOGY)
        assert found.loc[1, "voxels"] == labels().size
        with pytest.raises(InputError, match=f"{url}/y.ome.zarr"):
            region_volumes(f"{url}/y.ome.zarr", TERMINOLOGY)


def test_an_index_does_not_hide_a_missing_chunk(served):
    def indexed(folder):
        ours(folder)
        add_index(Target.of(folder))

    with (
        served(indexed) as (place, options),
        pytest.warns(AtlaszarrWarning, match="the label index of .* is not used"),
        raises(TargetError, "missing-chunk") as caught,
    ):
        volumes(place, options, None)
    assert GONE in str(caught.value)


KINDS = {
    "in shards": {"shards": (32, 32, 32)},
    "in codecs that zarr decodes": {"filters": [zarr.codecs.TransposeCodec(order=(2, 1, 0))]},
    "zarr v2": {"zarr_format": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_absent_chunks_are_counted_in_every_layout(tmp_path, kind):
    foreign(tmp_path / "x.ome.zarr", **KINDS[kind])
    array = zarr.open_array(tmp_path / "x.ome.zarr/0")
    array[16:32, :16, 16:] = 0  # zarr does not write it, or marks it as empty in its shard
    assert not (tmp_path / "x.ome.zarr" / GONE).exists()
    for use in USES.values():
        with pytest.warns(AtlaszarrWarning, match=ABSENT.format(".*")) as warned:
            use(tmp_path / "x.ome.zarr", {}, tmp_path)
        assert len(warned) == 1


def test_an_absent_shard_counts_as_its_chunks_inside_the_array(tmp_path):
    foreign(tmp_path / "x.ome.zarr", shards=(32, 32, 32))
    (tmp_path / "x.ome.zarr/0/c/1/0/0").unlink()
    with pytest.warns(AtlaszarrWarning, match="4 of 12 chunks"):
        region_volumes(tmp_path / "x.ome.zarr", TERMINOLOGY)


def test_a_recorded_shard_that_lacks_chunks_is_named(tmp_path):
    ours(tmp_path / "x.ome.zarr", shard=32)
    zarr.open_array(tmp_path / "x.ome.zarr/0")[16:32, :16, 16:] = 0
    for use in USES.values():
        with raises(TargetError, "missing-chunk") as caught:
            use(tmp_path / "x.ome.zarr", {}, tmp_path)
        assert "0/c/0/0/0 lacks chunks" in str(caught.value)


LAZY = {
    "from_zarr": lambda place: da.from_zarr(f"{place}/0"),
    "inline": lambda place: da.from_zarr(f"{place}/0", inline_array=True),
    "ngff-zarr": lambda place: from_ngff_zarr(str(place)).images[0],
}


@pytest.mark.parametrize("way", LAZY)
@pytest.mark.parametrize("shards", [None, (32, 32, 32)], ids=str)
def test_absent_chunks_of_dask_arrays_that_only_read_are_counted(tmp_path, way, shards):
    foreign(tmp_path / "x.ome.zarr", shards=shards)
    zarr.open_array(tmp_path / "x.ome.zarr/0")[16:32, :16, 16:] = 0
    lazy = LAZY[way](tmp_path / "x.ome.zarr")
    remark = ABSENT.format(tmp_path / "x.ome.zarr")
    with pytest.warns(AtlaszarrWarning, match=remark):
        assert region_volumes(lazy, TERMINOLOGY, voxel_size=100).loc[1, "voxels"] == np.count_nonzero(expected())
    with pytest.warns(AtlaszarrWarning, match=remark):
        region_mask(lazy, TERMINOLOGY, "root")
    with pytest.warns(AtlaszarrWarning, match=remark):
        write_multiscales(lazy, tmp_path / "y.ome.zarr", chunk=16)


def test_a_complete_array_has_no_warning(tmp_path):
    for make in (ours, foreign, partial(foreign, shards=(32, 32, 32))):
        place = tmp_path / f"{len(list(tmp_path.iterdir()))}.ome.zarr"
        make(place)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for use in USES.values():
                use(place, {}, tmp_path / place.stem)


def test_empty_chunks_of_a_build_are_not_absent(dataset, emulator, connect, tmp_path):
    build(dataset, tmp_path / "x.ome.zarr", resolution=200, chunk=16, client=connect(emulator))
    sections = tmp_path / "x.ome.zarr/labels/section"
    chunks = zarr.open_array(sections / "0", mode="r")
    assert len([path for path in (sections / "0/c").rglob("*") if path.is_file()]) < chunks.nchunks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written(sections, {}, tmp_path)
        region_mask(sections, TERMINOLOGY, "root").compute()
    with pytest.warns(AtlaszarrWarning, match="not in the terminology") as warned:
        region_volumes(sections, TERMINOLOGY, allow_unknown=True)
    assert len(warned) == 1


def test_a_fill_value_that_is_not_background_is_named(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(8, 8), chunks=(4, 4), dtype="u2", fill_value=7)
    array[:4] = 1
    with pytest.warns(AtlaszarrWarning, match="2 of 4 chunks of .*x.zarr are absent and read as the fill value 7"):
        write_multiscales(array, tmp_path / "y.ome.zarr")


def test_a_copy_in_another_process_starts_empty(tmp_path):
    foreign(tmp_path / "x.ome.zarr")
    (tmp_path / "x.ome.zarr" / GONE).unlink()
    layout = ArrayLayout.of(json.loads((tmp_path / "x.ome.zarr/0/zarr.json").read_text()))
    absent = AbsentChunks(Target.of(tmp_path / "x.ome.zarr/0"), layout)
    assert absent.remark() is None
    absent.list()
    assert absent.remark("it") == "1 of 12 chunks of it are absent and read as background"
    again = pickle.loads(pickle.dumps(absent))
    assert again.remark() is None
    again.list()
    assert again.remark() == absent.remark()


# Atlases


def atlas(place, options, target):
    return build_atlas(
        target, annotation=place, ontology=TERMINOLOGY, name="tiny", version="1", storage_options=options or None
    )


def test_an_atlas_from_a_source_that_lacks_a_recorded_chunk_is_refused(served, tmp_path):
    with (
        served(ours) as (place, options),
        raises(TargetError, "missing-chunk") as caught,
        open_annotation(place, tmp_path, storage_options=options) as volume,
    ):
        volume.find_labels()
    assert f"{place}/{GONE}" in str(caught.value)


@pytest.mark.slow
def test_an_atlas_from_a_source_without_a_ledger_records_how_many_chunks_are_absent(served, tmp_path):
    with served(foreign) as (place, options):
        # A target on the same store takes the same options.
        target = f"s3://atlas/{tmp_path.name}/atlas" if place.startswith("s3:") else tmp_path / "atlas"
        report = atlas(place, options, target)
        record = json.loads(Target.of(target, options).read("atlaszarr/tiny-1.json"))
        remark = f"1 of 12 chunks of level 0 of {place} are absent and read as background"
        assert remark in report.remarks
        assert remark in record["remarks"]


def test_an_atlas_is_refused_before_anything_is_written(tmp_path, command):
    ours(tmp_path / "x.ome.zarr")
    (tmp_path / "x.ome.zarr" / GONE).unlink()
    (tmp_path / "t.csv").write_text(TERMINOLOGY.to_csv())
    with web(tmp_path) as url:
        for place in (tmp_path / "x.ome.zarr", f"{url}/x.ome.zarr"):
            ran = command("atlas", tmp_path / "atlas", "--annotation", place, "--ontology", tmp_path / "t.csv")
            assert ran.code != 0
            assert f"{place}/{GONE}" in ran.err
            assert not (tmp_path / "atlas").exists()


# Commands and previews


def test_the_volumes_command_writes_how_many_chunks_are_absent_to_stderr(tmp_path, command):
    foreign(tmp_path / "x.ome.zarr")
    (tmp_path / "x.ome.zarr" / GONE).unlink()
    (tmp_path / "terminology.csv").write_text(TERMINOLOGY.to_csv())
    ran = command("volumes", tmp_path / "x.ome.zarr", "--format", "csv")
    place = tmp_path / "x.ome.zarr"
    remark = f"atlaszarr: 1 of 12 chunks of level 0 of {place} are absent and read as background\n"
    assert (ran.code, ran.err) == (0, remark)
    assert ran.out.startswith("identifier,")


@pytest.mark.slow
def test_a_preview_names_or_counts_the_chunks_that_its_annotation_lacks(tmp_path, dataset, emulator, connect, command):
    values = np.ones((132, 80, 114), "uint32")
    geometry = Geometry((0.1,) * 3, (0.045,) * 3, "millimeter", ORIENTATION)
    place = tmp_path / "x.ome.zarr"
    write_multiscales(values, place, rule="mode", geometry=geometry, chunk=64, levels=1)
    for path in (place / "0/c").rglob("0"):
        if path.is_file():
            path.unlink()
    client = connect(emulator)
    with raises(TargetError, "missing-chunk"):
        preview(dataset, tmp_path / "x.png", client=client, annotation=place)
    root = json.loads((place / "zarr.json").read_text())
    del root["attributes"]["atlaszarr"]
    (place / "zarr.json").write_text(json.dumps(root))
    (place / "atlaszarr/ledger.jsonl").unlink()
    with pytest.warns(AtlaszarrWarning, match=r"\d of 12 chunks of .*/x\.ome\.zarr/0 are absent"):
        preview(dataset, tmp_path / "x.png", client=client, annotation=place)
    ran = command("preview", dataset.id, tmp_path / "x.png", "--annotation", place, "--api-url", emulator.url)
    assert "atlaszarr: " in ran.err
    assert "are absent and read as background" in ran.err
    assert Path(tmp_path / "x.png").exists()


# Displacement fields


def test_a_field_that_lacks_chunks_causes_a_warning(tmp_path):
    Displacement.identity((600, 40)).save(tmp_path / "field.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Displacement.load(tmp_path / "field.zarr")
    (tmp_path / "field.zarr/0/c/0/1/0").unlink()
    with pytest.warns(
        AtlaszarrWarning, match="1 of 2 chunks of .*field.zarr/0 are absent and read as the fill value nan"
    ):
        field = Displacement.load(tmp_path / "field.zarr")
    assert np.isnan(field.coordinates()[:, 512:]).all()


# Addresses without an image


def test_an_address_without_an_image_is_named(tmp_path):
    foreign(tmp_path / "x.ome.zarr")
    with web(tmp_path, Forbidding) as url:
        with (
            pytest.raises(InputError, match=f"{url}/y.ome.zarr"),
            open_annotation(f"{url}/y.ome.zarr", "."),
        ):
            pass
        with (
            pytest.raises((InputError, SourceError)) as caught,
            open_annotation(f"{url}/x.ome.zarr?signature=secret", "."),
        ):
            pass
        assert "secret" not in str(caught.value)
