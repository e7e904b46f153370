"""The most memory that this process has held, as Linux counts it for this program alone.

``ru_maxrss`` of `resource` also counts the process that started this one: exec keeps it.
"""

import re
from contextlib import suppress
from pathlib import Path


def forget_peak() -> None:
    """Count from now on, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes resident since the process began its program, or since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])
