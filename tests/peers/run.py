"""Shows that other people's clients of the Allen API work against the emulator, that BrainGlobe reads our atlases, what
napari and zarrita.js make of our images, and that we read volumes as SimpleITK, nibabel and pynrrd do.

Gives each client a virtual environment of its own, starts the emulator and makes the atlases, and runs the client's
checks in it. Prints one line a check; the exit status is 0 only if all hold.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from brainglobe_atlas import atlases
from variants import variants

from atlaszarr.testing.emulator import Emulator

HERE = Path(__file__).parent

#: The readers of atlases, the current one and the one before; they ask no API, and run once for each atlas.
BRAINGLOBE = ("brainglobe", "brainglobe-3.0.2")

#: The writer and reader of volumes; it asks no API.
VOLUMES = "simpleitk"

#: Readers of images, which ask no API. That of napari places images by other rules in each of these releases.
NAPARI = ("napari", "napari-0.10.0", "napari-0.8.2")
#: Releases that share the packages of another environment.
BASES = dict.fromkeys(NAPARI[1:], NAPARI[0])
#: A package of npm, with the others that its checks import.
ZARRITA = "zarrita"

#: Checks that hold ours to what a peer makes; they run where atlaszarr is, and start what they need of the peer.
BESIDE_OURS = {"atldld": "registered_sections.py", VOLUMES: "simpleitk_volumes.py"}

#: What both of BrainGlobe's versions need, next to pandas.
_OF_BRAINGLOBE = [
    "aiobotocore==3.10.0",
    "click==8.5.1",
    "DracoPy==2.2.0",
    "fsspec==2026.9.0",
    "meshio==5.3.5",
    "ngff-zarr==0.50.0",
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "requests==2.34.2",
    "rich==15.0.0",
    "s3fs==2026.9.0",
    "tqdm==4.70.1",
    "treelib==1.8.0",
]

#: What all releases of napari-ome-zarr need, and for the newest the checks of ome-zarr-py and of OME-XML.
_OF_NAPARI = ["aiohttp==3.14.5", "napari==0.9.2", "numba==0.68.1", "numpy==2.5.5", "requests==2.34.2", "zarr==3.4.2"]
_OF_OME_XML = ["ome-types==0.7.0", "xmlschema==4.3.2"]

# The package is installed without its dependencies, then what its tested part imports, at versions known to
# work with it: README.md says why. atldld and allensdk want Python 3.11, BrainGlobe's current version 3.12.
PEERS = {
    "atldld": (
        "atldld==0.3.4",
        [
            "appdirs==1.4.4",
            "click==8.5.1",
            "matplotlib==3.11.2",
            "numpy==2.4.6",
            "opencv-python-headless==5.0.0.93",
            "pillow==13.0.0",
            "requests==2.34.2",
            "scikit-image==0.26.0",
        ],
    ),
    "allensdk": (
        "allensdk==2.16.2",
        [
            "hdmf==6.2.0",
            "jinja2==3.1.6",
            "numpy==1.23.5",
            "pandas==1.5.3",
            "pillow==13.0.0",
            "pynwb==2.8.3",
            "python-dateutil==2.9.0.post0",
            "requests==2.34.2",
            "requests-toolbelt==1.0.0",
            "simpleitk==2.5.7",
            "simplejson==4.3.0",
            "six==1.17.0",
            "xarray==2023.1.0",
        ],
    ),
    "brainglobe": (
        "brainglobe-atlasapi==3.0.3",
        [
            *_OF_BRAINGLOBE,
            "brainglobe-space==1.0.4",
            "pandas==3.1.1",
            "scipy==1.18.1",
            "tifffile==2026.11.8",
            "zarr==3.4.2",
        ],
    ),
    "brainglobe-3.0.2": (
        "brainglobe-atlasapi==3.0.2",
        [
            *_OF_BRAINGLOBE,
            "brainglobe-space==1.0.3",
            "pandas==3.0.6",
            "scipy==1.17.1",
            "tifffile==2026.3.3",
            "zarr==3.1.6",
        ],
    ),
    "napari": ("napari-ome-zarr==0.11.0", [*_OF_NAPARI, *_OF_OME_XML, "ome-zarr==0.21.0"]),
    "napari-0.10.0": ("napari-ome-zarr==0.10.0", []),
    "napari-0.8.2": ("napari-ome-zarr==0.8.2", []),
    ZARRITA: ("zarrita@0.7.5", ["@zarrita/storage@0.2.0"]),
    VOLUMES: (
        "simpleitk==2.5.7",
        [
            "importlib_resources==7.1.0",
            "nibabel==5.4.2",
            "numpy==2.4.6",
            "packaging==26.4",
            "pynrrd==1.1.3",
            "typing_extensions==4.16.0",
        ],
    ),
}

#: The version of Python of each environment that is not made with 3.11.
PYTHONS = {"brainglobe": "3.12", **dict.fromkeys(NAPARI, "3.12")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the environments here, or use those that are")
    parser.add_argument(
        "--python", default=_python("3.11"), help="the Python 3.11 to make them with (default: %(default)s)"
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)} (default: all)")
    arguments = parser.parse_args()
    peers = arguments.peers or list(PEERS)
    if unknown := set(peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    pythons = {peer: _python(PYTHONS[peer]) if peer in PYTHONS else arguments.python for peer in peers}
    for peer in [peer for peer, python in pythons.items() if python is None]:
        missing = f"{peer} needs Python {PYTHONS.get(peer, '3.11')}, which is neither on PATH nor in pyenv"
        if peer in arguments.peers or peer not in PYTHONS:
            parser.error(missing)
        print(f"{missing}: skipped")
        peers.remove(peer)
    if ZARRITA in peers and not shutil.which("npm"):
        if ZARRITA in arguments.peers:
            parser.error(f"{ZARRITA} needs Node.js with npm, which is not on PATH")
        print(f"{ZARRITA} needs Node.js with npm, which is not on PATH: skipped")
        peers.remove(ZARRITA)

    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        start = time.perf_counter()
        folder = arguments.keep or Path(scratch) / "environments"
        with ThreadPoolExecutor() as pool:
            made = dict.fromkeys(BASES.get(peer, peer) for peer in peers)
            bases = pool.map(lambda peer: _environment(folder / peer, peer, pythons.get(peer) or _python("3.12")), made)
            found = dict(zip(made, bases, strict=True))
            environments = [
                _release(folder / peer, peer, found[BASES[peer]]) if peer in BASES else found[peer] for peer in peers
            ]
        print(f"environments ready after {time.perf_counter() - start:.0f} s", flush=True)
        with Emulator() as emulator:
            statuses = [
                max(_run_client(peer, python, given, scratch) for given in _given(peer, emulator.url, Path(scratch)))
                for peer, python in zip(peers, environments, strict=True)
            ]
        failed = [peer for peer, status in zip(peers, statuses, strict=True) if status]
        outcome = f"failed: {', '.join(failed)}" if failed else f"all well: {', '.join(peers)}"
        print(f"{outcome} ({time.perf_counter() - start:.0f} s)")
    return 1 if failed else 0


def _python(version: str) -> str | None:
    """The Python of a version: this one, one on PATH, or one of pyenv's; None if there is none."""
    here = sys.executable if version == f"{sys.version_info.major}.{sys.version_info.minor}" else None
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in (here, shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")):
        # A shim of pyenv is on PATH, and fails, also where that version is not selected.
        if candidate and not subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True).returncode:  # noqa: PLW1510
            return str(candidate)
    return None


