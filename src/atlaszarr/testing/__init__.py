"""A real HTTP server that answers as the Allen API does, and the phantom brain it shows.

The demo and the tests run on it; nothing outside `atlaszarr.demo`, the `emulator` command and the tests may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emulator import Emulator
    from .phantom import Phantom

__all__ = ["Emulator", "Phantom"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is."""
    if name == "Emulator":
        from .emulator import Emulator

        return Emulator
    if name == "Phantom":
        from .phantom import Phantom

        return Phantom
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
