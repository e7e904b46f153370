"""The command line: each command parses its options, calls one function of the library, and prints the result."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from ..errors import AtlaszarrError, InputError, NotFoundError, RecordError
from .atlas import atlas
from .batch import batch
from .build import build, plan, verify
from .catalogue import catalogue
from .demo import demo, emulator
from .grid import grid
from .image import image
from .measure import measure
from .options import Text
from .preview import preview
from .search import info, search
from .signals import leave, stopping_on_signals
from .terminal import prepare_streams, say, warning_lines
from .volumes import volumes

#: Characters of an argument: the longest request line that common web servers accept (8 KiB in Apache and nginx).
_LONGEST = 8192
#: Codes of the errors of an array that is read and is not intact: wrong input, as for any other file.
_WRONG_INPUT = ("damaged-chunk", "missing-chunk")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        Exit code: 0 done, 1 done with failures or failed, 2 wrong use or wrong input, 130 interrupted.
    """
    prepare_streams()
    if sys.stdout is None:
        return _failed("standard output is closed; send it to a file or to /dev/null", 1)
    given = sys.argv[1:] if arguments is None else arguments
    if long := [argument for argument in given if len(argument) > _LONGEST]:
        return _failed(f"argument {long[0][:40]!r}... has {len(long[0])} characters, more than {_LONGEST}", 2)
    try:
        with stopping_on_signals(), warning_lines():
            return int(cli.main(list(given), "atlaszarr", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _failed(error.format_message(), 2)
    except AtlaszarrError as error:
        is_wrong_input = isinstance(error, InputError | NotFoundError | RecordError) or error.code in _WRONG_INPUT
        return _failed(error, 2 if is_wrong_input else 1)
    except (KeyboardInterrupt, click.Abort):
        leave()
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Report an exception that is not of atlaszarr, and return exit code 1."""
    if isinstance(error, OSError) and _raised_by_echo(error):
        # Python must not flush to it at exit. For a closed pipe click exits with 1 before this.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(f"cannot write to standard output: {error.strerror}; redirect it elsewhere", 1)
    blocks = [note for note in getattr(error, "__notes__", ()) if note.startswith("while making block")]
    if blocks:
        return _failed(f"{type(error).__name__}: {error}; {blocks[0]}", 1)
    say(*"".join(traceback.format_exception(error)).splitlines())
    return 1


def _failed(message: object, code: int) -> int:
    say(f"atlaszarr: {message}")
    return code


def _raised_by_echo(error: OSError) -> bool:
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    commands=[
        *(search, info, catalogue, image, preview, plan, build, batch, verify),
        *(atlas, volumes, measure, grid, demo, emulator),
    ],
)
@click.version_option(package_name="atlaszarr")
def cli() -> None:
    """Allen Brain Atlas section datasets as registered, multiscale OME-Zarr."""


# No argument or option is a blank text.
for _command in cli.commands.values():
    for _parameter in _command.params:
        if _parameter.type is click.STRING:
            _parameter.type = Text()
