"""The lists from which BrainGlobe shows atlases (`show_atlases`): `custom_atlases.conf` and `last_versions.conf`.

brainglobe-atlasapi 3.0.3 (`list_atlases`, `utils.conf_from_file`) reads both as INI files whose section ``atlases`` has
the version of each atlas by its name. The second is its own list: it fetches it whenever it is online, and without it
fails offline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from configparser import ConfigParser, Error
from io import StringIO

from ..assets.names import MANIFEST
from ..engine.ledger import Defect
from ..engine.lock import PATIENCE, owning
from ..errors import InputError
from ..stores.target import Target

#: The list of other atlases than BrainGlobe's own, and the list of BrainGlobe's own.
CUSTOM, OFFICIAL = "atlases/custom_atlases.conf", "atlases/last_versions.conf"
_SECTION = "atlases"
#: The most bytes of a list: BrainGlobe's own has about 100 atlases in 4 KiB.
LARGEST = 2**20
#: An atlas at a resolution, and its manifest in a version that BrainGlobe's reader finds: years and small numbers, of
#: far less than 9 digits.
_ATLAS = re.compile(r"(?P<name>.+)_\d+um")
_MANIFEST = re.compile(r"atlases/(?P<atlas>[^/]+_\d+um)/(?P<version>\d{1,9}(_\d{1,9})?)/" + re.escape(MANIFEST))


def concerns(root: Target, name: str) -> bool:
    """Whether a tree holds any of BrainGlobe's atlases of a name, or lists one."""
    if _held(root, name):
        return True
    try:
        return any(_name_of(atlas) == name for atlas in _read(root, CUSTOM) or {})
    except InputError:  # it lists none that BrainGlobe can read
        return False


def refuse(root: Target) -> None:
    """Refuse lists that BrainGlobe cannot read, before anything is written.

    Raises
    ------
    InputError
    """
    for key in (CUSTOM, OFFICIAL):
        _read(root, key)


def update(root: Target, name: str) -> None:
    """List the latest version of each of BrainGlobe's atlases of a name that a tree holds.

    Atlases of this name that the tree lacks are taken from the list; those of other names stay. BrainGlobe's own list
    is only written where it does not exist. Where no atlas is left, both are removed unless they have other entries.
    Builds that do this at the same time wait for each other.

    Parameters
    ----------
    root : Target
    name : str
        Such as ``allen-adult-mouse``.

    Raises
    ------
    InputError
        If BrainGlobe cannot read one of the lists.
    """
    if _read(root, CUSTOM) is None and not _held(root, name):
        return
    with owning(root, patience=PATIENCE):
        root.tidy(["atlases"])
        custom = _read(root, CUSTOM) or {}
        others = {atlas: version for atlas, version in custom.items() if _name_of(atlas) != name}
        if listed := others | _held(root, name):
            _write(root, CUSTOM, listed)
            if _read(root, OFFICIAL) is None:
                _write(root, OFFICIAL, {})
        else:
            for key in [CUSTOM] if _read(root, OFFICIAL) else [CUSTOM, OFFICIAL]:
                root.remove(key)


def defects(root: Target, keys: Iterable[str]) -> Iterator[Defect]:
    """The defects of the lists of a tree.

    Parameters
    ----------
    root : Target
    keys : iterable of str
        Keys of all files of the records of the tree; the manifests of BrainGlobe's atlases among them must be listed.
    """
    expected = _latest(keys)
    if not expected:
        return
    for key in (CUSTOM, OFFICIAL):
        try:
            listed = _read(root, key)
        except InputError:
            yield Defect("metadata", key, "cannot be read; remove it and build an atlas again to write it")
            continue
        if listed is None:
            yield Defect("missing", key, "is missing; build the atlas again to write it")
        elif key == CUSTOM:
            for atlas, version in expected.items():
                if (found := listed.get(atlas)) is None:
                    yield Defect("inconsistent", key, f"does not list {atlas}; build the atlas again to list it")
                elif found != version:
                    yield Defect("inconsistent", key, f"lists version {found} of {atlas}, but the latest is {version}")


def _held(root: Target, name: str) -> dict[str, str]:
    """The latest version of each of BrainGlobe's atlases of a name that a tree holds."""
    return _latest(key for key in root.list_keys("atlases/") if key.startswith(f"atlases/{name}_"))


def _latest(keys: Iterable[str]) -> dict[str, str]:
    """The latest version of each atlas that has a manifest among the keys, as BrainGlobe sorts versions."""
    found: dict[str, str] = {}
    for key in keys:
        if match := _MANIFEST.fullmatch(key):
            atlas, version = match["atlas"], match["version"].replace("_", ".")
            found[atlas] = max(version, found.get(atlas, version), key=_numbers)
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _name_of(atlas: str) -> str | None:
    match = _ATLAS.fullmatch(atlas)
    return match["name"] if match else None


def _read(root: Target, key: str) -> dict[str, str] | None:
    """The versions of the atlases in a list, by name, as BrainGlobe reads them; None if there is no list.

    Raises
    ------
    InputError
    """
    if (body := root.read(key, LARGEST)) is None:
        return None
    parser = ConfigParser()
    try:
        parser.read_string(body.decode())
        return dict(parser[_SECTION])
    except (Error, KeyError, UnicodeDecodeError):
        raise InputError(
            f"{root.url}/{key} is not a list of atlases, which BrainGlobe reads (a section [{_SECTION}] with lines "
            "'name = version'); correct or remove it",
            code="not-a-list-of-atlases",
        ) from None


def _write(root: Target, key: str, versions: dict[str, str]) -> None:
    """Write a list, unless it has the same bytes."""
    parser, text = ConfigParser(), StringIO()
    parser[_SECTION] = {atlas: version.replace("%", "%%") for atlas, version in sorted(versions.items())}
    parser.write(text)
    if (body := text.getvalue().encode()) != root.read(key, LARGEST):
        root.write(key, body)