def _environment(folder: Path, peer: str, python: str) -> Path:
    """The Python of the peer's environment, or the folder of a package of npm, made unless it is as it should be."""
    package, requirements = PEERS[peer]
    recipe, made = "\n".join([package, *requirements]), folder / "made-from.txt"
    interpreter = folder if peer == ZARRITA else folder / "bin" / "python"
    if made.exists() and made.read_text() == recipe:
        return interpreter
    if peer == ZARRITA:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, package, *requirements], check=True)
        made.write_text(recipe)
        return interpreter
    install = [interpreter, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    subprocess.run([*install, *requirements], check=True, env=_apart())
    subprocess.run([*install, "--no-deps", package], check=True, env=_apart())
    made.write_text(recipe)
    return interpreter


def _release(folder: Path, peer: str, base: Path) -> Path:
    """The Python of an environment of another release, over the packages of its base."""
    package, _ = PEERS[peer]
    interpreter, made = folder / "bin" / "python", folder / "made-from.txt"
    if made.exists() and made.read_text() == package:
        return interpreter
    subprocess.run([base, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    (own,), (others,) = ([*root.glob("lib/python*/site-packages")] for root in (folder, base.parents[1]))
    install = [base, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--target", own]
    subprocess.run([*install, package], check=True, env=_apart())
    (own / "base.pth").write_text(f"{others}\n")
    made.write_text(package)
    return interpreter


def _apart() -> dict[str, str]:
    """The environment, with no way to packages that are not the peer's own."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _given(peer: str, url: str, scratch: Path) -> Iterator[dict[str, str]]:
    """What the peer's checks find in their environment, for each time they are run."""
    if peer == VOLUMES:
        yield {"VOLUMES_FOLDER": str(scratch / "volumes")}
        return
    if peer in (*NAPARI, ZARRITA):
        yield {"VARIANTS_FOLDER": str(variants(scratch / "variants"))}
        return
    if peer not in BRAINGLOBE:
        yield {"ALLEN_API_URL": url}
        return
    for folder in _atlases(scratch / "atlases"):
        print(f"{peer}: the {folder.name} atlas", flush=True)
        yield {"ATLAS_FOLDER": str(folder)}


@cache
def _atlases(folder: Path) -> list[Path]:
    """The folders of the atlases, which are made once for all readers."""
    return list(atlases(folder))


def _run_client(peer: str, python: Path, given: dict[str, str], scratch: str) -> int:
    """The exit status of the peer's checks; what they leave behind goes with `scratch`."""
    environment = {**_apart(), **given, "TMPDIR": scratch}
    if peer == ZARRITA:  # it imports the packages that are next to it
        shutil.copy(HERE / "zarrita_client.mjs", python)
        return _status(peer, ["node", python / "zarrita_client.mjs"], environment)
    status = _status(peer, [python, HERE / f"{peer.partition('-')[0]}_client.py"], environment)
    if peer in BESIDE_OURS:
        ours = {**os.environ, **given, "TMPDIR": scratch, "PEER_PYTHON": str(python)}
        status = max(status, _status(peer, [sys.executable, HERE / BESIDE_OURS[peer]], ours))
    return status


def _status(peer: str, command: list[str | Path], environment: dict[str, str]) -> int:
    try:
        return subprocess.run(command, env=environment, timeout=300, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"FAILED  {peer:<8}  took more than 300 s")
        return 1


if __name__ == "__main__":
    sys.exit(main())
