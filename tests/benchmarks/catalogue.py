"""Measures a catalogue of many section datasets, and prints the tables of README.md. Linux only.

The records are invented for every row of a table of section datasets, such as that of the Allen Institute's 43,818.
Every measured command is a fresh process; processor time counts, since the machine may be busy.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measuring import Run, measure

NOWHERE = "http://127.0.0.1:1/api/v2"
WRITE = """
import sys
from atlaszarr import AllenClient
AllenClient(sys.argv[1], "none", rate=1e9).write_catalogue(sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="CSV with experiment_id, gene, age, plane_of_section, treatment")
    parser.add_argument("folder", type=Path, help="of the catalogue; a finished one is measured as it is")
    parser.add_argument("--plans", type=int, default=100, metavar="N", help="exact plans to compare (default: 100)")
    arguments = parser.parse_args()
    if not (arguments.folder / "catalogue.json").exists():
        write(arguments.rows, arguments.folder)
    for path in sorted(arguments.folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    options = ["--catalogue", arguments.folder, "--api-url", NOWHERE, "--cache", "none"]
    for command in (
        ["--version"],
        ["plan", *options],
        ["plan", *options, "--resolution", "10"],
        ["search", "--gene", "Prox*", *options],
        ["search", "--plane", "coronal", "--limit", "100000", *options],
    ):
        words = " ".join(word for word in map(str, command) if word not in map(str, options))
        report(words, measure([sys.executable, "-m", "atlaszarr", *command], os.environ, os.getpid()))
    compare(arguments.folder, arguments.plans)


def write(rows: Path, folder: Path) -> None:
    """Write the catalogue, from an emulator in a process of its own."""
    server = [sys.executable, Path(__file__).with_name("many_datasets.py"), rows]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as emulator:
        url = emulator.stdout.readline().strip()
        report("catalogue", measure([sys.executable, "-c", WRITE, url, folder], os.environ, emulator.pid))
        emulator.stdin.write("\n")
        emulator.stdin.flush()
        status = Path(f"/proc/{emulator.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1e6
        print(f"requests: {emulator.stdout.readline().strip()}, peak of the emulator {peak:.2f} GB")
        emulator.terminate()


def report(name: str, run: Run) -> None:
    print(
        f"| {name} | {run.cpu:.1f} | {run.wall:.1f} | {run.peak:.2f} | {run.server:.1f} | {run.others:.1f} |",
        flush=True,
    )


def compare(folder: Path, count: int) -> None:
    """Open datasets at random, and compare the estimate of each, and of all, with exact plans."""
    from atlaszarr import AllenClient, AtlaszarrError, plan
    from atlaszarr.dataset_build.estimate import estimate

    with AllenClient(NOWHERE, "none", catalogue=folder) as client:
        ids = client.catalogue.table("SectionDataSet").read(["id"]).column("id").to_numpy()
        drawn = np.random.default_rng(14).permutation(ids).tolist()
        client.section_dataset(drawn.pop())  # opens the tables
        seconds = []
        for id in drawn[:100]:
            began = time.process_time()
            client.section_dataset(id)
            seconds.append(time.process_time() - began)
        print(f"one dataset: {1e3 * np.median(seconds):.1f} ms of processor time, {1e3 * max(seconds):.1f} at most")
        exact, estimated, chosen = [], [], []
        began = time.process_time()
        for id in drawn:
            try:
                (made,) = plan(id, client=client)
            except AtlaszarrError:  # it cannot be registered
                continue
            exact.append((made.sections_used, made.image_requests, made.pixels, made.download_bytes, made.stored_bytes))
            chosen.append(id)
            if len(chosen) == count:
                break
        print(f"{count} exact plans: {time.process_time() - began:.1f} s of processor time")
        for id in chosen:
            one = estimate(client.catalogue, id=id)
            estimated.append((one.images, one.image_requests, one.pixels, one.download_bytes, one.stored_bytes))
        ratios = np.array(estimated) / np.array(exact) - 1
        sums = np.sum(estimated, axis=0) / np.sum(exact, axis=0) - 1
        for name, ratio, total in zip(
            ("images", "requests", "pixels", "download", "stored"), ratios.T, sums, strict=True
        ):
            print(f"| {name} | {total:+.3%} | {np.abs(ratio).max():.3%} |")
        print(estimate(client.catalogue))


if __name__ == "__main__":
    main()
