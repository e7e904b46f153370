"""What the sections of a dataset lead to expect of each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..refinement.depth import Expectation, correct_dataset
from ..refinement.levels import RegionLevels
from ..refinement.section import LEAST_UNSEEN

#: The most sections by whose levels those of another one are expected: the nearest ones.
_NEAREST = 48


@dataclass(frozen=True)
class Expectations:
    """What the sections of a dataset lead to expect of each of them.

    Attributes
    ----------
    correction : float
        What is added to the depths of all sections, in um.
    levels : mapping of int to RegionLevels
        Those of the sections that clearly fit a depth, by position.
    depths : sequence of float
        The recorded depths of all sections, in um.
    """

    correction: float
    levels: Mapping[int, RegionLevels]
    depths: Sequence[float]

    @classmethod
    def found(cls, depths: Sequence[float], scores: Mapping[int, Mapping[str, Any]]) -> Self:
        """By the recorded depths of all sections, and what `Comparison.scores` returns of those that have images.

        Sections without contrast have no part.
        """
        positions = sorted(k for k, each in scores.items() if each["correlation"] >= LEAST_UNSEEN)
        if not positions:
            return cls(0.0, {}, depths)
        correction, clear = correct_dataset([scores[k]["explained"] for k in positions])
        known = (k for k, is_clear in zip(positions, clear, strict=True) if is_clear)
        return cls(correction, {k: RegionLevels.from_json(scores[k]["levels"]) for k in known}, depths)

    def of(self, position: int) -> Expectation:
        """What is expected of a section, given by its position in the dataset."""
        distances = {k: abs(self.depths[k] - self.depths[position]) for k in self.levels if k != position}
        near = sorted(distances, key=lambda k: (distances[k], k))[:_NEAREST]
        if not near:
            return Expectation(self.correction)
        levels = RegionLevels.expected([self.levels[k] for k in near], [distances[k] for k in near])
        return Expectation(self.correction, levels)
