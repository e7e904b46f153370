"""Slides whose header lies: a pixel is right, or the slide is refused; never a pixel of another place."""

import io

import numpy as np
import pytest
import simplejpeg
import tifffile

from atlaszarr.errors import ImageError
from atlaszarr.reference_volumes.tiff import encoded_size, validate_segment
from atlaszarr.slides.reading import SlideBox, open_head, read_boxes
from atlaszarr.stores.target import Target

SIZE = (157, 203)
BOX = (3, 5, 100, 90)
PICTURE = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
STRIPS, TILES = {"rowsperstrip": 16}, {"tile": (64, 64)}
FORMS = [STRIPS, TILES, STRIPS | {"compression": "zlib"}, TILES | {"compression": "zlib"}]
#: Bytes of a value, by TIFF's number of its type.
WIDTHS = {3: 2, 4: 4, 16: 8}


def tiff(**options):
    body = io.BytesIO()
    tifffile.imwrite(body, PICTURE, photometric="rgb", metadata=None, **options)
    return bytearray(body.getvalue())


def tag_of(body, name):
    with tifffile.TiffFile(io.BytesIO(bytes(body))) as file:
        return file.pages.first.tags[name]


def put(body, name, *values):
    """Overwrite the first values of a tag."""
    tag = tag_of(body, name)
    width = WIDTHS[tag.dtype]
    for number, value in enumerate(values):
        at = tag.valueoffset + number * width
        body[at : at + width] = value.to_bytes(width, "little")
    return body


def add(body, code, value):
    """Put a tag with one number in the place of another, which does not matter."""
    at = tag_of(body, "ResolutionUnit").offset
    fields = code.to_bytes(2, "little"), (3).to_bytes(2, "little"), (1).to_bytes(4, "little")
    body[at : at + 12] = b"".join(fields) + value.to_bytes(4, "little")
    return body


def read(folder, body):
    """The pixels of `BOX`, or the error."""
    (folder / "slide.tiff").write_bytes(body)
    target = Target(str(folder))
    try:
        (found,) = read_boxes(target, open_head(target, "slide.tiff"), [SlideBox(BOX, SIZE)]).boxes
    except ImageError as error:
        return error
    return found


def segments(form):
    return "Tile" if "tile" in form else "Strip"


def expect(found):
    left, top, right, bottom = BOX
    np.testing.assert_array_equal(found, PICTURE[top:bottom, left:right])


@pytest.mark.parametrize("form", FORMS)
def test_strips_or_tiles_that_overlap_are_refused(tmp_path, form):
    """All of them begin where the first one does."""
    body = tiff(**form)
    first, *others = tag_of(body, f"{segments(form)}Offsets").value
    found = read(tmp_path, put(body, f"{segments(form)}Offsets", first, *[first] * len(others)))
    assert found.code == "slide-damaged"
    assert "overlap" in str(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [0, 0.5, 2, 3])
def test_a_strip_or_tile_with_another_number_of_bytes_is_right_or_refused(tmp_path, form, factor):
    body = tiff(**form)
    name = f"{segments(form)}ByteCounts"
    found = read(tmp_path, put(body, name, int(tag_of(body, name).value[0] * factor)))
    if "compression" not in form and factor > 1:
        expect(found)  # what is needed of them is known
    else:
        assert found.code in ("slide-damaged", "slide-truncated")


@pytest.mark.parametrize("form", FORMS)
def test_a_strip_or_tile_beyond_the_end_is_a_truncated_slide(tmp_path, form):
    body = tiff(**form)
    found = read(tmp_path, put(body, f"{segments(form)}Offsets", 2**31))
    assert found.code == "slide-truncated"


@pytest.mark.parametrize("orientation", range(10))
def test_a_slide_that_is_stored_turned_or_mirrored_is_refused(tmp_path, orientation):
    found = read(tmp_path, add(tiff(**STRIPS), 274, orientation))
    if 2 <= orientation <= 8:
        assert found.code == "slide-turned"
        assert str(orientation) in str(found)
    else:
        expect(found)


