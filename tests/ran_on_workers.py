"""The tasks that ran on the workers of a cluster, counted by its scheduler."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

from distributed import SchedulerPlugin


class _Counter(SchedulerPlugin):
    name = "count-tasks"

    def __init__(self):
        self.ran = Counter()

    def transition(self, key, start, finish, *_args, **_options):
        if start == "processing" and finish == "memory":
            self.ran[str(key[0] if isinstance(key, tuple) else key).rsplit("-", 5)[0]] += 1


@contextmanager
def counted_tasks(cluster):
    """A Counter of the tasks that finish on a LocalCluster meanwhile, by the prefix of their keys."""
    plugin = _Counter()
    cluster.scheduler.add_plugin(plugin)
    try:
        yield plugin.ran
    finally:
        cluster.scheduler.remove_plugin(plugin.name)
