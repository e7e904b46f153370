"""Any array to a multiscale OME-Zarr: pyramid, downsampling, codecs, ledger, lock, resume, verify. Knows no brain."""
