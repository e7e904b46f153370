"""A worker that does not see the folder of a batch."""

import subprocess
import sys

import pytest
from distributed import LocalCluster

from atlaszarr import build_many
from atlaszarr.errors import SchedulerError
from codes import raises
from copied_datasets import copies
from dask_processes import worker

IDS = (11, 12, 13)
SMALL = {"resolution": 200, "chunk": 16}


def can_unshare():
    """Whether this process may give a child file systems of its own."""
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="needs Linux, and the right to mount")
def test_a_worker_that_sees_another_file_system_ends_the_batch_and_the_next_run_builds_all(
    records, serve, connect, tmp_path
):
    client = connect(serve(*copies(records, IDS)))
    shared = tmp_path / "shared"
    shared.mkdir()
    mounted = f'mount -t tmpfs none "{shared}" && exec "{sys.executable}" "$@"'
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as scheduler,
        worker(
            scheduler.scheduler_address, tmp_path / "scratch", python=("unshare", "-m", "sh", "-c", mounted, "worker")
        ),
        raises(SchedulerError, "root-not-shared") as caught,
    ):
        build_many(IDS, shared / "root", client=client, scheduler=scheduler.scheduler_address, **SMALL)
    assert str(shared / "root") in str(caught.value)
    assert [path.name for path in (shared / "root").iterdir()] == ["batch"]
    assert build_many(IDS, shared / "root", client=client, **SMALL).states == {"built": 3}
