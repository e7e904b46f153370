"""Section images that the emulator draws from an annotation: sharp, or deformed by a field that is known."""

import json
import signal
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import nibabel
import nrrd as nrrd_format
import numpy as np
import pytest
import simplejpeg

from atlaszarr.dataset_build.records import geometry
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.geometry.grid import Grid
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.testing import Damage, Deformation, Emulator
from atlaszarr.testing.brain import default_brain
from atlaszarr.testing.deformation import LARGEST_AMPLITUDE
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from atlaszarr.testing.records import alignment_matrix, dataset_records, image_records
from atlaszarr.transforms import image_to_reference
from atlaszarr.writing import write_multiscales
from codes import raises

CCF = Path(__file__).parents[3] / "shared/data/ccf/annotation_50_ccf2017.nrrd"
#: Voxel size of the annotation, and the datasets: coronal, sagittal.
SIZE, DATASETS = 100, (74272479, 69289763)
#: Tier of the images: a pixel of 16.8 um, six to a voxel.
TIER = 4
#: Grey levels by which a JPEG of the best quality differs from its pixels at most.
JPEG = 6


@pytest.fixture(scope="module")
def labels():
    return default_brain().annotation(SIZE)


@pytest.fixture(scope="module")
def nrrd(made_once):
    return made_once("brain_100.nrrd", lambda path: path.write_bytes(annotation_nrrd(default_brain(), SIZE)))


@pytest.fixture(scope="module")
def start():
    """Starts emulators that end with the module."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(Emulator(**options))


@pytest.fixture(scope="module")
def sharp(start, nrrd):
    return start(annotation=nrrd)


@pytest.fixture(scope="module")
def deformed(start, nrrd):
    return start(annotation=nrrd, deformation=Deformation(150, seed=5))


def fetch(emulator, id, view="", region=""):
    url = f"{emulator.url}/section_image_download/{id}?downsample={TIER}&quality=100{view}{region}"
    with urllib.request.urlopen(url) as answer:
        return simplejpeg.decode_jpeg(answer.read())


def middle_image(dataset_id):
    """The records of a dataset and of an image in its middle."""
    dataset = next(record for record in dataset_records() if record["id"] == dataset_id)
    images = [record for record in image_records() if record["data_set_id"] == dataset_id]
    return dataset, images[len(images) // 2]


def full_resolution(shape):
    """(X, Y) of the pixels of a tier, in full-resolution pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (np.stack([x, y], axis=-1) + 0.5) * 2**TIER - 0.5


def labels_at(labels, pir):
    """The label of the voxel that contains each point, 0 beyond the volume."""
    index = np.floor(pir / SIZE).astype(int)
    inside = ((index >= 0) & (index < labels.shape)).all(axis=-1)
    return np.where(inside, labels[tuple(np.where(inside[..., None], index, 0).transpose(2, 0, 1))], 0)


def greys(emulator, dataset_id, found):
    """The darkness of the structure at each pixel in a dataset, of the brain that the emulator draws."""
    brain = emulator.phantom.of_dataset(dataset_id)
    return brain, brain.levels[np.searchsorted(brain.ids, found)]


@pytest.mark.parametrize("dataset_id", DATASETS)
def test_a_sharp_section_is_the_annotation_at_each_pixel(sharp, labels, dataset_id):
    dataset, image = middle_image(dataset_id)
    pixels = fetch(sharp, image["id"]).astype(float)
    depth = image["section_number"] * dataset["section_thickness"]
    tsv, tvr = alignment_matrix(image, "tsv"), alignment_matrix(dataset, "tvr")
    pir = image_to_reference(full_resolution(pixels.shape), depth, tsv, tvr)
    found = labels_at(labels, pir)
    brain, level = greys(sharp, dataset_id, found)
    assert len(np.unique(found)) > 60
    np.testing.assert_array_equal(brain.labels(pir), found)
    np.testing.assert_allclose(pixels, brain.rgb(pir, 1.049 * 2**TIER), atol=JPEG + 1)
    # And without the texture, whose cells are twice an axis of a voxel at most: the greys of the labels.
    paper, ink = np.array(brain.background), np.array(brain.ink)
    flat = paper + level[..., None] * (ink - paper)
    assert np.abs(pixels - flat).mean() < 4
    assert (found == 0).any()
    np.testing.assert_allclose(pixels[found == 0].mean(axis=0), paper, atol=1)


