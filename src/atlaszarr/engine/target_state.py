"""What a target is before a build touches it, and what its root says: unfinished, or finished and open to readers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..stores.local import is_partial
from ..stores.target import Target
from ..versions import version as package_version
from . import ledger, ome
from .lock import KEYS

UNFINISHED = "unfinished"
FINISHED = "finished"
#: An --overwrite is under way: everything but the root may be gone already.
REMOVING = "removing"
#: Of the rules that decide what is written; in every request, so that nothing is resumed by others than began it.
#: 2: low r is left, nothing is mirrored between spaces 9 and 10, tied votes go by where their foreground lies, and gaps
#: of 2.5 nominal intervals are filled.
LAYOUT = 2
#: Characters of a value in a message.
_LONGEST = 150
#: The document that holds a root's attributes, and the key in it that they lie under.
ROOT_KEYS = {"zarr.json": "attributes", ".zattrs": ""}


@dataclass(frozen=True)
class Root:
    """What the root of a target says in any state.

    Attributes
    ----------
    version : str
        Of OME-Zarr.
    request : dict
        What was asked for, in JSON's types: who asks for the same may go on with it. `LAYOUT` is added.
    credit : mapping
        Whom the data is of.
    """

    version: str
    request: dict[str, Any]
    credit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", {"layout": LAYOUT, **self.request})

    def documents(
        self, state: str, content: Mapping[str, Any] | None = None, ledger: str | None = None
    ) -> dict[str, bytes]:
        """The documents of the root.

        Parameters
        ----------
        state : str
        content : mapping, optional
            What OME-Zarr has to say of it. Without it the target does not open as an image.
        ledger : str, optional
            Digest of the compacted ledger.
        """
        own = {"state": state, "version": package_version(), "request": self.request, **self.credit}
        if ledger is not None:
            own["ledger"] = ledger
        return ome.group(self.version, ome.attributes(self.version, content or {}, {"atlaszarr": own}))

    def write(
        self, target: Target, state: str, content: Mapping[str, Any] | None = None, ledger: str | None = None
    ) -> None:
        """Put them."""
        for key, body in self.documents(state, content, ledger).items():
            target.write(key, body)


def examine(target: Target, request: dict[str, Any], overwrite: bool) -> str | None:
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
    for above in target.above():
        if _is_ours(above):
            raise InputError(f"target {target.url} lies in {above.url}, which is an image; choose another place")
    own = read_root(target)
    if own is None:
        if found := [key for key in (*target.list_keys(), *target.links()) if not _is_left_over(key)]:
            what = f"is not empty (it holds {found[0]!r})" if found[0] else "is a file"
            raise InputError(f"target {target.url} {what}; choose another place")
        return None
    state, there = str(own["state"]), dict(own["request"])
    if overwrite or state == REMOVING:
        return REMOVING
    check_layout(target, there)
    if there != request:
        names = [name for name in {**there, **request} if there.get(name) != request.get(name)]
        old, new = ({name: values.get(name) for name in names} for values in (there, request))
        raise InputError(
            f"target {target.url} was begun with {_words(old)}, not with {_words(new)}; "
            "ask for the same, choose another place, or give --overwrite"
        )
    return state


def check_layout(target: Target, request: Mapping[str, Any]) -> None:
    """Refuse a target of other rules than these.

    Raises
    ------
    InputError
    """
    if (layout := request.get("layout", 1)) != LAYOUT:
        raise InputError(
            f"target {target.url} was written by the rules of {'an earlier' if layout == 1 else 'another'} version of "
            f"atlaszarr (layout {layout}; this version writes layout {LAYOUT}); build it anew with --overwrite, or "
            "choose another target"
        )


def read_root(target: Target) -> dict[str, Any] | None:
    """What the root says of the build: at least its ``state`` and its ``request``; None where there is no root.

    Where a finished target's root is gone or cannot be read, what its ledger says of it.

    Raises
    ------
    InputError
        If it is the root of something that atlaszarr did not build.
    """
    for key, inner in ROOT_KEYS.items():
        if (body := target.read(key)) is None:
            continue
        try:
            document = json.loads(body)
            own = dict((document[inner] if inner else document)["atlaszarr"])
            return {**own, "state": str(own["state"]), "request": dict(own["request"])}
        except (ValueError, KeyError, TypeError):
            if (recorded := _of_ledger(target)) is not None:
                return recorded
            raise InputError(
                f"target {target.url} holds a zarr group that atlaszarr did not build; choose another place"
            ) from None
    return _of_ledger(target)


def _of_ledger(target: Target) -> dict[str, Any] | None:
    found = ledger.read(target, finished=True)
    for key, text in (found.header or {}).get("root", {}).items():
        if key in ROOT_KEYS:
            document = json.loads(text)
            inner = document[ROOT_KEYS[key]] if ROOT_KEYS[key] else document
            return {**inner["atlaszarr"], "ledger": found.digest}
    return None


def _is_ours(place: Target) -> bool:
    try:
        return "request" in (read_root(place) or {})
    except InputError:
        return False


def _is_left_over(key: str) -> bool:
    """Whether an object may be there of a build that was killed before it could say so."""
    return key in (*KEYS, ".zgroup") or is_partial(key) or key.startswith(KEYS)


def clear(target: Target, request: dict[str, Any]) -> None:
    """Remove the levels, labels and records of another build; if this is stopped, the root still says whose they are.

    Of links they are removed, and not what they lead to. Anything else in the target stays.
    """
    version = "0.4" if target.read(".zattrs") is not None else ome.DEFAULT_VERSION
    root = Root(version, request)
    root.write(target, REMOVING)
    kept = set(root.documents(REMOVING))
    for key in target.list_keys("atlaszarr"):
        if key not in KEYS:
            target.remove(key)
    target.remove_each(own_links(target))
    for top in {key.split("/", 1)[0] for key in target.list_keys()}:
        if _is_own(top):
            target.remove(top)
    for key in sorted(kept, key=lambda key: key in ROOT_KEYS):
        target.remove(key)


def own_links(target: Target) -> list[str]:
    """Links among the levels and labels of a target."""
    return [key for key in target.links() if _is_own(key.split("/", 1)[0])]


def _is_own(top: str) -> bool:
    return top.isdigit() or top in ("labels", "OME")


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(str(value))}" for name, value in values.items())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
