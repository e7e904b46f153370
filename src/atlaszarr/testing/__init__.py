"""An emulator of the Allen API (a real HTTP server), and the brains in its images.

For `atlaszarr.demo`, the `emulator` command and tests only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .brain import BrainPhantom
    from .damage import Damage
    from .deformation import Deformation
    from .emulator import Emulator
    from .phantom import Phantom

__all__ = ["BrainPhantom", "Damage", "Deformation", "Emulator", "Phantom"]
_HOMES = {
    "BrainPhantom": "brain",
    "Damage": "damage",
    "Deformation": "deformation",
    "Emulator": "emulator",
    "Phantom": "phantom",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
