"""The root of a target: its state before a build, and the marks unfinished and finished that a build writes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, printable
from ..stores.documents import LARGEST, parse_object
from ..stores.local import is_partial
from ..stores.target import Target
from ..versions import version as package_version
from . import ledger, ome
from .ledger import Ledger
from .lock import KEYS

UNFINISHED = "unfinished"
FINISHED = "finished"
#: An --overwrite was started: everything but the root may be removed already.
REMOVING = "removing"
#: Version of the rules that decide which bytes are written. It is part of every request, so that a target is resumed
#: only by the rules that it was started with.
#: 2: low r is kept, nothing is mirrored between spaces 9 and 10, tied votes are decided by the position of their
#: foreground, and gaps of 2.5 nominal intervals are filled.
LAYOUT = 2
#: Characters of a value in a message.
_LONGEST = 150
#: The record of what an image is a part of, such as an atlas. It is another's: a build neither writes nor removes it.
WHOLE_KEY = "atlaszarr/atlas.json"
#: The document that holds the attributes of a root, and the key of the attributes in it.
ROOT_KEYS = {"zarr.json": "attributes", ".zattrs": ""}


@dataclass(frozen=True)
class Root:
    """The root group of a target.

    Attributes
    ----------
    version : str
        Of OME-Zarr.
    request : dict
        The options that decide the voxels, in JSON's types: only the same request resumes the target. `LAYOUT` is
        added.
    credit : mapping
        Citation and terms of the data.
    """

    version: str
    request: dict[str, Any]
    credit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", {"layout": LAYOUT, **self.request})

    def documents(
        self, state: str, content: Mapping[str, Any] | None = None, ledger: str | None = None
    ) -> dict[str, bytes]:
        """The documents of the root, by key.

        Parameters
        ----------
        state : str
        content : mapping, optional
            OME-Zarr metadata. Without them the target does not open as an image.
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
        """Write the documents."""
        for key, body in self.documents(state, content, ledger).items():
            target.write(key, body)


def read_state(target: Target, request: dict[str, Any], overwrite: bool) -> str | None:
    """Read the state of a target that a build is about to write; nothing is changed.

    Returns
    -------
    str or None
        `UNFINISHED` or `FINISHED` for a target of the same request; `REMOVING` if the contents are to be removed;
        None for an empty target.

    Raises
    ------
    InputError
        If the target holds anything but output of the same request; with `overwrite`, anything but atlaszarr's.
    """
    refuse_inside_image(target)
    own = read_root(target)
    if own is None:
        if others := [key for key in (*target.list_keys(), *target.links()) if not _is_leftover(key)]:
            if not others[0]:
                raise InputError(f"target {target.url} is a file; choose another target", code="target-is-file")
            raise InputError(
                f"target {target.url} is not empty (it holds {others[0]!r}); choose another target",
                code="target-not-empty",
            )
        return None
    state, stored = str(own["state"]), dict(own["request"])
    if overwrite or state == REMOVING:
        return REMOVING
    validate_layout(target, stored)
    validate_same_request(target, stored, request)
    return state


def refuse_inside_image(target: Target) -> None:
    """Raise an InputError if a target is inside an image of atlaszarr."""
    for above in target.above():
        if _is_ours(above):
            raise InputError(
                f"target {target.url} is inside the image {above.url}; choose another target",
                code="target-inside-image",
            )


def validate_same_request(target: Target, stored: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """Raise an InputError, which shows both, if a target was begun with other options than those of a request."""
    if stored != request:
        names = [name for name in {**stored, **request} if stored.get(name) != request.get(name)]
        raise InputError(
            f"target {target.url} was begun with {_listed(names, stored)}, not with {_listed(names, request)}; "
            "give the same options, choose another target, or give --overwrite",
            code="different-options",
        )


def validate_layout(target: Target, request: Mapping[str, Any]) -> None:
    """Raise an InputError unless a target follows the rules of this version of atlaszarr, `LAYOUT`."""
    if (layout := request.get("layout", 1)) != LAYOUT:
        raise InputError(
            f"target {target.url} was written by the rules of {'an earlier' if layout == 1 else 'another'} version of "
            f"atlaszarr (layout {layout}; this version writes layout {LAYOUT}); build it again with --overwrite, or "
            "choose another target",
            code="different-layout",
        )


def read_root(target: Target) -> dict[str, Any] | None:
    """The attributes of atlaszarr in the root, at least ``state`` and ``request``; None without a root.

    If the root of a finished target is missing or cannot be read, the attributes are those that its ledger records.

    Raises
    ------
    InputError
        If atlaszarr did not write the root.
    """
    for key in ROOT_KEYS:
        if (body := target.read(key, LARGEST)) is None:
            continue
        try:
            return _own(key, body)
        except (ValueError, KeyError, TypeError):
            if (recorded := recorded_root(ledger.read(target, finished=True))) is not None:
                return recorded
            raise InputError(
                f"target {target.url} is a zarr group that atlaszarr did not write; choose another target",
                code="not-atlaszarr",
            ) from None
    return recorded_root(ledger.read(target, finished=True))


def recorded_root(recorded: Ledger) -> dict[str, Any] | None:
    """The attributes of atlaszarr in the root that a ledger records; None if it records none."""
    for key, text in (recorded.header or {}).get("root", {}).items():
        if key in ROOT_KEYS:
            with suppress(ValueError, KeyError, TypeError):
                return {**_own(key, text), "ledger": recorded.digest}
    return None


def _own(key: str, body: bytes | str) -> dict[str, Any]:
    """The attributes of atlaszarr in a document of `ROOT_KEYS`: at least ``state`` and ``request``.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it has none.
    """
    document, inner = parse_object(body), ROOT_KEYS[key]
    own = dict((document[inner] if inner else document)["atlaszarr"])
    return {**own, "state": str(own["state"]), "request": dict(own["request"])}


def _is_ours(target: Target) -> bool:
    try:
        return "request" in (read_root(target) or {})
    except InputError:
        return False


def _is_leftover(key: str) -> bool:
    """Whether a build that was killed before it wrote the root can have left an object."""
    return key in (*KEYS, WHOLE_KEY, ".zgroup") or is_partial(key) or key.startswith(KEYS)


def clear(target: Target, request: dict[str, Any]) -> None:
    """Remove the levels, labels and records of another build; nothing else is removed.

    A root with the state `REMOVING` is written first and removed last, so that a removal that was killed is resumed.
    Links are removed, their targets are not.
    """
    version = "0.4" if target.read(".zattrs") is not None else ome.DEFAULT_VERSION
    root = Root(version, request)
    root.write(target, REMOVING)
    for key in target.list_keys("atlaszarr"):
        if key not in (*KEYS, WHOLE_KEY):
            target.remove(key)
    target.remove_each(own_links(target))
    for top in {key.split("/", 1)[0] for key in target.list_keys()}:
        if _is_own(top):
            target.remove(top)
    for key in sorted(root.documents(REMOVING), key=lambda key: key in ROOT_KEYS):
        target.remove(key)


def own_links(target: Target) -> list[str]:
    """Links among the levels and labels of a target."""
    return [key for key in target.links() if _is_own(key.split("/", 1)[0])]


def _is_own(top: str) -> bool:
    return top.isdigit() or top in ("labels", "OME")


def _listed(names: list[str], values: Mapping[str, Any]) -> str:
    texts = ((printable(name), printable(str(values[name]))) for name in names if name in values)
    given = [f"{name} {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}" for name, text in texts]
    return ", ".join([*given, *(f"no {printable(name)}" for name in names if name not in values)])
