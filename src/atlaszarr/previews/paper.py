"""A figure with positions in inches from its upper left corner, saved reproducibly.

matplotlib is used without pyplot, with default settings while a page is drawn; the user's settings are then restored.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Supported suffixes of file names.
FORMATS = (".png", ".svg")
#: Pixels per inch of a PNG.
DPI = 200
#: Colours of text and of less important text.
INK, GREY = "#222222", "#666666"
#: All threads share matplotlib's settings.
_SETTINGS = threading.Lock()


@dataclass(frozen=True, eq=False)
class Paper:
    """A page to draw on.

    Attributes
    ----------
    figure : Figure
    width, height : float
        In inches.
    """

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """Add axes in a rectangle."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box, **options)

    def text(self, left: float, top: float, words: str, **options: Any) -> None:
        """Add text with its upper left corner at a position, unless options change the alignment.

        Names are data: control characters are escaped, and ``$`` does not begin a formula.
        """
        box = (left / self.width, 1 - top / self.height)
        style: dict[str, Any] = {"va": "top", "color": INK, "parse_math": False}
        self.figure.text(*box, printable(words), **(style | options))


@lru_cache(4096)
def text_width(words: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in a font size in points, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(printable(words), font, ismath=False)
    return float(width) / 72


def print_page(
    width: float, height: float, draw: Callable[[Paper], None], suffix: str, metadata: Mapping[str, str]
) -> bytes:
    """Draw a page and save it.

    Parameters
    ----------
    width, height : float
        In inches.
    draw : callable
        Draws on the `Paper`.
    suffix : str
        One of `FORMATS`.
    metadata : mapping of str to str
        ``Title``, and ``Source`` and ``Rights`` if they are known.

    Returns
    -------
    bytes
        A PNG with 200 pixels per inch, or an SVG; the same bytes for the same page and version of matplotlib.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "atlaszarr", "font.size": 8.0, "text.color": INK, "axes.edgecolor": "#888888"}
    body = io.BytesIO()
    safe = {key: printable(words) for key, words in metadata.items()}
    with _SETTINGS, style.context(settings, after_reset=True), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=(width, height), facecolor="white")
        draw(Paper(figure, width, height))
        if suffix == ".svg":
            figure.savefig(body, format="svg", metadata={**safe, "Date": None})
        else:
            named = {"Copyright" if key == "Rights" else key: words for key, words in safe.items()}
            figure.savefig(body, format="png", dpi=DPI, metadata=named)
    return body.getvalue()
