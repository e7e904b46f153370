"""Registers single sections at 1 um, by blocks and the classic way, and prints the table of README.md.

One of 11,921 x 7,553 pixels, and an invented one of 34,000 x 27,000. Every measured run is a fresh process; the
emulator, which counts what is asked, is another. Linux only; takes some ten minutes, and 15 GB of memory for the
classic way.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

from build import print_machine, progress
from measuring import measure, wait_for_quiet
from serving import Server, make_peer, served

HERE = Path(__file__).parent
OURS = [sys.executable, HERE / "full_resolution_ours.py"]
IMAGES = {69289763: 69177654, 900000001: 900000002}
DATASETS = {69289763: "11,921 x 7,553", 900000001: "34,000 x 27,000, invented"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="as of build.py")
    parser.add_argument(
        "--quiet", type=float, default=180, metavar="S", help="wait for a quiet machine so long (default: 180)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="full-") as scratch:
        keep, folder = (arguments.keep or Path(scratch) / "keep").absolute(), Path(scratch)
        peer = make_peer(keep)
        print_machine(peer)
        records = folder / "records.json"
        subprocess.run([*OURS, "records", records], check=True)
        print("\n| | wall s | CPU s | peak GB | images or windows | fetched twice | MB | error | makes |")
        print("| --- | --: | --: | --: | --: | --: | --: | --: | --- |")
        with served(keep / "drawn", records=records) as server:
            for dataset, name in DATASETS.items():
                ours(folder, dataset, name, server, arguments.quiet)
                theirs(peer, folder, dataset, name, server, arguments.quiet)
    return 0


def ours(scratch: Path, dataset: int, name: str, server: Server, quiet: float) -> None:
    environment = {**os.environ, "ATLASZARR_API_URL": server.url, "TMPDIR": str(scratch)}
    progress(f"{name}: drawing the windows, and their error")
    check = subprocess.run([*OURS, "check", str(dataset)], env=environment, check=True, capture_output=True, text=True)
    for way, label, made in (
        ("reduce", "open_sections(resolution=1), its mean", "three numbers"),
        ("build", 'build(mode="sections", resolution=1)', "a collection with its pyramid"),
    ):
        progress(f"{name}: {way}")
        row([*OURS, way, str(dataset)], environment, server, quiet, f"{name}: {label}", check.stdout.strip(), made)


def theirs(peer: Path, scratch: Path, dataset: int, name: str, server: Server, quiet: float) -> None:
    """Pillow takes no image of twice its limit, of some 180 million pixels; then also with the limit lifted."""
    progress(f"{name}: drawing the whole image")
    with urlopen(f"{server.url}/section_image_download/{IMAGES[dataset]}?downsample=0") as answer:
        while answer.read(2**20):
            pass
    for limit in ([], ["--no-limit"]):
        progress(f"{name}: atldld {' '.join(limit)}")
        with tempfile.TemporaryDirectory(dir=scratch) as cache:
            environment = {**os.environ, "ALLEN_API_URL": server.url, "XDG_CACHE_HOME": cache}
            environment.pop("PYTHONPATH", None)
            report = scratch / "report.txt"
            command = [peer, HERE / "full_resolution_atldld.py", str(dataset), report, *limit]
            label = f"{name}: atldld{', no limit of pixels' if limit else ''}"
            row(command, environment, server, quiet, label, "", report)
        if "DecompressionBomb" not in report.read_text():
            return


def row(
    command: list[str | Path],
    environment: dict[str, str],
    server: Server,
    quiet: float,
    label: str,
    error: str,
    made: str | Path,
) -> None:
    wait_for_quiet(quiet)
    server.traffic()
    run = measure(command, environment, server.pid)
    asked = server.traffic()
    made = " ".join(made.read_text().split()) if isinstance(made, Path) else made
    took = f"{run.wall:.1f} | {run.cpu:.1f} | {run.peak:.2f}"
    fetched = f"{asked.images} | {asked.images - asked.distinct} | {asked.megabytes:.1f}"
    print(f"| {label} | {took} | {fetched} | {error} | {made} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
