"""What the sections of a dataset lead to expect of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..refinement.depth import OFFSETS, Expectation, correct_dataset
from ..refinement.levels import RegionLevels
from ..refinement.section import LEAST_UNSEEN

#: The fewest sections by whose levels those of another one are expected: two may both be wrong. And the most: the
#: nearest ones, some 5 mm to each side of a usual dataset.
_FEWEST, _NEAREST = 3, 48


@dataclass(frozen=True)
class Expectations:
    """What the sections of a dataset lead to expect of each of them.

    Attributes
    ----------
    correction : float
        What is added to the depths of all sections, in um.
    clear : ndarray, int64, shape (clear,)
        The positions of the sections that clearly fit a depth, by whose levels others are expected.
    depths : sequence of float
        The recorded depths of all sections, in um.
    """

    correction: float
    clear: NDArray[np.int64]
    depths: Sequence[float]
    _levels: Callable[[int], RegionLevels]

    @classmethod
    def found(cls, depths: Sequence[float], scores: Mapping[int, Mapping[str, Any]]) -> Self:
        """By the recorded depths of all sections, and what `Comparison.scores` returns of those that have images.

        Sections without contrast have no part.
        """

        @cache
        def levels(position: int) -> RegionLevels:
            return RegionLevels.from_json(scores[position]["levels"])

        positions = np.array(sorted(k for k, each in scores.items() if each["correlation"] >= LEAST_UNSEEN), np.int64)
        explained = [scores[int(k)]["explained"] for k in positions]
        correction, clear = correct_dataset(np.reshape(explained, (-1, len(OFFSETS))))
        return cls(correction, positions[clear], depths, levels)

    def of(self, position: int) -> Expectation:
        """What is expected of a section, given by its position in the dataset."""
        others = self.clear[self.clear != position]
        distances = np.abs(np.array(self.depths)[others] - self.depths[position])
        near = np.argsort(distances, kind="stable")[:_NEAREST]
        if len(near) < _FEWEST:
            return Expectation(self.correction)
        levels = RegionLevels.expected([self._levels(int(k)) for k in others[near]], distances[near])
        return Expectation(self.correction, levels)
