"""How many threads run tasks."""

import pytest

from atlaszarr.engine.schedulers import scheduler_for, usable_cores
from atlaszarr.stores.target import Target


@pytest.mark.parametrize(("url", "times"), [("{folder}/x", 1), ("memory://x", 2), (None, 1)])
def test_tasks_that_wait_for_a_store_have_two_threads_for_each_core(tmp_path, url, times):
    target = None if url is None else Target.of(url.format(folder=tmp_path))
    with scheduler_for("threads", None, target=target) as running:
        assert running.workers == times * usable_cores()
    with scheduler_for("threads", 3, target=target) as running:
        assert running.workers == 3
