"""A job: the contents of a target, as tasks in passes. `writer.write` runs it.

`ImageJob` writes the root twice: `begin` marks the target as unfinished, `commit` writes the metadata that make it an
image, last of all. A target whose build was killed in between does not open as an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from ..boxes import Index, Region
from ..errors import TargetError
from ..stores.local import is_partial
from ..stores.target import Target
from . import ledger, ome, target_state
from .blocks import BlockSource, Done, box_of, write_blocks
from .ledger import Defect, Entry, Ledger, Task, digest
from .lock import PROBES, Owner
from .multiscale import Multiscale
from .schedulers import Future, Scheduler
from .target_state import FINISHED, UNFINISHED, Root
from .verify import defects_before_build

#: Tasks under way for each worker: enough that the inputs of a block are fetched well before it is computed.
WINDOW = 16


class Job(ABC):
    """A target that is written by tasks, in passes, with a ledger. The methods are in the order of their calls."""

    #: Unfinished fetches that tasks wait for; `fetched` is called after any of them finishes.
    fetches: set[Future]

    @property
    @abstractmethod
    def target(self) -> Target:
        """The target."""

    @abstractmethod
    def read_state(self, overwrite: bool) -> str | None:
        """Read the state of the target; same as in `target_state.read_state`."""

    @abstractmethod
    def clear(self) -> None:
        """Remove the output of another job."""

    @abstractmethod
    def read_ledger(self, state: str) -> Ledger:
        """Read the ledger of an unfinished or a finished target."""

    @abstractmethod
    def defects(self, state: str, recorded: Ledger) -> list[Defect]:
        """The defects of an unfinished or a finished target."""

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """The recorded tasks to run again; `state` is None for an empty target."""
        return {defect.task for defect in defects if defect.task}

    @abstractmethod
    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """All tasks: a list for each pass, in the order in which they are started."""

    @abstractmethod
    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Mark the target as unfinished, and replace its ledger by the entries in `done`."""

    @abstractmethod
    def share(self, scheduler: Scheduler) -> Any:
        """Share the values that every task takes with the workers, once."""

    @abstractmethod
    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Callables that each start a future for tasks of a pass; its result is a list of `Done`."""

    def word(self, number: int) -> str:
        """The word for the tasks of a pass in progress reports."""
        return "blocks"

    def window(self, scheduler: Scheduler) -> int:
        """The most futures that may be unfinished."""
        return max(WINDOW * scheduler.workers, 2 * WINDOW)

    def fetched(self) -> None:  # noqa: B027
        """Called after finished fetches are removed from `fetches`."""

    def take(self, outcome: Done) -> None:  # noqa: B027
        """Called with the outcome of every task, in the process of the build."""

    @abstractmethod
    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Finish the target, and return whether it is finished; the mark for that is written last."""


