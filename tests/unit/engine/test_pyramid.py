"""The geometry of pyramids: levels, the objects they are stored in, and the blocks that make whole ones."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.boxes import everywhere
from atlaszarr.engine.pyramid import NonEmptyChunks, Pyramid
from atlaszarr.errors import InputError
from codes import raises

shapes = st.tuples(*(st.integers(1, 40),) * 3)
factors = st.lists(st.sampled_from([2, 2.5, 1.5, 3, 1, (1, 2, 2), (2, 2.5, 3)]), max_size=4)
chunks = st.lists(st.one_of(st.integers(3, 20), st.tuples(*(st.integers(1, 12),) * 3)), min_size=1, max_size=3)


@st.composite
def pyramids(draw):
    chunk = draw(chunks)
    shard = draw(st.none() | st.integers(1, 3))
    if shard is not None:
        first = (chunk[0],) * 3 if isinstance(chunk[0], int) else chunk[0]
        shard = tuple(shard * n for n in first)
    return Pyramid.over(draw(shapes), chunk, factors=draw(factors), shard=shard)


def voxels(region):
    return {*itertools.product(*(range(axis.start, axis.stop) for axis in region))}


@settings(max_examples=40)
@given(pyramids())
def test_every_object_of_every_level_is_made_whole_by_exactly_one_block(pyramid):
    made = [np.zeros(level.grid, int) for level in pyramid.levels]
    assert [level for step in pyramid.passes for level in step.writes] == list(range(len(pyramid.levels)))
    for step in pyramid.passes:
        for index in np.ndindex(*pyramid.blocks(step)):
            for position in step.writes:
                level = pyramid.levels[position]
                region = pyramid.region(step, index, position)
                for unit in level.units(region):
                    there = level.region(unit)
                    made[position][unit] += 1
                    inside = [o.start <= i.start and i.stop <= o.stop for i, o in zip(there, region, strict=True)]
                    assert all(inside)
    assert all((counts == 1).all() for counts in made)


@settings(max_examples=40)
@given(pyramids())
def test_a_block_holds_all_that_its_coarser_voxels_cover_and_no_more(pyramid):
    for step in pyramid.passes:
        for index in np.ndindex(*pyramid.blocks(step)):
            for position in range(step.source + 1, step.writes[-1] + 1):
                fine, coarse = (pyramid.region(step, index, at) for at in (position - 1, position))
                level, parent = pyramid.levels[position], pyramid.levels[position - 1]
                for f, c, factor, n in zip(fine, coarse, level.factor, parent.shape, strict=True):
                    assert (c.start * factor, min(c.stop * factor, n)) == (f.start, f.stop)


@settings(max_examples=40)
@given(pyramids(), st.integers(0, 2**32 - 1))
def test_an_object_is_not_empty_exactly_if_it_overlaps_one_of_its_parent_that_is_not(pyramid, seed):
    rng = np.random.default_rng(seed)
    base = frozenset(index for index in np.ndindex(*pyramid.levels[0].grid) if rng.random() < 0.2)
    non_empty = NonEmptyChunks(pyramid, base)
    held = np.zeros(pyramid.shape, bool)
    for unit in base:
        held[pyramid.levels[0].region(unit)] = True
    for position, level in enumerate(pyramid.levels):
        if position:
            below, held = held, np.zeros(level.shape, bool)
            for voxel in np.ndindex(*level.shape):
                covered = (slice(int(k * f), -int(-(k + 1) * f // 1)) for k, f in zip(voxel, level.factor, strict=True))
                held[voxel] = below[tuple(covered)].any()
        touched = np.zeros(level.shape, bool)
        for unit in np.ndindex(*level.grid):
            here = level.region(unit)
            assert not held[here].any() or non_empty.holds(position, unit)
            if non_empty.holds(position, unit):
                touched[here] = True
        assert non_empty.count(position) == len(list(non_empty.units(position)))
        held = touched
    for step in pyramid.passes:
        blocks = set(non_empty.blocks(step))
        for index in np.ndindex(*pyramid.blocks(step)):
            units = pyramid.levels[step.source].units(pyramid.region(step, index))
            assert (index in blocks) == any(non_empty.holds(step.source, unit) for unit in units)


@settings(max_examples=40)
@given(pyramids())
def test_without_a_base_no_object_is_empty(pyramid):
    non_empty = NonEmptyChunks(pyramid)
    for position, level in enumerate(pyramid.levels):
        assert set(non_empty.units(position)) == set(np.ndindex(*level.grid))
    for step in pyramid.passes:
        assert set(non_empty.blocks(step)) == set(np.ndindex(*pyramid.blocks(step)))


@settings(max_examples=40)
@given(pyramids())
def test_the_dependents_of_a_block_are_the_blocks_that_read_what_it_writes(pyramid):
    for step, after in itertools.pairwise(pyramid.passes):
        for index in np.ndindex(*pyramid.blocks(step)):
            written = pyramid.region(step, index, after.source)
            reading = {
                other
                for other in np.ndindex(*pyramid.blocks(after))
                if all(
                    a.start < b.stop and b.start < a.stop
                    for a, b in zip(written, pyramid.region(after, other), strict=True)
                )
            }
            assert set(pyramid.dependents(step, index, after)) == reading


@settings(max_examples=40)
@given(pyramids())
def test_a_pyramid_survives_json(pyramid):
    import json

    assert Pyramid.from_json(json.loads(json.dumps(pyramid.to_json()))) == pyramid


@given(st.tuples(*(st.integers(1, 900),) * 3), st.sampled_from([16, 32, 64]))
def test_the_last_level_of_an_automatic_pyramid_is_the_first_that_fits_a_chunk(shape, chunk):
    *finer, last = Pyramid.over(shape, chunk).levels
    assert max(last.shape) <= chunk
    assert not finer or max(finer[-1].shape) > chunk


def test_the_published_levels_of_the_reference_space_are_made_in_blocks_of_two_chunks():
    pyramid = Pyramid.over((1320, 800, 1140), [80, 64], levels=4, factors=[2.5, 2, 2])
    assert [level.shape for level in pyramid.levels] == [
        (1320, 800, 1140),
        (528, 320, 456),
        (264, 160, 228),
        (132, 80, 114),
    ]
    assert [pyramid.scale(level)[0] for level in range(4)] == [1, Fraction(5, 2), 5, 10]
    assert pyramid.passes[0].block == (160, 160, 160)
    assert pyramid.passes[0].writes == (0, 1)


def test_chunks_of_64_at_10_and_25_um_need_blocks_of_320():
    (first, *_) = Pyramid.over((1320, 800, 1140), 64, levels=4, factors=[2.5, 2, 2]).passes
    assert first.block == (320, 320, 320)
    assert first.writes == (0, 1, 2)


def test_a_plane_keeps_its_one_voxel_of_depth():
    pyramid = Pyramid.over((1, 5000, 7000), [(1, 256, 256)])
    assert {level.shape[0] for level in pyramid.levels} == {1}
    assert {pyramid.scale(level)[0] for level in range(len(pyramid.levels))} == {1}


def test_shards_shrink_with_the_levels():
    pyramid = Pyramid.over((1320, 800, 1140), 64, shard=256)
    assert [level.unit[0] for level in pyramid.levels] == [256, 128, 64, 64, 64, 64]
    assert pyramid.passes[0].writes == (0, 1, 2)


def test_an_image_that_fits_one_block_is_made_in_one_task():
    pyramid = Pyramid.over((100, 90, 80), 64, levels=4)
    assert [(step.writes, pyramid.blocks(step)) for step in pyramid.passes] == [((0, 1, 2, 3), (1, 1, 1))]
    assert everywhere(pyramid.shape) == pyramid.region(pyramid.passes[0], (0, 0, 0))


def test_a_given_level_starts_a_pass_that_computes_it():
    pyramid = Pyramid.over((256, 256, 256), 8, 5, given=[2])
    assert [(step.source, step.writes, step.computes) for step in pyramid.passes] == [
        (0, (0, 1), True),
        (2, (2, 3), True),
        (3, (4,), False),
    ]
    assert [level.given for level in pyramid.levels] == [True, False, True, False, False]
    assert Pyramid.from_json(json.loads(json.dumps(pyramid.to_json()))) == pyramid


def test_levels_that_are_all_given_are_all_computed():
    pyramid = Pyramid.over((64, 64, 64), 8, 3, given=[1, 2])
    assert [(step.source, step.writes) for step in pyramid.passes] == [(0, (0,)), (1, (1,)), (2, (2,))]
    assert all(step.computes for step in pyramid.passes)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"chunk": 0}, "invalid-length"),
        ({"chunk": [(64, 64)]}, "invalid-length"),
        ({"chunk": []}, "wrong-type"),
        ({"levels": 0}, "out-of-range"),
        ({"levels": 40}, "out-of-range"),
        ({"factors": [0.5]}, "invalid-factor"),
        ({"factors": [(2, 2)]}, "invalid-factor"),
        ({"factors": [float("nan")]}, "invalid-factor"),
        ({"factors": [2**31]}, "invalid-factor"),
        ({"factors": [100.7], "levels": 2, "shape": (10**5,) * 3}, "blocks-too-large"),
        ({"shard": 100}, "invalid-shard"),
        ({"shape": (0, 3, 3)}, "invalid-length"),
    ],
    ids=str,
)
def test_an_invalid_parameter_is_named(wrong, code):
    with raises(InputError, code) as caught:
        Pyramid.over(**({"shape": (528, 320, 456)} | wrong))
    assert next(iter(wrong)).rstrip("s") in str(caught.value)
