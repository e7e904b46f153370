"""The command line: a module for each command; `commands` lists them and sets the exit codes."""

from .commands import main

__all__ = ["main"]
