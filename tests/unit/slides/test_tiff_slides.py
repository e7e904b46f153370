"""Boxes of slides in any form of TIFF: exact, by no more bytes than needed, and refused with a reason otherwise."""

import io
import random

import numpy as np
import pytest
import tifffile
from PIL import Image

from atlaszarr.errors import ImageError
from atlaszarr.slides.reading import SlideBox, cost_of, open_head, read_boxes
from atlaszarr.slides.slide_file import HEAD
from atlaszarr.stores.target import Target
from codes import raises
from ranged_web import serving

SIZE = (1507, 1203)
BOXES = [(3, 5, 701, 333), (800, 2, 1507, 401), (90, 950, 91, 951)]


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (SIZE[1] // 8 + 1, SIZE[0] // 8 + 1, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[: SIZE[1], : SIZE[0]]


def tiff(picture, **options):
    body = io.BytesIO()
    settings = {"photometric": "rgb", "metadata": None} | options
    tifffile.imwrite(body, picture, **settings)
    return body.getvalue()


def at(folder, body):
    (folder / "slide.tiff").write_bytes(body)
    return Target(str(folder))


def read(target, size=SIZE, boxes=BOXES):
    return read_boxes(target, open_head(target, "slide.tiff"), [SlideBox(box, size) for box in boxes]).boxes


def open_cost(target):
    """What a plan does: the header is read, and no pixel."""
    return cost_of(target, open_head(target, "slide.tiff"), [SlideBox(box, SIZE) for box in BOXES])


FORMS = {
    "one strip": {"rowsperstrip": 10**6},
    "strips": {"rowsperstrip": 7},
    "strips of deflate with a predictor": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (128, 256)},
    "tiles of deflate": {"tile": (64, 64), "compression": "zlib"},
    "tiles of LZMA": {"tile": (256, 256), "compression": "lzma"},
    "BigTIFF": {"tile": (128, 128), "bigtiff": True},
    "big endian": {"rowsperstrip": 5, "byteorder": ">"},
    "separate planes in strips": {"planarconfig": "separate", "rowsperstrip": 11},
    "separate planes in tiles": {"planarconfig": "separate", "tile": (128, 64), "compression": "zlib"},
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_a_slide_in_any_form_are_exact(picture, tmp_path, form):
    planar = FORMS[form].get("planarconfig") == "separate"
    target = at(tmp_path, tiff(np.moveaxis(picture, 2, 0) if planar else picture, **FORMS[form]))
    for (left, top, right, bottom), found in zip(BOXES, read(target), strict=True):
        np.testing.assert_array_equal(found, picture[top:bottom, left:right])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_grey_slide_has_three_equal_channels(picture, tmp_path, photometric):
    grey = picture[..., 0]
    stored = 255 - grey if photometric == "miniswhite" else grey
    target = at(tmp_path, tiff(stored, photometric=photometric, rowsperstrip=9))
    for (left, top, right, bottom), found in zip(BOXES, read(target), strict=True):
        np.testing.assert_array_equal(found, grey[top:bottom, left:right, np.newaxis].repeat(3, axis=2))


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "packbits"])
def test_a_slide_that_libtiff_writes_is_read(picture, tmp_path, compression):
    """Its directory is at the end."""
    target = at(tmp_path, as_pillow(picture, compression))
    for (left, top, right, bottom), found in zip(BOXES, read(target), strict=True):
        np.testing.assert_array_equal(found, picture[top:bottom, left:right])


def as_pillow(picture, compression):
    body = io.BytesIO()
    Image.fromarray(picture).save(body, "TIFF", compression=compression)
    return body.getvalue()


