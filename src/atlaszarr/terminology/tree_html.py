"""A terminology as a tree of HTML for notebooks, to be opened level by level. Every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..engine.notebook import text_html

if TYPE_CHECKING:
    from .terminology import Structure

#: Structures that a tree shows, the upper levels first. The adult mouse has 1,327; each takes some 200 bytes.
MOST_SHOWN = 2000
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def tree_html(structures: Iterable[Structure]) -> str:
    """A tree of structures, each of which precedes its descendants, with colours, acronyms, names and ids.

    The roots are open. Of more than 2,000 structures, the upper levels are shown, and the others are counted.
    """
    ordered = list(structures)
    depths = sorted(len(structure.path) for structure in ordered)
    deepest = depths[-1] if len(depths) <= MOST_SHOWN else max(depths[MOST_SHOWN] - 1, 1)
    shown = [structure for structure in ordered if len(structure.path) <= deepest][:MOST_SHOWN]
    parts, open_tags = [f"<div><b>Terminology of {len(ordered):,} structures</b>"], 0
    for structure, following in zip(shown, [*shown[1:], None], strict=True):
        depth = len(structure.path)
        while open_tags >= depth:
            parts.append("</details>")
            open_tags -= 1
        if following is not None and len(following.path) > depth:
            parts.append(
                f"<details{' open' * (depth == 1)} style='margin-left:1em'><summary>{_line(structure)}</summary>"
            )
            open_tags += 1
        else:
            parts.append(f"<div style='margin-left:2em'>{_line(structure)}</div>")
    parts.append("</details>" * open_tags)
    if len(shown) < len(ordered):
        parts.append(f"<p>and {len(ordered) - len(shown):,} more, further down in the tree</p>")
    return "".join([*parts, "</div>"])


def _line(structure: Structure) -> str:
    colour = structure.colour if _COLOUR.fullmatch(structure.colour) else "transparent"
    name = "" if structure.name == structure.acronym else f" {text_html(structure.name)}"
    return (
        f"<span style='background:{colour};border:1px solid #999'>&emsp;</span> <b>{text_html(structure.acronym)}</b>"
        f"{name} <span style='color:#888'>{text_html(structure.id)}</span>"
    )
