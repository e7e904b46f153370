"""Add the sums of blocks by label, and make the table of all structures of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .block_sums import COUNTS, COVERED, EXPRESSING, EXPRESSION_COVERED, GREY, PAIRED, VOXELS, BlockSums
from .measured_volume import QUANTITIES
from .structure_rows import StructureRows

if TYPE_CHECKING:
    import pandas as pd

#: Voxels after which sums in 64 bits are moved to Python's integers: squares of 16 bits then add up to at most 2**63.
_EXACT = 2**31
#: Number of labels for which there is room at first.
_ROOM = 256


class RegionSums:
    """Sums by label over all blocks that were added.

    Integers are exact. Means and deviations of floating point are combined by the formula of Chan, Golub and LeVeque
    (1979), so they depend on the order of the blocks alone.

    Parameters
    ----------
    channels : int
        Number of channels.

    Attributes
    ----------
    covered : int
        All covered voxels, with a label or without.
    """

    def __init__(self, channels: int) -> None:
        self.covered = 0
        self._rows: dict[int, int] = {}
        self._counts = np.zeros((_ROOM, 2, COUNTS), np.int64)
        self._values = np.zeros((_ROOM, 2, channels), np.int64)
        self._moments: NDArray[Any] = np.zeros((_ROOM, 2, channels, 2), np.uint64)
        self._exact: NDArray[Any] = np.zeros((_ROOM, 2, channels, 2), object)
        self._pending = 0

    @property
    def ids(self) -> list[int]:
        """The labels that occur, ascending."""
        return sorted(self._rows)

    @property
    def voxels(self) -> tuple[int, int]:
        """The voxels with a label, and the covered ones of them."""
        counts = self._counts.sum(axis=(0, 1))
        return int(counts[VOXELS]), int(counts[COVERED])

    def add(self, part: BlockSums) -> None:
        """Add the sums of a block."""
        rows = [self._rows.setdefault(int(label), len(self._rows)) for label in part.ids]
        while len(self._rows) > len(self._counts):
            self._counts, self._values, self._moments, self._exact = (
                np.concatenate([array, np.zeros_like(array)])
                for array in (self._counts, self._values, self._moments, self._exact)
            )
        self._counts[rows] += part.counts
        if part.values.shape[-1] != self._values.shape[-1]:  # a block without a section, whose image was not read
            return
        if part.moments.dtype.kind == "f":
            if self._moments.dtype.kind != "f":
                self._moments = self._moments.astype(np.float64)
            found = combined((self._values[rows], self._moments[rows]), (part.values, part.moments))
            self._values[rows], self._moments[rows] = found
            return
        self._values[rows] += part.values
        self._moments[rows] += part.moments
        self._pending += int(part.counts[:, :, VOXELS].sum())
        if self._pending > _EXACT:
            self._carry()

    def _carry(self) -> None:
        self._exact += self._moments.astype(object)
        self._moments[...] = 0
        self._pending = 0

    def table(
        self,
        described: StructureRows,
        channels: Sequence[str],
        has_expression: bool,
        voxel_mm3: float,
        sides: Mapping[str, int],
    ) -> pd.DataFrame:
        """The table of `atlaszarr.region_statistics`, without its ``attrs``.

        Parameters
        ----------
        described : StructureRows
        channels : sequence of str
        has_expression : bool
            Whether there is an expression view.
        voxel_mm3 : float
            Volume of a voxel.
        sides : mapping of str to int
            The names of the sides, in the order of their columns, and the side of the sums: 0 is the low one. Empty
            for none.
        """
        import pandas as pd

        is_float = self._moments.dtype.kind == "f"
        if not is_float:
            self._carry()
        ids = self.ids
        rows, own = described.rows(ids), [self._rows[label] for label in ids]
        direct = _Sums.zeros(len(described), len(channels), is_float)
        direct.counts[rows], direct.values[rows] = self._counts[own], self._values[own]
        direct.moments[rows] = (self._moments if is_float else self._exact)[own]
        total = direct.with_descendants(described)
        table = described.frame()
        columns: dict[str, Any] = {}
        for side, at in {"": None, **{f"_{side}": at for side, at in sides.items()}}.items():
            for scope, sums in (("", total), ("_direct", direct)):
                columns |= {
                    f"{name}{scope}{side}{unit}": values
                    for (name, unit), values in sums.columns(at, channels, has_expression, voxel_mm3).items()
                }
        return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)


class _Sums:
    """Sums by structure: `counts`, `values` and `moments` as in `BlockSums`, moments of integers as Python's."""

    def __init__(self, counts: NDArray[np.int64], values: NDArray[np.int64], moments: NDArray[Any]) -> None:
        self.counts, self.values, self.moments = counts, values, moments

    @classmethod
    def zeros(cls, rows: int, channels: int, is_float: bool) -> _Sums:
        return cls(
            np.zeros((rows, 2, COUNTS), np.int64),
            np.zeros((rows, 2, channels), np.int64),
            np.zeros((rows, 2, channels, 2), np.float64 if is_float else object),
        )

    def with_descendants(self, described: StructureRows) -> _Sums:
        found = _Sums(self.counts.copy(), self.values.copy(), self.moments.copy())

        def add(parent: int, child: int) -> None:
            found.counts[parent] += found.counts[child]
            found.values[parent], found.moments[parent] = combined(
                (found.values[parent], found.moments[parent]), (found.values[child], found.moments[child])
            )

        described.add_descendants(add)
        return found

    def columns(
        self, side: int | None, channels: Sequence[str], has_expression: bool, voxel_mm3: float
    ) -> dict[tuple[str, str], Any]:
        """The columns of one side, or of both, by their name and its last part, the unit."""
        import pandas as pd

        if side is None:
            counts = self.counts.sum(axis=1)
            values, moments = combined((self.values[:, 0], self.moments[:, 0]), (self.values[:, 1], self.moments[:, 1]))
        else:
            counts, values, moments = self.counts[:, side], self.values[:, side], self.moments[:, side]
        voxels, covered = counts[:, VOXELS], counts[:, COVERED]
        found: dict[tuple[str, str], Any] = {
            ("voxels", ""): voxels,
            ("covered", ""): covered,
            ("volume", "_mm3"): voxels * voxel_mm3,
            ("covered", "_mm3"): covered * voxel_mm3,
        }
        means = {}
        for k, channel in enumerate(channels):
            means[channel], deviations = _mean_and_deviation(values[:, k], moments[:, k])
            found["mean_" + channel, ""], found["std_" + channel, ""] = means[channel], deviations
        missing = np.full(len(voxels), not has_expression)
        inside, expressing = counts[:, EXPRESSION_COVERED], counts[:, EXPRESSING]
        found["expression_covered", ""] = pd.arrays.IntegerArray(inside.copy(), missing)
        found["expressing", ""] = pd.arrays.IntegerArray(expressing.copy(), missing.copy())
        density = _quotient(expressing, inside)
        intensity = _quotient(counts[:, GREY], counts[:, PAIRED])
        # Where no voxel expresses, the intensity is that of no voxel, and the energy 0.
        energy = np.where(expressing == 0, density, density * intensity)
        if not has_expression or not channels:
            intensity, energy = np.full((2, len(voxels)), np.nan)
        if not has_expression:
            density = np.full(len(voxels), np.nan)
        computed = {"density": density, "intensity": intensity, "energy": energy}
        for quantity in QUANTITIES:
            found[quantity, ""] = means.get(quantity, computed[quantity])
        return found


