"""What BrainGlobe's reader demands of a terminology."""

import pytest

from atlaszarr.brainglobe.demands import refuse_terminology
from atlaszarr.errors import RecordError
from atlaszarr.terminology.terminology import Structure, Terminology
from codes import raises


def tree(*rows):
    """A terminology of (identifier, parent, acronym, and the label if it differs)."""
    paths = {None: ()}
    structures = []
    for id, parent, acronym, *value in rows:
        paths[id] = (*paths[parent], id)
        structures.append(Structure(id, acronym, f"The {id}", "#00FF7F", paths[id], *value))
    return Terminology(tuple(structures))


@pytest.mark.parametrize(
    ("rows", "code", "named"),
    [
        ([(1, None, "brain"), (2, 1, "A")], "wrong-root", "the roots brain"),
        ([(1, None, "root"), (2, None, "root")], "wrong-root", "the roots root, root"),
        ([], "wrong-root", "the roots none"),
        ([(1, None, "root"), (2**32, 1, "A")], "invalid-id", "4294967296 (A)"),
        ([(0, None, "root"), (2, 0, "A")], "invalid-id", "0 (root)"),
        ([("MBA:1", None, "root")], "invalid-id", "MBA:1 (root)"),
        ([(1, None, "root"), (2, 1, "A", 7)], "identifier-is-not-label", "2 (A) hold 7"),
        ([(1, None, "root"), (2, 1, "A"), (3, 1, "A")], "duplicate-acronym", "structures 2 and 3"),
    ],
)
def test_a_terminology_that_the_reader_cannot_open_is_refused(rows, code, named):
    with raises(RecordError, code) as caught:
        refuse_terminology(tree(*rows))
    assert named in str(caught.value)


def test_one_tree_whose_identifiers_are_labels_is_accepted():
    refuse_terminology(tree((997, None, "root"), (8, 997, "grey"), (4_000_000_000, 8, "A")))
