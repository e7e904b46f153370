"""The task of one dataset: the ordinary build on threads of its worker, and its outcome as a row of the journal."""

from __future__ import annotations

import concurrent.futures as cf
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..dataset_build.api import build
from ..dataset_build.plan import BuildReport
from ..engine.lock import PATIENCE
from ..engine.writer import Progress
from ..errors import AtlaszarrError, InputError, SchedulerError, ServiceError, SourceError, TargetError
from ..stores.target import Target
from .journal import FINISHED, Row

#: Codes of faults that every dataset would meet: of the target, of the environment of a worker, of the way to the API.
_OF_ALL = frozenset(
    (
        *("access-denied", "bucket-not-found", "disk-full", "missing-credentials", "read-only", "store-forbidden"),
        *("target-inside-image", "wrong-region", "request-refused"),
        *("invalid-storage-options", "missing-dependency", "unknown-option"),
        *("invalid-proxy", "proxy-authentication", "proxy-refused", "proxy-unreachable"),
        *("redirect-to-other-host", "service-unreachable"),
        *("package-missing", "version-mismatch"),
    )
)
#: Errors that may pass: a service, a store or a worker has failed, not the dataset.
_PASSING = (ServiceError, SourceError, TargetError, SchedulerError)
#: Codes of a target that another process builds, such as a worker that the scheduler has lost.
_LOCKED = ("target-locked", "target-taken-over")
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
    progress : callable, optional
        Called during a build on threads of the process of the batch; it raises an exception to stop the build.
    """

    root: Target
    client: AllenClient
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None

    def target(self, id: int) -> Target:
        """The target of a dataset."""
        return replace(self.root, url=f"{self.root.url}/{id}.ome.zarr")

    def build(self, dataset: SectionDataset | int) -> BuildReport:
        """Build a dataset; waits as long as a lease lasts while another process builds its target."""
        record = dataset if isinstance(dataset, SectionDataset) else self.client.section_dataset(dataset)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return build(
                    record,
                    self.target(record.id).url,
                    client=self.client,
                    storage_options=json.loads(self.root.storage_options),
                    scheduler="threads",
                    progress=self.progress,
                    **self.options,
                )
            except InputError as error:
                if error.code not in _LOCKED or time.monotonic() > end:
                    raise
            time.sleep(_PAUSE)
            if self.progress is not None:
                self.progress(0, 0, "waiting")


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
    try:
        report = task.build(dataset)
    except cf.CancelledError:
        raise
    except Exception as error:
        if concerns_all(error):
            raise
        return failed_row(id, error, time.monotonic() - began)
    return _row(report, time.monotonic() - began)


def concerns_all(error: Exception) -> bool:
    """Whether every dataset would meet a fault."""
    return isinstance(error, AtlaszarrError) and error.code in _OF_ALL


def failed_row(id: int, error: Exception, seconds: float = 0.0) -> Row:
    """The row of a dataset that has failed."""
    known = error
    if not isinstance(known, AtlaszarrError):  # a fault of a library, or of atlaszarr itself
        known = SchedulerError(f"{type(error).__name__}: {error}", code="unexpected-error")
    passing = isinstance(known, _PASSING) or known.code in _LOCKED
    return Row(id, "failed", seconds, code=known.code, message=str(known), passing=passing)


def _row(report: BuildReport, seconds: float) -> Row:
    views = report.views
    states = [view.state for view in views]
    failures = [failure for view in views for failure in view.failures]
    return Row(
        report.dataset,
        next(state for state in ("unfinished", *FINISHED) if state in states),
        seconds,
        images=sum(view.images for view in views),
        stored_bytes=sum(view.stored_bytes for view in views),
        failures=len(failures),
        code="image-missing" if failures else "",
        message=failures[0].reason if failures else "",
    )
