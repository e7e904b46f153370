"""Masks of all structures: exact at every level, sparse, resumable, and compared with the annotation by `verify`."""

import json

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
from atlaszarr.atlas.second_name import give_second_name
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError, RecordError
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


@pytest.fixture
def annotation(tmp_path):
    """A pyramid of 10, 25 and 50 um."""
    return annotated(tmp_path, drawn((300, 70, 50)))


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


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_a_structure_has_chunks_only_where_it_is_and_a_folder_at_every_level(annotation, tmp_path):
    target = Target.of(tmp_path / MASKS)
    write_masks(annotation, target, PostOrder.of(terminology()))
    level = annotation.multiscale.pyramid.levels[0]
    labels = zarr.open_array(f"{annotation.multiscale.target.url}/0", mode="r")[:]
    for channel, identifier in enumerate(PostOrder.of(terminology()).values):
        places = np.unique(np.argwhere(np.isin(labels, descendants(identifier))) // 120, axis=0)
        held = {"/".join(map(str, place)) for place in places} | {"0/0/0"}
        folder = tmp_path / MASKS / "0" / "c" / str(channel)
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == held
        for number in range(3):
            assert (tmp_path / MASKS / str(number) / "c" / str(channel)).is_dir()
    assert level.unit == (20, 20, 20)


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

    def stop(done, *_):
        if done == 3:
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


def test_a_label_without_a_structure_is_named(annotation, tmp_path):
    parents = {id: parent for id, parent in PARENTS.items() if id != 40}
    with raises(InputError, "unknown-label") as caught:
        write_masks(annotation, Target.of(tmp_path / MASKS), PostOrder.of(terminology(parents)))
    assert "label 40" in str(caught.value)
    root = json.loads((tmp_path / MASKS / "zarr.json").read_bytes())
    assert "ome" not in root["attributes"]


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


@pytest.mark.parametrize(
    ("parents", "root", "code", "named"),
    [
        ({1: None, 2: 1}, "brain", "wrong-root", "brain"),
        ({1: None, 2: None}, "root", "wrong-root", "root, root"),
        ({1: None, 2**32: 1}, "root", "invalid-id", "4294967296"),
    ],
)
def test_a_terminology_that_the_reader_cannot_open_is_refused(parents, root, code, named):
    with raises(RecordError, code) as caught:
        PostOrder.of(terminology(parents, root))
    assert named in str(caught.value)


def test_a_structure_without_its_parent_is_named():
    orphan = Structure(8, "S8", "The 8", "#000000", (1, 7, 8))
    with raises(RecordError, "missing-parent") as caught:
        PostOrder.of(Terminology((*terminology().structures, orphan)))
    assert "structure 8 " in str(caught.value)


def test_post_order_has_descendants_in_a_run_whatever_the_order_of_the_rows():
    shuffled = Terminology(tuple(reversed(terminology().structures)))
    order = PostOrder.of(shuffled)
    for index, first in enumerate(order.firsts):
        assert set(order.values[first : index + 1]) == set(descendants(order.values[index]))


def test_a_target_in_a_target_keeps_its_options():
    assert below(Target("s3://bucket/atlas", '{"key": "k"}'), "a/b") == Target("s3://bucket/atlas/a/b", '{"key": "k"}')
