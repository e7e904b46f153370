"""Masks of all structures: exact at every level, sparse, resumable, and compared with the annotation by `verify`."""

import json
import shutil

import dask.array as da
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ngff_zarr import from_ngff_zarr

from atlaszarr.annotation_set.masks import write_masks
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.assets.names import ANNOTATION, COMPRESSED, MASKS, below
from atlaszarr.atlas.images import image_job
from atlaszarr.atlas.second_name import give_second_name
from atlaszarr.credit import CCF
from atlaszarr.engine.array_layout import ArrayLayout
from atlaszarr.engine.blocks import Block
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.label_index import LabelIndex, add_index
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.pyramid import Pyramid
from atlaszarr.engine.schedulers import scheduler_for
from atlaszarr.engine.target_state import FINISHED, UNFINISHED, Root
from atlaszarr.engine.writer import write
from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.verification import verify
from atlaszarr.writing import write_multiscales
from codes import raises

#: Parents by identifier; the last needs more than 16 bits, and 9 is not in the annotation.
PARENTS = {1: None, 5: 1, 3: 5, 40: 5, 2: 1, 9: 1, 4_000_000_000: 2}
DRAWN = [1, 3, 40, 2, 4_000_000_000]


def terminology(parents=PARENTS, root="root"):
    def path(id):
        return (*path(parents[id]), id) if parents[id] else (id,)

    names = {id: root if parents[id] is None else f"S{id}" for id in parents}
    return Terminology(tuple(Structure(id, names[id], f"The {id}", "#00FF7F", path(id)) for id in parents))


def descendants(id):
    return [one.id for one in terminology() if id in one.path]


def drawn(shape, seed=0):
    """Patches of every label, and of 0."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 0, *DRAWN], np.uint32), [-(-n // 7) for n in shape])
    return coarse.repeat(7, 0).repeat(7, 1).repeat(7, 2)[tuple(map(slice, shape))]


def annotated(folder, labels, **options):
    """A finished annotation, under both of its names."""
    target = Target.of(f"{folder}/{ANNOTATION}")
    options = {"factors": [2.5, 2], "levels": 3, "chunk": [20, 8], "geometry": Geometry((0.01,) * 3), **options}
    write_multiscales(da.from_array(labels, chunks=64), target.url, rule="mode", **options)
    give_second_name(target, Target.of(f"{folder}/{COMPRESSED}"))
    return Finished.at(target)


def annotated_levels(folder, arrays):
    """A finished annotation of levels that are all given, under both of its names."""
    target = Target.of(f"{folder}/{ANNOTATION}")
    pyramid = Pyramid.over(arrays[0].shape, 16, len(arrays), given=range(len(arrays)))

    def source(level, region, _):
        return Block({"": arrays[level][region]})

    options = Geometry((0.01,) * 3), target, "uint32", "mode", "0.5", {}, {}, source, CCF
    with scheduler_for("threads", 1) as threads:
        write(image_job("annotation", pyramid, *options), threads)
    give_second_name(target, Target.of(f"{folder}/{COMPRESSED}"))
    return Finished.at(target)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a pyramid of 10, 25 and 50 um."""
    folder = tmp_path_factory.mktemp("annotation")
    annotated(folder, drawn((300, 70, 50)))
    return folder


