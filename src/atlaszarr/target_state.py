"""What a target is before a build touches it, and what its root says: unfinished, or finished and open to readers."""

from __future__ import annotations

import json
from typing import Any

from .errors import InputError
from .metadata import CREDIT, group
from .store import Target

UNFINISHED = "unfinished"
FINISHED = "finished"
#: An --overwrite is under way: everything but the root may be gone already.
REMOVING = "removing"


def examine(target: Target, identity: dict[str, Any], overwrite: bool) -> str | None:
    """Find out whether a build may go ahead, and from where; changes nothing.

    Returns
    -------
    str or None
        `UNFINISHED` or `FINISHED` if this very request is there; `REMOVING` if what is there is to be removed;
        None if nothing is.

    Raises
    ------
    InputError
        If the target holds anything but this very request's output; with `overwrite`, anything but atlaszarr's.
    """
    root = target.read("zarr.json")
    if root is None:
        if found := target.list_keys():
            what = f"is not empty (it holds {found[0]!r})" if found[0] else "is a file"
            raise InputError(f"target {target.url} {what}; choose another place")
        return None
    try:
        own = json.loads(root)["attributes"]["atlaszarr"]
        state, request = str(own["state"]), dict(own["request"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"target {target.url} holds a zarr group that atlaszarr did not build; choose another place"
        ) from None
    if overwrite or state == REMOVING:
        return REMOVING
    if request != identity:
        names = [name for name in {**request, **identity} if request.get(name) != identity.get(name)]
        there, here = ({name: values.get(name) for name in names} for values in (request, identity))
        raise InputError(
            f"target {target.url} was begun with {_words(there)}, not with {_words(here)}; "
            "ask for the same, choose another place, or give --overwrite"
        )
    return state


def clear(target: Target, identity: dict[str, Any], version: str) -> None:
    """Remove all that another build left; if this is stopped, the root still says whose it is."""
    write_root(target, REMOVING, identity, {}, version)
    for prefix in sorted({key.split("/", 1)[0] for key in target.list_keys()} - {"zarr.json"}):
        target.remove(prefix)
    target.remove("zarr.json")


def write_root(target: Target, state: str, identity: dict[str, Any], attributes: dict[str, Any], version: str) -> None:
    """Put the root's metadata: with no multiscales in `attributes` it does not open as an image."""
    own = {"state": state, "version": version, "request": identity, **CREDIT}
    target.write("zarr.json", json.dumps(group({**attributes, "atlaszarr": own}), indent=1).encode())


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
