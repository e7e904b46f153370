"""Where the section images of a dataset lie on the slides of an image source. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SlideTier:
    """A section on a slide at a tier, in pixels of the tier: full-resolution figures / 2^downsample, rounded down.

    Attributes
    ----------
    downsample : int
    x, y, width, height : int
        The section within the slide.
    slide_width, slide_height : int
    """

    downsample: int
    x: int
    y: int
    width: int
    height: int
    slide_width: int
    slide_height: int


@dataclass(frozen=True)
class SlidePlace:
    """Where a section image lies in the open-data bucket.

    Attributes
    ----------
    folder, file : str
        The folder of the dataset in the image source, and the name of the slide.
    section_number : int
    resolution : float
        Size of a full-resolution pixel, in um.
    tiers : tuple of SlideTier
        From fine to coarse.
    problem : str
        Why the image cannot be fetched; empty if it can.
    """

    folder: str = ""
    file: str = ""
    section_number: int = 0
    resolution: float = 0.0
    tiers: tuple[SlideTier, ...] = ()
    problem: str = ""

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SlidePlace:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**record, "tiers": tuple(SlideTier(**tier) for tier in record["tiers"])})
