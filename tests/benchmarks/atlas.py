"""Measures a whole atlas at 25 um, its NIfTI exports, and what syncing costs, and prints the tables of README.md.

The atlas is built by the command in fresh processes, once for each layout. nibabel makes the same NIfTI files from the
same OME-Zarr, in turn with ours; of the repetitions of each the fastest counts. Linux only; takes some ten minutes, and
1 GB of disk.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from measuring import Run, measure, wait_for_quiet

HERE = Path(__file__).parent
DATA = HERE.parents[1] / ".." / "shared" / "data"
LAYOUTS = {
    "`--layout plain`": ["plain"],
    "`--layout assets --strict`": ["assets", "--strict"],
    "`--layout assets --layout brainglobe`": ["assets", "--layout", "brainglobe"],
}
WORKERS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that has ccf and ontology")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="write here")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each export (default: 3)")
    parser.add_argument("--quiet", type=float, default=180, metavar="SECONDS", help="to wait for a quiet machine")
    parser.add_argument("--contender", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        name, *given = arguments.contender
        ways = {"template": template, "ours": ours, "nibabel": with_nibabel, "compare": compare, "syncing": syncing}
        ways[name](*given)
        return 0
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        layouts(folder, arguments.data, arguments.quiet)
        exports(folder, arguments.repeat, arguments.quiet)
        syncs(folder, arguments.repeat, arguments.quiet)
    return 0


def layouts(folder: Path, data: Path, quiet: float) -> None:
    contender("template", data / "ccf" / "average_template_100.nrrd", folder / "template_25.nrrd")
    print("| | wall s | CPU s | peak MB | objects | MB | others, cores |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    command = [sys.executable, "-m", "atlaszarr"]
    (ontology,) = (data / "ontology").glob("*.json")
    given = ["--annotation", data / "ccf" / "annotation_25_ccf2017.nrrd", "--template", folder / "template_25.nrrd"]
    given += ["--terminology", ontology, "--workers", str(WORKERS), "--quiet", "--layout"]
    for name, layout in LAYOUTS.items():
        target = folder / "atlas"
        shutil.rmtree(target, ignore_errors=True)
        row(name, once([*command, "atlas", target, *given, *layout], quiet), target)
        row("the same again", once([*command, "atlas", target, *given, *layout], quiet), target)
        row("`verify`", once([*command, "verify", target], quiet), target)
    # The exports are made of the last one.


def row(name: str, run: Run, target: Path) -> None:
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    figures = f"{run.wall:.1f} | {run.cpu:.1f} | {run.peak * 1e3:.0f} | {len(sizes):,} | {sum(sizes) / 1e6:.1f}"
    print(f"| {name} | {figures} | {run.others:.2f} |", flush=True)


def exports(folder: Path, repeat: int, quiet: float) -> None:
    print("\n| | wall s | CPU s | peak MB | MB | others, cores |\n| --- | --: | --: | --: | --: | --: |")
    for kind in ("annotation", "template"):
        (image,) = (folder / "atlas").glob(f"**/{kind}.ome.zarr")
        ways = {
            f"{kind}, one worker": ["ours", image, "1"],
            f"{kind}, two workers": ["ours", image, "2"],
            f"{kind}, nibabel": ["nibabel", image],
        }
        runs: dict[str, list[Run]] = {name: [] for name in ways}
        for _ in range(repeat):
            for name, (way, *more) in ways.items():
                file = folder / f"{name}.nii.gz"
                runs[name].append(once([sys.executable, __file__, "--contender", way, file, *more], quiet))
        contender("compare", *(folder / f"{name}.nii.gz" for name in ways))
        for name, some in runs.items():
            best = min(some, key=lambda run: run.wall)
            size = (folder / f"{name}.nii.gz").stat().st_size / 1e6
            peak = max(run.peak for run in some) * 1e3
            print(f"| {name} | {best.wall:.2f} | {best.cpu:.2f} | {peak:.0f} | {size:.1f} | {best.others:.2f} |")


def syncs(folder: Path, repeat: int, quiet: float) -> None:
    print("\n| | wall s | CPU s | others, cores |\n| --- | --: | --: | --: |")
    for name, way in (("with syncs", "1"), ("without", "0")):
        command = [sys.executable, __file__, "--contender", "syncing", folder / "noise.ome.zarr", way]
        best = min((once(command, quiet) for _ in range(repeat)), key=lambda run: run.wall)
        print(f"| {name} | {best.wall:.2f} | {best.cpu:.2f} | {best.others:.2f} |", flush=True)


def once(command: list[str | Path], quiet: float) -> Run:
    wait_for_quiet(quiet)
    return measure(command, {**os.environ, "PYTHONWARNINGS": "ignore"}, os.getpid())


def contender(name: str, *given: object) -> None:
    measure([sys.executable, __file__, "--contender", name, *map(str, given)], os.environ, os.getpid())


def template(source: str, target: str) -> None:
    """A template of 25 um: that of 100 um, interpolated, with a grain of three grey levels."""
    import nrrd
    import numpy as np
    from scipy.ndimage import zoom

    coarse, header = nrrd.read(source)
    fine = zoom(coarse.astype(np.float32), 4, order=1, mode="nearest", grid_mode=True)
    noise = np.random.default_rng(0).normal(0, 3, fine.shape)
    values = np.where(fine > 0, np.clip(fine + noise, 0, 2**16 - 1), 0).astype(coarse.dtype)
    header["space directions"] = np.diag(np.full(3, 25.0))
    nrrd.write(target, values, header, compression_level=1)


def ours(file: str, image: str, workers: str) -> None:
    """The NIfTI of level 0, as `build_atlas` writes it."""
    from atlaszarr.atlas.nifti_export import export_nifti
    from atlaszarr.engine.finished_image import Finished
    from atlaszarr.engine.schedulers import scheduler_for
    from atlaszarr.stores.target import Target

    path = Path(file)
    with scheduler_for("threads", int(workers)) as scheduler:
        export_nifti(Finished.at(Target.of(image)), Target.of(path.parent), path.name, 0, scheduler)


def with_nibabel(file: str, image: str) -> None:
    """The same by nibabel at its default level of compression, 1, read by zarr."""
    import nibabel
    import numpy as np
    import zarr

    values = zarr.open_array(f"{image}/0", mode="r")[:]
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([0.025, 0.025, 0.025, 1])), file)


def compare(*files: str) -> None:
    """Hold the voxels of all files to be the same."""
    import nibabel
    import numpy as np

    first, *others = (np.asanyarray(nibabel.load(file).dataobj) for file in files)
    for other in others:
        np.testing.assert_array_equal(other, first)


def syncing(target: str, way: str) -> None:
    """An image of 96 x 96 x 192 voxels of noise in chunks of 10 voxels."""
    import numpy as np

    from atlaszarr.writing import write_multiscales

    if way == "0":
        os.fsync = lambda _: None
    shutil.rmtree(target, ignore_errors=True)
    noise = np.random.default_rng(0).integers(0, 2**16, (96, 96, 192), "u2")
    begun = time.perf_counter()
    report = write_multiscales(noise, target, chunk=10, identity="noise", workers=2)
    print(f"{report.tasks_done} blocks, {time.perf_counter() - begun:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
