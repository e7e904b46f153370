"""What a ledger may describe besides a plain multiscale.

A kind is found by the word that its description has for it, and its module loaded when a target is of it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..stores.target import Target
from .ledger import Ledger, Task
from .multiscale import Multiscale

if TYPE_CHECKING:
    from .checks import Defect

#: Modules with a `KIND`, by the word.
_MODULES = {"collection": ".collection", "masks": "..brainglobe.mask_checks"}


@dataclass(frozen=True)
class Kind:
    """A kind of multiscale.

    Attributes
    ----------
    recorded : callable
        The multiscale in a target, of its description and of the keys of what was written.
    contents : callable, optional
        Compares what some tasks wrote with what it was made from, given the multiscale, the request and the ledger.
        Default: each level with the one before, and labels with their metadata.
    """

    recorded: Callable[[Target, Mapping[str, Any], Container[str]], Multiscale]
    contents: Callable[[Any, Mapping[str, Any], Ledger, Sequence[Task]], Iterator[Defect]] | None = None


def kind_of(ledger: Ledger) -> Kind:
    """The kind that the header of a ledger describes.

    Raises
    ------
    KeyError, TypeError
        If it describes none.
    """
    described = (ledger.header or {})["multiscale"]
    for word, module in _MODULES.items():
        if word in described:
            kind: Kind = import_module(module, __package__).KIND
            return kind
    return Kind(Multiscale.recorded)


def recorded(target: Target, ledger: Ledger) -> Multiscale:
    """The multiscale as a ledger describes it.

    Raises
    ------
    ValueError, KeyError, TypeError
        If its header does not.
    """
    written = {key for entry in ledger.done.values() for key in entry.written}
    return kind_of(ledger).recorded(target, (ledger.header or {})["multiscale"], written)
