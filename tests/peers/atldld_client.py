"""What atldld's users call, against the emulator: run by `run.py` in an environment that has atldld.

Each check holds atldld's result to the published figures (`published.py`) or to another way to the same result.
"""

import enum
import inspect
import itertools
import os
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from atldld import base, config, constants, dataset, plot, sync, utils
from atldld import requests as rma
from atldld.cli.root import root_cmd
from checks import check, run
from click.testing import CliRunner
from PIL import Image
from published import (
    CORONAL_DATASET,
    CORONAL_SECTION_NUMBERS,
    DATASET,
    GENE,
    HEIGHT,
    IMAGE,
    REFERENCE_SPACE,
    SECTION_NUMBERS,
    SPECIMEN,
    THICKNESS,
    TRV,
    TSV,
    TVR,
    TVS,
    WHOLE_HEIGHT,
    WHOLE_IMAGE,
    WHOLE_WIDTH,
    WIDTH,
    to_image,
    to_reference,
)
from transport import Redirect

TIER = 4
VOXEL = 25
BACKGROUND = np.array([238, 236, 232])  # of the emulator's phantom, whose brain is this ellipsoid in (p, i, r)
BRAIN_CENTRE, BRAIN_SEMI_AXES = np.array([7000, 4100, 5700]), np.array([5400, 3200, 4500])

redirect = Redirect(os.environ["ALLEN_API_URL"])
scratch = Path(tempfile.mkdtemp(prefix="atldld-"))
os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")  # else an earlier run's images would answer


# Images


@check
def get_image_gives_the_whole_image():
    image = utils.get_image(WHOLE_IMAGE)
    assert image.shape == (WHOLE_HEIGHT, WHOLE_WIDTH, 3), image.shape
    assert image.dtype == np.uint8, image.dtype


@check
def each_downsample_halves_the_image_and_keeps_its_content():
    whole = utils.get_image(WHOLE_IMAGE).astype(float)
    for downsample in (1, 3):
        side = 2**downsample
        rows, columns = WHOLE_HEIGHT // side, WHOLE_WIDTH // side
        image = utils.get_image(WHOLE_IMAGE, downsample=downsample)
        assert image.shape == (rows, columns, 3), image.shape
        means = whole[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).mean(axis=(1, 3))
        difference = np.abs(image - means).mean()
        assert difference < 2, f"{difference:.2f} grey levels from the mean of its pixels"