@dataclass
class ImageJob(Job):
    """An image of several levels, or a collection of them.

    Attributes
    ----------
    multiscale : Multiscale
    root : Root
    groups : mapping
        OME-Zarr metadata of each group by its path, "" for the root; the key ``atlaszarr`` holds atlaszarr's own.
    source : callable, optional
        Computes blocks, see `blocks.BlockSource`. None for a job that starts other tasks.
    together : callable, optional
        Sorts the blocks of a pass into groups; the blocks of a group are computed in one call.
    notes : callable
        Called with the notes of every task that has any.
    held : callable
        Futures of values that a region of level 0 depends on and that the memory of a cluster holds; passed to the
        source after its other inputs.
    files : callable
        Writes the sidecars, given the digest of the compacted ledger; returns their keys.
    """

    multiscale: Multiscale
    root: Root
    groups: Mapping[str, Mapping[str, Any]]
    source: BlockSource | None = None
    together: Callable[[Sequence[Index]], Sequence[Sequence[Index]]] | None = None
    notes: Callable[[Mapping[str, Any]], None] = lambda _: None
    held: Callable[[Region], Sequence[Future]] = lambda _: ()
    files: Callable[[str], Sequence[str]] = lambda _: ()
    fetches: set[Future] = field(default_factory=set, init=False)

    @property
    def target(self) -> Target:
        """The target."""
        return self.multiscale.target

    def read_state(self, overwrite: bool) -> str | None:
        """Same as in `target_state.read_state`."""
        return target_state.read_state(self.target, self.root.request, overwrite)

    def clear(self) -> None:
        """Same as in `target_state.clear`."""
        target_state.clear(self.target, self.root.request)

    def read_ledger(self, state: str) -> Ledger:
        """Read the ledger; that of a finished target without records of later tasks."""
        return ledger.read(self.target, finished=state == FINISHED)

    def defects(self, state: str, recorded: Ledger) -> list[Defect]:
        """Same as in `verify.defects_before_build`."""
        return defects_before_build(self.target, state, recorded)

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """The tasks that wrote defective objects, and those that read from a level with wrong voxels."""
        wrong = {defect.task for defect in defects if defect.task and defect.kind in ("inconsistent", "label")}
        return self.dependent(wrong) | super().redo(state, recorded, defects)

    def dependent(self, changed: Iterable[Task]) -> set[Task]:
        """The given tasks and all tasks that read, directly or not, what these write."""
        tasks = set(changed)
        for step, after in pairwise(self.multiscale.pyramid.passes):
            if after.computes:
                continue
            for block in [block for source, block in tasks if source == step.source]:
                dependents = self.multiscale.pyramid.dependents(step, block, after)
                tasks.update((after.source, dependent) for dependent in dependents)
        return tasks

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """A task for every block of every pass that has non-empty chunks."""
        passes, non_empty = self.multiscale.pyramid.passes, self.multiscale.non_empty
        return [[(step.source, block) for block in sorted(non_empty.blocks(step))] for step in passes]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Write the ledger, the root as unfinished, and the metadata of the arrays.

        The ledger is written before the root. If a repair wrote the root first and was killed, the ledger would still
        list the tasks to repair; the next run compares only digests and would keep their wrong levels.

        Raises
        ------
        InputError
            If a level or a label is a link: it may belong to another image.
        """
        target = self.target
        target.make_way(f"{link}/" for link in target_state.own_links(target))
        if done:
            ledger.compact(target, ledger.compacted({}, done), {})
        else:
            target.remove(ledger.OPEN)
            target.remove(ledger.COMPACT)
        self.root.write(target, UNFINISHED)
        for key in reversed(list(self._nested())):
            target.remove(key)
        target.write_all(self.multiscale.documents().items())

    def share(self, scheduler: Scheduler) -> Any:
        """The multiscale and the source."""
        return scheduler.share(self.multiscale), scheduler.share(self.source)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start blocks: several in one future if futures or records are expensive, but enough for every worker."""
        step = self.multiscale.pyramid.passes[number]
        multiscale, source = shared
        groups: Sequence[Sequence[Index]] = [[index] for _, index in tasks]
        size = max(1, min(scheduler.batch, len(groups) // (4 * scheduler.workers)))
        if step.computes and self.together is not None:
            groups, size = self.together([index for _, index in tasks]), 1
        for first in range(0, len(groups), size):
            taken = groups[first : first + size]
            inputs = list(self.held(self.box(number, taken[0]))) if size == 1 and number == 0 else []
            yield partial(scheduler.compute, write_blocks, multiscale, source, step, taken, inputs)

    def box(self, number: int, blocks: Sequence[Index]) -> Region:
        """The region of level 0 that is computed for a group of blocks of the first pass."""
        pyramid = self.multiscale.pyramid
        return box_of([pyramid.region(pyramid.passes[number], block) for block in blocks])

    def word(self, number: int) -> str:
        """``blocks`` for the first pass, else the first level that the pass writes."""
        step = self.multiscale.pyramid.passes[number]
        return "blocks" if step.source == 0 else f"level {step.writes[0]}"

    def take(self, outcome: Done) -> None:
        """Pass the notes of a task to `notes`."""
        if outcome.notes:
            self.notes(outcome.notes)

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Write the sidecars, the ledger and the groups below the root, then the root.

        Raises
        ------
        TargetError
            If another build took over the target, or a sidecar is missing.
        """
        target, multiscale, groups = self.target, self.multiscale, self.groups
        arrays, nested = multiscale.documents(), self._nested()
        header = {
            "multiscale": multiscale.to_json(),
            "root": {key: body.decode() for key, body in self.root.documents(FINISHED, groups[""]).items()},
            "documents": {key: body.decode() for key, body in {**arrays, **nested}.items()},
        }
        body = ledger.compacted(header, done)
        sidecars = {}
        for key in self.files(digest(body)):
            if (sidecar := target.read(key)) is None:
                raise TargetError(
                    f"{target.url}/{key} is missing; run the same command to resume", code="missing-object"
                )
            sidecars[key] = (len(sidecar), digest(sidecar))
        owner.validate(read=True)
        self._sweep(arrays, done)
        ledger.compact(target, body, sidecars)
        target.write_all(nested.items())
        owner.validate(read=True)
        self.root.write(target, FINISHED, groups[""], digest(body))
        return True

    def _nested(self) -> dict[str, bytes]:
        """The documents of the groups below the root, by key."""
        version = self.root.version
        return {
            f"{path}/{name}": body
            for path, content in self.groups.items()
            if path
            for name, body in ome.group(version, _attributes(version, content)).items()
        }

    def _sweep(self, documents: Iterable[str], done: Mapping[Task, Entry]) -> None:
        """Remove temporary objects of a build that was killed, and objects of the arrays that no task wrote."""
        known = {*documents, *(key for entry in done.values() for key in entry.written)}
        arrays = self.multiscale.prefixes
        left = [
            key
            for key in self.target.list_keys()
            if key not in known and (key.startswith((*arrays, *PROBES)) or is_partial(key))
        ]
        self.target.remove_each(left)


def _attributes(version: str, content: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in content.items() if key == "atlaszarr"}
    return ome.attributes(version, {key: value for key, value in content.items() if key not in own}, own)
