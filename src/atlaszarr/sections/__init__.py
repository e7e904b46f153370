"""Section datasets over a grid: options, alignment, and the lazy arrays of `open_sections` and `open_volume`."""

#: Prefix of the names of the dask layers whose tasks fetch section images.
FETCHES = "section-image-"
