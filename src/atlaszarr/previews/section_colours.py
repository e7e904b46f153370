"""A colour for every section by its number, and the strip of numbers that explains them."""

from __future__ import annotations

from collections.abc import Sequence

from ..allen.records import SectionDataset
from .paper import Paper

Colour = tuple[float, float, float, float]
#: Inches.
STRIP_HEIGHT = 0.75
_BAR = 0.16
_MOST_TICKS = 20
#: The end of the colour map, which is too pale for lines on white.
_PALE = 0.9


def section_colours(numbers: Sequence[int]) -> list[Colour]:
    """One colour a section, dark at the lowest number and light at the highest: RGBA, 0 to 1."""
    from matplotlib import colormaps

    first, span = min(numbers), max(max(numbers) - min(numbers), 1)
    return [colormaps["viridis"](_PALE * (number - first) / span) for number in numbers]


def draw_strip(paper: Paper, left: float, top: float, width: float, dataset: SectionDataset) -> None:
    """A bar of section numbers in their colours, with gaps where the dataset lacks a section."""
    numbers = [section.section_number for section in dataset.sections]
    step = round(dataset.nominal_interval / dataset.section_thickness)
    axes = paper.axes(left, top, width, _BAR)
    half = step / 2
    axes.bar(numbers, 1.0, width=step, color=section_colours(numbers), edgecolor="white", linewidth=0.5)
    if missing := dataset.missing_numbers:
        axes.bar(missing, 1.0, width=step, color="none", edgecolor="#aaaaaa", linewidth=0.0, hatch="//////")
    axes.set_xlim(min(numbers) - half, max(numbers) + half)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(numbers[:: -(-len(numbers) // _MOST_TICKS)])
    axes.tick_params(length=2, pad=2)
    lacking = f"; missing of the regular sampling (hatched): {_listed(missing)}" if missing else ""
    sampled = "sections" if step == 1 else f"every {_ordinal(step)} section"
    axes.set_xlabel(f"section number, {sampled} of {dataset.section_thickness:g} µm{lacking}")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _listed(numbers: Sequence[int], most: int = 12) -> str:
    words = [str(number) for number in numbers[:most]]
    return ", ".join(words) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _ordinal(step: int) -> str:
    ending = "th" if step % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(step % 10, "th")
    return f"{step}{ending}"
