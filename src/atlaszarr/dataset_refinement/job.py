"""The job of a refinement: three steps for each section, each of which records what the next one needs.

1. Scores: how well the section fits at other depths, and the levels of its regions. From those of all sections follow
   the correction of the dataset, and what is expected of each section.
2. Fits: the depth of the section is found by what is expected of it, and it is fitted there. The fitted
   field is written to ``atlaszarr/fitted``, with the pixels at which sections are fitted, whatever the resolution: a
   task of the next step reads those of many sections.
3. Fields: the fitted fields of the neighbours are read, and the field that agrees with them is written.

The ledger holds the scores and figures, so that a run that was killed resumes after the last task. The fitted fields
are removed once the refinement is finished, and are made again for the repair of a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import credit
from ..allen.client import AllenClient
from ..allen.images import MissingImage, SectionImage
from ..dataset_build.records import check_same_images, missing
from ..engine.array_layout import ArrayLayout, Encoding
from ..engine.blocks import Done, Made, naming, put
from ..engine.job import ImageJob
from ..engine.ledger import Defect, Entry, Ledger, Task
from ..engine.lock import Owner
from ..engine.ome import DEFAULT_VERSION
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import FINISHED, REMOVING, Root
from ..engine.writer import Progress
from ..errors import TargetError
from ..refinement.arrays import binned, enlarged, smallest_jacobian
from ..refinement.coherence import WINDOW, coherent
from ..refinement.depth import Expectation
from ..refinement.section import FITTED as FITTED_UM
from ..sections.refined import DOCUMENT, TABLE, field_objects, pixels_of, refinement_document
from ..stores.target import Target
from .comparison import Comparison, Fit
from .expectations import Expectations
from .files import FIELDS, FITS, FITTED, SCORES, STEPS, RefinementFiles, task_of
from .report import Refinement, SectionRow, rows_of, table_of

Array = NDArray[np.float64]

#: Raised when the same input yields other fields or records, so that a run does not resume what another version began.
METHOD = 2


class RefinementJob(ImageJob):
    """The refinement of a dataset.

    Parameters
    ----------
    comparison : Comparison
    target : Target
    client : AllenClient
    scheduler : Scheduler
        Fetches the images that an earlier run lacked.
    request : dict
        What the fields depend on, in JSON's types.
    made_of : mapping
        Recorded in the document of the refinement.
    allow_missing : bool
        Whether to finish the target if images are missing.
    progress : callable, optional
    """

    def __init__(
        self,
        comparison: Comparison,
        target: Target,
        client: AllenClient,
        scheduler: Scheduler,
        request: dict[str, Any],
        made_of: Mapping[str, Any],
        allow_missing: bool,
        progress: Progress | None,
    ) -> None:
        ids = [section.image_id for section in comparison.dataset.sections]
        root = Root(DEFAULT_VERSION, request, credit.SECTIONS)
        super().__init__(RefinementFiles.of(target, ids), root, {"": {}})
        self.files = lambda _: (TABLE, DOCUMENT)
        #: Missing images by name.
        self.failures: dict[str, MissingImage] = {}
        self._comparison, self._client, self._scheduler = comparison, client, scheduler
        self._made_of, self._allow_missing, self._progress = made_of, allow_missing, progress or (lambda *_: None)
        self._images: dict[int, Any] = {}
        #: Missing images that the user allowed in an earlier run.
        self._allowed: set[str] = set()
        self._digests: dict[str, str] = {}
        self._entries: dict[Task, Entry] = {}

    @property
    def _positions(self) -> range:
        return range(len(self._comparison.dataset.sections))

    def clear(self) -> None:
        """Remove the output of another refinement or build."""
        self.root.write(self.target, REMOVING)
        for folder in self.target.folders() or ():
            if folder.endswith(".ome.zarr"):
                self.target.remove(folder)
        self.target.remove(TABLE)
        super().clear()

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """The defective tasks; all fits if an image that was missing is available now; fits whose fields are needed."""
        done = self._entries = dict(recorded.done)
        again = super().redo(state, recorded, defects)
        if self._fetch_again():
            again |= {task for task, entry in done.items() if missing(entry) or task[1][1] != SCORES}
        # A finished target was finished without these images, so the user allowed it.
        self._allowed = set(self.failures) if state == FINISHED else set()
        removed = {k for k, fit in self._recorded(FITS, "fit").items() if fit["kept"]}
        removed -= {k for k in removed if done[task_of(k, FITS)].written}
        if removed:  # since the target was finished
            order = self._order(self._corrections())
            left = [k for k in order if (task := task_of(k, FIELDS)) in again or task not in done]
            again |= {task_of(near, FITS) for k in left for near in _window(order, k) if near in removed}
        return again

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """A task for each step of each section."""
        return [[task_of(position, step) for position in self._positions] for step in STEPS]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Same as in `ImageJob`; the digests of images are compared."""
        super().begin(done, defects)
        self._entries = dict(done)
        for entry in done.values():
            check_same_images(self._digests, entry, self.target)

    def share(self, scheduler: Scheduler) -> Any:
        """The comparison, and the target."""
        return scheduler.share(self._comparison), scheduler.share(self.multiscale)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start a step of some sections; each image is fetched once, for its first step."""
        positions = [task[1][0] for task in tasks]
        self._total = len(self._images) + len(set(positions) - set(self._images))
        expected = self._expectations() if number == FITS else Expectations.found((), {})
        corrections, fits = ({}, {}) if number != FIELDS else (self._corrections(), self._recorded(FITS, "fit"))
        order = self._order(corrections)
        for k in positions:
            image = self._fetch(k)
            if number == SCORES:
                yield partial(scheduler.compute, _write_scores, *shared, k, image)
            elif number == FITS:
                yield partial(scheduler.compute, _write_fit, *shared, k, expected.of(k), image)
            else:
                near = [_Neighbour(j, corrections[j], self._depth(j, corrections), fits[j]) for j in _window(order, k)]
                yield partial(scheduler.compute, _write_field, *shared, k, near, image)
                del self._images[k]

    def word(self, number: int) -> str:
        """What the tasks are called in progress."""
        return ("depths", "fits", "fields")[number]

    def fetched(self) -> None:
        """Report how many images are fetched or missing."""
        self._progress(len(self._images) - len(self.fetches), self._total, "images")

    def take(self, outcome: Done) -> None:
        """Keep the record of a task and its missing image, and compare the digest of its image with earlier ones."""
        self._entries[outcome.task] = outcome.entry
        self.failures.update(outcome.notes)
        check_same_images(self._digests, outcome.entry, self.target)

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Write the table and the document, and finish the target unless images are missing that were not allowed.

        The records of fits no longer list fitted fields, which are removed.
        """
        self.target.write(TABLE, table_of(self._rows()))
        if not (self._allow_missing or self._allowed.issuperset(self.failures)):
            return False
        self.target.write(DOCUMENT, self._document())
        fits = {task: Entry.of(task, {}, entry.origin) for task, entry in done.items() if task[1][1] == FITS}
        return super().commit({**done, **fits}, owner)

    def report(self, state: str) -> Refinement:
        """The report of the refinement in a state."""
        failures = tuple(self.failures.values())
        dataset = self._comparison.dataset
        return Refinement(dataset.id, self.target.url, state, self._rows(), self._expectations().correction, failures)

    def _rows(self) -> tuple[SectionRow, ...]:
        missing = {failure.request.image_id: failure.reason for failure in self.failures.values()}
        fits, written = self._recorded(FITS, "fit"), self._recorded(FIELDS, "written")
        return rows_of(self._comparison.dataset, self._expectations().correction, fits, written, missing)

    def _expectations(self) -> Expectations:
        return Expectations.found(self._comparison.depths, self._recorded(SCORES, "scores"))

    def _corrections(self) -> dict[int, float]:
        """What is added to the depths of the sections that are fitted, by position."""
        return {k: fit["correction"] for k, fit in self._recorded(FITS, "fit").items()}

    def _recorded(self, step: int, name: str) -> dict[int, Any]:
        """What a step recorded of each section under a name, by position; not of those without an image."""
        entries = ((k, self._entries.get(task_of(k, step))) for k in self._positions)
        return {k: entry.origin[name] for k, entry in entries if entry is not None and name in entry.origin}

    def _order(self, corrections: Mapping[int, float]) -> list[int]:
        """The positions of the sections with corrections, by corrected depth."""
        return sorted(corrections, key=lambda k: (self._depth(k, corrections), k))

    def _depth(self, position: int, corrections: Mapping[int, float]) -> float:
        return self._comparison.dataset.sections[position].depth + corrections[position]

    def _fetch(self, position: int) -> Any:
        """The image of a section, or its future if it is not fetched yet."""
        if position not in self._images:
            request = self._comparison.planes(position).imaged.requests[0]
            self._images[position] = future = self._scheduler.fetch(self._client.try_fetch, request)
            self.fetches.add(future)
        return self._images[position]

    def _fetch_again(self) -> bool:
        """Fetch the images that an earlier run lacked, note those that still are missing; whether any is available."""
        entries = {k: [self._entries.get(task_of(k, step)) for step in STEPS] for k in self._positions}
        lacked = [k for k, recorded in entries.items() if any(entry and missing(entry) for entry in recorded)]
        images = [self._scheduler.result(self._fetch(k)) for k in lacked]
        self.failures = {image.request.name: image for image in images if isinstance(image, MissingImage)}
        return len(self.failures) < len(lacked)

    def _document(self) -> bytes:
        """The document of the refinement."""
        dataset, comparison = self._comparison.dataset, self._comparison
        ids = [section.image_id for section in dataset.sections]
        own, shared, written = self._corrections(), self._expectations().correction, self._recorded(FIELDS, "written")
        corrections = {id: own.get(k, shared) for k, id in enumerate(ids)}
        fields = {ids[k]: each["sha256"] for k, each in written.items() if each["sha256"]}
        pixels = pixels_of(comparison.labels.plane, comparison.grid)
        return refinement_document(dataset, pixels, corrections, fields, self._made_of)


