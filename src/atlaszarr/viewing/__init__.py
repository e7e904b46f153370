"""Viewing: images, annotations and meshes in neuroglancer, served to a browser on this machine.

It needs the package neuroglancer (``atlaszarr[view]``); `api` imports without it.
"""

from .api import View, view

__all__ = ["View", "view"]
