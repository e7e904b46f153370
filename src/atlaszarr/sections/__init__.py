"""Section datasets over a grid, lazily: `open_sections` and `open_volume`."""