def _window(order: Sequence[int], position: int) -> Sequence[int]:
    """A section and its neighbours in an order; none for a section without an image, which is not in the order."""
    if position not in order:
        return ()
    at = order.index(position)
    return order[max(at - WINDOW, 0) : at + WINDOW + 1]


@dataclass(frozen=True)
class _Neighbour:
    """A fitted section in the window of another, or that section itself.

    Attributes
    ----------
    position : int
    correction, depth : float
        Correction of its depth, and the corrected depth, in um.
    fit : mapping
        See `Fit.to_json`.
    """

    position: int
    correction: float
    depth: float
    fit: Mapping[str, Any]


def score(comparison: Comparison, position: int, image: SectionImage | MissingImage, _: None = None) -> Any:
    """How well a section fits at other depths; a missing image is returned as it is."""
    return comparison.scores(position, image) if isinstance(image, SectionImage) else image


def judge(comparison: Comparison, position: int, image: SectionImage, expected: Expectation) -> dict[str, Any]:
    """What is recorded of the fit of a section."""
    return comparison.fit(position, expected, image).to_json()


def _write_scores(
    comparison: Comparison, files: RefinementFiles, position: int, image: SectionImage | MissingImage
) -> list[Done]:
    """Record how well a section fits at other depths."""

    def made() -> Iterator[Made]:
        scores = score(comparison, position, image)
        yield _made(position, SCORES, image, {}, {} if isinstance(image, MissingImage) else {"scores": scores})

    return _written(files, position, SCORES, made())


