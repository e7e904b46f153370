"""Reference spaces, grids and planes of section. NumPy only.

`plane.PLANES` defines the planes; the Allen API's ids and names of them are in `allen.records`.
"""