@pytest.mark.parametrize("dataset_id", DATASETS)
def test_a_deformed_section_is_the_annotation_at_the_displaced_point(deformed, labels, dataset_id, tmp_path):
    dataset, image = middle_image(dataset_id)
    pixels = fetch(deformed, image["id"]).astype(float)
    depth = image["section_number"] * dataset["section_thickness"]
    tsv, tvr = alignment_matrix(image, "tsv"), alignment_matrix(dataset, "tvr")
    deformed.write_truth(tmp_path / "truth.json")
    truth = json.loads((tmp_path / "truth.json").read_text())
    plane = full_resolution(pixels.shape) @ tsv[:, :2].T + tsv[:, 2]
    shift = displaced_by(truth["datasets"][str(dataset_id)], plane, depth)
    section = np.concatenate([plane + shift, np.full((*plane.shape[:2], 1), depth)], axis=-1)
    pir = section @ tvr[:, :3].T + tvr[:, 3]
    found = labels_at(labels, pir)
    brain, _ = greys(deformed, dataset_id, found)
    np.testing.assert_array_equal(brain.labels(pir), found)
    np.testing.assert_allclose(pixels, brain.rgb(pir, 1.049 * 2**TIER), atol=JPEG + 1)
    # A pixel that lies half a voxel away shows something else.
    assert np.abs(pixels - brain.rgb(pir + SIZE / 2, 1.049 * 2**TIER)).mean() > 5
    length = np.linalg.norm(shift, axis=-1)
    assert 30 < length.mean() < 300


def displaced_by(waves, plane, depth):
    """The formula of the document, in NumPy."""
    total = np.zeros_like(plane)
    for wave in waves:
        a, b, c = wave["radians_per_um"]
        sine = np.sin(a * plane[..., 0] + b * plane[..., 1] + c * depth + wave["phase"])
        total += sine[..., None] * [wave["x_um"], wave["y_um"]]
    return total


def test_a_region_of_a_deformed_section_is_a_part_of_the_whole(deformed):
    _, image = middle_image(DATASETS[0])
    whole = fetch(deformed, image["id"])
    part = fetch(deformed, image["id"], region=f"&left={20 * 2**TIER}&top={30 * 2**TIER}&width=90&height=70")
    np.testing.assert_allclose(part.astype(int), whole[30:100, 20:110].astype(int), atol=JPEG)
    heat = fetch(deformed, image["id"], view="&view=expression")
    assert heat.shape == whole.shape
    assert 0 < (heat[..., 0] > 100).mean() < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_field_has_the_amplitude_that_is_asked_for_is_smooth_and_never_folds(seed):
    deformation = Deformation(LARGEST_AMPLITUDE, seed)
    at = np.stack(np.meshgrid(*(np.linspace(-60_000, 60_000, 61),) * 3), axis=-1)
    length = np.sqrt(np.square(deformation.displacement(1, at)).sum(axis=-1).mean())
    assert length == pytest.approx(LARGEST_AMPLITUDE, rel=0.05)
    step = 10.0
    plane = np.stack(np.meshgrid(np.arange(0, 12_000, 100.0), np.arange(0, 9_000, 100.0), [4000.0]), axis=-1)
    along_x, along_y = (
        (deformation.displacement(1, plane + move) - deformation.displacement(1, plane - move)) / (2 * step)
        for move in (np.array([step, 0, 0]), np.array([0, step, 0]))
    )
    jacobian = (1 + along_x[..., 0]) * (1 + along_y[..., 1]) - along_x[..., 1] * along_y[..., 0]
    assert jacobian.min() > 0.05
    nearby = deformation.displacement(1, plane + np.array([0, 0, 100.0])) - deformation.displacement(1, plane)
    assert np.abs(nearby).max() < 0.2 * LARGEST_AMPLITUDE
    assert (deformation.displacement(2, plane) != deformation.displacement(1, plane)).all()
    np.testing.assert_array_equal(deformation.displacement(1, plane), Deformation(180, seed).displacement(1, plane))


