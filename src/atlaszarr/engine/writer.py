"""A multiscale target on its way from nothing, or from where another run stopped, to an image. Serves any image.

The root says `unfinished` before anything else is written, and becomes an image last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from ..errors import TargetError
from ..stores.atomic import is_partial
from . import ledger, ome
from .blocks import Done, coarsen_block, starting
from .checks import array_prefixes
from .ledger import Entry, Task
from .lock import Owner
from .multiscale import Multiscale, digest
from .pyramid import Index, Pass
from .schedulers import Future, Scheduler, in_window
from .target_state import FINISHED, UNFINISHED, Root, own_links

#: Tasks under way for each worker: enough that what a block needs is asked for well before it is computed.
WINDOW = 16
#: Called with how many of what a word names are done, how many there are, and the word: ``images``, ``blocks``, ...
Progress = Callable[[int, int, str], None]
#: Starts a pass that computes its blocks: given the shared multiscale, the pass and the blocks, one callable a task,
#: whose result is the outcomes of its blocks.
Computing = Callable[[Any, Pass, Sequence[Index]], Iterator[Callable[[], Future]]]
#: Writes what lies beside the arrays, given the digest of the ledger that the root will name; returns its keys.
Beside = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Assembly:
    """What a target is to become.

    Attributes
    ----------
    multiscale : Multiscale
    root : Root
    groups : mapping
        What OME-Zarr has to say of each group, by its path, "" for the root; under ``atlaszarr``, what we have.
    """

    multiscale: Multiscale
    root: Root
    groups: Mapping[str, Mapping[str, Any]]

    def tasks(self, first: Iterable[Index] | None = None) -> list[list[Task]]:
        """All tasks, pass by pass; those of the first in a given order."""
        occupancy, passes = self.multiscale.occupancy, self.multiscale.pyramid.passes
        ordered = [sorted(occupancy.blocks(step)) for step in passes]
        if first is not None:
            ordered[0] = list(first)
        return [[(step.source, index) for index in blocks] for step, blocks in zip(passes, ordered, strict=True)]

    def dependent(self, changed: Iterable[Task]) -> set[Task]:
        """Tasks whose result may change if that of others does: these, and all that reads what they write."""
        found = set(changed)
        passes = self.multiscale.pyramid.passes
        for step, after in pairwise(passes):
            if after.computes:
                continue
            for index in [index for source, index in found if source == step.source]:
                found.update((after.source, one) for one in self.multiscale.pyramid.dependents(step, index, after))
        return found

    def begin(self, done: Mapping[Task, Entry]) -> None:
        """Mark the target as unfinished, and keep of its ledger what is given; write the metadata of the arrays.

        Raises
        ------
        InputError
            If a level or a label is a link: it may be of another image, and is not written through.
        """
        target = self.multiscale.target
        target.make_way(f"{link}/" for link in own_links(target))
        self.root.write(target, UNFINISHED)
        for key in reversed(list(self._nested())):
            target.remove(key)
        if done:
            ledger.compact(target, ledger.compacted({}, done), {})
        else:
            target.remove(ledger.OPEN)
            target.remove(ledger.COMPACT)
        target.write_all(self.multiscale.documents().items())

    def run(
        self,
        scheduler: Scheduler,
        tasks: Sequence[Sequence[Task]],
        computing: Computing,
        progress: Progress,
        owner: Owner,
        fetches: set[Future] | None = None,
        fetched: Callable[[], None] = lambda: None,
    ) -> Iterator[Done]:
        """Do tasks pass by pass, a bounded number under way, and yield what comes of each.

        For `fetches` and `fetched` see `atlaszarr.engine.schedulers.in_window`.
        """
        shared = scheduler.share(self.multiscale)
        window = max(WINDOW * scheduler.workers, 2 * WINDOW)
        for step, some in zip(self.multiscale.pyramid.passes, tasks, strict=True):
            blocks = [index for _, index in some]
            how = computing if step.computes else partial(_coarsening, scheduler)
            starts = how(shared, step, blocks)
            word = "blocks" if step.source == 0 else f"level {step.writes[0]}"
            finished = 0
            if blocks:
                progress(finished, len(blocks), word)
            for outcomes in in_window(scheduler, starts, window, fetches, fetched):
                finished += len(outcomes)
                progress(finished, len(blocks), word)
                owner.check()
                yield from outcomes

    def commit(self, done: Mapping[Task, Entry], beside: Beside, owner: Owner) -> None:
        """Make the target an image: all that lies below the root first, the root last.

        Parameters
        ----------
        done : mapping
            The whole ledger.
        beside : callable
            Writes what lies beside the arrays, if anything, and names it.
        owner : Owner
            Asked once more before anything says that the target is finished.

        Raises
        ------
        TargetError
            If another build took the target over, or one of the files is not there.
        """
        target, multiscale, groups = self.multiscale.target, self.multiscale, self.groups
        arrays, nested = multiscale.documents(), self._nested()
        documents = {**arrays, **nested}
        header = {
            "multiscale": multiscale.to_json(),
            "root": {key: body.decode() for key, body in self.root.documents(FINISHED, groups[""]).items()},
            "documents": {key: body.decode() for key, body in documents.items()},
        }
        body = ledger.compacted(header, done)
        others = {}
        for key in beside(digest(body)):
            if (found := target.read(key)) is None:
                raise TargetError(f"{target.url}/{key} is gone; build again to go on")
            others[key] = (len(found), digest(found))
        owner.confirm()
        self._sweep(arrays, done)
        ledger.compact(target, body, others)
        target.write_all(nested.items())
        owner.confirm()
        self.root.write(target, FINISHED, groups[""], digest(body))

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
        """Remove temporary files of a run that was killed, and what lies among the arrays and is not of them."""
        known = {*documents, *(key for entry in done.values() for key in entry.written)}
        arrays = array_prefixes(self.multiscale)
        target = self.multiscale.target
        left = [key for key in target.list_keys() if key not in known and (key.startswith(arrays) or is_partial(key))]
        target.remove_each(left)


def _attributes(version: str, content: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in content.items() if key == "atlaszarr"}
    return ome.attributes(version, {key: value for key, value in content.items() if key not in own}, own)


def _coarsening(
    scheduler: Scheduler, shared: Any, step: Pass, blocks: Sequence[Index]
) -> Iterator[Callable[[], Future]]:
    return starting(scheduler, coarsen_block, (shared, step), blocks)
