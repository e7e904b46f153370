"""What an SVG of matplotlib shows: its texts, which are comments next to the drawn letters, and where they are."""

import re


def words_of(svg):
    """The texts, in the order in which they are drawn."""
    return [words.strip() for words in re.findall(r"<!--(.*?)-->", svg.decode(), flags=re.DOTALL)]


def places_of(svg):
    """The (x, y) of the beginning of each text, in points from the upper left corner, by text."""
    found = {}
    for words, x, y in re.findall(
        r"<!--(.*?)-->\s*<g[^>]*?transform=\"translate\(([-\d.]+) ([-\d.]+)\)", svg.decode(), flags=re.DOTALL
    ):
        found.setdefault(words.strip(), []).append((float(x), float(y)))
    return found
