"""A picture of a region of an annotation: a coronal and a horizontal section, with sides and a scale bar."""

from typing import Any

import dask
import numpy as np
from PIL import Image, ImageDraw, ImageFont

OTHERS, BORDERS, REGION, INK = (225, 225, 225), (150, 150, 150), (205, 45, 60), (30, 30, 30)
WIDTH, MARGIN = 900, 110  # of a section and around it, in pixels of the picture


def draw(image: Any, inside: Any, orientations: dict[str, str], name: str) -> Image.Image:
    """Draw each section at the position with most voxels of the region.

    `image` is an NgffImage of labels, `inside` a lazy mask of the same shape.
    """
    along_z, along_y = dask.compute(inside.sum(axis=(1, 2)), inside.sum(axis=(0, 2)))
    z, y = int(np.argmax(along_z)), int(np.argmax(along_y))
    parts = []
    for kind, axis, at, plane, down in (("Coronal", "z", z, np.s_[z], "y"), ("Horizontal", "y", y, np.s_[:, y], "z")):
        labels, region = dask.compute(image.data[plane], inside[plane])
        mm = image.translation[axis] + at * image.scale[axis]
        title = f"{kind} section at {axis} = {mm:.2f} mm; {name} in red"
        sides = [side for direction in (down, "x") for side in orientations[direction].split("-to-")]
        parts.append(panel(coloured(labels, region), title, sides, image.scale["x"]))
    sheet = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), "white")
    for number, part in enumerate(parts):
        sheet.paste(part, (number * part.width, 0))
    return sheet


def coloured(labels: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Colour the region red and other structures grey, with the borders between structures."""
    borders = np.zeros(labels.shape, bool)
    borders[1:] |= labels[1:] != labels[:-1]
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    colours = np.full((*labels.shape, 3), 255, np.uint8)
    colours[labels > 0] = OTHERS
    colours[borders] = BORDERS
    colours[region] = REGION
    return colours


def panel(colours: np.ndarray, title: str, sides: list[str], voxel_mm: float) -> Image.Image:
    """A section with its title, its sides (first and last row, first and last column) and a scale bar."""
    rows, columns, _ = colours.shape
    times = max(1, round(WIDTH / columns))
    section = Image.fromarray(colours).resize((columns * times, rows * times), Image.Resampling.NEAREST)
    sheet = Image.new("RGB", (section.width + 2 * MARGIN, section.height + 2 * MARGIN), "white")
    sheet.paste(section, (MARGIN, MARGIN))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(22)
    middle, centre, near, low = sheet.width / 2, sheet.height / 2, MARGIN - 20, sheet.height - 30
    top, bottom, first, last = sides
    for position, text, anchor in (
        ((middle, 30), title, "mm"),
        ((middle, near), top, "mm"),
        ((middle, sheet.height - near), bottom, "mm"),
        ((near, centre), first, "rm"),
        ((sheet.width - near, centre), last, "lm"),
        ((MARGIN + 2 / voxel_mm * times + 12, low), "2 mm", "lm"),
    ):
        pen.text(position, text, INK, font, anchor)
    pen.line([(MARGIN, low), (MARGIN + 2 / voxel_mm * times, low)], INK, 5)
    return sheet
