"""Change valid inputs of every reader at random, read them, and count what happens.

    python tests/fuzz/fuzz.py [N] [SEED] [--readers NAME,NAME] [--keep FOLDER]

Each input is read in a process of its own pool, which is ended after 10 s. An input is accepted, refused by an error of
atlaszarr, or a fault: any other exception (``traceback``), a process that ended (``died``), more than 1 GB
(``memory``), more than 10 s (``time``), or an error of several lines (``lines``). The same N and SEED give the same
inputs. Prints each fault with its number; the exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from peak_memory import forget_peak, peak  # noqa: E402

#: Limits of one input.
SECONDS, BYTES = 10, 10**9
#: Address space of a process: a larger allocation raises a MemoryError, which is a traceback.
_SPACE = 8 * 2**30


def changed_input(reader: str, number: int, seed: int, folder: Path) -> None:
    """Write a changed input to a folder."""
    from mutations import change
    from readers import READERS

    rng = random.Random(f"{seed} {number}")
    inputs = _inputs(reader)
    files = dict(inputs[number // len(READERS) % len(inputs)])
    names = [name for name in sorted(files) if re.search(READERS[reader].changed, name)]
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 1, 2)))):
        files[name] = change(name, files[name], rng)
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


_KNOWN: dict[str, list[dict[str, bytes]]] = {}


def _inputs(reader: str) -> list[dict[str, bytes]]:
    from readers import READERS

    if reader not in _KNOWN:
        _KNOWN[reader] = [dict(files) for files in READERS[reader].inputs()]
    return _KNOWN[reader]


def read(reader: str, folder: Path) -> tuple[str, str]:
    """What happens when a folder is read: the outcome and its cause."""
    from readers import READERS

    from atlaszarr.errors import AtlaszarrError

    forget_peak()
    try:
        READERS[reader].read(folder)
        found = "accepted", ""
    except AtlaszarrError as error:
        found = ("lines" if "\n" in str(error) else "refused"), error.code
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/atlaszarr/" in frame.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        found = "traceback", f"{type(error).__name__}: {str(error)[:100]!r} at {at}"
    return ("memory", f"{most / 1e9:.1f} GB, {found}") if (most := peak()) > BYTES else found


def work(connection: Connection, seed: int) -> None:
    """Read inputs by their reader and number until the parent ends."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE))
    sys.stderr = Path("/dev/null").open("w")  # noqa: SIM115 - until this process ends
    while (item := connection.recv()) is not None:
        reader, number, prepare = item
        with tempfile.TemporaryDirectory(dir=_scratch(), ignore_cleanup_errors=True) as folder:
            if prepare:
                _inputs(reader)
                connection.send(("prepared", ""))
                continue
            changed_input(reader, number, seed, Path(folder))
            connection.send(read(reader, Path(folder)))


def _scratch() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


class Worker:
    """A process that reads inputs; a new one replaces it after it was ended."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._start()

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._seed), daemon=True)
        self._process.start()
        theirs.close()
        self._ready: set[str] = set()

    def outcome(self, reader: str, number: int) -> tuple[str, str]:
        """Read one input."""
        try:
            if reader not in self._ready:  # the valid inputs are made outside the limit of time
                self._connection.send((reader, number, True))
                self._connection.recv()
                self._ready.add(reader)
            self._connection.send((reader, number, False))
            if self._connection.poll(SECONDS):
                return self._connection.recv()  # type: ignore[no-any-return]
            found = "time", f"more than {SECONDS} s"
        except (EOFError, ConnectionError):
            self._process.join()
            found = "died", f"exit status {self._process.exitcode}"
        self.end()
        self._start()
        return found

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def outcomes(names: list[str], count: int, seed: int, workers: int) -> Iterator[tuple[int, str, str, str]]:
    """The number, reader, outcome and cause of every input."""
    import queue

    idle: queue.Queue[Worker] = queue.Queue()
    for _ in range(workers):
        idle.put(Worker(seed))

    def one(number: int) -> tuple[int, str, str, str]:
        worker, reader = idle.get(), names[number % len(names)]
        try:
            found = worker.outcome(reader, number)
            if found[0] == "time":  # the machine may have been busy
                found = worker.outcome(reader, number)
            return number, reader, *found
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(workers) as threads:
        yield from threads.map(one, range(count))
    while not idle.empty():
        idle.get().end()


def main() -> int:
    """Read the arguments, fuzz, and print what was found."""
    from readers import READERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("count", nargs="?", type=int, default=2000)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    parser.add_argument("--readers", help="names, separated by commas; default: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="write the inputs of faults here")
    options = parser.parse_args()
    names = options.readers.split(",") if options.readers else list(READERS)
    table: dict[str, Counter[str]] = {name: Counter() for name in names}
    faults: dict[tuple[str, str, str], list[int]] = {}
    for number, reader, outcome, cause in outcomes(names, options.count, options.seed, options.workers):
        table[reader][outcome] += 1
        if outcome in ("accepted", "refused"):
            continue
        first = (reader, outcome, re.sub(r"\d{3,}|0x\w+|'.*'|\".*\"", "_", cause)) not in faults
        faults.setdefault((reader, outcome, re.sub(r"\d{3,}|0x\w+|'.*'|\".*\"", "_", cause)), []).append(number)
        if first:
            print(f"{number} {reader}: {outcome}: {cause}", flush=True)
            if options.keep:
                shutil.rmtree(options.keep / str(number), ignore_errors=True)
                (options.keep / str(number)).mkdir(parents=True)
                changed_input(reader, number, options.seed, options.keep / str(number))
    kinds = ("accepted", "refused", "traceback", "memory", "time", "died", "lines")
    print(f"{'':14}" + "".join(f"{kind:>10}" for kind in kinds))
    for name, counts in (*table.items(), ("all", sum(table.values(), Counter()))):
        print(f"{name:14}" + "".join(f"{counts[kind]:>10}" for kind in kinds))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
