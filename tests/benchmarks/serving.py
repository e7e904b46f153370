"""The emulator in a process of its own, with section images drawn beforehand, so that its work counts for nobody.

`served` starts this file as that process. What it imports at its head is the standard library alone: a process
takes its starter's peak of memory for its own, so whoever measures children has to stay small.
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

DATASET = 74272479  # Nrp1, coronal, 60 sections


@dataclass(frozen=True)
class Server:
    url: str
    pid: int


@contextlib.contextmanager
def served(drawn: Path, tiers: Sequence[int], latency: float = 0.0) -> Iterator[Server]:
    """A running emulator; `drawn` keeps its images between runs."""
    command = [sys.executable, __file__, drawn, str(latency), *map(str, tiers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the emulator did not start")
            yield Server(url, process.pid)
        finally:
            process.terminate()


def make_peer(folder: Path) -> Path:
    """The Python of atldld's environment, made in `folder` unless it is there, and seen to work."""
    peers = Path(__file__).parents[1] / "peers" / "run.py"
    subprocess.run([sys.executable, peers, "--keep", folder, "atldld"], check=True, stdout=sys.stderr)
    return folder / "atldld" / "bin" / "python"


def _main() -> None:
    from atlaszarr.testing.emulator import Emulator, serve

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drawn", type=Path)
    parser.add_argument("latency", type=float)
    parser.add_argument("tiers", type=int, nargs="+")
    arguments = parser.parse_args()
    artist = Emulator(draw_cache=arguments.drawn)
    ids = [image["id"] for image in artist.catalogue.images_of(DATASET)]
    with ThreadPoolExecutor(2) as pool:
        for tier in arguments.tiers:
            list(pool.map(lambda id, tier=tier: artist.draw([id], tier), ids))
    serve(announce=lambda url: print(url, flush=True), draw_cache=arguments.drawn, latency=arguments.latency)


if __name__ == "__main__":
    _main()