def write_ome_zarr(labels, path):
    write_multiscales(labels, path, rule="mode", geometry=geometry(Grid(reference_space(9), SIZE)), levels=2)


def write_nifti(labels, path):
    # Axes of the file left-right, anterior-posterior, superior-inferior: turned into p, i, r by the reader.
    affine = np.diag([SIZE / 1000, -SIZE / 1000, -SIZE / 1000, 1.0])
    image = nibabel.Nifti1Image(labels.transpose(2, 0, 1), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@pytest.mark.parametrize(("name", "write"), [("x.ome.zarr", write_ome_zarr), ("x.nii.gz", write_nifti)])
def test_any_volume_that_an_atlas_reads_gives_the_same_sections(sharp, start, labels, tmp_path, name, write):
    write(labels, tmp_path / name)
    other = start(annotation=tmp_path / name)
    _, image = middle_image(DATASETS[0])
    np.testing.assert_array_equal(fetch(other, image["id"]), fetch(sharp, image["id"]))


def test_the_sections_of_the_ccf_show_its_voxels(start):
    """A real file, under the header of the Allen Institute that names the axes wrongly."""
    if not CCF.exists():
        pytest.skip("the shared data (../shared/data) is missing")
    voxels, _ = nrrd_format.read(str(CCF))
    emulator = start(annotation=CCF)
    dataset, image = middle_image(DATASETS[0])
    pixels = fetch(emulator, image["id"]).astype(float)
    depth = image["section_number"] * dataset["section_thickness"]
    pir = image_to_reference(
        full_resolution(pixels.shape), depth, alignment_matrix(image, "tsv"), alignment_matrix(dataset, "tvr")
    )
    at = np.clip(np.floor(pir / 50).astype(int), 0, np.array(voxels.shape) - 1)
    found = voxels[tuple(at.transpose(2, 0, 1))]
    brain, level = greys(emulator, DATASETS[0], found)
    assert len(np.unique(found)) > 100
    paper, ink = np.array(brain.background), np.array(brain.ink)
    assert np.abs(pixels - (paper + level[..., None] * (ink - paper))).mean() < 4
    np.testing.assert_allclose(pixels, brain.rgb(pir, 1.049 * 2**TIER), atol=JPEG + 1)


def test_datasets_have_greys_of_their_own(sharp):
    one, other = (sharp.phantom.of_dataset(id).levels for id in DATASETS)
    assert np.std(one - other) > 0.05
    assert (one == sharp.phantom.of_dataset(DATASETS[0]).levels).all()


def write_half(path):
    write_multiscales(
        np.ones((40, 40, 40), np.uint32), path, rule="mode", geometry=geometry(Grid(reference_space(9), 100)), levels=1
    )


@pytest.mark.parametrize(
    ("name", "write", "code"),
    [
        ("text.nrrd", lambda path: path.write_text("labels"), "unknown-format"),
        ("empty.nrrd", lambda path: path.write_bytes(b""), "empty-file"),
        ("missing.nrrd", lambda _: None, "file-not-found"),
        ("half.ome.zarr", write_half, "other-space"),
    ],
)
def test_a_file_that_is_no_annotation_of_the_adult_mouse_is_one_sentence(tmp_path, name, write, code):
    write(tmp_path / name)
    with pytest.raises(Exception, match=name) as caught, Emulator(annotation=tmp_path / name):
        pass
    assert caught.value.code == code


def test_an_orientation_that_mirrors_an_annotation_of_the_ccf_is_a_warning(nrrd):
    emulator = Emulator(annotation=nrrd, annotation_options={"orientation": "pir"})
    with pytest.warns(AtlaszarrWarning, match="read as pir, as given"), emulator:
        pass


def test_the_command_names_a_bad_annotation_and_ends_with_2(command, tmp_path):
    (tmp_path / "x.nrrd").write_text("labels")
    ran = command("emulator", "--port", 0, "--annotation", tmp_path / "x.nrrd")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "x.nrrd" in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--truth", "x.json"], "x.json needs --deform or --damage"),
        (["--damage", "x.json"], "cannot read the damage x.json"),
        (["--orientation", "asl"], "need --annotation"),
        (["--deform", "500"], "500.0 um is not between 0 and 180 um"),
        (["--deform", "-1"], "-1.0 um is not between"),
        (["--deform", "20", "--seed", "-1"], "-1 is not between"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(command, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("emulator", "--port", 0, *options)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert words in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_and_an_annotation_contradict_each_other(nrrd):
    with raises(InputError, "contradictory-options"):
        Emulator(phantom=default_brain(), annotation=nrrd)


def test_sections_that_are_not_deformed_have_no_truth_to_write(sharp, tmp_path):
    with raises(InputError, "missing-option"):
        sharp.write_truth(tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_the_command_writes_the_truth_and_serves_deformed_sections(nrrd, tmp_path, deformed):
    options = ["--annotation", nrrd, "--deform", "150", "--seed", "5", "--truth", tmp_path / "truth.json"]
    command = [sys.executable, "-m", "atlaszarr", "emulator", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        url = child.stdout.readline().split()[-1]
        _, image = middle_image(DATASETS[1])
        with urllib.request.urlopen(
            f"{url}/section_image_download/{image['id']}?downsample={TIER}&quality=100"
        ) as answer:
            body = answer.read()
        child.send_signal(signal.SIGTERM)
    np.testing.assert_array_equal(simplejpeg.decode_jpeg(body), fetch(deformed, image["id"]))
    deformed.write_truth(tmp_path / "other.json")
    assert (tmp_path / "truth.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    assert json.loads((tmp_path / "truth.json").read_text())["seed"] == 5


def test_the_command_serves_damaged_sections_of_an_annotation(nrrd, start, tmp_path):
    _, image = middle_image(DATASETS[0])
    rules = [{"match": {"image": image["id"]}, "do": "tear"}, {"do": "depth_error", "um": 150}]
    (tmp_path / "damage.json").write_text(json.dumps(rules))
    options = ["--annotation", nrrd, "--damage", tmp_path / "damage.json", "--seed", "5", "--truth", tmp_path / "truth"]
    command = [sys.executable, "-m", "atlaszarr", "emulator", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        url = child.stdout.readline().split()[-1]
        with urllib.request.urlopen(
            f"{url}/section_image_download/{image['id']}?downsample={TIER}&quality=100"
        ) as answer:
            body = answer.read()
        child.send_signal(signal.SIGTERM)
    damaged = start(annotation=nrrd, damage=Damage(rules, seed=5))
    np.testing.assert_array_equal(simplejpeg.decode_jpeg(body), fetch(damaged, image["id"]))
    damaged.write_truth(tmp_path / "other")
    assert (tmp_path / "truth").read_bytes() == (tmp_path / "other").read_bytes()
    pixels = fetch(damaged, image["id"]).astype(float)
    missing = damaged.truth(image["id"]).missing(
        full_resolution(pixels.shape) @ alignment_matrix(image, "tsv")[:, :2].T + alignment_matrix(image, "tsv")[:, 2]
    )
    assert missing.any()
    np.testing.assert_allclose(pixels[missing].mean(axis=0), damaged.phantom.background, atol=2)


def test_the_kept_voxels_are_removed_with_the_emulator(nrrd, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Emulator(annotation=nrrd):
        assert len(list(tmp_path.rglob("slots"))) == 1
    assert list(tmp_path.iterdir()) == []
