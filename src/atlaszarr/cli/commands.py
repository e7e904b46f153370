"""The command line: each command parses its options, calls one function of the library, and prints the result."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from ..errors import AtlaszarrError, InputError, NotFoundError, RecordError, printable
from .atlas import atlas
from .build import build, plan, verify
from .demo import demo, emulator
from .image import image
from .preview import preview
from .search import info, search
from .signals import leave, stopping_on_signals
from .terminal import warning_lines
from .volumes import volumes

#: Codes of the errors of an array that is read and is not intact: wrong input, as for any other file.
_WRONG_INPUT = ("damaged-chunk", "missing-chunk")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        Exit code: 0 done, 1 done with failures or failed, 2 wrong use or wrong input, 130 interrupted.
    """
    if sys.stdout is None:
        return _failed("standard output is closed; send it to a file or to /dev/null", 1)
    try:
        with stopping_on_signals(), warning_lines():
            return int(cli.main(arguments, "atlaszarr", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _failed(error.format_message(), 2)
    except AtlaszarrError as error:
        is_wrong_input = isinstance(error, InputError | NotFoundError | RecordError) or error.code in _WRONG_INPUT
        return _failed(error, 2 if is_wrong_input else 1)
    except (KeyboardInterrupt, click.Abort):
        leave()
    except Exception as error:
        if isinstance(error, OSError) and _raised_by_echo(error):
            # Python must not flush to it at exit. For a closed pipe click exits with 1 before this.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _failed(f"cannot write to standard output: {error.strerror}; redirect it elsewhere", 1)
        blocks = [note for note in getattr(error, "__notes__", ()) if note.startswith("while making block")]
        if not blocks:
            raise
        return _failed(f"{type(error).__name__}: {error}; {blocks[0]}", 1)


def _failed(message: object, code: int) -> int:
    click.echo(f"atlaszarr: {printable(str(message))}", err=True)
    return code


def _raised_by_echo(error: OSError) -> bool:
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    commands=[search, info, image, plan, build, verify, emulator, atlas, demo, preview, volumes],
)
@click.version_option(package_name="atlaszarr")
def cli() -> None:
    """Allen Brain Atlas section datasets as registered, multiscale OME-Zarr."""
