"""Objects by their keys: on a local disk, on S3, or in any store that fsspec opens. All access to a URL is here.

`target.open_backend` chooses the backend of a URL. A further kind of store is a subclass of `backend.Backend`.
"""
