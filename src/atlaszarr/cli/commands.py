"""The command line: each command parses its options, calls one function of the library, and prints the result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from typing import ClassVar

import click

from ..errors import AtlaszarrError, InputError, NotFoundError, RecordError, printable
from .signals import leave, stopping_on_signals
from .terminal import echo_data, prepare_streams, say, warning_lines

#: Characters of an argument: the longest request line that common web servers accept (8 KiB in Apache and nginx).
_LONGEST = 8192
#: Codes of the errors of an array that is read and is not intact: wrong input, as for any other file.
_WRONG_INPUT = ("damaged-chunk", "missing-chunk")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; with ``--json`` an error is JSON on stdout too: ``{"error": {"code": ..., "message": ...}}``.

    Returns
    -------
    int
        Exit code: 0 done, 1 done with failures or failed, 2 wrong use or wrong input, 130 interrupted.
    """
    prepare_streams()
    if sys.stdout is None:
        say("atlaszarr: standard output is closed; send it to a file or to /dev/null")
        return 1
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if long := [argument for argument in given if len(argument) > _LONGEST]:
            message = f"argument {long[0][:40]!r}... has {len(long[0])} characters, more than {_LONGEST}"
            raise InputError(message, code="argument-too-long")
        with stopping_on_signals(), warning_lines():
            return int(cli.main(given, "atlaszarr", standalone_mode=False) or 0)
    except (KeyboardInterrupt, click.Abort):
        leave()
    except Exception as error:
        if isinstance(error, OSError) and _raised_by_echo(error):
            # Python must not flush to it at exit. For a closed pipe click exits with 1 before this.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            say(f"atlaszarr: cannot write to standard output: {error.strerror}; redirect it elsewhere")
            return 1
        exit_code, code, lines = _described(error)
        say(*lines)
        if _asks_for_json(given):
            import json

            message = printable(lines[-1]).removeprefix("atlaszarr: ")
            with suppress(OSError):  # stdout is closed or full
                echo_data(json.dumps({"error": {"code": code, "message": message}}))
        return exit_code


def _described(error: Exception) -> tuple[int, str, list[str]]:
    """The exit code of an error, its code, and the lines that report it."""
    if isinstance(error, click.ClickException):
        return 2, "wrong-use", [f"atlaszarr: {error.format_message()}"]
    if isinstance(error, AtlaszarrError):
        is_wrong_input = isinstance(error, InputError | NotFoundError | RecordError) or error.code in _WRONG_INPUT
        return 2 if is_wrong_input else 1, error.code, [f"atlaszarr: {error}"]
    blocks = [note for note in getattr(error, "__notes__", ()) if note.startswith("while making block")]
    if blocks:
        return 1, "unexpected-error", [f"atlaszarr: {type(error).__name__}: {error}; {blocks[0]}"]
    import traceback

    return 1, "unexpected-error", "".join(traceback.format_exception(error)).splitlines()


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether the options, valid or not, ask for JSON."""
    return "--json" in arguments or "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _raised_by_echo(error: OSError) -> bool:
    import traceback

    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


class _Commands(click.Group):
    """The commands; each is imported when it is used."""

    #: The module of each, and what ``atlaszarr --help`` says of it.
    summaries: ClassVar = {
        "atlas": (".atlas", "Build an atlas from an annotation, a template and a terminology."),
        "batch": (".batch", "Build many section datasets, and measure them into one table."),
        "build": (".build", "Build the registered OME-Zarr of a section dataset."),
        "catalogue": (".catalogue", "Save the records of the API, for work without it."),
        "demo": (".demo", "Build a volume and an atlas from the built-in API, and draw them."),
        "emulator": (".demo", "Serve the built-in API until interrupted."),
        "grid": (".grid", "Save the expression grids of the Allen Institute as OME-Zarr."),
        "image": (".image", "Save one section image."),
        "info": (".search", "Describe one section dataset."),
        "measure": (".measure", "Print the grey levels and expression of every region."),
        "plan": (".build", "Estimate what a build fetches and writes."),
        "preview": (".preview", "Draw the registered sections as a picture."),
        "refine": (".refine", "Improve the registration of the sections, with figures."),
        "search": (".search", "List section datasets, or their section images."),
        "verify": (".build", "Check what is written, and repair it."),
        "view": (".view", "Show a volume, sections, an annotation or an atlas in a browser."),
        "volumes": (".volumes", "Print the volume of every region of an annotation."),
    }

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        """The names of the commands."""
        return sorted(self.summaries)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.summaries:
            return None
        from .options import Text

        module, _ = self.summaries[cmd_name]
        command: click.Command = getattr(import_module(module, __package__), cmd_name)
        for parameter in command.params:
            if parameter.type is click.STRING:
                parameter.type = Text()  # no argument or option is a blank text
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summaries[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="atlaszarr")
def cli() -> None:
    """Allen Brain Atlas section datasets as registered, multiscale OME-Zarr."""
