"""Runs one command and says what it took, and what else the machine was doing meanwhile. Linux only.

The peak of memory is the kernel's for the process (`wait4`). A process begins with its starter's peak, so this
file and its importers keep to the standard library.
"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    wall: float
    """Seconds from the start of the process to its exit."""

    cpu: float
    """Seconds of processor time, user and system."""

    peak: float
    """Most memory resident at once, in GB (10^9 bytes)."""

    server: float
    """Seconds of processor time that the server took meanwhile."""

    others: float
    """Cores that all other processes of the machine kept busy meanwhile, on average."""


def measure(command: Sequence[str | Path], environment: Mapping[str, str], server: int) -> Run:
    """Run a command to its end; `server` is the process that it asks."""
    busy, served = _busy(), _cpu_of(server)
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    busy, served = _busy() - busy, _cpu_of(server) - served
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)))
    cpu = usage.ru_utime + usage.ru_stime
    return Run(wall, cpu, usage.ru_maxrss * 1024 / 1e9, served, max(0.0, busy - cpu - served) / wall)


def wait_for_quiet(limit: float = 180.0, cores: float = 0.1) -> None:
    """Return once the machine has been idle for two seconds, or after `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        busy = _busy()
        time.sleep(2)
        if (_busy() - busy) / 2 < cores:
            return


def _busy() -> float:
    """Processor seconds of the whole machine since it started, those that its host took away among them."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICK


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def machine_memory() -> float:
    """Of the machine, in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
