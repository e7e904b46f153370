"""Kill builds at random moments, resume them, and compare their targets with those of undisturbed builds.

Builds of a section dataset and of an array, on a local disk and on S3. Each chain is one target whose build is killed a
few times and then completed. Prints a line for each chain, with the moment and the number of existing chunks of each
kill, and a summary; the exit status is 0 if all targets are as expected.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

from atlaszarr.testing import Emulator
from chains import MOMENTS, Chain, Folder, Undisturbed, bucket, section_build, volume_write


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=50, metavar="N", help="number of kills [50]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random moments [0]")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch, Emulator() as emulator, bucket() as remote:
        local = Folder(Path(scratch))
        builds = []
        for word, command in (("build", section_build(emulator.url)), ("write_multiscales", volume_write)):
            expected = Undisturbed.of(command, Path(scratch, word))
            builds += [(word, command, store, expected) for store in (local, remote)]
        done, chains, failed, moments = 0, 0, 0, Counter()
        for number, (word, command, store, expected) in enumerate(cycle(builds)):
            if done >= arguments.kills:
                break
            chain = Chain(command, store, f"{number}.ome.zarr", expected, rng)
            begun = time.perf_counter()
            try:
                for _ in range(min(rng.randint(1, 5), arguments.kills - done)):
                    if not chain.kill():
                        break
                chain.finish()
                outcome = "byte-identical"
            except AssertionError as error:
                outcome, failed = f"FAILED: {error}", failed + 1
            chunks = len(expected.chunks)
            done, chains = done + len(chain.kills), chains + 1
            moments.update(moment for moment, _ in chain.kills)
            kills = ", ".join(f"{moment} {written}" for moment, written in chain.kills) or "never"
            seconds = time.perf_counter() - begun
            print(
                f"{chains:3}  {word:<17}  {store!s:<10}  {kills}; of {chunks} chunks: {outcome}  ({seconds:.0f} s)",
                flush=True,
            )
    print(
        f"{done} kills ({', '.join(f'{moments[moment]} {moment}' for moment in MOMENTS)}); {chains} targets, "
        f"{failed} not as expected  ({time.perf_counter() - start:.0f} s)"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
