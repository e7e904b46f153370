"""`view` shows an image, an annotation or both in neuroglancer, in a browser on this machine."""

from __future__ import annotations

import html
import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import InputError, brief
from ..stores.local import write_whole
from ..stores.locations import output_file

if TYPE_CHECKING:
    from .server import ViewServer

#: Pixels of the frame in a notebook.
_HEIGHT = 600
#: Pixels of a picture: width and height.
_PICTURE = (1600, 1000)


class View:
    """A page of neuroglancer that is served until `close`, or until nothing refers to it; `view` returns one.

    In a notebook it is shown as a frame. It is a context manager.

    Attributes
    ----------
    url : str
        Of the page; only a browser on this machine reaches it. It holds a random token: anyone on this machine who
        knows the URL sees the data.
    """

    def __init__(self, server: ViewServer, ends: Mapping[str, tuple[str, str]]) -> None:
        self._server = server
        self._ends = ends
        self.url = server.url
        self._end = weakref.finalize(self, server.close)

    @property
    def viewer(self) -> Any:
        """The ``neuroglancer.viewer_base.ViewerBase`` of the page, to read or change what it shows."""
        return self._server.viewer

    def screenshot(self, path: str | os.PathLike[str]) -> str:
        """Save a picture of the page, drawn by a Chromium without a window.

        The planes have their names and those of their sides, if the image gives its directions and they are not turned.

        Parameters
        ----------
        path : str or path-like
            A local file ending in ``.png``; replaced if it exists.

        Returns
        -------
        str
            Its path.

        Raises
        ------
        InputError
            If the path is not that of a PNG, or no Chromium or Chrome is installed.
        TargetError
            If Chromium ends or does not draw the page in time, or the file cannot be written.
        """
        from .planes import panels
        from .screenshot import picture, with_names

        out = _picture_path(path)
        named = panels(self.viewer.state.to_json(), self._ends)
        write_whole(out, with_names(picture(self.url, self.viewer, _PICTURE), named))
        return str(out)

    def close(self) -> None:
        """Stop the server."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<atlaszarr view at {self.url}>"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        frame = f'<iframe src="{url}" width="100%" height="{_HEIGHT}" style="border: 0" allowfullscreen></iframe>'
        return f'{frame}<br><a href="{url}" target="_blank" rel="noopener">in a tab of its own</a>'


def view(
    target: str | os.PathLike[str],
    over: str | os.PathLike[str] | None = None,
    *,
    regions: str | Sequence[str] = (),
    port: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> View:
    """Show an image in neuroglancer, with the regions of an annotation over it.

    A server on this machine (127.0.0.1) sends the page and the data; nothing is fetched from the internet, unless the
    data are there. It reads remote data with `storage_options`; the browser needs no credentials. It needs the package
    neuroglancer, ``pip install 'atlaszarr[view]'``.

    Parameters
    ----------
    target : str or path-like
        Path or URL of an OME-Zarr image (of any version, 0.1 to 0.6) with the axes z, y, x and perhaps channels, or one
        of its levels; of a collection of sections; of an annotation; or of an annotation set or an atlas as in
        `region_volumes`, which is shown over its template. A volume of `build` is shown with its expression view, if
        that is next to it.
    over : str or path-like, optional
        The annotation: an OME-Zarr of labels, an annotation set or an atlas. Its regions have the colours, acronyms and
        names of its terminology, and the meshes in ``annotations.precomputed`` next to it.
    regions : str or sequence of str
        Acronyms, names or ids of the regions that are selected, with their descendants; the page begins there. Default:
        all regions are shown, and the page begins in the middle of the image, but to the left of its midline.
    port : int
        Port on 127.0.0.1; 0 for any free one.
    storage_options : mapping, optional
        Options for fsspec, for `target` and `over` if they are URLs.

    Returns
    -------
    View

    Raises
    ------
    InputError
        If neuroglancer is not installed, the port is not available, an image is missing, damaged or not drawn by
        neuroglancer, a region has no voxel, `regions` are given without an annotation, or the image and the annotation
        run in different directions.
    NotFoundError
        If a region does not exist.
    TargetError
        If the data cannot be read.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise InputError(f"port {brief(port)} is not a whole number from 0 to 65535", code="out-of-range")
    try:
        from .scene import scene
        from .server import ViewServer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("neuroglancer", "tornado"):
            raise
        raise InputError(
            "view needs the package neuroglancer; install it: pip install 'atlaszarr[view]'", code="missing-dependency"
        ) from None
    server = ViewServer(port)
    try:
        chosen = [regions] if isinstance(regions, str) else list(regions)
        shown = scene(target, over, chosen, storage_options, server.serve)
        server.viewer.set_state(shown.state)
    except BaseException:
        server.close()
        raise
    return View(server, shown.ends)


def _picture_path(path: str | os.PathLike[str]) -> Path:
    return output_file(path, [".png"])
