"""Section datasets over a grid: options, alignment, and the lazy arrays of `open_sections` and `open_volume`."""
