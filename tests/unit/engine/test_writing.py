"""`write_multiscales` computes and writes each block once, exactly, for any image, and other programs read it."""

import itertools
import shutil
import threading
import uuid
from collections import Counter
from fractions import Fraction

import dask.array as da
import fsspec
import ngff_zarr
import numpy as np
import obstore.store
import pytest
import tensorstore
import xarray as xr
import yaozarrs
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlaszarr.engine.chunk_groups import ChunkGroups
from atlaszarr.engine.downsampling import reduce
from atlaszarr.engine.inputs import opened as opened_image
from atlaszarr.engine.ledger import opened
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.pyramid import Pyramid
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from codes import raises
from counted_images import computations, counted

DTYPES = ["bool", "uint8", "int16", "uint32", "int64", "uint64", "float32", "float64"]
NAMES = {"mean": "image", "mode": "labels"}


def made(shape, dtype, seed):
    """Values in patches, with the extremes of their type among them."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.4
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    extremes = [0, 0, 1, 2, np.iinfo(dtype).max, np.iinfo(dtype).min]
    return rng.choice(np.array(extremes, dtype), shape)


def expected_levels(values, factors, rule, count):
    """The levels, each computed from the whole level before."""
    found = [values]
    while len(found) < count:
        factor = factors[len(found) - 1] if len(found) <= len(factors) else 2
        shape = found[-1].shape[-3:]
        exact = tuple(Fraction(factor) if n > 1 else Fraction(1) for n in shape)
        found.append(reduce(found[-1], exact, rule))
    return found


class Counted(MemoryFileSystem):
    """A store in memory that counts its writes, and its reads of chunks."""

    protocol = "counted"
    store = {}  # noqa: RUF012 - one for all instances, as in its parent
    pseudo_dirs = [""]  # noqa: RUF012
    writes = Counter()  # noqa: RUF012
    reads = Counter()  # noqa: RUF012

    def pipe_file(self, path, value, mode="overwrite", **_):
        Counted.writes[path] += 1
        super().pipe_file(path, value, mode=mode)

    def _open(self, path, mode="rb", **options):
        if mode == "rb" and "/c/" in path:
            Counted.reads[path] += 1
        return super()._open(path, mode, **options)

    def cat_file(self, path, start=None, end=None, **options):
        if "/c/" in path:
            Counted.reads[path] += 1
        return super().cat_file(path, start, end, **options)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("counted://", "memory://"))


fsspec.register_implementation("counted", Counted, clobber=True)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*(st.integers(1, 40),) * 3),
    channels=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from(DTYPES),
    chunk=st.sampled_from([5, 8, (4, 8, 16)]),
    shard=st.sampled_from([None, 2]),
    factors=st.sampled_from([(), (2.5,), (3, 2), (1.5, 2.5)]),
    sources=st.sampled_from([7, 16, 100]),
    rule=st.sampled_from(["mean", "mode", "nearest"]),
    ome_zarr=st.sampled_from(["0.4", "0.5", "0.6"]),
    compressor=st.sampled_from(["zstd", "blosc"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_level_is_exactly_the_downsampled_level_before(
    tmp_path_factory, shape, channels, dtype, chunk, shard, factors, sources, rule, ome_zarr, compressor, seed
):
    if rule == "mode" and np.dtype(dtype).kind == "f":
        dtype = "uint32"
    lead = () if channels is None else (channels,)
    values = made(lead + shape, dtype, seed)
    sharding = None
    if shard and ome_zarr != "0.4":
        sharding = chunk * shard if isinstance(chunk, int) else tuple(n * shard for n in chunk)
    target = tmp_path_factory.mktemp("image") / "x.ome.zarr"
    write_multiscales(
        da.from_array(values, chunks=(-1,) * len(lead) + (sources,) * 3),
        target,
        rule=rule,
        chunk=chunk if isinstance(chunk, int) else [chunk],
        shard=sharding,
        factors=factors,
        ome_zarr=ome_zarr,
        compressor=compressor,
        workers=2,
    )
    count = len(Pyramid.over(shape, chunk if isinstance(chunk, int) else [chunk], factors=factors).levels)
    for level, expected in enumerate(expected_levels(values, factors, rule, count)):
        np.testing.assert_array_equal(zarr.open_array(target / str(level), mode="r")[...], expected)
    assert not (target / str(count)).exists()
    assert verify(target, deep=True).ok


@pytest.fixture
def volume():
    """An image with a channel axis and labels over it, both from one computation that is counted."""
    computed = Counter()
    lock = threading.Lock()

    def block(block_id):
        if not isinstance(block_id, tuple):  # dask asks for the kind of a block first
            return np.zeros((1,) * 4, "uint8")
        with lock:
            computed[block_id] += 1
        rng = np.random.default_rng(block_id)
        return rng.integers(0, 200, (3, 20, 20, 20)).astype("uint8")

    image = da.map_blocks(block, chunks=((3,), (20,) * 4, (20,) * 3, (20,) * 5), dtype="uint8")
    return image, (image[0] // 50).astype("uint32"), computed


def test_blocks_that_several_arrays_share_are_computed_once_and_every_object_is_written_once(volume):
    image, label, computed = volume
    Counted.writes.clear()
    # Blocks of 40 hold whole blocks of the source.
    write_multiscales(image, "counted://once.ome.zarr", labels={"quarter": label}, chunk=20, workers=2)
    assert set(computed.values()) == {1}
    assert set(computed) == {(0, *index) for index in np.ndindex(4, 3, 5)}
    chunks = {path: count for path, count in Counted.writes.items() if "/c/" in path}
    assert set(chunks.values()) == {1}
    pyramid = Pyramid.over((80, 60, 100), 20)
    assert len(chunks) == 2 * sum(int(np.prod(level.grid)) for level in pyramid.levels)


def test_a_block_of_a_group_is_repaired_alone(tmp_path):
    image = counted((60, 50, 70), (20, 20, 20), "uint8", tmp_path / "computed")
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=16, levels=1, identity="it")
    (target / "0/c/0/0/0").write_bytes(b"")
    for path in (tmp_path / "computed").iterdir():
        path.unlink()
    assert write_multiscales(image, target, chunk=16, levels=1, identity="it").tasks_done == 1
    assert computations(tmp_path / "computed") == {"(0, 0, 0)": 1}
    np.testing.assert_array_equal(zarr.open_array(target / "0", mode="r")[:], image.compute())


@pytest.mark.slow
def test_a_warning_gives_how_often_chunks_are_computed_and_how_to_avoid_it(tmp_path):
    # A process keeps 256 MB of chunks from one task to the next, and between two blocks along y lie 360 MB of these.
    image = counted((80, 1000, 1000), (80, 500, 500), "float64", tmp_path / "computed")
    text = (
        r"computed up to 8\.5 times: its chunks \(80, 500, 500\) do not match the blocks \(64, 64, 64\) that are "
        r"written; call image\.rechunk\(\(64, 64, 64\)\) before the computation"
    )
    options = {"chunk": 64, "levels": 1, "identity": "it"}
    with pytest.warns(AtlaszarrWarning, match=text):
        write_multiscales(image, tmp_path / "x.ome.zarr", workers=1, **options)
    assert 4 < sum(computations(tmp_path / "computed").values()) <= 34
    # A finished target computes nothing, and an array in memory raises no warning.
    assert write_multiscales(image, tmp_path / "x.ome.zarr", **options).state == "already finished"
    held = da.from_array(np.zeros(image.shape, "u1"), chunks=image.chunks)
    write_multiscales(held, tmp_path / "held.ome.zarr", chunk=64, levels=1)


@pytest.mark.slow
def test_chunks_that_are_too_large_for_a_task_are_kept_for_the_next(tmp_path):
    # 37 MB. Along x blocks of 64 show 2 of the 4 chunks each.
    image = counted((160, 170, 170), 50, "float64", tmp_path / "computed")
    options = {"chunk": 64, "levels": 1, "identity": "it"}
    write_multiscales(image, tmp_path / "x.ome.zarr", workers=2, **options)
    assert set(computations(tmp_path / "computed").values()) == {1}
    # Workers of a cluster do not share what they keep.
    pyramid = Pyramid.over(image.shape, 64, 1)
    assert ChunkGroups.of(pyramid, [image], 3).times == 1.5
    # Other ways to compute each chunk once.
    aligned = da.zeros((160, 170, 170), chunks=50).rechunk((64, 64, 64))
    aligned = aligned.map_blocks(
        lambda block: (tmp_path / f"rechunked {uuid.uuid4()}").touch() or block, meta=np.zeros(0)
    )
    assert ChunkGroups.of(pyramid, [aligned], 3).times == 1
    write_multiscales(aligned, tmp_path / "y.ome.zarr", **options)
    assert len(list(tmp_path.glob("rechunked *"))) == 3**3
    image.to_zarr(tmp_path / "once.zarr")
    for other in (zarr.open_array(tmp_path / "once.zarr", mode="r"), image.persist()):
        assert ChunkGroups.of(pyramid, [opened_image(other)[0]], 3).times == 1
    # The call that the warning suggests includes the channels.
    image = counted((1, 160, 170, 170), (1, 50, 50, 50), "float64", tmp_path / "computed")
    assert "image.rechunk((1, 64, 64, 64))" in ChunkGroups.of(pyramid, [image], 3).warning()


def test_a_resume_computes_and_writes_exactly_what_was_missing(volume):
    image, label, computed = volume

    class StopError(Exception):
        pass

    def stopping(block):
        if len(computed) > 24:  # the blocks of the first task, and a few of the second
            raise StopError
        return block

    stopped = image.map_blocks(stopping, dtype="uint8")
    arguments = {"labels": {"quarter": (stopped[0] // 50).astype("uint32")}}
    arguments |= {"chunk": 20, "identity": "volume", "workers": 1}
    Counted.writes.clear()
    with pytest.raises(StopError):
        write_multiscales(stopped, "counted://stopped.ome.zarr", **arguments)
    fs = fsspec.filesystem("counted")
    records = [fs.cat(path) for path in fs.find("/stopped.ome.zarr/atlaszarr/ledger")]
    recorded = [opened(line) for record in records for line in record.split(b"\n")]
    kept = {f"/stopped.ome.zarr/{key}" for record in recorded for key in record["objects"]}
    assert kept
    Counted.writes.clear()
    computed.clear()
    arguments["labels"] = {"quarter": label}
    report = write_multiscales(image, "counted://stopped.ome.zarr", **arguments)
    assert report.state == "resumed"
    chunks = {path for path in Counted.writes if "/c/" in path}
    everything = {path for path in fs.find("/stopped.ome.zarr") if "/c/" in path}
    assert chunks == everything - kept
    assert set(computed.values()) == {1}
    # A chunk of level 0 is a block of the source.
    assert len(computed) == 4 * 3 * 5 - sum(key.startswith("/stopped.ome.zarr/0/c/") for key in kept)
    write_multiscales(image, "counted://undisturbed.ome.zarr", **arguments)
    stopped, undisturbed = (
        {path.removeprefix(f"/{name}"): fs.cat(path) for path in fs.find(f"/{name}") if "/atlaszarr/" not in path}
        for name in ("stopped.ome.zarr", "undisturbed.ome.zarr")
    )
    assert stopped == undisturbed


def test_a_remote_target_is_recorded_four_blocks_at_a_time_and_levels_are_not_read_back():
    values = np.arange(64**3, dtype="uint32").reshape(64, 64, 64)
    Counted.writes.clear()
    Counted.reads.clear()
    write_multiscales(values, "counted://recorded.ome.zarr", chunk=8, levels=3, workers=1)
    records = [path for path in Counted.writes if "/atlaszarr/ledger/" in path]
    # 64 blocks of 16 voxels along each axis make levels 0 and 1, 8 blocks of level 1 make level 2.
    assert len(records) == 64 // 4 + 8 // 2
    assert not Counted.reads
    assert verify("counted://recorded.ome.zarr").ok


def test_levels_that_are_not_kept_are_read_back(monkeypatch):
    values = np.arange(64**3, dtype="uint32").reshape(64, 64, 64)
    write_multiscales(values, "counted://all.ome.zarr", chunk=8, levels=3, workers=1)
    monkeypatch.setattr("atlaszarr.engine.multiscale._UNREAD", 50_000)
    Counted.reads.clear()
    write_multiscales(values, "counted://few.ome.zarr", chunk=8, levels=3, workers=1)
    assert 0 < len(Counted.reads) < 4**3
    fs = fsspec.filesystem("counted")
    few, every = (
        {path.removeprefix(f"/{name}"): fs.cat(path) for path in fs.find(f"/{name}") if "/c/" in path}
        for name in ("few.ome.zarr", "all.ome.zarr")
    )
    assert few == every


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_target_that_is_being_repaired_does_not_open_nor_do_its_labels(tmp_path, version):
    class StopError(Exception):
        pass

    def stop(done, *_):
        if done:
            raise StopError

    values = np.arange(20**3, dtype="uint16").reshape(20, 20, 20)
    target = tmp_path / "x.ome.zarr"
    arguments = {"labels": {"half": values // 2}, "chunk": 8, "ome_zarr": version, "workers": 1}
    write_multiscales(values, target, **arguments)
    groups = (target, target / "labels", target / "labels/half")
    chunk = next(path for path in (target / "1").rglob("1") if path.is_file())
    chunk.write_bytes(b"")
    with pytest.raises(StopError):
        write_multiscales(values, target, progress=stop, **arguments)
    for group in groups:
        with pytest.raises(ValueError, match=r"not detect NGFF version|not found in store"):
            ngff_zarr.from_ngff_zarr(str(group))
    assert write_multiscales(values, target, **arguments).state == "resumed"
    assert verify(target, deep=True).ok
    ngff_zarr.from_ngff_zarr(str(target / "labels/half"), validate=True)


GEOMETRY = Geometry((0.01, 0.02, 0.02), (0.1, 0.0, -0.3), "millimeter", {"z": "anterior-to-posterior"})


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (3, 40, 30, 50)).astype("uint8")


@pytest.fixture(scope="module")
def annotation(image):
    return (image[0] // 60).astype("uint32") * 2**30


# OME-Zarr version, side of a shard, compressor; zarr v2 has no shards.
VARIANTS = [("0.4", None, "zstd"), ("0.4", None, "blosc")]
VARIANTS += itertools.product(["0.5", "0.6"], [None, 32], ["zstd", "blosc"])


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def variant(request, image, annotation, tmp_path_factory):
    version, shard, compressor = request.param
    target = tmp_path_factory.mktemp("variant") / "x.ome.zarr"
    options = {"chunk": 16, "shard": shard, "ome_zarr": version, "compressor": compressor, "geometry": GEOMETRY}
    write_multiscales(da.from_array(image), target, labels={"regions": annotation}, **options)
    return target, version


def test_ngff_zarr_validates_and_reads_every_variant(variant, image, annotation):
    target, _ = variant
    for path, values, rule in (("", image, "mean"), ("labels/regions", annotation, "mode")):
        read = ngff_zarr.from_ngff_zarr(str(target / path), validate=True)
        assert len(read.images) == 3
        for level, (found, expected) in enumerate(zip(read.images, expected_levels(values, (), rule, 3), strict=True)):
            np.testing.assert_array_equal(np.asarray(found.data), expected)
            for axis, size, start in zip("zyx", GEOMETRY.scale, GEOMETRY.translation, strict=True):
                assert found.scale[axis] == pytest.approx(size * 2**level, abs=1e-12)
                assert found.translation[axis] == pytest.approx(start + size * (2**level - 1) / 2, abs=1e-12)
            assert found.axes_orientations["z"].value.value == "anterior-to-posterior"


def test_tensorstore_and_zarr_read_every_variant(variant, image, annotation):
    target, version = variant
    driver = "zarr" if version == "0.4" else "zarr3"
    for path, values, rule in (("", image, "mean"), ("labels/regions", annotation, "mode")):
        for level, expected in enumerate(expected_levels(values, (), rule, 3)):
            place = target / path / str(level)
            spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{place}/"}}
            np.testing.assert_array_equal(tensorstore.open(spec, open=True).result().read().result(), expected)
            np.testing.assert_array_equal(zarr.open_array(place, mode="r")[...], expected)


def test_yaozarrs_validates_every_variant_that_it_supports(variant):
    target, version = variant
    if version == "0.6":
        pytest.skip("yaozarrs 0.3 does not model 0.6")
    yaozarrs.validate_zarr_store(str(target))


def test_the_coordinates_of_a_data_array_become_the_geometry(tmp_path):
    coords = {"z": [0.1, 0.3, 0.5], "y": [0.0, 0.5], "x": ("x", [7.0, 7.25, 7.5], {"units": "micrometer"})}
    array = xr.DataArray(np.zeros((3, 2, 3), "uint8"), coords, ("z", "y", "x"))
    write_multiscales(array, tmp_path / "x.ome.zarr", levels=1)
    (read,) = ngff_zarr.from_ngff_zarr(str(tmp_path / "x.ome.zarr"), validate=True).images
    assert read.scale == pytest.approx({"z": 0.2, "y": 0.5, "x": 0.25})
    assert read.translation == pytest.approx({"z": 0.1, "y": 0.0, "x": 7.0})
    assert read.axes_units["x"] == "micrometer"


def test_an_ngff_image_keeps_its_geometry(variant, tmp_path):
    target, _ = variant
    read = ngff_zarr.from_ngff_zarr(str(target)).images[0]
    write_multiscales(read, tmp_path / "x.ome.zarr", chunk=16)
    again = ngff_zarr.from_ngff_zarr(str(tmp_path / "x.ome.zarr"), validate=True).images[0]
    assert (again.scale, again.translation, again.axes_units) == (read.scale, read.translation, read.axes_units)
    assert again.axes_orientations["z"].value == read.axes_orientations["z"].value
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(read.data))


def test_a_plane_is_written_without_an_axis_of_depth(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (90, 70)).astype("uint16")
    write_multiscales(da.from_array(values), tmp_path / "x.ome.zarr", chunk=[(1, 32, 32)])
    read = ngff_zarr.from_ngff_zarr(str(tmp_path / "x.ome.zarr"), validate=True)
    assert [image.data.shape for image in read.images] == [(90, 70), (45, 35), (23, 18)]
    halved = reduce(values[None], (Fraction(1), Fraction(2), Fraction(2)), "mean")[0]
    np.testing.assert_array_equal(np.asarray(read.images[1].data), halved)


def test_a_finished_target_is_not_changed_and_another_image_raises_an_error(image, tmp_path, contents):
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=16)
    before = contents(target)
    assert write_multiscales(image, target, chunk=16).state == "already finished"
    with raises(InputError, "different-options"):
        write_multiscales(image + 1, target, chunk=16)
    assert contents(target) == before
    assert write_multiscales(image + 1, target, chunk=16, overwrite=True).state == "built"
    assert contents(target) != before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"image": np.zeros((2, 3, 3, 3, 3))}, "axes"),
        ({"image": np.zeros((3, 3, 3), complex)}, "complex"),
        ({"image": np.zeros(5)}, "axes"),
        ({"labels": {"x": np.zeros((3, 3, 3))}}, "float64"),
        ({"labels": {"x": np.zeros((4, 3, 3), int)}}, "voxels"),
        ({"ome_zarr": "0.7"}, "0.7"),
        ({"ome_zarr": "0.4", "shard": 64}, "shard"),
        ({"compressor": "lz4"}, "lz4"),
        ({"rule": "median"}, "median"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": []}, "chunk"),
        ({"factors": 2}, "factors"),
        ({"factors": [2.00041]}, "factor"),
        ({"levels": "3"}, "levels"),
        ({"image": np.ma.masked_all((3, 3, 3), "uint8")}, "masked"),
        ({"image": np.zeros((3, 3, 3), object)}, "object|array"),
        ({"image": np.zeros((0, 3, 3, 3), "uint8")}, "channels"),
        ({"image": np.zeros((3, 3, 3), "longdouble")}, "dtype"),
        ({"image": da.zeros((9, 9, 9), chunks=3)[da.arange(9, chunks=3) > 2]}, "shape"),
        ({"labels": {"zarr.json": np.zeros((3, 3, 3), int)}}, "label"),
        ({"storage_options": {"junk": 1}}, "junk"),
        ({"target": "file:x"}, "URL"),
        ({"image": xr.DataArray(np.zeros((2, 2)), {"x": ["a", "b"]}, ("y", "x"))}, "coordinates"),
        (
            {
                "image": xr.DataArray(
                    np.zeros((2, 2)),
                    {"x": ("x", [1, 2], {"units": "um"}), "y": ("y", [1, 2], {"units": "mm"})},
                    ("y", "x"),
                )
            },
            "units",
        ),
        ({"labels": {"../x": np.zeros((3, 3, 3), int)}}, "label"),
        ({"workers": 0}, "workers"),
        ({"image": xr.DataArray(np.zeros((2, 3)), {"x": [1.0, 2.0, 4.0]}, ("y", "x"))}, "coordinates"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_argument_that_cannot_be_written_is_named_and_nothing_is_written(tmp_path, arguments, word):
    with pytest.raises(InputError, match=word):
        write_multiscales(**({"image": np.zeros((3, 3, 3), "uint8"), "target": tmp_path / "x"} | arguments))
    assert not (tmp_path / "x").exists()


#: A target inside the image that is read does not always overlap the array that is read.
OVERLAPS = ("target-overlaps-source", "target-inside-image")


def test_a_target_that_the_image_is_read_from_raises_an_error(image, tmp_path, contents):
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=16)
    before = contents(target)
    lazy = ngff_zarr.from_ngff_zarr(str(target)).images[0]
    for source in (lazy, da.from_zarr(str(target / "0")) + 1, da.from_array(zarr.open_array(target / "0"))):
        for place in (target, target / "inner.ome.zarr"):
            with pytest.raises(InputError) as caught:
                write_multiscales(source, place, chunk=8, overwrite=True)
            assert caught.value.code in OVERLAPS
    assert contents(target) == before
    write_multiscales(lazy, tmp_path / "y.ome.zarr", chunk=8)


def test_a_target_that_the_image_is_read_from_raises_an_error_through_links_and_in_any_spelling(
    image, tmp_path, contents, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=16)
    before = contents(target)
    (tmp_path / "link.ome.zarr").symlink_to(target)
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "view.ome.zarr").mkdir()
    (tmp_path / "view.ome.zarr/0").symlink_to(target / "0")
    by_fsspec = zarr.storage.FsspecStore.from_url(f"file://{tmp_path}/link.ome.zarr")
    sources = {
        "plain": zarr.open_array(target / "0"),
        "relative": da.from_zarr("x.ome.zarr/0") + 1,
        "link": da.from_zarr("link.ome.zarr/0") + 1,
        "folder": zarr.open_group("folder/x.ome.zarr")["0"],
        "linked level": zarr.open_group("view.ome.zarr")["0"],
        "fsspec": da.from_zarr(zarr.open_array(by_fsspec, path="0")) + 1,
        "obstore": zarr.open_array(zarr.storage.ObjectStore(obstore.store.LocalStore(tmp_path / "link.ome.zarr/0"))),
    }
    places = ("x.ome.zarr", "folder/x.ome.zarr", "link.ome.zarr", f"local://{tmp_path}/folder/x.ome.zarr/in.ome.zarr")
    for source, place in itertools.product(sources.values(), places):
        with pytest.raises(InputError) as caught:
            write_multiscales(source, place, chunk=8, overwrite=True)
        assert caught.value.code in OVERLAPS
    assert contents(target) == before
    write_multiscales(sources["linked level"], "y.ome.zarr", chunk=8)


@pytest.mark.parametrize("url", ["memory://overlap/x.ome.zarr", "counted://overlap/x.ome.zarr"])
def test_a_target_at_a_url_that_the_image_is_read_from_raises_an_error(image, url):
    write_multiscales(image, url, chunk=16)
    lazy = da.from_zarr(f"{url}/0") + 1
    for place in (url, f"{url}/inner.ome.zarr", f"dir::{url}"):
        with pytest.raises(InputError) as caught:
            write_multiscales(lazy, place, chunk=8, overwrite=True)
        assert caught.value.code in OVERLAPS


@pytest.fixture
def precious(image, tmp_path, contents):
    """Another image that links point to; it is unchanged at the end."""
    place = tmp_path / "precious.ome.zarr"
    write_multiscales(image, place, labels={"parts": np.ones(image.shape[1:], "uint8")}, chunk=8)
    before = contents(place)
    yield place
    assert contents(place) == before


LINKS = {"a level": "1", "chunks": "0/c/0/0", "labels": "labels", "a label": "labels/parts"}


@pytest.mark.first(2)
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_overwrite_removes_a_link_and_not_its_target(image, tmp_path, contents, precious, link):
    target, fresh = tmp_path / "x.ome.zarr", tmp_path / "fresh.ome.zarr"
    write_multiscales(image, target, labels={"parts": np.ones(image.shape[1:], "uint8")}, chunk=8)
    shutil.rmtree(target / link)
    (target / link).symlink_to(precious / link)
    (target / "9").symlink_to(tmp_path / "nowhere")
    other = image[::-1]
    write_multiscales(other, target, labels={"parts": np.zeros(image.shape[1:], "uint8")}, chunk=16, overwrite=True)
    write_multiscales(other, fresh, labels={"parts": np.zeros(image.shape[1:], "uint8")}, chunk=16)
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert contents(target) == contents(fresh)


@pytest.mark.first(2)
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_level_that_is_a_link_is_read_and_not_repaired_through_the_link(image, tmp_path, contents, precious, link):
    target, options = tmp_path / "x.ome.zarr", {"labels": {"parts": np.ones(image.shape[1:], "uint8")}, "chunk": 8}
    write_multiscales(image, target, **options)
    shutil.rmtree(target / link)
    (target / link).symlink_to(precious / link)
    assert verify(target, deep=True).ok
    assert write_multiscales(image, target, **options).state == "already finished"
    chunk = next(path for path in (precious / link).rglob("*") if path.is_file() and "/c/" in str(path))
    kept = chunk.read_bytes()
    chunk.unlink()
    assert [defect.kind for defect in verify(target).defects] == ["missing"]
    before = contents(target)
    with pytest.raises(InputError, match=f"x.ome.zarr/{link} is a link"):
        write_multiscales(image, target, **options)
    assert contents(target) == before
    chunk.write_bytes(kept)


def test_a_file_that_is_a_link_is_replaced_and_its_target_stays(image, tmp_path, precious):
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=8)
    for key in ("0/c/0/0/0/0", "0/zarr.json", "zarr.json"):
        (target / key).unlink()
        (target / key).symlink_to(precious / key)
    write_multiscales(image[::-1], target, chunk=8, overwrite=True)
    assert verify(target, deep=True).ok
    assert not any(path.is_symlink() for path in target.rglob("*"))


def test_circular_links_end(image, tmp_path):
    target = tmp_path / "x.ome.zarr"
    write_multiscales(image, target, chunk=16)
    (target / "up").symlink_to(tmp_path)
    (target / "0/again").symlink_to(target)
    (target / "self").symlink_to(target / "self")
    (target / "nowhere").symlink_to(tmp_path / "nowhere")
    assert verify(target, deep=True).ok
    write_multiscales(image[::-1], target, chunk=16, overwrite=True)
    assert verify(target, deep=True).ok
    assert (target / "up").is_symlink()
    assert not (target / "0/again").is_symlink()


def test_a_target_whose_records_would_be_written_through_a_link_raises_an_error(image, tmp_path, contents):
    target, kept = tmp_path / "x.ome.zarr", tmp_path / "kept"
    write_multiscales(image, target, chunk=16)
    (target / "atlaszarr").rename(kept)
    (target / "atlaszarr").symlink_to(kept)
    assert verify(target).ok
    before = contents(kept)
    with pytest.raises(InputError, match=r"x\.ome\.zarr/atlaszarr is a link"):
        write_multiscales(image[::-1], target, chunk=16, overwrite=True)
    assert contents(kept) == before
    assert verify(target).ok


def test_a_target_that_holds_only_a_link_is_not_empty(image, tmp_path):
    (tmp_path / "x.ome.zarr").mkdir()
    (tmp_path / "x.ome.zarr/0").symlink_to(tmp_path / "nowhere")
    with raises(InputError, "target-not-empty") as caught:
        write_multiscales(image, tmp_path / "x.ome.zarr", chunk=16)
    assert "'0'" in str(caught.value)


def test_a_target_may_be_reached_through_a_link(image, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    write_multiscales(image, tmp_path / "link/x.ome.zarr", chunk=16)
    write_multiscales(image[::-1], tmp_path / "link/x.ome.zarr", chunk=16, overwrite=True)
    assert verify(tmp_path / "disk/x.ome.zarr").ok


def test_blocks_that_differ_from_the_dtype_or_shape_of_their_array_raise_an_error(tmp_path):
    source = da.zeros((40, 40, 40), dtype="uint8", chunks=16)
    for wrong in (
        source.map_blocks(lambda block: block * 1.5, dtype="uint8", meta=np.zeros((0, 0, 0), "uint8")),
        source.map_blocks(lambda block: block[:1], dtype="uint8", meta=np.zeros((0, 0, 0), "uint8")),
    ):
        with pytest.raises((InputError, ValueError), match=r"broadcast|shape"):
            write_multiscales(wrong, tmp_path / "x.ome.zarr", chunk=32, identity="wrong", overwrite=True)
        with pytest.raises((KeyError, ValueError, FileNotFoundError)):
            ngff_zarr.from_ngff_zarr(str(tmp_path / "x.ome.zarr"))


@pytest.mark.parametrize(
    ("scale", "translation"), [((0, 1, 1), (0,) * 3), ((1, 1), (0,) * 3), ((1,) * 3, (float("nan"),) * 3)]
)
def test_a_geometry_that_is_not_valid_raises_an_error(scale, translation):
    with pytest.raises(InputError, match="three lengths"):
        Geometry(scale, translation)


def test_an_image_inside_another_raises_an_error(image, tmp_path):
    write_multiscales(image, tmp_path / "outer.ome.zarr", chunk=16)
    with raises(InputError, "target-inside-image"):
        write_multiscales(image, tmp_path / "outer.ome.zarr/0/inner.ome.zarr", chunk=16)


@pytest.mark.parametrize("shape", [(100, 100), (1, 1), (3, 90, 70)], ids=str)
def test_a_plane_is_written_with_the_default_chunks(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 9, shape).astype("uint8")
    dims = ("c", "y", "x")[-len(shape) :]
    write_multiscales(xr.DataArray(values, dims=dims), tmp_path / "x.ome.zarr")
    read = ngff_zarr.from_ngff_zarr(str(tmp_path / "x.ome.zarr"), validate=True)
    np.testing.assert_array_equal(np.asarray(read.images[0].data), values)
    assert verify(tmp_path / "x.ome.zarr", deep=True).ok


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"geometry": Geometry((1, 1, 1), unit="millimeter")}, {"geometry": Geometry((1, 1, 1), unit="micrometer")}),
        ({"factors": [2]}, {"factors": [1.5]}),
        ({"image": np.zeros((3, 4, 4, 4), "uint8")}, {"image": np.zeros((2, 4, 4, 4), "uint8")}),
        ({"rule": "mean"}, {"rule": "nearest"}),
    ],
    ids=["unit", "factor", "channels", "rule"],
)
def test_every_option_that_decides_the_output_is_part_of_the_request(tmp_path, first, second):
    common = {"image": np.zeros((3, 3, 3), "uint8"), "target": tmp_path / "x", "identity": "same", "levels": 2}
    write_multiscales(**(common | first))
    assert write_multiscales(**(common | first)).state == "already finished"
    with raises(InputError, "different-options"):
        write_multiscales(**(common | second))
