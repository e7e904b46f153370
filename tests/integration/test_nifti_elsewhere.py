"""NIfTI exports to S3, from a cluster, of the real CCF, in little memory; killed, and on a disk that is full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest

from atlaszarr.atlas.nifti_export import export_nifti
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ledger import digest, matches
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.schedulers import Threads, scheduler_for
from atlaszarr.errors import TargetError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises

DATA = Path(__file__).parents[3] / "shared" / "data"
KEY = "templates/x/1/template_25.nii.gz"
GEOMETRY = Geometry((0.025,) * 3, (0.0075,) * 3, "millimeter", ORIENTATION)
#: Exports in a child process, which prints a line for each slab, reads a line before it goes on, and has a bound.
CHILD = """
import json, resource, sys
from atlaszarr.atlas.nifti_export import export_nifti
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.schedulers import Threads
from atlaszarr.errors import AtlaszarrError
from atlaszarr.stores.target import Target
from peak_memory import forget_peak, peak

image, root, options, key, spool, most = json.loads(sys.argv[1])

def progress(done, total, name):
    print(done, total, name, flush=True)
    if most == "wait":
        sys.stdin.readline()

if isinstance(most, int):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
forget_peak()
before = peak()
try:
    with Threads(2) as scheduler:
        export_nifti(Finished.at(Target.of(image)), Target.of(root, options), key, 0, scheduler, progress, spool)
except AtlaszarrError as error:
    sys.exit(f"{error.code}: {error}")
print("peak", peak() - before)
"""


def noise(shape=(80, 200, 200)):
    return np.random.default_rng(0).integers(0, 2**16, shape).astype("uint16")


def image_of(folder, values, **options):
    write_multiscales(values, folder / "x.ome.zarr", geometry=GEOMETRY, **{"levels": 1, "chunk": 40, **options})
    return Finished.at(Target.of(folder / "x.ome.zarr"))


def child(folder, root, options=None, spool=None, most=None):
    """Start the child process that exports the image in a folder."""
    given = json.dumps([str(folder / "x.ome.zarr"), str(root), options or {}, KEY, spool and str(spool), most])
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_every_store_gets_the_same_bytes_in_parts_that_become_visible_at_once(tmp_path, store):
    values = noise()  # 6.4 MB, which hardly compress: more than a part of S3
    image = image_of(tmp_path, values)
    root, spool = Target.of(store.url("atlas"), store.options), tmp_path / "spool"
    spool.mkdir()
    with Threads(2) as scheduler:
        size, checksum = export_nifti(image, root, KEY, 0, scheduler, spool=spool)
    body = root.read(KEY)
    assert (len(body), digest(body)) == (size, checksum)
    assert size > 5 * 2**20
    assert matches(root, KEY, size, checksum)
    assert root.list_keys() == [KEY]
    assert not list(spool.iterdir())
    (tmp_path / "copy.nii.gz").write_bytes(body)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "copy.nii.gz").dataobj).transpose(2, 1, 0), values)


def test_a_bucket_that_refuses_the_file_is_named_and_nothing_is_left(tmp_path, remote):
    image = image_of(tmp_path, noise())
    root = Target.of("s3://no-such-bucket/atlas", remote.options)
    with Threads(2) as scheduler, raises(TargetError, "bucket-not-found") as caught:
        export_nifti(image, root, KEY, 0, scheduler, spool=tmp_path)
    assert "s3://no-such-bucket/atlas" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.ome.zarr"]


@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes(cluster, tmp_path):
    image, root = image_of(tmp_path, noise()), Target.of(tmp_path)
    with Threads(2) as scheduler:
        local = export_nifti(image, root, "local.nii.gz", 0, scheduler)
    with scheduler_for(cluster.scheduler_address, None) as scheduler:
        assert export_nifti(image, root, KEY, 0, scheduler) == local


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_an_export_holds_a_few_slabs_and_not_the_file(tmp_path):
    shape = (400, 1024, 1024)  # 800 MB, in slabs of 64 MB
    write_multiscales(
        np.zeros(shape, np.uint16), tmp_path / "x.ome.zarr", geometry=GEOMETRY, levels=1, chunk=[(32, 256, 256)]
    )
    with child(tmp_path, tmp_path) as process:
        out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert int(out.split()[-1]) < 350e6


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is it known that the owner of a lock has ended")
def test_a_killed_export_leaves_no_file_and_the_next_one_leaves_nothing_behind(tmp_path):
    image = image_of(tmp_path, noise())
    with child(tmp_path, tmp_path, most="wait") as process:
        for _ in range(2):  # after the first slab
            assert process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        process.stdout.readline()
        process.kill()
    folder = (tmp_path / KEY).parent
    assert not (tmp_path / KEY).exists()
    assert len(list(folder.iterdir())) == 2  # a folder and its lock
    with Threads(2) as scheduler:
        size, checksum = export_nifti(image, Target.of(tmp_path), KEY, 0, scheduler)
    assert [path.name for path in folder.iterdir()] == [Path(KEY).name]
    assert matches(Target.of(tmp_path), KEY, size, checksum)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_disk_that_does_not_take_the_file_is_named(tmp_path, store):
    image_of(tmp_path, noise())
    spool = tmp_path / "spool"
    spool.mkdir()
    with child(tmp_path, store.url("atlas"), store.options, spool, most=2**20) as process:
        _, error = process.communicate(timeout=100)
    assert process.returncode == 1
    place = store.url("atlas") if store.url("atlas").startswith("/") else spool
    (sentence,) = error.splitlines()
    assert sentence.startswith(f"store-error: cannot write to {place}: File too large")
    assert not list(spool.iterdir())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")
@pytest.mark.slow
def test_the_real_ccf_is_exported_and_recognised_without_a_remark(tmp_path):
    values = nrrd.read(str(DATA / "ccf/annotation_25_ccf2017.nrrd"))[0]
    image = image_of(tmp_path, values, chunk=64, rule="mode")
    with Threads(2) as scheduler:
        export_nifti(image, Target.of(tmp_path), KEY, 0, scheduler)
    with open_annotation(tmp_path / KEY, tmp_path) as found:
        assert found.is_ccf
        assert found.remarks == ()
        assert len(found.labels) == 671
        np.testing.assert_array_equal(found.array, values)
