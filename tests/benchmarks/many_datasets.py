"""An emulator, in a process of its own, with invented records for every row of a table of section datasets."""

import csv
import sys
from pathlib import Path

from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.many_datasets import invented_datasets

with Path(sys.argv[1]).open(newline="") as file:
    datasets, images = invented_datasets(csv.DictReader(file))
with Emulator(datasets, images) as emulator:
    print(emulator.url, flush=True)
    for _ in sys.stdin:
        print(emulator.count(), flush=True)
        emulator.reset()
