"""The task of one dataset: the ordinary build on threads of its worker, and its outcome as a row of the journal."""

from __future__ import annotations

import concurrent.futures as cf
import ctypes
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..dataset_build.api import build
from ..dataset_build.plan import BuildReport
from ..engine.lock import PATIENCE
from ..engine.writer import Progress
from ..errors import AtlaszarrError, InputError, SchedulerError, ServiceError, SourceError, TargetError
from ..stores.documents import LARGEST
from ..stores.locations import is_url
from ..stores.target import Target
from .journal import FINISHED, REQUEST, Row, target_name
from .measures import write_part

if TYPE_CHECKING:
    from ..dataset_refinement.report import Refinement

_Report = TypeVar("_Report")
#: Codes of faults that every dataset would meet: of the target, of the environment of a worker, of the way to the API.
_OF_ALL = frozenset(
    (
        *("access-denied", "bucket-not-found", "disk-full", "missing-credentials", "read-only", "store-forbidden"),
        *("target-inside-image", "wrong-region", "request-refused"),
        *("invalid-storage-options", "missing-dependency", "unknown-option"),
        *("invalid-proxy", "proxy-authentication", "proxy-refused", "proxy-unreachable"),
        *("redirect-to-other-host", "service-unreachable"),
        *("annotation-unreachable", "no-matching-level", "unsupported-orientation"),
        *("package-missing", "root-not-shared", "version-mismatch"),
    )
)
#: Errors that may pass: a service, a store or a worker has failed, not the dataset.
_PASSING = (ServiceError, SourceError, TargetError, SchedulerError)
#: Codes of a target of another build, which `overwrite` replaces.
_REPLACED = ("different-layout", "different-options", "target-not-empty")
#: Codes of a target that another process builds, such as a worker that the scheduler has lost.
_LOCKED = ("target-locked", "target-taken-over")
#: Characters of the acronyms of the genes in a row; a dataset has one or two genes.
_LONGEST_GENES = 200
#: Seconds between two tries to build a target that another process builds.
_PAUSE = 2.0


@dataclass(frozen=True)
class DatasetTask:
    """What the task of a dataset needs; it travels with every task, so it is small.

    Attributes
    ----------
    root : Target
        The folder of the targets.
    client : AllenClient
    options : mapping
        Of `atlaszarr.build`.
    folder : Target
        The folder of the journal, the tables and the parts of measures.
    measure : str, optional
        Location of the annotation in whose regions the volumes are measured.
    by_hemisphere : bool
        Measure each side of the midline too.
    progress : callable, optional
        Called during a build on threads of the process of the batch; it raises an exception to stop the build.
    overwrite : bool
        Replace targets of other options; those of the same options are resumed.
    fields : str, optional
        Location of the folder with the refinement of each dataset.
    refine : str, optional
        Location of the annotation to which each dataset is refined first, into `fields`.
    storage_options : mapping
        Of `atlaszarr.build`.
    """

    root: Target
    client: AllenClient
    folder: Target
    options: Mapping[str, Any] = field(default_factory=dict)
    measure: str | None = None
    by_hemisphere: bool = False
    progress: Progress | None = None
    overwrite: bool = False
    fields: str | None = None
    refine: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def require_root(self) -> None:
        """Raise a SchedulerError if the root is a folder that this worker does not share with the batch."""
        if self.folder.is_local and self.folder.read(REQUEST, LARGEST) is None:
            raise SchedulerError(
                f"a worker on {socket.gethostname()} does not see {self.folder.url}/{REQUEST}; give a root in a folder "
                "that all workers share, or a URL",
                code="root-not-shared",
            )

    def target(self, id: int) -> str:
        """The target of a dataset; of a template of an atlas the root, from which `build` makes its name."""
        return self.root.url if "atlas" in self.options else f"{self.root.url}/{target_name(id)}"

    def refined(self, record: SectionDataset) -> Refinement:
        """Refine a dataset; waits as `build`."""
        from ..dataset_refinement.api import refine  # imported here, since most batches do without

        options = {name: self.options[name] for name in ("workers", "allow_missing")}
        assert self.refine is not None
        target = f"{self.fields}/{record.id}"
        options["storage_options"] = self._options_for(target, self.refine)
        return self._owning(partial(refine, record, self.refine, target, **options))

    def build(self, record: SectionDataset) -> BuildReport:
        """Build a dataset; waits as long as a lease lasts while another process builds its target."""
        target, fields = self.target(record.id), None if self.fields is None else f"{self.fields}/{record.id}"
        given = self._options_for(target, fields or "")
        return self._owning(partial(build, record, target, fields=fields, storage_options=given, **self.options))

    def _options_for(self, *locations: str) -> Mapping[str, Any] | None:
        """The storage options, if one of the locations is a URL; paths have none."""
        return self.storage_options if any(map(is_url, locations)) else None

    def _owning(self, write: Callable[..., _Report]) -> _Report:
        """Write a target, replace one of other options if that is wanted, and wait while another process writes it."""
        end, overwrite = time.monotonic() + PATIENCE, False
        while True:
            try:
                return write(
                    client=self.client,
                    scheduler="threads",
                    overwrite=overwrite,
                    progress=self.progress,
                )
            except InputError as error:
                if self.overwrite and not overwrite and error.code in _REPLACED:
                    overwrite = True
                    continue
                if error.code not in _LOCKED or time.monotonic() > end:
                    raise
            time.sleep(_PAUSE)
            if self.progress is not None:
                self.progress(0, 0, "waiting")

    def write_measures(self, id: int, gene: str, target: str) -> None:
        """Measure the target of a dataset, and write the part of the table."""
        from ..regions.annotation import annotation_of
        from ..regions.statistics import region_statistics

        try:
            annotation_of(self.measure, 0, self.storage_options if is_url(str(self.measure)) else None)
        except AtlaszarrError as error:  # the process of the batch has opened it
            raise SchedulerError(
                f"a worker cannot read the annotation: {error}; give one that all workers reach, then run the same "
                "command to resume",
                code="annotation-unreachable",
            ) from None
        statistics = region_statistics(
            target,
            self.measure,
            by_hemisphere=self.by_hemisphere,
            storage_options=self.storage_options,
            scheduler="threads",
            workers=self.options["workers"],
        )
        write_part(self.folder, id, gene, statistics)


