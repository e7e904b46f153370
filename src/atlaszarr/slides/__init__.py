"""Slides: TIFF images in a store of which only the needed strips or tiles are read. Knows nothing of sections."""
