"""Any array to a multiscale OME-Zarr: pyramid, downsampling, codecs, ledger, lock, resume, verify. Knows no brain.

`writer.write` is the loop that everything is written by. `multiscale` is what is written, `ledger` what is recorded.
"""
