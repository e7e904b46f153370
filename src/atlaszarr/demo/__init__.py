"""The whole main job with nothing but this package: the built-in Allen API, two builds, and the results read back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..allen.client import AllenClient
from ..engine.writer import Progress
from ..stores.locations import output_path
from .atlas import AtlasDemo, demonstrate_atlas
from .volume import VolumeDemo, demonstrate_volume


@dataclass(frozen=True)
class DemoReport:
    """What the demo made, and what reading it back showed.

    Attributes
    ----------
    volume : VolumeDemo
    atlas : AtlasDemo
    """

    volume: VolumeDemo
    atlas: AtlasDemo

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types: of the volume as it is, of the atlas under ``atlas``."""
        return {**self.volume.to_dict(), "atlas": self.atlas.to_dict()}


def run_demo(folder: str | os.PathLike[str], progress: Progress | None = None) -> DemoReport:
    """Build a registered volume and an atlas from the built-in Allen API into a folder, and read both with ngff-zarr.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    progress : callable, optional
        See `atlaszarr.build`; further words are ``volume read``, ``reference volumes`` and ``atlas read``.

    Raises
    ------
    InputError
        If the folder holds something else where the demo writes.
    TargetError
        If a result cannot be written or read back.
    """
    from ..testing.emulator import Emulator

    place = output_path(folder)
    progress = progress or (lambda *_: None)
    with Emulator() as emulator, AllenClient(emulator.url, cache="none") as client:
        volume = demonstrate_volume(place, client, emulator, progress)
        return DemoReport(volume, demonstrate_atlas(place, client, emulator.phantom, progress))
