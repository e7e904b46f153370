"""A job: what is to become of a target, and how its tasks are started. `writer.write` carries it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from ..boxes import Index
from ..errors import TargetError
from ..stores.local import is_partial
from ..stores.target import Target
from . import ledger, ome, target_state
from .blocks import BlockSource, Done, write_blocks
from .checks import Defect
from .ledger import Entry, Ledger, Task
from .lock import Owner
from .multiscale import Multiscale, digest
from .schedulers import Future, Scheduler
from .target_state import FINISHED, UNFINISHED, Root
from .verify import defects_before_build

#: Tasks under way for each worker: enough that the inputs of a block are fetched well before it is computed.
WINDOW = 16


class Job(ABC):
    """A target that is written task by task, pass by pass, with a ledger. `writer.write` calls these in this order."""

    #: Fetches under way that tasks wait for; `fetched` is called when some of them are done.
    fetches: set[Future]

    @property
    @abstractmethod
    def target(self) -> Target:
        """The target."""

    @abstractmethod
    def examine(self, overwrite: bool) -> str | None:
        """The state of the target, see `target_state.examine`; raises an InputError where it holds something else."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what another job left."""

    @abstractmethod
    def recorded(self, state: str) -> Ledger:
        """The ledger of an unfinished or a finished target."""

    @abstractmethod
    def defects(self, state: str, recorded: Ledger) -> list[Defect]:
        """The defects of an unfinished or a finished target."""

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """The recorded tasks to do again; `state` is None where nothing is recorded."""
        return {defect.task for defect in defects if defect.task}

    @abstractmethod
    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """All tasks, pass by pass, each in the order in which they are started."""

    @abstractmethod
    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Mark the target as unfinished, and keep of its ledger only the entries that are given."""

    @abstractmethod
    def share(self, scheduler: Scheduler) -> Any:
        """What every task takes, shared with the workers once."""

    @abstractmethod
    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Callables that each start one future, whose result is a list of `Done`, for the tasks of a pass."""

    def word(self, number: int) -> str:
        """What the tasks of a pass are called in progress."""
        return "blocks"

    def window(self, scheduler: Scheduler) -> int:
        """How many futures may be under way."""
        return max(WINDOW * scheduler.workers, 2 * WINDOW)

    def fetched(self) -> None:  # noqa: B027
        """Take notice that some of `fetches` are done."""

    def take(self, outcome: Done) -> None:  # noqa: B027
        """Take notice of a finished task."""

    @abstractmethod
    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Finish the target, and return whether it is finished; what says so is written last."""


@dataclass
class ImageJob(Job):
    """An image of several levels, or a collection of them.

    Attributes
    ----------
    multiscale : Multiscale
    root : Root
    groups : mapping
        OME-Zarr metadata of each group, by its path, "" for the root; under ``atlaszarr``, our own.
    source : callable
        Makes blocks, see `blocks.BlockSource`.
    together : callable
        Sorts the blocks of a pass into groups, each made at once.
    notes : callable
        Called with the notes of every task that has any.
    files : callable
        Writes the sidecars, given the digest of the ledger that the root will name; returns their keys.
    """

    multiscale: Multiscale
    root: Root
    groups: Mapping[str, Mapping[str, Any]]
    source: BlockSource
    together: Callable[[Sequence[Index]], Sequence[Sequence[Index]]] | None = None
    notes: Callable[[Mapping[str, Any]], None] = lambda _: None
    files: Callable[[str], Sequence[str]] = lambda _: ()
    fetches: set[Future] = field(default_factory=set, init=False)

    @property
    def target(self) -> Target:
        """The target."""
        return self.multiscale.target

    def examine(self, overwrite: bool) -> str | None:
        """See `target_state.examine`."""
        return target_state.examine(self.target, self.root.request, overwrite)

    def clear(self) -> None:
        """See `target_state.clear`."""
        target_state.clear(self.target, self.root.request)

    def recorded(self, state: str) -> Ledger:
        """The ledger: of a finished target what it was finished with."""
        return ledger.read(self.target, finished=state == FINISHED)

    def defects(self, state: str, recorded: Ledger) -> list[Defect]:
        """See `verify.defects_before_build`."""
        return defects_before_build(self.target, state, recorded)

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """The tasks that wrote what is defective, and those that read a level that was wrong."""
        wrong = {defect.task for defect in defects if defect.task and defect.kind in ("inconsistent", "label")}
        return self.dependent(wrong) | super().redo(state, recorded, defects)

    def dependent(self, changed: Iterable[Task]) -> set[Task]:
        """Tasks whose result may change if that of others does: these, and all that reads what they write."""
        found = set(changed)
        for step, after in pairwise(self.multiscale.pyramid.passes):
            if after.computes:
                continue
            for index in [index for source, index in found if source == step.source]:
                found.update((after.source, one) for one in self.multiscale.pyramid.dependents(step, index, after))
        return found

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """A task for every block of every pass that holds voxels."""
        passes, holding = self.multiscale.pyramid.passes, self.multiscale.non_empty
        return [[(step.source, index) for index in sorted(holding.blocks(step))] for step in passes]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Write the root as unfinished, the ledger, and the metadata of the arrays.

        Raises
        ------
        InputError
            If a level or a label is a link: it may belong to another image, and is not written through.
        """
        target = self.target
        target.make_way(f"{link}/" for link in target_state.own_links(target))
        self.root.write(target, UNFINISHED)
        for key in reversed(list(self._nested())):
            target.remove(key)
        if done:
            ledger.compact(target, ledger.compacted({}, done), {})
        else:
            target.remove(ledger.OPEN)
            target.remove(ledger.COMPACT)
        target.write_all(self.multiscale.documents().items())

    def share(self, scheduler: Scheduler) -> Any:
        """The multiscale and the source."""
        return scheduler.share(self.multiscale), scheduler.share(self.source)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start blocks: several in one future where a future costs much, but so that every worker gets some."""
        step = self.multiscale.pyramid.passes[number]
        multiscale, source = shared
        groups: Sequence[Sequence[Index]] = [[index] for _, index in tasks]
        size = max(1, min(scheduler.batch, len(groups) // (4 * scheduler.workers)))
        if step.computes and self.together is not None:
            groups, size = self.together([index for _, index in tasks]), 1
        for first in range(0, len(groups), size):
            yield partial(scheduler.compute, write_blocks, multiscale, source, step, groups[first : first + size])

    def word(self, number: int) -> str:
        """The levels that a pass writes."""
        step = self.multiscale.pyramid.passes[number]
        return "blocks" if step.source == 0 else f"level {step.writes[0]}"

    def take(self, outcome: Done) -> None:
        """Pass its notes on."""
        if outcome.notes:
            self.notes(outcome.notes)

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Write the sidecars, the ledger and the groups below the root, then the root.

        Raises
        ------
        TargetError
            If another build took the target over, or one of the sidecars is missing.
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
            if (found := target.read(key)) is None:
                raise TargetError(f"{target.url}/{key} is missing; run the same command to resume")
            sidecars[key] = (len(found), digest(found))
        owner.confirm()
        self._sweep(arrays, done)
        ledger.compact(target, body, sidecars)
        target.write_all(nested.items())
        owner.confirm()
        self.root.write(target, FINISHED, groups[""], digest(body))
        return True

    def _nested(self) -> dict[str, bytes]:
        """The documents of the groups below the root."""
        version = self.root.version
        return {
            f"{path}/{name}": body
            for path, content in self.groups.items()
            if path
            for name, body in ome.group(version, _attributes(version, content)).items()
        }

    def _sweep(self, documents: Iterable[str], done: Mapping[Task, Entry]) -> None:
        """Remove temporary files of a run that was killed, and objects among the arrays that no task wrote."""
        known = {*documents, *(key for entry in done.values() for key in entry.written)}
        arrays = self.multiscale.prefixes
        left = [
            key for key in self.target.list_keys() if key not in known and (key.startswith(arrays) or is_partial(key))
        ]
        self.target.remove_each(left)


def _attributes(version: str, content: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in content.items() if key == "atlaszarr"}
    return ome.attributes(version, {key: value for key, value in content.items() if key not in own}, own)