LIES = {
    "no width": (lambda body: put(body, "ImageWidth", 0), "slide-damaged"),
    "no rows in a strip": (lambda body: put(body, "RowsPerStrip", 0), "slide-damaged"),
    "an unknown planar configuration": (lambda body: put(body, "PlanarConfiguration", 9), "slide-not-rgb"),
    "an unknown compression": (lambda body: put(body, "Compression", 9999), "slide-compression"),
    "JPEG XL, whose size has no bound": (lambda body: put(body, "Compression", 50002), "slide-compression"),
    "an unknown predictor": (lambda body: add(body, 317, 99), "slide-damaged"),
    "signed numbers": (lambda body: add(body, 339, 2), "slide-not-rgb"),
    "chroma at half the size": (lambda body: add(body, 530, 2), "slide-damaged"),
    "2^31 offsets": (lambda body: with_count(body, "StripOffsets", 2**31), "slide-damaged"),
    "one offset": (lambda body: with_count(body, "StripOffsets", 1), "slide-damaged"),
    "65,535 tags": (lambda body: body[:8] + b"\xff\xff" + body[10:], "slide-damaged"),
}


def with_count(body, name, count):
    at = tag_of(body, name).offset + 4
    body[at : at + 4] = count.to_bytes(4, "little")
    return body


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path, lie):
    change, code = LIES[lie]
    found = read(tmp_path, change(tiff(**STRIPS)))
    assert found.code == code, str(found)
    assert "\n" not in str(found)
    assert "slide.tiff" in str(found)


def test_only_the_first_image_of_a_file_is_read_and_a_circle_of_images_does_not_matter(tmp_path):
    body = tiff(**STRIPS)
    at = 10 + 12 * int.from_bytes(body[8:10], "little")
    body[at : at + 4] = (8).to_bytes(4, "little")  # the next directory is the first one
    expect(read(tmp_path, body))


@pytest.mark.parametrize("length", [0, 1, 4, 9, 20, 100, 150, 300, 1000, 5000])
def test_a_slide_that_is_cut_short_anywhere_says_so(tmp_path, length):
    found = read(tmp_path, tiff(**STRIPS)[:length])
    assert found.code == "slide-truncated"
    assert f"{length:,} bytes" in str(found)


# Strips and tiles that are images, with a size of their own.


def test_a_segment_that_is_an_image_is_measured_before_it_is_decoded():
    jpeg = bytearray(simplejpeg.encode_jpeg(np.zeros((32, 48, 3), np.uint8)))
    assert encoded_size(7, bytes(jpeg)) == (48, 32)
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (40_000).to_bytes(2, "big") * 2  # 4.8 GB
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (40_000).to_bytes(4, "big") * 2
    codestream = b"\xff\x4f\xff\x51\0\x2f\0\0" + (40_000).to_bytes(4, "big") * 2
    for compression, body in ((7, jpeg), (34933, png), (34712, b"boxes" + codestream), (33005, codestream)):
        with pytest.raises(ValueError, match="40000 x 40000"):
            validate_segment(compression, len(body), iter([bytes(body)]), 2**20)
    for compression in (7, 34933, 34712):
        with pytest.raises(ValueError):  # noqa: PT011 - the decoder's own words
            validate_segment(compression, 9, iter([b"no image."]), 2**20)


@pytest.mark.parametrize("shape", [(32, 128), (64, 128), (100, 64)])
def test_a_tile_that_is_an_image_of_another_size_is_refused(tmp_path, shape):
    """One of 128 x 32 has as many pixels as a tile of 64 x 64."""
    pytest.importorskip("imagecodecs", reason="decodes JPEG")
    jpeg = simplejpeg.encode_jpeg(np.zeros((*shape, 3), np.uint8))
    body = tiff(**TILES, compression="jpeg")
    put(body, "TileOffsets", len(body))
    found = read(tmp_path, put(body, "TileByteCounts", len(jpeg)) + jpeg)
    assert found.code == "slide-damaged"
    assert f"{shape[1]} x {shape[0]}" in str(found)
