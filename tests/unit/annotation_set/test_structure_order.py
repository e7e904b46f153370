"""The order of masks: any terminology, children before their parent, descendants in a run."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.annotation_set.structure_order import MOST_STRUCTURES, PostOrder
from atlaszarr.errors import RecordError
from atlaszarr.terminology.terminology import Structure, Terminology
from codes import raises


def structure(id, *above, value=0, acronym="same"):
    return Structure(id, acronym, f"The {id}", "#00FF7F", (*above, id), value)


def runs(order):
    """The values of each structure with its descendants, by its value."""
    return {order.values[k]: set(order.values[first : k + 1]) for k, first in enumerate(order.firsts)}


@st.composite
def forests(draw):
    """Terminologies of several roots, with CURIEs, repeated acronyms and structures without a value."""
    parents = draw(st.lists(st.integers(-2, 30), min_size=1, max_size=30))
    paths = []
    for id, parent in enumerate(parents):
        paths.append((*(paths[parent] if 0 <= parent < id else ()), f"X:{id}"))
    values = draw(st.lists(st.none() | st.just(1), min_size=len(paths), max_size=len(paths)))
    return Terminology(
        tuple(
            Structure(path[-1], "A", "a", "#00FF7F", path, value and 1000 - id)
            for id, (path, value) in enumerate(zip(paths, values, strict=True))
        )
    )


@given(forests(), st.randoms())
def test_the_run_of_a_structure_is_its_descendants_whatever_the_order_of_the_rows(terminology, rng):
    rows = list(terminology.structures)
    rng.shuffle(rows)
    if all(one.value is None for one in rows):
        with raises(RecordError, "missing-annotation-value"):
            PostOrder.of(Terminology(tuple(rows)))
        return
    valued = [one for one in rows if one.value is not None]
    expected = {one.value: {below.value for below in valued if one.id in below.path} for one in valued}
    order = PostOrder.of(Terminology(tuple(rows)))
    assert Counter(order.values) == Counter(one.value for one in valued)
    assert runs(order) == expected


def test_several_roots_keep_their_order():
    order = PostOrder.of(
        Terminology((structure("A:1", value=5), structure("A:2", "A:1", value=3), structure("B:1", value=4)))
    )
    assert order.values == (3, 5, 4)
    assert order.firsts == (0, 0, 2)


def test_a_structure_without_a_value_has_no_channel_but_its_descendants_stay_with_its_ancestor():
    order = PostOrder.of(
        Terminology(
            (
                structure("A:1", value=5),
                structure("A:2", "A:1", value=None),
                structure("A:3", "A:1", "A:2", value=7),
                structure("A:4", "A:1", value=6),
            )
        )
    )
    assert order.values == (7, 6, 5)
    assert runs(order) == {7: {7}, 6: {6}, 5: {5, 6, 7}}


def test_post_order_goes_down_any_depth():
    ids = list(range(1, 3001))
    rows = tuple(structure(id, *ids[: id - 1]) for id in ids)
    assert PostOrder.of(Terminology(rows)).values == tuple(reversed(ids))


def test_a_structure_without_its_parent_is_named():
    with raises(RecordError, "missing-parent") as caught:
        PostOrder.of(Terminology((structure(1), structure(8, 1, 7))))
    assert "structure 8 " in str(caught.value)


@pytest.mark.parametrize("more", [0, 1])
def test_the_most_structures_are_those_that_indices_can_tell_apart(more):
    rows = tuple(structure(id) for id in range(1, MOST_STRUCTURES + 1 + more))
    if more:
        with raises(RecordError, "too-many-structures") as caught:
            PostOrder.of(Terminology(rows))
        assert "65536" in str(caught.value)
    else:
        assert len(PostOrder.of(Terminology(rows))) == MOST_STRUCTURES