@pytest.fixture
def annotation(made, tmp_path):
    """A copy of the pyramid."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Finished.at(Target.of(f"{tmp_path}/{ANNOTATION}"))


def test_every_level_is_1_where_the_annotation_has_a_structure_or_a_descendant(annotation, tmp_path):
    target = Target.of(tmp_path / MASKS)
    assert write_masks(annotation, target, PostOrder.of(terminology())).state == "built"
    root = zarr.open_group(target.url, mode="r")
    identifiers = root["annotation_values"][:]
    assert identifiers.dtype == np.uint32
    assert identifiers.tolist() == [3, 40, 5, 4_000_000_000, 2, 9, 1]  # children before their parent
    for level in range(3):
        labels = zarr.open_array(f"{annotation.multiscale.target.url}/{level}", mode="r")[:]
        assert root[str(level)].dtype == np.uint8
        for channel, identifier in enumerate(identifiers):
            expected = np.isin(labels, descendants(identifier))
            np.testing.assert_array_equal(root[str(level)][channel], expected)
    assert verify(target.url, deep=True).ok


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*(st.integers(1, 150),) * 3),
    chunk=st.sampled_from([16, 64, (4, 100, 30)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_chunk_of_an_annotation_gives_exact_masks(tmp_path_factory, shape, chunk, seed):
    folder = tmp_path_factory.mktemp("masks")
    labels = drawn(shape, seed)
    chunk = [chunk if isinstance(chunk, int) else list(chunk)]
    annotation = annotated(folder, labels, factors=[2], levels=2, chunk=chunk)
    write_masks(annotation, Target.of(folder / MASKS), PostOrder.of(terminology()), workers=2)
    masks = zarr.open_array(folder / MASKS / "0", mode="r")
    for channel, identifier in enumerate(PostOrder.of(terminology()).values):
        np.testing.assert_array_equal(masks[channel], np.isin(labels, descendants(identifier)))
    assert verify(folder / MASKS, deep=True).ok


def test_other_readers_open_them_and_read_one_structure_alone(annotation, tmp_path):
    target = Target.of(tmp_path / MASKS)
    write_masks(annotation, target, PostOrder.of(terminology()))
    expected = zarr.open_array(target.url + "/1", mode="r")[2]
    image = from_ngff_zarr(target.url, validate=True).images[1]
    assert image.dims == ("c", "z", "y", "x")
    assert image.scale["z"] == 0.025
    assert image.data.chunksize[0] == 1
    np.testing.assert_array_equal(image.data[2].compute(), expected)
    opened = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{target.url}/1/"}).result()
    np.testing.assert_array_equal(opened[2].read().result(), expected)


def shard_chunks(path, layout):
    """The positions of the chunks of a shard that are not absent."""
    index = np.frombuffer(path.read_bytes()[-layout.index_size : -4], "<u8").reshape(*layout._index_shape, 2)
    return {tuple(position) for position in np.argwhere(index[..., 0] != 2**64 - 1)[:, 1:].tolist()}


@pytest.mark.slow
def test_a_structure_that_occurs_has_one_shard_a_level_with_chunks_only_where_it_is(annotation, tmp_path):
    target = Target.of(tmp_path / MASKS)
    write_masks(annotation, target, PostOrder.of(terminology()))
    labels = zarr.open_array(f"{annotation.multiscale.target.url}/0", mode="r")[:]
    layout = ArrayLayout.of(json.loads((tmp_path / MASKS / "0" / "zarr.json").read_bytes()))
    assert layout.unit == (1, 360, 120, 120)
    assert layout.chunk == (1, 120, 120, 120)
    occurring = [channel for channel, value in enumerate(PostOrder.of(terminology()).values) if value != 9]
    assert len(occurring) == 6
    for level in range(3):
        folder = tmp_path / MASKS / str(level) / "c"
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == {f"{channel}/0/0/0" for channel in occurring}
    for channel in occurring:
        here = np.isin(labels, descendants(PostOrder.of(terminology()).values[channel]))
        positions = {tuple(place) for place in np.unique(np.argwhere(here) // 120, axis=0).tolist()}
        assert shard_chunks(tmp_path / MASKS / "0" / "c" / str(channel) / "0" / "0" / "0", layout) == positions


def test_a_structure_that_a_coarse_level_lacks_has_an_empty_shard_there(tmp_path):
    labels = np.zeros((600, 20, 20), np.uint32)
    labels[:, :10] = 2
    labels[501, 15, 15] = 3  # lost in every vote
    annotation = annotated(tmp_path, labels, factors=[2], levels=3, chunk=[16])
    target = Target.of(tmp_path / MASKS)
    write_masks(annotation, target, PostOrder.of(terminology()))
    channel = PostOrder.of(terminology()).values.index(3)
    root = zarr.open_group(target.url, mode="r")
    assert [int(root[str(level)][channel].sum()) for level in range(3)] == [1, 0, 0]
    layout = ArrayLayout.of(json.loads((tmp_path / MASKS / "1" / "zarr.json").read_bytes()))
    shard = tmp_path / MASKS / "1" / "c" / str(channel) / "0" / "0" / "0"
    assert shard_chunks(shard, layout) == set()
    assert shard.stat().st_size == layout.index_size == 3 * 16 + 4
    image = from_ngff_zarr(target.url, validate=True).images[1]
    assert image.data[channel].sum().compute() == 0
    opened = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{target.url}/1/"}).result()
    assert not opened[channel].read().result().any()
    assert verify(target.url, deep=True).ok


def test_masks_are_made_with_and_without_a_label_index_and_are_the_same(annotation, tmp_path, contents):
    order = PostOrder.of(terminology())
    write_masks(annotation, Target.of(tmp_path / MASKS), order)
    index = add_index(annotation.multiscale.target)
    write_masks(annotation, Target.of(tmp_path / "indexed.ome.zarr"), order)
    broken = LabelIndex({**index.columns, "label": index.columns["label"] * 0 + 1}, "of other voxels")
    annotation.multiscale.target.write("atlaszarr/label_index.parquet", broken.to_bytes())
    write_masks(annotation, Target.of(tmp_path / "distrusted.ome.zarr"), order)
    assert contents(tmp_path / MASKS) == contents(tmp_path / "indexed.ome.zarr")
    assert contents(tmp_path / MASKS) == contents(tmp_path / "distrusted.ome.zarr")


def test_masks_of_a_sharded_annotation_are_exact(tmp_path):
    labels = drawn((90, 70, 50))
    annotation = annotated(tmp_path, labels, factors=[2], levels=2, chunk=[16], shard=48)
    write_masks(annotation, Target.of(tmp_path / MASKS), PostOrder.of(terminology()))
    masks = zarr.open_array(tmp_path / MASKS / "0", mode="r")
    for channel, value in enumerate(PostOrder.of(terminology()).values):
        np.testing.assert_array_equal(masks[channel], np.isin(labels, descendants(value)))


def test_masks_are_the_same_bytes_with_any_number_of_workers_and_a_second_call_writes_nothing(
    annotation, tmp_path, contents
):
    order = PostOrder.of(terminology())
    write_masks(annotation, Target.of(tmp_path / MASKS), order, workers=2)
    write_masks(annotation, Target.of(tmp_path / "again.ome.zarr"), order, workers=1)
    assert contents(tmp_path / MASKS) == contents(tmp_path / "again.ome.zarr")
    assert write_masks(annotation, Target.of(tmp_path / MASKS), order).state == "already finished"


def test_unfinished_masks_are_resumed(annotation, tmp_path, contents):
    order, target = PostOrder.of(terminology()), Target.of(tmp_path / MASKS)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(done, _, word):
        if (done, word) == (1, "level 1"):
            raise Stop

    with pytest.raises(Stop):
        write_masks(annotation, target, order, workers=1, progress=stop)
    with pytest.raises(ValueError, match="NGFF version"):
        from_ngff_zarr(target.url)
    report = write_masks(annotation, target, order, workers=1)
    assert report.state == "resumed"
    write_masks(annotation, Target.of(tmp_path / "whole.ome.zarr"), order)
    assert contents(tmp_path / MASKS) == contents(tmp_path / "whole.ome.zarr")


def test_verify_names_a_missing_or_altered_chunk_and_a_second_call_repairs_it(annotation, tmp_path):
    order, target = PostOrder.of(terminology()), Target.of(tmp_path / MASKS)
    write_masks(annotation, target, order)
    gone, altered, foreign = "0/c/2/0/0/0", "1/c/6/0/0/0", "0/c/2/9/9/9"
    whole = target.read(altered)
    target.remove(gone)
    target.write(altered, whole[:-1] + bytes([whole[-1] ^ 1]))
    target.write(foreign, b"")
    target.remove("annotation_values/c/0")
    found = {(defect.kind, defect.key) for defect in verify(target.url).defects}
    assert found == {
        ("missing", gone),
        ("altered", altered),
        ("extra", foreign),
        ("missing", "annotation_values/c/0"),
    }
    report = write_masks(annotation, target, order)
    assert (report.state, report.tasks_done) == ("resumed", 2)
    assert verify(target.url, deep=True).ok


@pytest.mark.slow
def test_verify_compares_masks_with_the_annotation_next_to_them(annotation, tmp_path):
    order, target = PostOrder.of(terminology()), Target.of(tmp_path / MASKS)
    write_masks(annotation, target, order)
    other = annotated(tmp_path / "other", drawn((300, 70, 50), seed=1))
    write_masks(other, Target.of(tmp_path / "other" / MASKS), order)
    (tmp_path / COMPRESSED).unlink()
    give_second_name(other.multiscale.target, Target.of(tmp_path / COMPRESSED))
    (defect,) = verify(target.url).defects
    assert defect.kind == "inconsistent"
    assert COMPRESSED in defect.text
    with raises(InputError, "different-options"):
        write_masks(other, target, order)
    assert write_masks(other, target, order, overwrite=True).state == "built"
    assert verify(target.url, deep=True).ok


def without(value):
    return PostOrder.of(terminology({id: parent for id, parent in PARENTS.items() if id != value}))


@pytest.mark.parametrize("indexed", [False, True])
def test_a_label_without_a_structure_is_named_before_anything_is_written(annotation, tmp_path, indexed):
    if indexed:
        add_index(annotation.multiscale.target)
    with raises(InputError, "unknown-label") as caught:
        write_masks(annotation, Target.of(tmp_path / MASKS), without(40))
    assert "label 40" in str(caught.value)
    assert not Target.of(tmp_path / MASKS).list_keys()


def test_voxels_of_allowed_unknown_labels_are_in_no_mask(annotation, tmp_path):
    target = Target.of(tmp_path / MASKS)
    write_masks(annotation, target, without(40), allow_unknown=True)
    labels = zarr.open_array(f"{annotation.multiscale.target.url}/0", mode="r")[:]
    masks = zarr.open_array(f"{target.url}/0", mode="r")
    assert (labels == 40).any()
    for channel, value in enumerate(without(40).values):
        np.testing.assert_array_equal(masks[channel], np.isin(labels, [id for id in descendants(value) if id != 40]))
    assert verify(target.url, deep=True).ok


def test_masks_on_an_object_store_are_the_same_bytes(annotation, tmp_path, contents):
    target = Target.of("memory://masks-of-structures/masks.ome.zarr")
    write_masks(annotation, target, PostOrder.of(terminology()))
    write_masks(annotation, Target.of(tmp_path / MASKS), PostOrder.of(terminology()))
    there = {key: target.read(key) for key in target.list_keys() if not key.startswith("atlaszarr/")}
    assert there == contents(tmp_path / MASKS)
    target.remove()


def test_an_annotation_that_is_not_finished_or_of_other_axes_is_refused(tmp_path):
    with raises(InputError, "not-a-finished-image"):
        Finished.at(Target.of(tmp_path / "nothing.ome.zarr"))
    write_multiscales(np.zeros((2, 4, 4, 4), np.uint8), tmp_path / "four.ome.zarr")
    with raises(InputError, "wrong-axes"):
        Finished.at(Target.of(tmp_path / "four.ome.zarr"))


def test_a_target_in_a_target_keeps_its_options():
    assert below(Target("s3://bucket/atlas", '{"key": "k"}'), "a/b") == Target("s3://bucket/atlas/a/b", '{"key": "k"}')


@pytest.mark.parametrize("indexed", [False, True])
def test_an_annotation_of_background_has_no_masks(tmp_path, indexed):
    annotation = annotated(tmp_path, np.zeros((20, 10, 10), np.uint32), factors=[2], levels=2, chunk=[16])
    if indexed:
        add_index(annotation.multiscale.target)
    write_masks(annotation, Target.of(tmp_path / MASKS), PostOrder.of(terminology()))
    assert not zarr.open_array(tmp_path / MASKS / "0", mode="r")[:].any()
    assert not [path for path in tmp_path.glob(f"{MASKS}/[01]/c/**/*") if path.is_file()]
    assert verify(tmp_path / MASKS, deep=True).ok


def test_a_given_level_may_hold_what_the_finest_lacks(tmp_path):
    """And a run may have no voxel at a level."""
    fine, coarse = np.full((40, 20, 20), 3, np.uint32), np.full((20, 10, 10), 40, np.uint32)
    annotation = annotated_levels(tmp_path, [fine, coarse])
    write_masks(annotation, Target.of(tmp_path / MASKS), PostOrder.of(terminology()))
    root = zarr.open_group(tmp_path / MASKS, mode="r")
    values = PostOrder.of(terminology()).values
    for level, here in ((0, 3), (1, 40)):
        for value in (3, 40):
            mask = root[str(level)][values.index(value)]
            assert mask.all() if value == here else not mask.any()
            assert (tmp_path / MASKS / str(level) / "c" / str(values.index(value)) / "0" / "0" / "0").is_file()
    assert not (tmp_path / MASKS / "0" / "c" / str(values.index(2))).exists()
    assert verify(tmp_path / MASKS, deep=True).ok


def test_masks_are_written_as_another_image_since_absent_chunks_of_their_shards_are_empty(tmp_path):
    labels = np.repeat(np.array([2, 0, 3], np.uint32), 150)[:, None, None].repeat(20, 1).repeat(20, 2)
    target = Target.of(tmp_path / MASKS)
    write_masks(annotated(tmp_path, labels, factors=[2], levels=2, chunk=[16]), target, PostOrder.of(terminology()))
    masks = zarr.open_array(tmp_path / MASKS / "0", mode="r")
    write_multiscales(masks, tmp_path / "copy.ome.zarr", levels=1)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "copy.ome.zarr" / "0", mode="r")[:], masks[:])
    target.remove("0/c/0")
    with raises(TargetError, "missing-chunk"):
        write_multiscales(masks, tmp_path / "again.ome.zarr", levels=1)


@pytest.mark.parametrize("state", [UNFINISHED, FINISHED])
def test_masks_of_an_earlier_version_are_not_resumed_and_are_replaced_if_asked(annotation, tmp_path, state):
    target, order = Target.of(tmp_path / MASKS), PostOrder.of(terminology())
    Root("0.5", {"masks_of": annotation.digest, "masks": "0" * 32, "structures": len(order)}).write(target, state)
    target.write("0/c/5/1/1/1", b"a chunk of its own")
    with raises(InputError, "different-layout") as caught:
        write_masks(annotation, target, order)
    assert "one object for each chunk; build it again with --overwrite" in str(caught.value)
    assert write_masks(annotation, target, order, overwrite=True).state == "built"
    assert target.read("0/c/5/1/1/1") is None
    assert verify(target.url, deep=True).ok
