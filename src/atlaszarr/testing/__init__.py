"""An emulator of the Allen API (a real HTTP server), and the phantom brain in its images.

For `atlaszarr.demo`, the `emulator` command and tests only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emulator import Emulator
    from .phantom import Phantom

__all__ = ["Emulator", "Phantom"]


def __getattr__(name: str) -> Any:
    """Import public names on first use."""
    if name == "Emulator":
        from .emulator import Emulator

        return Emulator
    if name == "Phantom":
        from .phantom import Phantom

        return Phantom
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
