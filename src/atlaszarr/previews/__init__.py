"""Pictures of a dataset's sections in the reference space."""

from .api import PreviewReport, preview

__all__ = ["PreviewReport", "preview"]
