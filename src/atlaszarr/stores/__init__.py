"""Bytes under keys: on a local disk, on S3, or anywhere fsspec reaches. The one way to a URL."""
