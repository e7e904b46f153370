"""The Allen Institute's own expression grids: density, intensity and energy every 200 um, as OME-Zarr or xarray."""
