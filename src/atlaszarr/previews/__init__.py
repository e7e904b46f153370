"""Pictures: the sections of a dataset in the reference space, planes through a volume, and regions as bars.

All have the style of `paper`.
"""

from .api import PreviewReport, preview

__all__ = ["PreviewReport", "preview"]
