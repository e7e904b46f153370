"""A slide as a file: every byte is right and is fetched once, whatever is asked for and in whatever order."""

import hashlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.slides.slide_file import REQUEST_COST, SlideFile
from atlaszarr.stores.target import Target

SIZE = 5 * REQUEST_COST
BODY = hashlib.shake_128(b"slide").digest(SIZE)
INTERVALS = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, REQUEST_COST)).map(lambda ab: (ab[0], min(sum(ab), SIZE))),
    min_size=1,
    max_size=6,
)


@given(rounds=st.lists(INTERVALS, min_size=1, max_size=4), headers=st.lists(st.integers(0, SIZE - 1), max_size=3))
def test_bytes_are_right_and_none_is_fetched_twice(tmp_path_factory, rounds, headers):
    folder = tmp_path_factory.getbasetemp() / "one-slide"
    folder.mkdir(exist_ok=True)
    if not (folder / "slide").exists():
        (folder / "slide").write_bytes(BODY)
    target = Target(str(folder))
    file = SlideFile.open(target, "slide")
    with file.header():
        for position in headers:
            file.seek(position)
            assert file.read(100) == BODY[position : position + 100]
    head = file.head
    for wanted in rounds:
        file = SlideFile(target, head)
        ranges = file.missing(wanted + wanted[:1])
        file.fetch(ranges)
        assert file.missing(wanted) == []
        for start, stop in wanted:
            assert file.bytes_of((start, stop)) == BODY[start:stop]
        head = file.head
        ends = [(start, start + len(body)) for start, body in head.parts]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
        assert sum(stop - start for start, stop in ranges) <= sum(b - a for a, b in wanted) + len(wanted) * REQUEST_COST