def _write_fit(
    comparison: Comparison,
    files: RefinementFiles,
    position: int,
    expected: Expectation,
    image: SectionImage | MissingImage,
) -> list[Done]:
    """Write the fitted field of a section at its corrected depth, and record its figures."""

    def made() -> Iterator[Made]:
        if isinstance(image, MissingImage):
            yield _made(position, FITS, image, {}, {})
            return
        fit = comparison.fit(position, expected, image)
        field = np.stack([binned(part, comparison.factor) for part in fit.section.field]).astype("<f4")
        objects = {_fitted_key(files, position): _layout(field.shape).encode(field)} if fit.section.kept else {}
        yield _made(position, FITS, image, objects, {"fit": fit.to_json()})

    return _written(files, position, FITS, made())


def _write_field(
    comparison: Comparison,
    files: RefinementFiles,
    position: int,
    window: Sequence[_Neighbour],
    image: SectionImage | MissingImage,
) -> list[Done]:
    """Write the field of a section that agrees with those of its neighbours, and record its figures."""

    def made() -> Iterator[Made]:
        if isinstance(image, MissingImage):
            yield _made(position, FIELDS, image, {}, {})
            return
        plane, resolution = comparison.labels.plane, comparison.options.resolution
        shape = plane.shape(comparison.grid)
        coarse = (2, *(-(-n // comparison.factor) for n in shape))
        fields = np.stack([_fitted(files, near, coarse) for near in window])
        middle = [near.position for near in window].index(position)
        weights = [Fit.from_json(near.fit).section.weight for near in window]

        def whole(field: Array) -> Array:
            return enlarged(field / FITTED_UM, comparison.factor, shape) * resolution

        def unseen(field: Array) -> float:
            return comparison.figures(position, window[middle].correction, image, whole(field)).unseen

        field = coherent(fields, [near.depth for near in window], weights, middle, unseen)
        objects: Mapping[str, bytes] = {}
        written: dict[str, Any] = {"sha256": None}
        if field.any():
            field = whole(field)
            objects, digest = field_objects(files.ids[position], field, pixels_of(plane, comparison.grid))
            figures = comparison.figures(position, window[middle].correction, image, field)
            jacobian = smallest_jacobian(field / resolution, np.ones(shape, bool))
            written = {"sha256": digest, "figures": asdict(figures), "jacobian": jacobian}
        yield _made(position, FIELDS, image, objects, {"written": written})

    return _written(files, position, FIELDS, made())


def _made(
    position: int,
    step: int,
    image: SectionImage | MissingImage,
    objects: Mapping[str, bytes],
    origin: Mapping[str, Any],
) -> Made:
    name, is_missing = image.request.name, isinstance(image, MissingImage)
    images = {"images": {name: None if isinstance(image, MissingImage) else image.sha256}}
    return Made(task_of(position, step), objects.items(), {**images, **origin}, {name: image} if is_missing else {})


def _written(files: RefinementFiles, position: int, step: int, made: Iterator[Made]) -> list[Done]:
    with naming(files, lambda: task_of(position, step)):
        return put(files.target, made)


def _fitted_key(files: RefinementFiles, position: int) -> str:
    return f"{FITTED}/{files.ids[position]}"


def _layout(shape: tuple[int, ...]) -> ArrayLayout:
    """The layout of the object of a fitted field."""
    return Encoding().layout(shape, shape, "float32")


def _fitted(files: RefinementFiles, near: _Neighbour, shape: tuple[int, ...]) -> Array:
    """The fitted field of a section in um, 0 if it keeps its registration."""
    if not near.fit["kept"]:
        return np.zeros(shape)
    layout, key = _layout(shape), _fitted_key(files, near.position)
    if (body := files.target.read(key, layout.largest)) is None:
        raise TargetError(f"{files.target.url}/{key} is missing; run the same command to resume", code="missing-object")
    try:
        return layout.decode(body, complete=True).astype(np.float64)
    except ValueError as error:
        raise TargetError(
            f"{files.target.url}/{key} is damaged ({error}); run the same command to resume", code="damaged-chunk"
        ) from None