UNSUPPORTED = {
    "16 bits": lambda p: tiff(p.astype("u2")),
    "four channels": lambda p: tiff(np.dstack([p, p[..., :1]]), extrasamples=["unassalpha"]),
    "a palette": lambda p: tiff(p[..., 0], photometric="palette", colormap=np.zeros((3, 256), "u2")),
    "one bit": lambda p: tiff(p[..., 0] > 99, photometric="minisblack"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_a_slide_that_is_not_8_bit_grey_or_rgb_is_refused(picture, tmp_path, kind):
    with raises(ImageError, "slide-not-rgb") as caught:
        read(at(tmp_path, UNSUPPORTED[kind](picture)))
    assert "slide.tiff" in str(caught.value)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
def test_a_compression_that_needs_imagecodecs_is_read_with_it_and_named_without(picture, tmp_path, compression):
    target = at(tmp_path, as_pillow(picture, compression))
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with raises(ImageError, "missing-dependency") as caught:
            open_cost(target)
        assert "atlaszarr[slides]" in str(caught.value)
        return
    found = read(target)[0].astype(int)
    assert np.abs(found - picture[5:333, 3:701]).mean() < (1 if compression == "tiff_lzw" else 20)


DAMAGED = {
    "no TIFF": (lambda body: b"\x89PNG" + body[4:], "slide-damaged"),
    "empty": (lambda _: b"", "slide-truncated"),
    "the header cut short": (lambda body: body[:100], "slide-truncated"),
    "a directory beyond the end": (lambda body: body[:4] + (2**31).to_bytes(4, "little") + body[8:], "slide-damaged"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_no_tiff_is_refused(picture, tmp_path, kind):
    damage, code = DAMAGED[kind]
    with raises(ImageError, code):
        read(at(tmp_path, damage(tiff(picture, rowsperstrip=16))))


def test_of_a_truncated_slide_the_boxes_that_it_still_has_are_read(picture, tmp_path):
    body = tiff(picture, rowsperstrip=16)
    first, second, third = read(at(tmp_path, body[: len(body) // 2]))
    np.testing.assert_array_equal(first, picture[5:333, 3:701])
    np.testing.assert_array_equal(second, picture[2:401, 800:1507])
    assert third.code == "slide-truncated"


def test_of_a_slide_with_a_damaged_strip_the_other_boxes_are_read(picture, tmp_path):
    whole = bytearray(tiff(picture, rowsperstrip=64, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        page = file.pages.first
        start, count = page.dataoffsets[950 // 64], page.databytecounts[950 // 64]
    whole[start : start + count] = bytes(count)
    first, _, third = read(at(tmp_path, bytes(whole)))
    np.testing.assert_array_equal(first, picture[5:333, 3:701])
    assert third.code == "slide-damaged"


@pytest.mark.parametrize("size", [(1508, 1203), (1507, 1300), (1507, 1201)])
def test_a_slide_of_another_size_than_its_record_is_refused(picture, tmp_path, size):
    error = read(at(tmp_path, tiff(picture, rowsperstrip=16)), size)[0]
    assert error.code == "slide-size-mismatch"
    assert "1507 x 1203" in str(error)
    assert f"{size[0]} x {size[1]}" in str(error)


def test_a_slide_may_have_a_pixel_more_than_its_record_which_rounds_down(picture, tmp_path):
    found = read(at(tmp_path, tiff(picture, rowsperstrip=16)), (1506, 1202))
    np.testing.assert_array_equal(found[0], picture[5:333, 3:701])


def test_a_strip_that_decompresses_to_more_than_its_pixels_is_refused(tmp_path):
    import zlib

    grey = np.zeros((64, 64), np.uint8)
    body = bytearray(tiff(grey, photometric="minisblack", rowsperstrip=64, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(body)) as file:
        tags = file.pages.first.tags
        offset, count = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
        width = file.pages.first.tags["StripByteCounts"].dtype
    assert width in (3, 4)
    bomb = zlib.compress(bytes(2**28))
    body[offset : offset + 4] = len(body).to_bytes(4, "little")
    body[count : count + 4] = len(bomb).to_bytes(4, "little")
    if width == 3:
        pytest.skip("the count has two bytes")
    (error,) = read(at(tmp_path, bytes(body) + bomb), (64, 64), [(0, 0, 64, 64)])
    assert error.code == "slide-damaged"


def test_only_the_tiles_of_the_boxes_are_fetched_and_no_byte_twice():
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    body = tiff(picture, tile=(256, 256))
    box = (300, 3000, 500, 3200)
    with serving({"slide.tiff": body}) as (url, files):
        target = Target.of(url)
        head = open_head(target, "slide.tiff")
        cost = cost_of(target, head, [SlideBox(box, (4096, 4096))])
        before = files.count()
        (found,) = read_boxes(target, cost.head, [SlideBox(box, (4096, 4096))]).boxes
        assert files.twice() == set()
        assert files.count() == before + sum(stop - start for start, stop in cost.ranges)
        assert files.count() <= 2 * HEAD + 2 * 256 * 256 * 3 + 2**20
    np.testing.assert_array_equal(found, picture[3000:3200, 300:500])


@pytest.mark.parametrize(
    "fault",
    [lambda _, body: body[: len(body) // 2], lambda *_: 503, lambda *_: 500],
    ids=["an answer cut short", "503", "500"],
)
def test_a_request_that_fails_once_is_sent_again(picture, fault):
    with serving({"slide.tiff": tiff(picture, rowsperstrip=16)}) as (url, files):
        target = Target.of(url)
        files.faults = [fault, lambda _, body: body, fault]
        found = read(target)
    np.testing.assert_array_equal(found[0], picture[5:333, 3:701])


def test_a_server_without_ranges_sends_the_whole_slide_once(picture):
    with serving({"slide.tiff": tiff(picture, rowsperstrip=16)}, ranges=False) as (url, files):
        found = read(Target.of(url))
        assert len(files.sent["slide.tiff"]) == 1
    np.testing.assert_array_equal(found[0], picture[5:333, 3:701])


def test_a_slide_that_changes_while_it_is_read_is_not_read(picture):
    body = tiff(picture, rowsperstrip=16)
    with serving({"slide.tiff": body}) as (url, files):
        target = Target.of(url)
        head = open_head(target, "slide.tiff")
        files.bodies["slide.tiff"] = body[:-1] + b"x"
        with raises(ImageError, "slide-changed"):
            read_boxes(target, head, [SlideBox(BOXES[0], SIZE)])


def test_a_header_without_end_is_refused(tmp_path):
    """Its offsets lie over 32 MB."""
    body = bytearray(tiff(np.zeros((8, 8), np.uint8), photometric="minisblack", bigtiff=True, rowsperstrip=1))
    with tifffile.TiffFile(io.BytesIO(body)) as file:
        tag = file.pages.first.tags["StripOffsets"]
        entry = tag.offset
    body[entry + 4 : entry + 12] = (2**22).to_bytes(8, "little")
    with raises(ImageError, "slide-too-large"):
        read(at(tmp_path, bytes(body) + bytes(2**26)), (8, 8), [(0, 0, 8, 8)])


@pytest.mark.parametrize("form", ["strips", "tiles of deflate", "BigTIFF", "big endian"])
def test_a_header_with_flipped_bytes_is_read_or_refused(tmp_path, form):
    picture = np.random.default_rng(1).integers(0, 256, (203, 157, 3), dtype=np.uint8)
    sound = tiff(picture, **FORMS[form])
    for seed in range(150):
        chance = random.Random(seed)
        body = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(600)] = chance.choice([0, 1, 255, chance.randrange(256)])
        try:
            (found,) = read(at(tmp_path, bytes(body)), (157, 203), [(3, 5, 100, 90)])
        except ImageError as error:
            found = error
        if not isinstance(found, ImageError):
            assert found.shape == (85, 97, 3), seed