@check
def a_side_that_does_not_halve_evenly_is_rounded_down():
    image = utils.get_image(IMAGE, downsample=TIER)
    assert image.shape == (HEIGHT // 2**TIER, WIDTH // 2**TIER, 3), image.shape


@check
def the_expression_view_is_a_different_picture_of_the_same_size():
    image, expression = (utils.get_image(IMAGE, expression=view, downsample=TIER) for view in (False, True))
    assert expression.shape == image.shape, expression.shape
    assert np.abs(image.astype(int) - expression).mean() > 20


@check
def an_image_in_the_cache_is_not_asked_for_again():
    utils.get_image(IMAGE, downsample=TIER)
    before = len(redirect.sent)
    utils.get_image(IMAGE, downsample=TIER)
    assert len(redirect.sent) == before


# Metadata


@check
def a_gene_is_found_in_its_plane_and_in_no_other():
    assert DATASET in utils.get_experiment_list_from_gene(GENE, axis="sagittal")
    assert DATASET not in utils.get_experiment_list_from_gene(GENE, axis="coronal")
    assert utils.get_experiment_list_from_gene("NoSuchGene") == []


@check
def plane_and_reference_space_of_a_dataset_are_the_published_ones():
    assert utils.CommonQueries.get_axis(DATASET) == "sagittal"
    assert utils.CommonQueries.get_axis(CORONAL_DATASET) == "coronal"
    assert utils.CommonQueries.get_reference_space(DATASET) == REFERENCE_SPACE
    assert utils.CommonQueries.get_reference_space(CORONAL_DATASET) == 9


@check
def alignments_are_the_published_ones():
    np.testing.assert_array_equal(utils.get_2d(IMAGE), TSV)
    np.testing.assert_array_equal(utils.get_2d(IMAGE, ref2inp=True), TVS)
    np.testing.assert_array_equal(utils.get_3d(DATASET), TVR)
    to_volume, space, thickness = utils.get_3d(DATASET, ref2inp=True, add_last=True, return_meta=True)
    np.testing.assert_array_equal(to_volume, [*TRV, [0, 0, 0, 1]])
    assert (space, thickness) == (REFERENCE_SPACE, THICKNESS)


@check
def get_2d_bulk_gives_every_section_of_a_dataset():
    alignments = utils.get_2d_bulk(DATASET)
    assert sorted(number for _, number in alignments.values()) == SECTION_NUMBERS
    np.testing.assert_array_equal(alignments[IMAGE][0], TSV)
    coronal = utils.get_2d_bulk(CORONAL_DATASET, ref2inp=True, add_last=True)
    assert sorted(number for _, number in coronal.values()) == CORONAL_SECTION_NUMBERS


@check
def rma_all_filters_by_associations_and_includes_them():
    query = rma.RMAParameters(
        "SectionDataSet",
        criteria={"specimen_id": SPECIMEN, "genes": {"acronym": GENE}, "plane_of_section": {"name": "sagittal"}},
        include=["genes", "section_images", "alignment3d"],
    )
    (dataset,) = rma.rma_all(query)
    assert dataset["id"] == DATASET
    assert [gene["acronym"] for gene in dataset["genes"]] == [GENE]
    assert sorted(image["section_number"] for image in dataset["section_images"]) == SECTION_NUMBERS
    assert dataset["alignment3d"]["tvr_00"] == TVR[0, 0]


@check
def rma_pages_add_up_to_the_whole():
    criteria = {"data_set": {"specimen_id": SPECIMEN, "genes": {"acronym": GENE}}}
    whole = rma.rma_all(rma.RMAParameters("SectionImage", criteria=criteria))
    pages = []
    for start in (0, 7, 14):
        status, page = rma.rma(rma.RMAParameters("SectionImage", criteria=criteria, start_row=start, num_rows=7))
        assert (status["start_row"], status["num_rows"], status["total_rows"]) == (start, len(page), 18), status
        pages += page
    assert sorted(image["id"] for image in pages) == sorted(image["id"] for image in whole)


@check
def a_query_that_cannot_be_parsed_is_an_error():
    try:
        answer = rma.rma_all(rma.RMAParameters("SectionDataSet", criteria={"id": "'"}))
    except (rma.RMAError, rma.requests.HTTPError):
        return
    raise AssertionError(f"answered {answer}")


# Coordinates: the service's answers and the alignment matrices must agree


@check
def xy_to_pir_agrees_with_the_alignments():
    for x, y in ((0, 0), (6000.5, 3700.25), (WIDTH, HEIGHT)):
        pir = utils.xy_to_pir_API_single(x, y, IMAGE)
        np.testing.assert_allclose(pir, to_reference(x, y), rtol=0, atol=1e-6)
        local = sync.xy_to_pir(np.array([[x], [y], [70 * THICKNESS]]), TSV, TVR)
        np.testing.assert_allclose(pir, local[:, 0], rtol=0, atol=0.01)  # atldld computes in float32


@check
def pir_to_xy_agrees_with_the_alignments_and_finds_the_section():
    for x, y in ((2000, 2000), (6000.5, 3700.25)):
        pir = to_reference(x, y)
        *xy, number, image_id = utils.pir_to_xy_API_single(*pir, DATASET, reference_space=REFERENCE_SPACE)
        assert image_id == IMAGE, image_id
        assert abs(number - 70) < 0.01, number
        np.testing.assert_allclose(xy, to_image(*pir), rtol=0, atol=1e-6)
        np.testing.assert_allclose(xy, (x, y), rtol=0, atol=0.12)  # both directions are published with six digits
        local = sync.pir_to_xy(pir[:, np.newaxis], TVS, TRV)
        np.testing.assert_allclose(xy, local[:2, 0], rtol=0, atol=0.01)


@check
def corners_of_an_image_agree_with_the_alignments():
    corners = utils.get_corners_in_ref_space(IMAGE, WIDTH, HEIGHT)
    expected = [to_reference(x, y) for x, y in ((0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT))]
    np.testing.assert_allclose(corners, expected, rtol=0, atol=1e-6)


# DatasetDownloader


@cache
def registered():
    """Every section of the sagittal dataset, with its metadata."""
    downloader = sync.DatasetDownloader(DATASET, downsample_ref=VOXEL, downsample_img=TIER, include_expression=True)
    downloader.fetch_metadata()
    return downloader, list(downloader.run())


@check
def the_downloader_gives_every_section_from_the_highest_number_down():
    downloader, sections = registered()
    assert len(downloader) == len(sections) == 18
    numbers = {image["id"]: image["section_number"] for image in downloader.metadata["images"]}
    assert [numbers[section[0]] for section in sections] == SECTION_NUMBERS[::-1]


@check
def the_downloader_places_each_section_where_its_alignment_says():
    _, sections = registered()
    alignments = utils.get_2d_bulk(DATASET)
    for image_id, slice_coordinate, _, _, _ in sections:
        alignment, number = alignments[image_id]
        expected = TVR @ [*alignment[:, 2], number * THICKNESS, 1.0]
        assert abs(slice_coordinate - expected[2]) < 0.01, (image_id, slice_coordinate, expected)
    coordinates = [section[1] for section in sections]
    assert coordinates == sorted(coordinates, reverse=True)


@check
def the_downloader_gives_images_and_masks_at_their_tier():
    sizes = {image["id"]: image for image in rma.rma_all(rma.RMAParameters("SectionImage", {"data_set_id": DATASET}))}
    for image_id, _, image, expression, _ in registered()[1]:
        shape = (sizes[image_id]["height"] // 2**TIER, sizes[image_id]["width"] // 2**TIER, 3)
        assert image.shape == expression.shape == shape, (image_id, image.shape, expression.shape)
        assert image.dtype == expression.dtype == np.uint8
        assert np.abs(image.astype(int) - expression).mean() > 20


@check
def displacement_and_service_lead_to_the_same_pixel():
    x, y = 6000.0, 3700.0
    downloader = sync.DatasetDownloader(DATASET, downsample_ref=VOXEL, downsample_img=TIER, detection_xy=(x, y))
    downloader.fetch_metadata()
    for image_id, slice_coordinate, _, _, field in downloader.run():
        p, i, r = utils.xy_to_pir_API_single(x, y, image_id)
        assert abs(slice_coordinate - r) < 0.01, (slice_coordinate, r)
        for plane, expected in zip(field.transformation, (x / 2**TIER, y / 2**TIER), strict=True):
            assert plane.shape == (13200 // VOXEL, 8000 // VOXEL), plane.shape
            assert abs(_between(plane, p / VOXEL, i / VOXEL) - expected) < 0.02


@check
def every_warped_section_shows_the_brain_where_the_brain_is():
    p, i = np.meshgrid(np.arange(0, 13200, VOXEL), np.arange(0, 8000, VOXEL), indexing="ij")
    for image_id, r, image, _, field in registered()[1]:
        warped = field.warp(image, c=BACKGROUND.tolist())
        assert warped.shape == (528, 320, 3), warped.shape
        assert warped.dtype == np.uint8
        radius = sum(
            ((axis - centre) / semi_axis) ** 2
            for axis, centre, semi_axis in zip((p, i, r), BRAIN_CENTRE, BRAIN_SEMI_AXES, strict=True)
        )
        # the plane is taken as parallel, and is not quite: leave a margin at the outline
        tissue = np.abs(warped.astype(int) - BACKGROUND).max(axis=-1) > 20
        assert (radius > 1.15).any()
        assert tissue[radius > 1.15].mean() < 0.001, (image_id, tissue[radius > 1.15].mean())
        assert tissue[radius < 0.85].mean() > 0.999, (image_id, tissue[radius < 0.85].mean())


@check
def warping_takes_the_colour_of_the_pixel_it_names():
    _, _, image, _, field = registered()[1][8]
    x, y = field.transformation
    warped = field.warp(image)
    for row, column in itertools.product(range(100, 500, 50), range(60, 300, 40)):
        if 0 <= y[row, column] < image.shape[0] - 1 and 0 <= x[row, column] < image.shape[1] - 1:
            expected = _between(image.astype(float), y[row, column], x[row, column])
            np.testing.assert_allclose(warped[row, column], expected, rtol=0, atol=4)


@check
def a_coronal_dataset_is_cut_along_p():
    downloader = sync.DatasetDownloader(CORONAL_DATASET, downsample_ref=VOXEL, downsample_img=TIER)
    downloader.fetch_metadata()
    assert len(downloader) == 60
    sections = list(itertools.islice(downloader.run(), 3))  # one by one: the others are not fetched
    assert [section[4].shape for section in sections] == [(320, 456)] * 3
    assert sections[0][1] < sections[1][1] < sections[2][1] < 13200 / 2  # the highest numbers are the most anterior


# The command line


def _cli(*arguments: object) -> str:
    result = CliRunner().invoke(root_cmd, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@check
def the_cli_finds_datasets():
    line = f"* id: {DATASET:10d}, genes: {GENE:>10s}, sagittal, 18 section images"
    for criteria in (["-i", DATASET], ["-g", GENE, "-p", "sagittal"], ["-s", SPECIMEN]):
        output = _cli("search", "dataset", *criteria)
        assert line in output, output
    assert "No datasets found" in _cli("search", "dataset", "-i", 1)


@check
def the_cli_finds_images():
    line = f"* id: {IMAGE:10d}, dataset: {DATASET:>10d}, h: {HEIGHT:>5d}, w: {WIDTH:>5d}"
    for criteria in (["-d", DATASET], ["-g", GENE], ["-s", SPECIMEN]):
        output = _cli("search", "image", *criteria)
        assert "18 image(s) found" in output, output
        assert line in output, output
    assert _cli("search", "image", "-i", IMAGE).count("* id:") == 1


@check
def the_cli_describes_and_previews_a_dataset():
    output = " ".join(_cli("dataset", "info", DATASET).split())
    for fact in ("Sphinx ID : 157167", "Number of section images : 18", "Reference space : 10", "thickness : 25.0µm"):
        assert fact in output, output
    _cli("dataset", "preview", DATASET, "-o", scratch)
    with Image.open(scratch / f"dataset-id-{DATASET}-preview.png") as figure:
        assert figure.width > 1000


@check
def the_cli_downloads_an_image():
    _cli("download", "image", IMAGE, scratch, "--downsample-img", TIER, "--include-expression")
    for name in (f"{IMAGE}-{TIER}.png", f"{IMAGE}-{TIER}-expression.png"):
        with Image.open(scratch / name) as image:
            assert image.size == (WIDTH // 2**TIER, HEIGHT // 2**TIER)


@check
def the_cli_downloads_a_dataset():
    folder = scratch / "dataset"
    _cli("download", "dataset", DATASET, folder, "--downsample-img", TIER, "--downsample-ref", VOXEL)
    assert len(list(folder.glob("*.png"))) == 18
    with Image.open(folder / f"{IMAGE}.png") as section:
        warped = np.asarray(section)
    _, _, image, _, field = next(entry for entry in registered()[1] if entry[0] == IMAGE)
    np.testing.assert_array_equal(warped, field.warp(image, c=image[0, 0].tolist()))


# The table for those who come from atldld


@check
def the_migration_table_has_every_public_name_option_and_command():
    table = (Path(__file__).parents[2] / "docs" / "from_atldld.md").read_text()
    wanted = set()
    for module in (base, config, constants, dataset, plot, rma, sync, utils):
        for name, found in vars(module).items():
            if name.startswith("_") or getattr(found, "__module__", module.__name__) != module.__name__:
                continue
            if inspect.isfunction(found):
                wanted |= {name, *inspect.signature(found).parameters}
            elif inspect.isclass(found):
                parts = [part for part in vars(found) if not part.startswith("_")]
                own = () if issubclass(found, enum.Enum) else (*parts, "__init__")
                wanted |= {name, *own} - {"__init__"}
                for method in (getattr(found, part) for part in own):
                    if inspect.isfunction(method) or inspect.ismethod(method):
                        wanted |= {*inspect.signature(method).parameters} - {"self", "args", "kwargs"}
            elif name.isupper() and not inspect.ismodule(found):
                wanted.add(name)

    def walk(command, words):
        for name, below in getattr(command, "commands", {}).items():
            walk(below, f"{words} {name}")
        if not hasattr(command, "commands"):
            wanted.add(words)
            wanted.update(max(one.opts, key=len) for one in command.params if one.opts[0].startswith("-"))

    walk(root_cmd, "atldld")
    missing = sorted(name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", table))
    assert not missing, missing
    return f"{len(wanted)} names"


def _between(plane: np.ndarray, row: float, column: float) -> np.ndarray:
    """The value of `plane` between its pixels, by bilinear interpolation."""
    top, left = int(row), int(column)
    down, right = row - top, column - left
    upper = (1 - right) * plane[top, left] + right * plane[top, left + 1]
    lower = (1 - right) * plane[top + 1, left] + right * plane[top + 1, left + 1]
    return (1 - down) * upper + down * lower


if __name__ == "__main__":
    sys.exit(run("atldld"))
