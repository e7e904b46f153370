"""Compile the kernels when the package is built. A build hook of hatchling, and a command.

``python src/atlaszarr/native/compiling.py`` compiles them again after a change, where ziglang is installed.

All C++ sources of the package make one library, which depends on the C library alone. The compiler is the clang that
the package ziglang holds, a requirement of the build: a machine needs no compiler of its own, and the same compiler
makes the library everywhere.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1]
#: What ctypes loads, by platform.
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
#: The processors that a library is compiled for, by its name. The first one runs on all processors that NumPy supports;
#: where the second runs, it is twice as fast on uint8.
VARIANTS = (
    {"kernels": "x86_64_v2", "kernels_avx2": "x86_64_v3"}
    if platform.machine().lower() in ("x86_64", "amd64")
    else {"kernels": "baseline"}
)
#: No product and sum are fused, so that all processors compute the same values. Errors of <math.h> are not reported.
_OPTIONS = [
    *("-std=c++20", "-shared", "-O3", "-s", "-fvisibility=hidden", "-fsigned-char", "-Wall", "-Wextra"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-exceptions", "-fno-rtti", "-nostdlib++", "-fno-sanitize=undefined"),
]


def sources() -> list[Path]:
    """The C++ files of the package."""
    return sorted(SOURCE.rglob("*.cpp"))


def digest() -> str:
    """The SHA-256 of all that a library is compiled from: sources, headers and this file."""
    files = sorted([*SOURCE.rglob("*.cpp"), *SOURCE.rglob("*.hpp"), Path(__file__).resolve()])
    found = hashlib.sha256()
    for file in files:
        body = file.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{file.relative_to(SOURCE).as_posix()} {len(body)}\n".encode() + body)
    return found.hexdigest()


def compile_kernels(folder: Path) -> list[Path]:
    """Compile the library for each kind of processor into a folder; return their paths.

    Raises
    ------
    RuntimeError
        If the compiler fails; the message has what it printed.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        running = []
        for name, processor in VARIANTS.items():
            # A process that runs keeps the library that it has loaded.
            made, path = folder / f"{name}.partial", folder / f"{name}{SUFFIX}"
            command = [sys.executable, "-m", "ziglang", "c++", *_OPTIONS, f"-mcpu={processor}"]
            command += [f'-DSOURCES="{digest()}"', "-o", str(made), *map(str, sources()), "-lm"]
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            running.append((made, path, process))
        errors = [process.communicate()[1] for _, _, process in running]
        for (_, path, process), error in zip(running, errors, strict=True):
            if process.returncode:
                raise RuntimeError(f"{path.name} could not be compiled:\n{error}")
        for made, path, _ in running:
            made.replace(path)
    return [path for _, path, _ in running]


def get_build_hook() -> Any:
    """The build hook; hatchling calls this, see its plugin ``custom``."""
    # A package that is installed has no hatchling.
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class KernelsHook(BuildHookInterface[Any]):
        """Compiles the kernels for a wheel, and for an installation that is edited."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile, and name the platform in the tag of the wheel."""
            from packaging.tags import platform_tags

            # The sources of a wheel may be in use by an installation that is edited.
            self.scratch = tempfile.TemporaryDirectory()
            folder = SOURCE / "native" if version == "editable" else Path(self.scratch.name)
            for path in compile_kernels(folder):
                build_data["force_include"][str(path)] = f"atlaszarr/native/{path.name}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{next(platform_tags())}"

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            """Remove what the wheel has a copy of."""
            self.scratch.cleanup()

    return KernelsHook


if __name__ == "__main__":
    for path in compile_kernels(SOURCE / "native"):
        print(path.name)
