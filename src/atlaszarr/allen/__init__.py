"""The Allen Brain Atlas API: records, section images, queries. Knows nothing of zarr."""
