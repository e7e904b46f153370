"""An image under a second name: linked if the store has links, else copied within it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..engine.lock import KEYS, PROBES
from ..engine.verify import verify_image
from ..errors import TargetError
from ..stores.backend import LARGEST_OBJECT
from ..stores.documents import LARGEST
from ..stores.target import Target

_ROOT = "zarr.json"


def give_second_name(image: Target, second: Target) -> None:
    """Link or copy a finished image to a sibling target, unless the target is the same already.

    Raises
    ------
    TargetError
        If the target cannot be written, or an object of the image is missing.
    """
    if is_link(image, second):
        return
    if image.is_local:
        link = Path(second.url)
        if link.is_symlink():  # to another image, which must not be overwritten
            with second.reporting("write to"):
                link.unlink()
        if not link.exists():
            with suppress(OSError, NotImplementedError):  # a system or disk without links
                link.symlink_to(os.path.relpath(image.url, link.parent), target_is_directory=True)
                return
    _copy(image, second)


def is_other(image: Target, second: Target) -> bool:
    """Whether a target holds anything but an image under its second name."""
    if is_link(image, second) or not second.sizes():
        return False
    root = second.read(_ROOT, LARGEST)
    return root is None or root != image.read(_ROOT, LARGEST)


def is_link(image: Target, second: Target) -> bool:
    """Whether a target is a link to an image, and not a copy."""
    return image.is_local and Path(second.url).is_symlink() and _real(second) == _real(image)


def _real(target: Target) -> str:
    return os.path.realpath(target.url)


def _copy(image: Target, second: Target) -> None:
    """Copy all objects but locks, the root last: until then the copy does not open as an image."""
    sizes = {key: size for key, size in image.sizes().items() if key not in KEYS and not key.startswith(PROBES)}
    existing = second.sizes()
    if sizes == existing and image.read(_ROOT) == second.read(_ROOT):
        report = verify_image(second, deep=False)
        if report is not None and report.ok:
            return
    second.remove_each(second.links())
    if _ROOT in existing:
        second.remove(_ROOT)
    for key in existing.keys() - sizes.keys():
        second.remove(key)
    second.write_all(_read(image, sorted(sizes.keys() - {_ROOT})))
    second.write_all(_read(image, [_ROOT]))


def _read(image: Target, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for key in keys:
        body = image.read(key, LARGEST_OBJECT)
        if body is None:
            raise TargetError(f"{image.url}/{key} is missing; build again to repair it", code="missing-chunk")
        yield key, body
