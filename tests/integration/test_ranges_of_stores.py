"""Parts of objects, of every kind of store."""

import hashlib
import uuid

import pytest

from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from codes import raises
from ranged_web import serving

BODY = bytes(range(256)) * 40


@pytest.fixture(params=["local disk", "memory", "S3", "HTTP", "HTTP without ranges"])
def holding(request, tmp_path, remote):
    """A target of each kind that holds `BODY` under the key ``folder/object``, and the name of its kind."""
    key = "folder/object"
    if request.param.startswith("HTTP"):
        with serving({key: BODY}, ranges=request.param == "HTTP") as (url, _):
            yield Target.of(url), request.param
        return
    kinds = {
        "local disk": (str(tmp_path), {}),
        "memory": (f"memory://{uuid.uuid4().hex}", {}),
        "S3": (remote.url("ranges"), remote.options),
    }
    target = Target.of(*kinds[request.param])
    target.write(key, BODY)
    yield target, request.param


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (500, 777), (10_000, 10_240), (10_000, 99_999), (0, 99_999)])
def test_a_part_has_its_position_the_size_of_the_object_and_its_tag(holding, start, stop):
    target, kind = holding
    part = target.read_range("folder/object", start, stop, 2**20)
    assert part.size == len(BODY)
    assert part.body[start - part.start : stop - part.start] == BODY[start:stop]
    if kind != "HTTP without ranges":
        assert (part.start, len(part.body)) == (start, min(stop, len(BODY)) - start)
    has_tag = kind.startswith(("HTTP", "S3"))
    assert part.tag == (hashlib.md5(BODY).hexdigest() if has_tag else None)


def test_a_part_of_a_missing_object_is_none(holding):
    target, _ = holding
    assert target.read_range("folder/none", 0, 10, 2**20) is None


def test_a_server_that_sends_the_whole_object_sends_no_more_than_is_allowed():
    with serving({"object": BODY}, ranges=False) as (url, _), raises(InputError, "file-too-large"):
        Target.of(url).read_range("object", 0, 10, 5000)
