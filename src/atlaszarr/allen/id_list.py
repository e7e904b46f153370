"""Lists of ids in files: an id on each line, or the first column of a CSV file."""

from __future__ import annotations

import os
import sys

from ..errors import InputError, brief
from ..stores.input_file import InputFile
from . import rma

#: The most bytes of a file: twenty times the ids of all section datasets with the names of their genes.
_LARGEST = 2**24


def read_ids(source: str | os.PathLike[str]) -> list[int]:
    """Read the ids in a file, each once, in the order of the file.

    Parameters
    ----------
    source : str or path-like
        A path or URL, or ``-`` for standard input. What follows a comma or a tab in a line is left out, and so are
        blank lines and a first line that is a header, such as ``id``.

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        If a line does not begin with an id (the message has its number), or the file is too large or has no ids.
    NotFoundError, SourceError
        If the file cannot be read.
    """
    if source == "-":
        name, body = "standard input", sys.stdin.buffer.read(_LARGEST + 1)
        if len(body) > _LARGEST:
            raise InputError(f"{name} has more than {_LARGEST} bytes; give fewer ids", code="file-too-large")
    else:
        with InputFile.open(source) as file:
            name, body = file.name, file.read(_LARGEST)
    found: dict[int, None] = {}
    for number, line in enumerate(body.decode("utf-8-sig", errors="replace").splitlines(), 1):
        text = line.replace("\t", ",").partition(",")[0].strip().strip("\"'")
        if not line.strip() or (number == 1 and text.isidentifier()):
            continue
        try:
            found[rma.identifier(text)] = None
        except InputError:
            raise InputError(
                f"line {number} of {name}, {brief(line)}, does not begin with an id; give one id on each line",
                code="invalid-id",
            ) from None
    if not found:
        raise InputError(f"{name} has no ids; give one on each line", code="no-datasets")
    return list(found)
