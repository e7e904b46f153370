"""Plans of very fine grids: counted in seconds, in memory that does not grow with the number of voxels."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atlaszarr.allen.records import SectionDataset
from atlaszarr.dataset_build.api import plan
from atlaszarr.errors import InputError
from atlaszarr.sections.lazy_sections import open_sections
from atlaszarr.sections.lazy_volume import open_volume
from codes import raises

#: Plans a dataset at a resolution (2 um: 574,080 chunks), and prints the objects and the peak of the memory in MB.
PLAN = """
import sys
from atlaszarr import AllenClient, SectionDataset, plan
from atlaszarr.testing.records import dataset_records, image_records
from peak_memory import peak

record = next(record for record in dataset_records() if record["id"] == int(sys.argv[1]))
images = [image for image in image_records() if image["data_set_id"] == record["id"]]
client = AllenClient("http://127.0.0.1:1/api/v2", "none")
(planned,) = plan(SectionDataset.from_json(record, images), resolution=float(sys.argv[2]), client=client)
print(planned.objects, peak() // 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "planned", "most"), [(69289763, 388_441, 500), (74272479, 950_939, 900)])
def test_a_plan_at_two_micrometres_takes_little_memory(dataset, planned, most):
    """18 sagittal sections, which few chunks sample, and 60 coronal ones, most chunks of which reach one in vain."""
    command = [sys.executable, "-c", PLAN, str(dataset)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*command, "200"], env=environment, check=True, timeout=300)  # compiles the kernels
    ended = subprocess.run([*command, "2"], env=environment, capture_output=True, text=True, check=True, timeout=300)
    objects, megabytes = map(int, ended.stdout.split())
    assert objects == planned
    assert megabytes < most


@pytest.mark.parametrize("resolution", [0.01, 1e-3, 1e-6, 5e-324, math.inf, math.nan])
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda dataset, resolution: plan(dataset, resolution=resolution), id="plan"),
        pytest.param(lambda dataset, resolution: plan(dataset, resolution=resolution, mode="sections"), id="planes"),
        pytest.param(open_volume, id="open_volume"),
        pytest.param(open_sections, id="open_sections"),
    ],
)
def test_a_resolution_that_no_plan_can_count_is_refused_at_once(dataset, ask, resolution):
    code = "too-many-chunks" if 1e-3 <= resolution < 1 else "out-of-range"
    with raises(InputError, code) as caught:
        ask(dataset, resolution)
    assert f"{resolution:g} um" in str(caught.value)


def test_sections_far_apart_are_counted_like_any_others(records):
    records[1][-1]["section_number"] = 100_000
    dataset = SectionDataset.from_json(records[0][0], records[1])
    assert len(dataset.missing_numbers) < 100_000
    assert plan(dataset, resolution=200.0)[0].sections == 6
