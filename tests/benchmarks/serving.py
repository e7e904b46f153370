"""The emulator in a process of its own, with section images drawn beforehand, so that its work counts for nobody.

`served` starts this file as that process. What it imports at its head is the standard library alone: a process
inherits its parent's peak of memory, so a process that measures children must stay small.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

DATASET = 74272479  # Nrp1, coronal, 60 sections


@dataclass(frozen=True)
class Traffic:
    """What was asked of the emulator."""

    requests: int
    images: int
    """Of them, those for section images or windows of these."""

    distinct: int
    """Images or windows that differ from one another: as many as `images` if none was fetched twice."""

    megabytes: float
    """Bodies of all answers."""


@dataclass(frozen=True)
class Server:
    url: str
    pid: int
    _process: subprocess.Popen

    def traffic(self) -> Traffic:
        """Since the start, or the last time it was asked."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Traffic(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def served(
    drawn: Path, tiers: Sequence[int] = (), latency: float = 0.0, records: Path | None = None
) -> Iterator[Server]:
    """A running emulator; `drawn` keeps its images between runs, `records` may hold others than it has by itself."""
    command = [sys.executable, __file__, drawn, str(latency), *map(str, tiers)]
    command += [] if records is None else ["--records", records]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the emulator did not start")
            yield Server(url, process.pid, process)
        finally:
            process.terminate()


def make_peer(folder: Path) -> Path:
    """The Python of atldld's environment, made in `folder` unless it is there, and seen to work."""
    peers = Path(__file__).parents[1] / "peers" / "run.py"
    subprocess.run([sys.executable, peers, "--keep", folder, "atldld"], check=True, stdout=sys.stderr)
    return folder / "atldld" / "bin" / "python"


def make_own(folder: Path) -> Path:
    """The Python of an environment with atlaszarr as `pip install` makes it, without extras; made anew."""
    repository = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "own"], check=True)
    python = folder / "own" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", repository], check=True, stdout=sys.stderr)
    return python


def _main() -> None:
    from atlaszarr.testing.emulator import Emulator

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drawn", type=Path)
    parser.add_argument("latency", type=float)
    parser.add_argument("tiers", type=int, nargs="*")
    parser.add_argument("--records", type=Path)
    arguments = parser.parse_args()
    records = json.loads(arguments.records.read_text()) if arguments.records else {}
    with Emulator(draw_cache=arguments.drawn, latency=arguments.latency, **records) as emulator:
        ids = [image["id"] for image in emulator.catalogue.images_of(DATASET)]
        with ThreadPoolExecutor(2) as pool:
            for tier in arguments.tiers:
                list(pool.map(lambda id, tier=tier: emulator.draw([id], tier), ids))
        print(emulator.url, flush=True)
        for _ in sys.stdin:
            asked = emulator.requests
            images = [(one.path, *sorted(one.query.items())) for one in asked if one.kind == "section_image_download"]
            figures = {"requests": len(asked), "images": len(images), "distinct": len(set(images))}
            print(json.dumps({**figures, "megabytes": sum(one.bytes_sent for one in asked) / 1e6}), flush=True)
            emulator.reset()


if __name__ == "__main__":
    _main()
