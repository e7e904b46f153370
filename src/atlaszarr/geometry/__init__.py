"""Reference spaces, grids and planes of section. NumPy only."""
