"""Damaged TIFFs: the first error that tifffile logs ends the reading."""

import logging
import struct
import threading

import numpy as np
import pytest
import tifffile

from atlaszarr.errors import InputError
from atlaszarr.reference_volumes.tiff import read_tiff_header, reading_tiff
from codes import raises


def test_a_tiff_of_many_damaged_pages_is_refused_at_the_first(tmp_path):
    pages, tags = 20_000, 60
    tag = struct.pack("<HHII", 320, 2, 100, 2**31 - 1)  # its text lies behind the end of the file
    size = 2 + 12 * tags + 4
    body = b"".join(struct.pack("<H", tags) + tag * tags + struct.pack("<I", 8 + size * n) for n in range(1, pages + 1))
    (tmp_path / "x.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + body)
    with raises(InputError, "damaged-file"):
        read_tiff_header(tmp_path / "x.tif", "x.tif")


def test_words_of_tifffile_in_other_threads_are_logged(tmp_path, caplog):
    values = np.zeros((3, 4, 5), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack")

    def read():
        logging.getLogger("tifffile").error("another file is damaged")

    with reading_tiff("x.tif"):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert tifffile.imread(tmp_path / "x.tif").shape == values.shape
    assert caplog.messages == ["another file is damaged"]


@pytest.mark.parametrize("kind", ["<classic", ">classic", "<big", ">big"])
@pytest.mark.parametrize("chain", ["a circle of one", "a circle of two"])
def test_pages_that_never_end_are_refused(kind, chain, tmp_path):
    order = kind[0]
    mark = {"<": b"II", ">": b"MM"}[order]
    if kind.endswith("big"):
        beginning, tags, offset = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 16), "Q", "Q"
    else:
        beginning, tags, offset = mark + struct.pack(f"{order}HI", 42, 8), "H", "I"
    start, size = len(beginning), struct.calcsize(f"{order}{tags}{offset}")
    follow = {"a circle of one": [start], "a circle of two": [start + size, start]}
    body = b"".join(struct.pack(f"{order}{tags}{offset}", 0, at) for at in follow[chain])
    (tmp_path / "x.tif").write_bytes(beginning + body)
    with raises(InputError, "damaged-file") as caught:
        read_tiff_header(tmp_path / "x.tif", "x.tif")
    assert "circle" in str(caught.value)
