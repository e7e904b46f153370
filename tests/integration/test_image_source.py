"""Volumes and sections from slides of an image source, against the phantom's closed form."""

import csv
import hashlib
import io
import json
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from atlaszarr import build, iter_sections, open_sections, open_volume, plan, preview
from atlaszarr.allen.images import imaged_sections
from atlaszarr.allen.records import SectionDataset
from atlaszarr.errors import ImageError, InputError, NotFoundError, RecordError
from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.open_data import on_slides
from atlaszarr.testing.records import dataset_records, image_records
from codes import raises
from conftest import DATASET
from ranged_web import serving


@pytest.fixture(scope="module")
def on_two():
    """The records of the six sections in the middle of the brain, two on a slide."""
    datasets = [record for record in dataset_records() if record["id"] == DATASET]
    images = [record for record in image_records() if record["data_set_id"] == DATASET][27:33]
    return datasets, on_slides(images, per_slide=2)


def files_of(folder):
    """{key: bytes} of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def rows(target, name="sections"):
    return list(csv.DictReader(io.StringIO(Path(target, f"atlaszarr/{name}.csv").read_text())))


def differences(emulator, dataset, image, section, resolution):
    """Grey levels (n, 3) off the closed form at the section's own plane, and its gradients a um (n, 3, 3)."""
    index = np.argwhere(section)
    index = index[:: max(1, len(index) // 60_000)]
    pir = (index + 0.5) * resolution
    tvr, trv = (np.asarray(matrix) for matrix in dataset.alignment)
    depths = {s.image_id: s.depth for s in dataset.sections}
    plane = pir @ trv[:, :3].T + trv[:, 3]
    plane[:, 2] = [depths[id] for id in section[tuple(index.T)].tolist()]
    at = plane @ tvr[:, :3].T + tvr[:, 3]
    phantom = emulator.phantom
    inside = (phantom.distance_to_edge(at) > 100) & (phantom.labels(at) > 0)
    assert inside.sum() > 1500
    at, values = at[inside], image[(slice(None), *index[inside].T)].T.astype(float)
    gradient = np.stack([phantom.rgb(at + d) - phantom.rgb(at - d) for d in np.eye(3)], -1) / 2
    return values - phantom.rgb(at), gradient


def misplacement(difference, gradient):
    """The least-squares fit of a shift (p, i, r) in um to the differences."""
    return np.linalg.lstsq(gradient.reshape(-1, 3), difference.reshape(-1), rcond=None)[0]


@pytest.mark.first(1)
@pytest.mark.parametrize(("resolution", "tier"), [(50, 5), (25, 4)])
def test_a_volume_from_slides_is_the_phantom_at_the_planes_of_the_sections(
    serve, connect, on_two, tmp_path, resolution, tier
):
    emulator = serve(*on_two)
    emulator.write_bucket(Target(str(tmp_path / "bucket")), tiers=[tier])
    client = connect(emulator, image_source=tmp_path / "bucket")
    dataset = client.section_dataset(DATASET)
    target = tmp_path / "x.ome.zarr"
    assert build(dataset, target, client=client, resolution=resolution).ok
    image, section = (zarr.open_array(target / path, mode="r")[:] for path in ("0", "labels/section/0"))
    difference, gradient = differences(emulator, dataset, image, section, resolution)
    assert np.abs(difference).max() <= 1
    assert np.abs(misplacement(difference, gradient)[1:]).max() < 0.5
    assert np.abs(misplacement(difference, gradient)).max() < 2
    assert emulator.count("section_image_download") == 0
    assert all(int(row["tier"]) == tier for row in rows(target))


@pytest.fixture(scope="module")
def small(on_two, tmp_path_factory):
    """The files of a bucket of the six sections, at the tiers for 50 to 200 um, by key."""
    folder = tmp_path_factory.mktemp("small")
    Emulator(*on_two).write_bucket(Target(str(folder)), tiers=[5, 6, 7])
    return files_of(folder)


@pytest.fixture(scope="module")
def for_previews(small, on_two, tmp_path_factory):
    """The same with the tier for 25 um, which the thumbnails of so few sections are made of."""
    folder = tmp_path_factory.mktemp("for-previews")
    Emulator(*on_two).write_bucket(Target(str(folder)), tiers=[4])
    return {**small, **files_of(folder)}


@pytest.fixture
def folder(small, tmp_path):
    written(small, tmp_path / "bucket")
    return tmp_path / "bucket"


def written(files, folder):
    """Write the files of a bucket, by key, into a folder."""
    for key, body in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


@pytest.fixture
def client(serve, connect, on_two, folder):
    return connect(serve(*on_two), image_source=folder)


RECORD = f"section_data_set_{DATASET}/section_data_set.json"


def edited(folder, edit):
    """Edit the record of the dataset in a bucket: ``edit(entries)``, the list of its images."""
    path = Path(folder, RECORD)
    record = json.loads(path.read_text())
    edit(record["section_images"])
    path.write_text(json.dumps(record))


def slide_of(folder, number, tier=6):
    """The file of the slide of a section, counted from 0."""
    record = json.loads(Path(folder, RECORD).read_text())
    return Path(
        folder, f"section_data_set_{DATASET}/downsample_{tier}", record["section_images"][number]["image_file_name"]
    )


def arrays(target):
    return {path: zarr.open_array(Path(target) / path, mode="r")[:] for path in ("0", "labels/section/0")}


def test_both_sources_give_the_same_volume_to_within_the_error_of_jpeg(serve, connect, client, tmp_path):
    api = connect(serve())
    for name, one in (("slides", client), ("api", api)):
        assert build(DATASET, tmp_path / name, client=one, resolution=100).ok
    slides, jpegs = arrays(tmp_path / "slides"), arrays(tmp_path / "api")
    both = (slides["labels/section/0"] == jpegs["labels/section/0"]) & (slides["labels/section/0"] > 0)
    assert both.mean() > 0.99 * (jpegs["labels/section/0"] > 0).mean()
    difference = np.abs(slides["0"].astype(int) - jpegs["0"])[:, both]
    assert difference.mean() < 1.5


@pytest.mark.parametrize("per_slide", [1, 3, 6])
def test_sections_that_share_a_slide_fetch_it_once_and_no_byte_twice(serve, connect, records, tmp_path, per_slide):
    emulator = serve(records[0], on_slides(records[1], per_slide=per_slide))
    emulator.write_bucket(Target(str(tmp_path / "bucket")), tiers=[6], tiled=True)
    bodies = files_of(tmp_path / "bucket")
    with serving(bodies) as (url, files):
        client = connect(emulator, image_source=url)
        (planned,) = plan(DATASET, client=client, resolution=100)
        assert planned.slides.objects == 6 // per_slide
        assert planned.slides.bytes == planned.download_bytes
        assert planned.requests == planned.metadata_requests
        files.sent.clear()
        emulator.reset()
        report = build(DATASET, tmp_path / "x.ome.zarr", client=client, resolution=100, chunk=16)
        assert report.ok
        assert files.twice() == set()
        assert files.count(".tiff") == planned.slides.bytes
        assert sum(len(parts) for path, parts in files.sent.items() if path.endswith(".tiff")) == planned.slides.ranges
        assert {path for path in files.sent if path.endswith(".tiff")} == {path for path in bodies if ".tiff" in path}
        assert emulator.count("section_image_download") == 0
        assert files.peak <= 16


def test_a_plan_says_in_words_what_it_costs(client):
    (planned,) = plan(DATASET, client=client, resolution=100)
    lines = dict(planned.describe())
    assert lines["slides"].startswith("3 of ")
    assert "ranges" in lines["slides"]
    assert "headers" in lines["slides"]
    assert "missing" not in lines
    assert planned.slides.missing == 0
    assert planned.to_dict()["slides"]["objects"] == 3


@pytest.mark.parametrize(
    ("damage", "count", "words"),
    [
        (lambda folder: slide_of(folder, 2).unlink(), 2, "there is no slide"),
        (lambda folder: truncate(slide_of(folder, 2)), 2, "cut short"),
        (lambda folder: replaced_by_smaller(slide_of(folder, 0)), 2, "less than"),
        (lambda folder: edited(folder, lambda images: images[3].update(resolution=9)), 1, "resolution"),
    ],
)
def test_a_plan_counts_the_images_that_cannot_be_read(client, folder, damage, count, words):
    damage(folder)
    (planned,) = plan(DATASET, client=client, resolution=100)
    assert planned.slides.missing == count
    line = dict(planned.describe())["missing"]
    assert line.startswith(f"{count} section images")
    assert words in line


def test_a_record_of_a_build_from_slides_names_slide_etag_and_tier(serve, connect, small, tmp_path):
    with serving(small) as (url, _):
        client = connect(serve(), image_source=url)
        assert build(DATASET, tmp_path / "x", client=client, resolution=100).ok
    found = rows(tmp_path / "x")
    assert {row["state"] for row in found} == {"used"}
    for row in found:
        key = row["slide"]
        assert key.startswith(f"section_data_set_{DATASET}/downsample_6/section_image_")
        assert row["etag"] == hashlib.md5(small[key]).hexdigest()
        assert row["tier"] == "6"
        assert len(row["sha256"]) == 64
    document = json.loads((tmp_path / "x/atlaszarr/build.json").read_text())
    assert document["image_source"] == url
    assert document["request"]["image_source"] == "slides"


def test_a_build_from_the_api_has_no_word_of_slides(serve, connect, tmp_path):
    assert build(DATASET, tmp_path / "x", client=connect(serve()), resolution=200).ok
    document = json.loads((tmp_path / "x/atlaszarr/build.json").read_text())
    assert "slide" not in json.dumps(document)
    assert "image_source" not in document["request"]
    assert "slide" not in rows(tmp_path / "x")[0]


def test_a_target_of_one_source_is_not_resumed_from_the_other(serve, connect, client, tmp_path):
    build(DATASET, tmp_path / "x", client=client, resolution=200)
    with raises(InputError, "different-options"):
        build(DATASET, tmp_path / "x", client=connect(serve()), resolution=200)


def test_a_second_build_of_a_finished_target_writes_nothing(client, tmp_path):
    build(DATASET, tmp_path / "x", client=client, resolution=200)
    (view,) = build(DATASET, tmp_path / "x", client=client, resolution=200).views
    assert (view.state, view.tasks_done) == ("already finished", 0)


def test_fields_and_displacements_are_those_of_the_api_in_full_resolution_pixels(serve, connect, client):
    api, slides = (
        open_volume(DATASET, 200, displacement=True, client=one) for one in (connect(serve()), client)
    )  # fmt: skip
    both = (api.section.values == slides.section.values) & (api.section.values > 0)
    one, other = api.displacement.values[:, both], slides.displacement.values[:, both]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_lazy_volume_has_the_voxels_of_a_build(client, tmp_path):
    build(DATASET, tmp_path / "x", client=client, resolution=100)
    opened = open_volume(DATASET, 100, client=client)
    built = arrays(tmp_path / "x")
    np.testing.assert_array_equal(opened.image.values, built["0"])
    np.testing.assert_array_equal(opened.section.values, built["labels/section/0"])


def test_blocks_sections_and_images_that_share_slides_fetch_no_byte_twice(serve, connect, small):
    """Whatever asks for them, one after another or at the same time."""
    with serving(small) as (url, files):
        client = connect(serve(), image_source=url)
        dataset = client.section_dataset(DATASET)
        opened = open_volume(dataset, 100, chunk=16, client=client)
        opened.image.compute(num_workers=6)
        opened.section.compute(num_workers=6)
        for section in iter_sections(open_sections(dataset, 100, client=client)):
            assert section.image.shape == client.image(section.image_id, 6).shape
        files.sent.pop(RECORD)  # asked for with each image
        assert files.twice() == set()


def test_sections_are_registered_where_their_volume_has_them(serve, connect, client, tmp_path):
    """The displacement of a section warps its image to the registered one, and the written field has its frame."""
    opened = open_sections(DATASET, 100, client=client, detection_xy="centre")
    api = open_sections(DATASET, 100, client=connect(serve()), detection_xy="centre")
    for k, section in enumerate(iter_sections(opened)):
        inside = (api.image[k].values > 0) & (opened.image[k].values > 0)
        height, width, _ = section.image.shape
        x, y = section.displacement.coordinates(*map(slice, (0, 0), opened.image.shape[1:3]))
        within = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        warped = section.displacement.warp(section.image)
        np.testing.assert_array_equal(warped[within], opened.image[k].values[within])
        assert np.abs(opened.image[k].values.astype(int) - api.image[k].values)[inside].mean() < 1.5
    options = {"mode": "sections", "resolution": 100, "displacement": True}
    for name, one in (("slides", client), ("api", connect(serve()))):
        assert build(DATASET, tmp_path / name, client=one, **options).ok
    for k in range(6):
        one, other = (
            zarr.open_array(tmp_path / name / f"{k}/displacement/0", mode="r")[:] for name in ("slides", "api")
        )
        np.testing.assert_allclose(one, other, atol=1e-9, err_msg="both are positions in mm of one frame")


@pytest.mark.slow
def test_windows_of_a_large_section_have_the_values_of_the_whole(serve, connect, on_two, tmp_path):
    """At tier 1 a section has more than 4096 x 4096 pixels and is read in windows; at tier 2 whole."""
    emulator = serve(*on_two)
    emulator.write_bucket(Target(str(tmp_path / "bucket")), tiers=[1, 2], tiled=True)
    client = connect(emulator, image_source=tmp_path / "bucket")
    found = {}
    for tier in (1, 2):
        target = tmp_path / f"{tier}"
        options = {"mode": "sections", "resolution": 50, "downsample": tier}
        (planned,) = plan(DATASET, client=client, **options)
        assert (planned.sections_in_windows > 0) == (tier == 1)
        assert build(DATASET, target, client=client, **options).ok
        found[tier] = zarr.open_array(target / "3/0", mode="r")[:].astype(int)
    assert np.abs(found[1] - found[2]).mean() < 0.5


@pytest.mark.slow
def test_a_large_slide_is_fetched_section_by_section(serve, connect, records, tmp_path):
    """Its three sections have 200 MB at tier 1."""
    emulator = serve(records[0], on_slides(records[1][:3], per_slide=3))
    emulator.write_bucket(Target(str(tmp_path / "bucket")), tiers=[1], tiled=True)
    with serving(files_of(tmp_path / "bucket")) as (url, files):
        client = connect(emulator, image_source=url)
        options = {"mode": "sections", "resolution": 100, "downsample": 1, "client": client}
        (planned,) = plan(DATASET, **options)
        assert planned.slides.objects == 1
        files.sent.clear()
        assert build(DATASET, tmp_path / "x", **options).ok
        assert files.twice() == set()
        assert files.count(".tiff") == planned.slides.bytes
        sent = [stop - start for path, parts in files.sent.items() if path.endswith(".tiff") for start, stop in parts]
        assert len(sent) == planned.slides.ranges
        assert max(sent) <= 2**24


# A missing tier, slide or section.


def test_the_next_finer_tier_serves_for_one_that_the_record_lacks(client, folder, tmp_path):
    edited(folder, lambda images: images[2]["downsampling"].pop("downsample_6"))
    assert build(DATASET, tmp_path / "x", client=client, resolution=100).ok
    assert [row["tier"] for row in rows(tmp_path / "x")] == ["6", "6", "5", "6", "6", "6"]
    assert build(DATASET, tmp_path / "y", client=client, resolution=100, downsample=6).ok
    assert [row["tier"] for row in rows(tmp_path / "y")] == ["6", "6", "5", "6", "6", "6"]


def test_an_image_without_the_finest_tiers_is_positioned_by_the_corner_of_the_api(serve, connect, records, folder):
    """Where the API has another corner, by the middle of what tier 1 leaves open."""
    records[1][0] = on_slides(records[1], per_slide=2)[0]
    client = connect(serve(), image_source=folder)
    opened = {"whole": client.section_dataset(DATASET)}
    edited(folder, lambda entries: [entry["downsampling"].pop("downsample_0") for entry in entries])
    opened["lacking"] = client.section_dataset(DATASET)
    requests = {
        name: imaged_sections(dataset, 100).requests for name, dataset in opened.items()
    }  # fmt: skip
    offsets = [np.subtract(a.offset, b.offset) for a, b in zip(requests["whole"], requests["lacking"], strict=True)]
    np.testing.assert_array_equal(offsets[0], 0)
    assert np.abs(offsets[1:]).max() == 0.5
    edited(folder, lambda entries: [entry["downsampling"].pop("downsample_1") for entry in entries])
    lacking = imaged_sections(client.section_dataset(DATASET), 100).requests
    assert not lacking[0].problem
    assert "not known" in lacking[1].problem


def lose(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def replaced_by_smaller(path):
    tifffile.imwrite(path, tifffile.imread(path)[:-9], photometric="rgb")


def of_16_bits(path):
    tifffile.imwrite(path, tifffile.imread(path).astype("u2"), photometric="rgb")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose, "there is no slide"),
        (truncate, "slide"),
        (replaced_by_smaller, "less than"),
        (of_16_bits, "16 bits"),
    ],
)
def test_a_slide_that_cannot_be_read_is_a_recorded_failure_and_is_read_later(client, folder, tmp_path, damage, words):
    target, path = tmp_path / "x", slide_of(folder, 2)
    assert build(DATASET, tmp_path / "sound", client=client, resolution=100).ok
    sound = path.read_bytes()
    damage(path)
    report = build(DATASET, target, client=client, resolution=100)
    assert not report.ok
    assert len(report.views[0].failures) == 2
    for row in rows(target, "failures"):
        assert words in row["reason"]
        assert row["url"] == str(path)
    path.write_bytes(sound)
    assert build(DATASET, target, client=client, resolution=100).ok
    assert contents_of(target) == contents_of(tmp_path / "sound")


