"""A multiscale target on its way from nothing, or from where another run stopped, to an image. Serves any image.

The root says `unfinished` before anything else is written, and becomes an image last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from ..boxes import Index
from ..errors import TargetError
from ..stores.local import is_partial
from . import ledger, ome
from .checks import array_prefixes
from .ledger import Entry, Task
from .lock import Owner
from .multiscale import ArraySpec, Blocks, Multiscale, digest
from .pyramid import Pass
from .schedulers import Future, Scheduler, in_window
from .target_state import FINISHED, UNFINISHED, Root, own_links

#: What is noted of an object, given its level, which it is, and its voxels without padding.
Note = Callable[[Multiscale, int, Index, NDArray[Any]], Any]


@dataclass(frozen=True)
class Done:
    """The outcome of one task.

    Attributes
    ----------
    task : tuple
    entry : Entry
        What the ledger got.
    lacked : tuple
        What the block's source could not be had of, as the source has it.
    noted : mapping
        What was noted of its objects, by key.
    """

    task: Task
    entry: Entry
    lacked: tuple[Any, ...] = ()
    noted: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def making(multiscale: Multiscale, level: int, index: Index) -> Iterator[None]:
    """Add to whatever error a block raises, its type and message unchanged, a note that says which block it is."""
    try:
        yield
    except Exception as error:
        z, y, x = index
        note = f"while making block {z}, {y}, {x} (z, y, x) of level {level} of {multiscale.target.url}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


def store_block(
    multiscale: Multiscale,
    step: Pass,
    index: Index,
    values: Blocks,
    origin: Mapping[str, Any],
    lacked: tuple[Any, ...] = (),
    note: Note | None = None,
) -> Done:
    """Write a block of a pass, record what it was made from, and note what there is to note of its objects."""
    task = (step.source, index)
    noted: dict[str, Any] = {}

    def observe(spec: ArraySpec, level: int, unit: Index, values: NDArray[Any]) -> None:
        if note is not None:
            noted[multiscale.key(spec, level, unit)] = note(multiscale, level, unit, values)

    entry = Entry.of(task, multiscale.write(step, index, values, observe), origin)
    ledger.record(multiscale.target, task, entry)
    return Done(task, entry, lacked, noted)


def coarsen_block(multiscale: Multiscale, step: Pass, index: Index) -> Done:
    """Read a block of a pass after the first, and write the coarser levels that it makes."""
    with making(multiscale, step.source, index):
        values = multiscale.read(step.source, multiscale.pyramid.region(step, index))
        return store_block(multiscale, step, index, values, {})


def starting(
    scheduler: Scheduler, function: Callable[..., Done], args: Sequence[Any], blocks: Sequence[Index]
) -> Iterator[Callable[[], Future]]:
    """Tasks for blocks, each a callable that starts one: a call of a function with its arguments, block by block.

    Parameters
    ----------
    scheduler : Scheduler
    function : callable
        Given `args` and a block, does it.
    args : sequence
        Values, or what the scheduler shares of them.
    blocks : sequence of tuple of int
        Done in this order; several by one task where a task costs much, but so that every worker gets some.
    """
    size = max(1, min(scheduler.batch, len(blocks) // (4 * scheduler.workers)))
    batches = (blocks[start : start + size] for start in range(0, len(blocks), size))
    return (partial(scheduler.compute, do_blocks, function, batch, *args) for batch in batches)


def do_blocks(function: Callable[..., Done], blocks: Sequence[Index], *args: Any) -> list[Done]:
    """Do blocks one after another."""
    return [function(*args, block) for block in blocks]


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
