"""Writes volumes with SimpleITK, nibabel and pynrrd, and reads each with all of them that can.

`simpleitk_volumes.py` compares our readings with theirs.

Runs in an environment of its own, without atlaszarr. VOLUMES_FOLDER gets the files, and `expected.json` with what each
reader makes of them: counts of the labels, voxel sizes in mm, and where in the space left-posterior-superior, in mm,
the marked voxels lie.
"""

import json
import os
import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import SimpleITK
from checks import check, run

FOLDER = Path(os.environ["VOLUMES_FOLDER"])
SPACING = (0.1, 0.25, 0.4)
FIRST = (1.5, -2.25, 3.125)
#: Labels of one voxel each, far apart.
MARKS = (7, 9, 11)
#: Directions of the axes by their sides: towards left, posterior and superior is positive.
DIRECTIONS = {
    "rai": np.eye(3),
    "asl": np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float),
    "lpi": np.diag([-1.0, -1.0, 1.0]),
    "sra": np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]], float),
    "las": np.diag([-1.0, 1.0, -1.0]),
    "pil": np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], float),
}
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def volume(dtype):
    """Labels, axes as in the file, fastest first."""
    values = np.zeros((13, 8, 11), dtype)
    values[2:9, 1:5, 3:10] = 3
    values[1, 6, 2], values[11, 1, 3], values[4, 3, 9] = MARKS
    values[9:12, 5:7, 6:8] = 100 if np.dtype(dtype).itemsize == 1 else 30_000
    return values


def write_simpleitk(name, values, directions, **options):
    image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    image.SetOrigin(FIRST)
    image.SetDirection(directions.T.ravel())
    SimpleITK.WriteImage(image, str(FOLDER / name), **options)


def write_nibabel(name, values, directions, kind=nibabel.Nifti1Image, unit="mm"):
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ (directions * np.array(SPACING)[:, None]).T
    affine[:3, 3] = LPS_TO_RAS @ FIRST
    image = kind(values, affine, dtype=values.dtype)
    image.header.set_xyzt_units(unit)
    image.set_qform(affine, 1)
    nibabel.save(image, FOLDER / name)


def write_pynrrd(name, values, directions, unit=None, **options):
    header = {
        "space": "left-posterior-superior",
        "space directions": directions * np.array(SPACING)[:, None],
        "space origin": FIRST,
        **({"space units": [unit] * 3} if unit else {}),
        **options,
    }
    nrrd.write(str(FOLDER / name), values, header)


def read_simpleitk(path):
    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return values, image.GetSpacing(), image.TransformContinuousIndexToPhysicalPoint


def read_nibabel(path):
    image = nibabel.load(path)
    affine = image.affine
    sizes = nibabel.affines.voxel_sizes(affine)
    return np.asarray(image.dataobj), sizes, lambda index: LPS_TO_RAS @ (affine[:3, :3] @ index + affine[:3, 3])


def read_pynrrd(path):
    values, header = nrrd.read(str(path))
    directions = header["space directions"]
    sizes = np.linalg.norm(directions, axis=1)
    return values, sizes, lambda index: header["space origin"] + index @ directions


def reading(read, path):
    """What a reader makes of a file, in JSON's types."""
    values, sizes, point = read(path)
    labels, counts = np.unique(values, return_counts=True)
    places = {mark: np.argwhere(values == mark)[0].astype(float) for mark in MARKS}
    return {
        "dtype": values.dtype.name,
        "counts": {str(int(label)): int(count) for label, count in zip(labels, counts, strict=True) if label},
        "sizes": [float(size) for size in sizes],
        "points": {str(mark): [float(n) for n in point(place)] for mark, place in places.items()},
    }


#: Readers, and the ends of the names that each reads.
READERS = {
    "SimpleITK": (read_simpleitk, (".mhd", ".mha", ".nrrd", ".nhdr", ".nii", ".nii.gz", ".hdr")),
    "nibabel": (read_nibabel, (".nii", ".nii.gz", ".hdr")),
    "pynrrd": (read_pynrrd, (".nrrd", ".nhdr")),
}
written: list[str] = []
found: dict[str, dict[str, dict]] = {}


def entered(write, name, *arguments, **options):
    write(name, *arguments, **options)
    written.append(name)


@check
def volumes_are_written():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for sides, directions in DIRECTIONS.items():
        for dtype in DTYPES:
            values, stem = volume(dtype), f"{sides}-{dtype}"
            for ending in ("mhd", "mha", "nrrd", "nii.gz"):
                entered(write_simpleitk, f"sitk-{stem}.{ending}", values, directions)
            entered(write_nibabel, f"nibabel-{stem}.nii.gz", values, directions)
            entered(write_pynrrd, f"pynrrd-{stem}.nrrd", values, directions)
        values = volume("u2")
        for ending in ("mhd", "mha", "nrrd"):
            entered(write_simpleitk, f"sitk-{sides}-packed.{ending}", values, directions, useCompression=True)
        entered(write_simpleitk, f"sitk-{sides}.nii", values, directions)
        entered(write_simpleitk, f"sitk-{sides}.hdr", values, directions)
        entered(write_simpleitk, f"sitk-{sides}.nhdr", values, directions)
        entered(write_nibabel, f"nibabel-{sides}-two.nii", values, directions, nibabel.Nifti2Image)
        entered(write_nibabel, f"nibabel-{sides}-pair.hdr", values, directions, nibabel.Nifti1Pair)
        entered(write_nibabel, f"nibabel-{sides}-unitless.nii", values, directions, unit="unknown")
        entered(write_pynrrd, f"pynrrd-{sides}-mm.nrrd", values, directions, unit="mm")
        for encoding in ("raw", "bzip2", "ascii"):
            entered(write_pynrrd, f"pynrrd-{sides}-{encoding}.nrrd", values, directions, encoding=encoding)
        entered(write_pynrrd, f"pynrrd-{sides}-detached.nhdr", values, directions)
    return f"{len(written)} files"


@check
def every_reader_reads_what_it_can():
    refused = []
    for name in written:
        found[name] = {}
        for reader, (read, endings) in READERS.items():
            if not name.endswith(endings):
                continue
            try:
                found[name][reader] = reading(read, FOLDER / name)
            except Exception as error:  # a reader may not support a form that another writes
                refused.append(f"{reader} {name}: {type(error).__name__}")
    (FOLDER / "expected.json").write_text(json.dumps(found))
    assert sum(map(len, found.values())) > len(written)
    return f"{sum(map(len, found.values()))} readings; refused: {'; '.join(refused) or 'none'}"


if __name__ == "__main__":
    sys.exit(run("simpleitk"))