def combined(
    first: tuple[NDArray[np.int64], NDArray[Any]], second: tuple[NDArray[np.int64], NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Values and moments (see `BlockSums`) of two disjoint sets of voxels as those of both."""
    (a, mine), (b, its) = first, second
    values = a + b
    if mine.dtype.kind != "f":
        return values, mine + its
    some, is_one = np.maximum(values, 1), (a == 0) | (b == 0)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values, and squares that are too large for float64
        step = its[..., 0] - mine[..., 0]
        mean = np.where(np.isfinite(step) & ~is_one, mine[..., 0] + step * b / some, mine[..., 0] + its[..., 0])
        deviations = mine[..., 1] + its[..., 1] + np.where(is_one, 0.0, step * step * (a * (b / some)))
    return values, np.stack([mean, deviations], axis=-1)


def _mean_and_deviation(
    values: NDArray[np.int64], moments: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each structure; NaN where there are no values."""
    if moments.dtype.kind == "f":
        none = values == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(none, np.nan, moments[:, 0]), np.sqrt(np.where(none, np.nan, moments[:, 1] / values))
    found = np.full((2, len(values)), np.nan)
    for row, (count, (total, squares)) in enumerate(zip(values.tolist(), moments.tolist(), strict=True)):
        if count:
            found[:, row] = total / count, math.sqrt(count * squares - total * total) / count
    return found[0], found[1]


def _quotient(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.where(whole == 0, np.nan, part / np.maximum(whole, 1))
