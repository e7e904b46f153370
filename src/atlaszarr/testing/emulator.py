"""An emulator of the Allen Brain API: an HTTP server on loopback.

It serves the records of real datasets (or any other records), and section images and expression grids of a phantom
brain or of an annotation, records all requests, and plays scripted faults. The demo, the tests and the `emulator`
command use it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import InputError
from ..stores.local import write_whole
from ..stores.locations import output_path
from ..stores.target import Target
from .brain import default_brain
from .catalogue import Catalogue
from .damage import FORMULA, Damage, SectionTruth
from .deformation import Deformation
from .drawing import Drawing, Painter, UserPixels
from .faults import FaultScript, Rule, load_faults
from .phantom import default_phantom
from .sectioned_brain import SectionedBrain
from .server import ServedRequest, Server, Traffic
from .service import PREFIX


class Emulator:
    """The Allen Brain API on loopback, as a context manager.

    Parameters
    ----------
    datasets, images : iterable of dict, optional
        SectionDataSet and SectionImage records in the API's format; default datasets 74272479 and 69289763
        with all their images, image 101321610, and dataset 909 with an invented alignment. `images` may be those of
        `invented_datasets`.
    faults : sequence of Rule or dict, or path, optional
        Scripted faults, or a JSON file of them.
    port : int
        0 for any free one.
    pixels : mapping, optional
        User-supplied pixels: ``{image_id: {downsample: uint8 array (H, W, 3) or JPEG bytes}}``.
    phantom : SectionedBrain, optional
        The brain in the images: a `Phantom`, or a `BrainPhantom`, which looks like a brain.
    annotation : str or path-like, optional
        Draw the sections from this annotation instead: any file that `atlaszarr.build_atlas` takes, which fills
        reference space 9. Each pixel shows the label of the voxel that contains it, in greys that differ between
        datasets. It is read on entering the context.
    annotation_options : mapping, optional
        ``storage_options``, ``orientation`` and ``voxel_size`` of the annotation, as in `atlaszarr.build_atlas`.
    deformation : Deformation, optional
        Displace the tissue in the sections from where their alignments put it, by a smooth field in closed form.
    damage : Damage, optional
        Damage the sections: tears, holes, folds, lost halves, uneven stain, a wrong depth; see `Damage`.
    quality : int
        Default JPEG quality.
    draw_cache : path, optional
        Folder of a cache of drawn images that lasts between runs.
    latency : float
        Minimum duration of every answer, in seconds.
    host : str
        Address to listen on.
    access_log : bool
        Write a line per request to stderr.

    Attributes
    ----------
    catalogue : Catalogue
        The records.
    phantom : SectionedBrain
        The brain in the images.
    deformation : Deformation or None
    damage : Damage or None

    Raises
    ------
    InputError
        If a fault, the pixels or the damage are invalid, or both a phantom and an annotation are given; on entering the
        context, if the annotation is invalid.
    """

    def __init__(
        self,
        datasets: Iterable[Mapping[str, Any]] | None = None,
        images: Iterable[Mapping[str, Any]] | None = None,
        faults: Sequence[Rule | Mapping[str, Any]] | str | Path | None = None,
        port: int = 0,
        pixels: UserPixels | None = None,
        phantom: SectionedBrain | None = None,
        quality: int = 95,
        draw_cache: str | Path | None = None,
        latency: float = 0.0,
        host: str = "127.0.0.1",
        access_log: bool = False,
        annotation: str | os.PathLike[str] | None = None,
        annotation_options: Mapping[str, Any] | None = None,
        deformation: Deformation | None = None,
        damage: Damage | None = None,
    ) -> None:
        if phantom is not None and annotation is not None:
            raise InputError(
                f"both phantom and annotation {os.fspath(annotation)!r} are given; give one",
                code="contradictory-options",
            )
        self.catalogue = Catalogue(datasets, images)
        if phantom is None:
            phantom = default_phantom() if annotation is None else default_brain()
        self.phantom: SectionedBrain = phantom
        self.deformation, self.damage = deformation, damage
        self._annotation, self._annotation_options = annotation, dict(annotation_options or {})
        self._opened = contextlib.ExitStack()
        self._make_painter = partial(
            Painter,
            self.catalogue,
            pixels=pixels,
            quality=quality,
            directory=draw_cache,
            deformation=deformation,
            damage=damage,
        )
        self._painter = self._make_painter(self.phantom)
        self._faults = FaultScript(load_faults(faults) if isinstance(faults, str | Path) else faults or ())
        self._traffic = Traffic()
        self._address = (host, port)
        self._latency = latency
        self._access_log = access_log
        self._server: Server | None = None

    def __enter__(self) -> Self:
        if self._annotation is not None:
            from .annotated_brain import open_annotated_brain

            opening = open_annotated_brain(self._annotation, **self._annotation_options)
            self.phantom = self._opened.enter_context(opening)
            self._painter = self._make_painter(self.phantom)
        try:
            self._start()
        except BaseException:
            self._opened.close()
            raise
        return self

    def _start(self) -> None:
        self._server = Server(
            self._address, self._painter, self._faults, self._traffic, self._latency, self._access_log
        )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="allen-emulator", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        self._opened.close()

    @property
    def url(self) -> str:
        """The base URL, ``http://127.0.0.1:PORT/api/v2``."""
        if self._server is None:
            raise RuntimeError("the emulator is not running: use it as a context manager")
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{PREFIX}"

    @property
    def requests(self) -> list[ServedRequest]:
        """The requests answered since the start or the last `reset`, in the order of the answers."""
        return self._traffic.requests

    @property
    def peak(self) -> int:
        """The maximum number of concurrent requests since the start or the last `reset`."""
        return self._traffic.peak

    def count(self, kind: str | None = None) -> int:
        """The number of requests of a kind; default all."""
        return sum(kind in (None, request.kind) for request in self.requests)

    def reset(self) -> None:
        """Forget the requests and the peak."""
        self._traffic.reset()

    def write_truth(self, path: str | os.PathLike[str]) -> None:
        """Write what all aligned sections show where to a JSON file.

        It has the fields of `Deformation.to_dict` if the sections are deformed, and if they are damaged the damage of
        each section image with its numbers, and the formula. Call it in the context.
        """
        if self.deformation is None and self.damage is None:
            raise InputError(
                "the sections are not deformed or damaged; there is nothing to write", code="missing-option"
            )
        aligned = (id for id in self.catalogue.image_ids() if self._painter.pixel_to_pir(id, 0) is not None)
        images = {id: (self.catalogue.image(id) or {})["data_set_id"] for id in aligned}
        datasets = list(dict.fromkeys(images.values()))
        document = {} if self.deformation is None else self.deformation.to_dict(datasets)
        if self.damage is not None:
            document["damage"] = {
                "formula": FORMULA,
                "seed": self.damage.seed,
                "sections": {str(id): self._painter.truth(id).to_dict() for id in images},
            }
        write_whole(output_path(path), json.dumps(document, indent=1).encode() + b"\n")

    def truth(self, image_id: int) -> SectionTruth:
        """What a section image shows where. Call it in the context.

        Raises
        ------
        InputError
            If the image is not served, or has no alignment.
        """
        if self._painter.pixel_to_pir(image_id, 0) is None:
            raise InputError(f"image {image_id} is not served, or has no alignment", code="image-not-served")
        return self._painter.truth(image_id)

    def draw(
        self,
        image_ids: Iterable[int] | None = None,
        downsample: int = 0,
        view: str | None = None,
        quality: int | None = None,
    ) -> None:
        """Draw whole images in advance, so that requests for them are answered from the cache.

        Parameters
        ----------
        image_ids : iterable of int, optional
            Default all images that have the view.
        downsample, view, quality
            Same as in the requests.
        """
        request = Drawing(downsample=downsample, view=view, quality=quality)
        if image_ids is None:
            image_ids = [id for id in self.catalogue.image_ids() if self._painter.has_view(id, view)]
        for image_id in image_ids:
            self._painter.image(image_id, request)

    def write_bucket(self, target: Target, datasets: Iterable[int] | None = None, **options: Any) -> list[str]:
        """Write section datasets as slides, in the layout of the Allen Institute's open-data bucket.

        Parameters
        ----------
        target : Target
            The bucket, or a folder.
        datasets : iterable of int, optional
            Ids; default all datasets whose images have alignments.
        **options
            Same as in `atlaszarr.testing.open_data.write_bucket`.

        Returns
        -------
        list of str
            Keys of the slides.
        """
        from .open_data import write_bucket

        if datasets is None:
            datasets = self.catalogue.aligned_datasets()
        return write_bucket(self._painter, target, datasets, **options)


def serve(
    port: int = 0,
    faults: Sequence[Rule | Mapping[str, Any]] | str | Path | None = None,
    announce: Callable[[str], None] = print,
    bucket: Target | None = None,
    truth: str | os.PathLike[str] | None = None,
    **options: Any,
) -> None:
    """Run an emulator in the foreground until interrupted.

    Parameters
    ----------
    port : int
        0 for any free one.
    faults : sequence of Rule or dict, or path, optional
        Same as in `Emulator`.
    announce : callable
        Called with the base URL when the server is ready.
    bucket : Target, optional
        Where to write the section images as slides first, see `Emulator.write_bucket`.
    truth : path-like, optional
        Where to write the deformation and the damage first, see `Emulator.write_truth`.
    **options
        Further parameters of `Emulator`.
    """
    with Emulator(faults=faults, port=port, **options) as emulator:
        if truth is not None:
            emulator.write_truth(truth)
        if bucket is not None:
            emulator.write_bucket(bucket)
        with contextlib.suppress(KeyboardInterrupt):
            announce(emulator.url)
            while True:
                time.sleep(0.5)  # short waits: Python's signal handler runs between them