def contents_of(target):
    files = {path.relative_to(target): path for path in Path(target).rglob("*") if path.is_file()}
    return {key: path.read_bytes() for key, path in files.items() if key.parts[0] != "atlaszarr"}


CONTRADICTIONS = {
    "another size": (lambda image: image["downsampling"]["downsample_6"].update(width=99), "size at downsample 6"),
    "another resolution": (lambda image: image.update(resolution=2.1), "resolution"),
    "another section number": (lambda image: image.update(section_number=3), "section_number"),
    "another corner": (lambda image: image["downsampling"]["downsample_6"].update(x=3), "contradicts"),
    "a section off its slide": (lambda image: image["downsampling"]["downsample_6"].update(y=10**5), "does not lie on"),
    "a path": (lambda image: image.update(image_file_name="../../etc/passwd"), "image_file_name"),
    "no tier": (lambda image: image.update(downsampling={}), "no tier"),
    "a tier of another name": (lambda image: image["downsampling"].update(tier=3), "not a tier"),
    "another id": (lambda image: image.update(id=5), "does not list it"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_what_contradicts_the_api_is_a_recorded_failure_of_that_image_alone(client, folder, tmp_path, kind):
    edit, words = CONTRADICTIONS[kind]
    edited(folder, lambda images: edit(images[3]))
    report = build(DATASET, tmp_path / "x", client=client, resolution=100, allow_missing=True)
    assert report.ok
    (failure,) = report.views[0].failures
    assert failure.request.image_id == client.section_dataset(DATASET).sections[3].image_id
    assert words in failure.reason
    assert [row["state"] for row in rows(tmp_path / "x")] == ["used"] * 3 + ["missing"] + ["used"] * 2


def test_a_tier_coarser_than_all_of_the_record_is_needed(client, folder, tmp_path):
    edited(folder, lambda images: [images[3]["downsampling"].pop(f"downsample_{t}") for t in range(6)])
    report = build(DATASET, tmp_path / "x", client=client, resolution=100, downsample=5, allow_missing=True)
    (failure,) = report.views[0].failures
    assert "downsample_5" in failure.reason


# What is refused, in one sentence.


@pytest.mark.parametrize("options", [{"view": "expression"}, {"quality": 80}, {"range": (0, 9, 0, 9, 0, 9)}])
def test_options_of_the_image_service_are_refused(client, tmp_path, options):
    for run in (partial(build, DATASET, tmp_path / "x"), partial(plan, DATASET), partial(open_sections, DATASET)):
        with raises(InputError, "not-in-image-source") as caught:
            run(client=client, **options)
        assert "--image-source api" in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_a_dataset_that_the_source_lacks_is_named_with_the_way_out(serve, connect, tmp_path):
    client = connect(serve(), image_source=tmp_path)
    with raises(NotFoundError, "dataset-not-in-image-source") as caught:
        build(DATASET, tmp_path / "x", client=client)
    assert str(DATASET) in str(caught.value)
    assert "--image-source api" in str(caught.value)


BROKEN = {"no JSON": b"{", "a list": b"[]", "another dataset": b'{"id": 5}', "no images": b'{"id": %d}' % DATASET}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_record_that_is_not_valid_is_refused(client, folder, kind):
    Path(folder, RECORD).write_bytes(BROKEN[kind])
    with raises(RecordError, "invalid-record"):
        client.section_dataset(DATASET)


def test_a_source_is_a_folder_or_a_url(connect, serve, tmp_path):
    emulator = serve()
    with raises(InputError, "credentials-in-url"):
        connect(emulator, image_source="s3://key:secret@bucket")
    with raises(InputError, "unknown-option"):
        connect(emulator, image_source="s3://bucket", image_source_options={"kye": "1"})
    with raises(InputError, "not-supported"):
        connect(emulator, image_source_options={"anon": True})
    with raises(InputError, "not-supported"):
        connect(emulator, image_source=tmp_path, image_source_options={"anon": True})


def test_a_client_with_a_source_pickles_and_shows_no_option(serve, connect):
    options = {"key": "the-key", "secret": "the-secret", "endpoint_url": "http://127.0.0.1:1"}
    client = connect(serve(), image_source="s3://bucket/folder", image_source_options=options)
    copy = pickle.loads(pickle.dumps(client))
    assert copy.image_source.url == "s3://bucket/folder"
    assert "s3://bucket/folder" in repr(client)
    assert "the-" not in repr(client) + repr(client.image_source) + repr(copy.image_source._target)


def test_a_dataset_of_the_other_source_is_converted(serve, connect, client):
    api = connect(serve())
    (planned,) = plan(client.section_dataset(DATASET), client=api, resolution=200)
    assert planned.slides is None
    (planned,) = plan(api.section_dataset(DATASET), client=client, resolution=200)
    assert planned.slides.objects == 3
    dataset = client.section_dataset(DATASET)
    assert SectionDataset.from_dict(json.loads(json.dumps(dataset.to_dict()))) == dataset


# Single images.


def test_an_image_and_a_region_of_it_come_from_the_slide(client, small):
    section = client.section_dataset(DATASET).sections[1]
    whole = client.image(section.image_id, 6)
    tier = next(tier for tier in section.slide.tiers if tier.downsample == 6)
    slide = tifffile.imread(io.BytesIO(small[f"{section.slide.folder}/downsample_6/{section.slide.file}"]))
    np.testing.assert_array_equal(whole, slide[tier.y : tier.y + tier.height, tier.x : tier.x + tier.width])
    left, top = 20 * 64, 30 * 64
    x0, y0 = section.slide.tiers[0].x, section.slide.tiers[0].y
    found = client.image(section.image_id, 6, roi=(left, top, 7, 5))
    # The pixel of the slide that holds the corner.
    x, y = (x0 + left) // 64, (y0 + top) // 64
    np.testing.assert_array_equal(found, slide[y : y + 5, x : x + 7])
    with raises(InputError, "region-outside-image"):
        client.image(section.image_id, 6, roi=(0, 0, 10_000, 5))
    with raises(InputError, "not-in-image-source"):
        client.image(section.image_id, 6, view="expression")
    with raises(ImageError, "slide-image-missing"):
        client.image(section.image_id, 4)


# The command line.


@pytest.mark.usefixtures("folder")
def test_the_commands_take_an_image_source(serve, command, for_previews, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(for_previews, tmp_path / "bucket")
    emulator = serve()
    asked = ["--api-url", emulator.url, "--cache", "none", "--image-source", "bucket"]
    done = command("plan", DATASET, "--resolution", 100, "--json", *asked)
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["slides"]["objects"] == 3
    done = command("build", DATASET, "x.ome.zarr", "--resolution", 100, *asked)
    assert done.code == 0, done.err
    done = command("preview", DATASET, "x.png", *asked)
    assert done.code == 0, done.err
    image = rows("x.ome.zarr")[0]["image_id"]
    done = command("image", image, "--downsample", 6, *asked)
    assert done.code == 0, done.err
    assert Path(f"{image}.tif").exists()
    assert emulator.count("section_image_download") == 0
    done = command("build", DATASET, "y.ome.zarr", "--view", "expression", *asked)
    assert done.code == 2
    assert "--image-source api" in done.err
    done = command("image", image, "z.jpg", *asked)
    assert done.code == 2
    assert not Path("y.ome.zarr").exists()


@pytest.mark.slow
def test_a_preview_fetches_each_slide_once(serve, connect, for_previews, tmp_path):
    emulator = serve()
    with serving(for_previews) as (url, files):
        report = preview(DATASET, tmp_path / "x.png", client=connect(emulator, image_source=url))
        assert report.ok
        assert files.twice() == set()
        assert len([path for path in files.sent if path.endswith(".tiff")]) == 3


# Caches and workers.


def test_a_cache_holds_what_was_fetched(serve, connect, small, tmp_path):
    emulator = serve()
    with serving(small) as (url, files):
        options = {"image_source": url, "cache": tmp_path / "cache"}
        assert build(DATASET, tmp_path / "x", client=connect(emulator, **options), resolution=100).ok
        first = files.count(".tiff")
        files.sent.clear()
        client = connect(emulator, **options)
        (planned,) = plan(DATASET, client=client, resolution=100)
        assert planned.images_cached == 6
        files.sent.clear()
        assert build(DATASET, tmp_path / "y", client=client, resolution=100).ok
        assert files.count(".tiff") == planned.slides.bytes < first
        key = next(key for key in small if "downsample_6" in key)
        files.bodies[key] = small[key] + b"\0"  # a new ETag
        (planned,) = plan(DATASET, client=client, resolution=100)
        assert planned.images_cached == 4
    assert contents_of(tmp_path / "x") == contents_of(tmp_path / "y")


@pytest.mark.slow
def test_a_cluster_fetches_each_slide_once_and_writes_the_same_bytes(serve, connect, small, cluster, tmp_path):
    emulator = serve()
    with serving(small) as (url, files):
        client = connect(emulator, image_source=url)
        options = {"client": client, "resolution": 100, "chunk": 16}
        assert build(DATASET, tmp_path / "x", scheduler=cluster, **options).ok
        assert files.twice() == set()
        assert build(DATASET, tmp_path / "y", **options).ok
    assert contents_of(tmp_path / "x") == contents_of(tmp_path / "y")


# S3.


@pytest.fixture
def public(remote, small):
    """The URL and options of the bucket on S3, which names no credential."""
    for key, body in small.items():
        remote._client.put_object(Bucket="atlas", Key=f"slides/{key}", Body=body, ACL="public-read")
    options = {"anon": True, "endpoint_url": remote.options["endpoint_url"], "region_name": "us-east-1"}
    yield remote.url("slides"), options
    remote.gate.watch = lambda _: None


def test_slides_on_s3_are_read_anonymously(serve, connect, public, folder, tmp_path):
    url, options = public
    client = connect(serve(), image_source=url, image_source_options=options)
    assert build(DATASET, tmp_path / "x", client=client, resolution=100).ok
    assert build(DATASET, tmp_path / "y", client=connect(serve(), image_source=folder), resolution=100).ok
    one, other = contents_of(tmp_path / "x"), contents_of(tmp_path / "y")
    assert one.pop(Path("zarr.json")) != other.pop(Path("zarr.json")), "the root names its ledger, which has the ETags"
    assert one == other
    assert all(len(row["etag"]) == 32 for row in rows(tmp_path / "x"))


def test_s3_that_is_overloaded_for_a_moment_delays_a_build(serve, connect, public, remote, tmp_path):
    url, options = public
    client = connect(serve(), image_source=url, image_source_options=options)
    answers = iter(["503 Service Unavailable", None, "500 Internal Server Error", None, None])
    remote.gate.watch = lambda environment: next(answers, None) if environment["REQUEST_METHOD"] == "GET" else None
    assert build(DATASET, tmp_path / "x", client=client, resolution=100).ok


def test_a_bucket_that_denies_a_slide_lacks_it(serve, connect, public, remote, tmp_path):
    url, options = public
    client = connect(serve(), image_source=url, image_source_options=options)
    denied = next(iter(client.section_dataset(DATASET).sections)).slide.file
    remote.gate.watch = lambda environment: "403 Forbidden" if environment["PATH_INFO"].endswith(denied) else None
    report = build(DATASET, tmp_path / "x", client=client, resolution=100)
    assert not report.ok
    assert len(report.views[0].failures) == 2


class Damaging:
    """A WSGI application that flips a byte of the next slides that are sent, as many as `left`."""

    def __init__(self, application, left):
        self._application, self.left = application, left

    def __call__(self, environment, start):
        answer = list(self._application(environment, start))
        if self.left and environment["REQUEST_METHOD"] == "GET" and environment["PATH_INFO"].endswith(".tiff"):
            self.left -= 1
            body = bytearray(b"".join(answer))
            body[-1] ^= 1
            return [bytes(body)]
        return answer


@pytest.fixture
def damaging(remote):
    """Damages slides on their way: ``damaging(count)``."""
    sound = remote.gate._application

    def start(left):
        remote.gate._application = Damaging(sound, left)

    yield start
    remote.gate._application = sound


def test_a_whole_slide_that_was_damaged_on_its_way_is_fetched_again(serve, connect, public, damaging):
    url, options = public
    client = connect(serve(), image_source=url, image_source_options=options)
    section = client.section_dataset(DATASET).sections[0]
    sound = client.image(section.image_id, 7)
    copy = connect(serve(), image_source=url, image_source_options=options)
    damaging(1)
    np.testing.assert_array_equal(copy.image(section.image_id, 7), sound)
    other = connect(serve(), image_source=url, image_source_options=options)
    damaging(10)
    with raises(ImageError, "slide-image-missing") as caught:
        other.image(section.image_id, 7)
    assert "MD5" in str(caught.value)


def test_the_open_data_bucket_is_anonymous_unless_options_say_otherwise(connect, serve):
    emulator = serve()
    url = "s3://allen-mouse-brain-atlas"

    def options(**given):
        client = connect(emulator, image_source=url, image_source_options=given)
        return json.loads(client.image_source._target.storage_options)

    assert options() == {"anon": True, "region_name": "us-west-2"}
    assert options(endpoint_url="http://127.0.0.1:1") == {**options(), "endpoint_url": "http://127.0.0.1:1"}
    assert options(key="a", secret="b") == {"key": "a", "secret": "b", "region_name": "us-west-2"}
    assert options(anon=True, region_name="eu-west-1") == {"anon": True, "region_name": "eu-west-1"}


@pytest.mark.slow
def test_a_build_goes_on_where_s3_was_gone(serve, connect, public, remote, tmp_path):
    url, options = public
    clients = [connect(serve(), image_source=url, image_source_options={**options, "timeout": 0.5}) for _ in range(2)]
    assert build(DATASET, tmp_path / "undisturbed", client=clients[0], resolution=100, chunk=16).ok
    asked = []

    def gone(environment):
        """All slides but the first are gone."""
        if not environment["PATH_INFO"].endswith(".tiff"):
            return None
        asked.append(environment["PATH_INFO"])
        return None if environment["PATH_INFO"] == asked[0] else "503 Service Unavailable"

    remote.gate.watch = gone
    report = build(DATASET, tmp_path / "x", client=clients[1], resolution=100, chunk=16)
    assert not report.ok
    assert len(report.views[0].failures) == 4
    remote.gate.watch = lambda _: None
    assert build(DATASET, tmp_path / "x", client=clients[1], resolution=100, chunk=16).ok
    assert contents_of(tmp_path / "x") == contents_of(tmp_path / "undisturbed")