def build_dataset(task: DatasetTask, dataset: SectionDataset | int | Row) -> Row:
    """Build a dataset on a worker; what concerns this dataset alone is returned, not raised.

    A row, of a dataset whose record is missing in a catalogue, is returned as it is.

    Raises
    ------
    AtlaszarrError
        If every dataset would fail in the same way.
    """
    if isinstance(dataset, Row):
        return dataset
    began = time.monotonic()
    id = dataset if isinstance(dataset, int) else dataset.id
    gene = ""
    try:
        task.require_root()
        record = dataset if isinstance(dataset, SectionDataset) else task.client.section_dataset(dataset)
        gene = " ".join(record.genes)[:_LONGEST_GENES]
        if task.refine is not None and not (refined := task.refined(record)).ok:
            row = _unfinished(refined)
            return replace(row, gene=gene, seconds=time.monotonic() - began)
        report = task.build(record)
        if measured := task.measure is not None and report.ok:
            task.write_measures(id, gene, report.views[0].target)
    except cf.CancelledError:
        raise
    except Exception as error:
        if concerns_all(error):
            raise
        return replace(failed_row(id, error), gene=gene, seconds=time.monotonic() - began)
    finally:
        _return_memory()
    return replace(_row(report), gene=gene, seconds=time.monotonic() - began, measured=measured)


def _return_memory() -> None:
    """Return freed memory to the system: glibc keeps it for each thread, a megabyte more with each dataset."""
    with suppress(OSError, TypeError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def concerns_all(error: Exception) -> bool:
    """Whether every dataset would meet a fault."""
    return isinstance(error, AtlaszarrError) and error.code in _OF_ALL


def failed_row(id: int, error: Exception) -> Row:
    """The row of a dataset that has failed."""
    known = error
    if not isinstance(known, AtlaszarrError):  # a fault of a library, or of atlaszarr itself
        known = SchedulerError(f"{type(error).__name__}: {error}", code="unexpected-error")
    passing = isinstance(known, _PASSING) or known.code in _LOCKED
    return Row(id, "failed", code=known.code, message=str(known), passing=passing)


def _unfinished(report: Refinement) -> Row:
    """The row of a dataset that is not built, since images are missing that its refinement needs."""
    failures = report.failures
    return Row(report.dataset, "unfinished", failures=len(failures), code="image-missing", message=failures[0].reason)


def _row(report: BuildReport) -> Row:
    views = report.views
    states = [view.state for view in views]
    failures = [failure for view in views for failure in view.failures]
    return Row(
        report.dataset,
        next(state for state in ("unfinished", *FINISHED) if state in states),
        images=sum(view.images for view in views),
        stored_bytes=sum(view.stored_bytes for view in views),
        failures=len(failures),
        code="image-missing" if failures else "",
        message=failures[0].reason if failures else "",
    )
