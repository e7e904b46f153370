"""The graphs of `open_volume` and `open_sections`: small, without images, and with the same keys in every process."""

import subprocess
import sys
from pathlib import Path

import cloudpickle
import dask
import numpy as np
import pytest

from atlaszarr import AllenClient, Displacement, SectionDataset, open_sections, open_volume
from atlaszarr.testing.records import dataset_records, image_records

#: Coronal, 60 sections.
DATASET = 74272479
LARGEST = 1_000_000


def record():
    (dataset,) = (one for one in dataset_records() if one["id"] == DATASET)
    return SectionDataset.from_json(dataset, [one for one in image_records() if one["data_set_id"] == DATASET])


def halved(block):
    return block // 2


def opened(open_, **options):
    with AllenClient("http://127.0.0.1:1/api/v2", cache="none") as client:
        return open_(record(), client=client, **options)


STEPS = {
    "as it is": lambda image: image,
    "mapped": lambda image: image.map_blocks(halved),
    "float32": lambda image: image.astype("f4") / 2,
    "overlapping": lambda image: image.map_overlap(halved, {1: 2, 2: 2, 3: 2}, boundary="nearest", dtype="u1"),
}


@pytest.mark.first(5)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("open_", [open_volume, open_sections])
def test_the_graph_of_sixty_sections_at_25_um_is_sent_in_less_than_a_megabyte(open_, step):
    lazy = opened(open_, resolution=25)
    assert sum(lazy.image.sizes[axis] for axis in lazy.image.dims) > 700
    image = STEPS[step](lazy.image.data)
    arrays = [image, lazy.section.data] if "section" in lazy.data_vars else [image]
    assert len(cloudpickle.dumps([array.__dask_graph__() for array in arrays])) < LARGEST
    if step != "overlapping":  # dask makes a task of 100 bytes for each of the 26 neighbours of every block
        assert len(cloudpickle.dumps([array.__dask_graph__() for array in dask.optimize(*arrays)])) < LARGEST


NAMES = """
import sys
sys.path[:0] = {path!r}
import test_lazy_graphs as tests
print(*tests.names({on_missing!r}))
"""


def names(on_missing):
    flat = {74081153: Displacement.identity((320, 456))} if on_missing == "raise" else {}
    found = []
    for lazy in (
        opened(open_volume, resolution=100, fill="linear", on_missing=on_missing),
        opened(open_sections, resolution=100, on_missing=on_missing),
        *([opened(open_sections, resolution=25, fields=flat)] if flat else []),
    ):
        for array in lazy.data_vars.values():
            found += [array.data.name, array.data.map_blocks(np.negative).name]
            found += sorted(map(str, array.data.dask.layers))
    return found


@pytest.mark.first(1)
@pytest.mark.parametrize("on_missing", ["raise", "fill"])
def test_the_keys_are_the_same_in_another_process_and_other_options_have_others(on_missing):
    code = NAMES.format(path=[str(Path(__file__).parent), *filter(None, sys.path)], on_missing=on_missing)
    environment = {"PYTHONHASHSEED": "7"}
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert ran.stdout.split() == " ".join(names(on_missing)).split()
    keys = {opened(open_volume, resolution=100, fill=fill).image.data.name for fill in ("none", "nearest", "linear")}
    assert len(keys) == 3


def test_no_image_is_in_a_graph():
    for open_ in (open_volume, open_sections):
        graph = dict(opened(open_, resolution=50).image.data.dask)
        held = [value for task in graph.values() for value in (task if isinstance(task, tuple) else [task])]
        assert not any(isinstance(value, np.ndarray) for value in held)
