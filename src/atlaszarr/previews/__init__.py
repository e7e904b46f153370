"""Where the sections of a dataset lie in the reference space, as a picture."""

from .api import PreviewReport, preview

__all__ = ["PreviewReport", "preview"]
