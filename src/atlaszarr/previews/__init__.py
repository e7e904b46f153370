"""Previews: pictures of the sections of a dataset in the reference space."""

from .api import PreviewReport, preview

__all__ = ["PreviewReport", "preview"]
