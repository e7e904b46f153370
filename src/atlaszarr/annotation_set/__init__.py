"""Masks, meshes and the segmentation of a finished annotation, as the published standard has them."""
