"""Objects by their keys: on a local disk, on S3, or in any store that fsspec opens. All access to a URL is here."""
