"""What allensdk's users call, against the emulator: run by `run.py` in an environment that has allensdk.

Each check holds allensdk's result to the published figures (`published.py`) or to another way to the same result.
allensdk fetches JSON through `urllib` and files through `requests`: both are redirected.
"""

import itertools
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import requests
from allensdk.api.queries.image_download_api import ImageDownloadApi
from allensdk.api.queries.rma_api import RmaApi
from allensdk.api.queries.rma_pager import pageable
from allensdk.api.queries.synchronization_api import SynchronizationApi
from checks import check, run
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
    THICKNESS,
    TSV,
    TVR,
    WHOLE_HEIGHT,
    WHOLE_IMAGE,
    WHOLE_WIDTH,
    WIDTH,
    to_image,
    to_reference,
)
from transport import Redirect

TIER = 4

Redirect(os.environ["ALLEN_API_URL"])
logging.getLogger("allensdk.api.api.retrieve_file_over_http").setLevel(logging.CRITICAL)  # a line a download
scratch = Path(tempfile.mkdtemp(prefix="allensdk-"))
rma = RmaApi()
images = ImageDownloadApi()
synchronization = SynchronizationApi()


# RmaApi


@check
def model_query_finds_a_dataset_by_filter_and_includes_its_alignment():
    (dataset,) = rma.model_query("SectionDataSet", filters={"id": DATASET}, include="alignment3d,genes")
    assert dataset["id"] == DATASET
    assert dataset["reference_space_id"] == REFERENCE_SPACE
    assert dataset["section_thickness"] == THICKNESS
    assert [gene["acronym"] for gene in dataset["genes"]] == [GENE]
    published = [dataset["alignment3d"][f"tvr_{k:02d}"] for k in range(12)]
    np.testing.assert_array_equal(published, [*TVR[:, :3].ravel(), *TVR[:, 3]])


@check
def model_query_filters_by_associations():
    criteria = (
        f"[failed$eq'false'],products[abbreviation$eq'Mouse'],plane_of_section[name$eq'sagittal'],"
        f"genes[acronym$eq'{GENE}']"
    )
    datasets = rma.model_query("SectionDataSet", criteria=criteria)
    assert DATASET in [dataset["id"] for dataset in datasets]
    assert CORONAL_DATASET not in [dataset["id"] for dataset in datasets]


@check
def model_query_orders_pages_and_trims_the_columns():
    rows = rma.model_query(
        "SectionImage",
        criteria=f"[data_set_id$eq{DATASET}]",
        only=["id", "section_number"],
        order=["section_number"],
        start_row=2,
        num_rows=5,
    )
    assert [row["section_number"] for row in rows] == SECTION_NUMBERS[2:7]
    assert all(set(row) == {"id", "section_number"} for row in rows), rows[0]


@check
def model_query_takes_a_list_and_a_descending_order():
    criteria = f"[id$in{DATASET},{CORONAL_DATASET}]"
    rows = rma.model_query("SectionDataSet", criteria=criteria, order=["id+desc"], num_rows="all", count=False)
    assert [row["id"] for row in rows] == sorted((DATASET, CORONAL_DATASET), reverse=True)


@check
def a_pager_walks_through_all_rows():
    query = pageable(num_rows=7, total_rows="all")(rma.model_query)
    rows = query("SectionImage", criteria=f"[data_set_id$eq{CORONAL_DATASET}]", order=["section_number"])
    assert [row["section_number"] for row in rows] == CORONAL_SECTION_NUMBERS


@check
def json_msg_query_takes_any_form_of_the_same_question():
    urls = (
        rma.build_query_url(rma.model_stage("SectionImage", criteria=f"[id$eq{IMAGE}]", include="alignment2d")),
        f"{rma.rma_endpoint}/query.json?criteria=model::SectionImage,rma::criteria,[id$eq{IMAGE}],rma::include,alignment2d",
        f"{rma.rma_endpoint}/SectionImage/query.json?criteria=[id$eq{IMAGE}]&include=alignment2d",
        f"{rma.rma_endpoint}/SectionImage/{IMAGE}.json?include=alignment2d",
    )
    answers = [rma.json_msg_query(url) for url in urls]
    assert all(answer == answers[0] for answer in answers)
    alignment = answers[0][0]["alignment2d"]
    np.testing.assert_array_equal([alignment[f"tsv_0{k}"] for k in (0, 1, 4, 2, 3, 5)], TSV.ravel())


@check
def no_match_is_an_empty_list():
    assert rma.model_query("SectionDataSet", filters={"id": 1}) == []


@check
def a_query_that_cannot_be_parsed_is_an_error():
    try:
        answer = rma.model_query("SectionDataSet", criteria="[id$eq'")
    except HTTPError:
        return
    assert isinstance(answer, str), answer


@check
def the_structure_graph_leads_from_the_root_to_the_cortex():
    (root,) = rma.json_msg_query(f"{rma.structure_graph_endpoint}/1.json")
    nodes, waiting = {}, [root]
    while waiting:
        node = waiting.pop()
        nodes[node["acronym"]] = node
        waiting += node["children"]
    assert nodes["root"]["id"] == 997
    assert nodes["Isocortex"]["id"] == 315


# ImageDownloadApi


@check
def section_image_query_lists_the_sections_of_a_dataset():
    for dataset, numbers in ((DATASET, SECTION_NUMBERS), (CORONAL_DATASET, CORONAL_SECTION_NUMBERS)):
        assert sorted(image["section_number"] for image in images.section_image_query(dataset)) == numbers
    (image,) = (image for image in images.section_image_query(DATASET) if image["id"] == IMAGE)
    assert (image["width"], image["height"], image["section_number"]) == (WIDTH, HEIGHT, 70)


@check
def datasets_are_listed_by_product():
    datasets = [dataset["id"] for dataset in images.get_section_data_sets_by_product([1])]
    assert {DATASET, CORONAL_DATASET} <= set(datasets), datasets


def _download(image_id: int, **options: object) -> np.ndarray:
    path = scratch / "image.jpg"
    images.download_section_image(image_id, str(path), **options)
    with Image.open(path) as image:
        assert image.format == "JPEG"
        return np.asarray(image).astype(int)


@check
def download_section_image_gives_the_whole_image():
    assert _download(WHOLE_IMAGE).shape == (WHOLE_HEIGHT, WHOLE_WIDTH, 3)


@check
def a_downsampled_image_is_rounded_down_at_each_side():
    assert _download(IMAGE, downsample=TIER).shape == (HEIGHT // 2**TIER, WIDTH // 2**TIER, 3)


@check
def a_region_is_that_part_of_the_whole():
    whole = _download(IMAGE, downsample=TIER)
    left, top, width, height = 300, 120, 200, 150  # in pixels of the tier
    part = _download(
        IMAGE, downsample=TIER, left=left * 2**TIER, top=top * 2**TIER, width=width, height=height, quality=100
    )
    assert part.shape == (height, width, 3), part.shape
    difference = np.abs(part - whole[top : top + height, left : left + width]).mean()
    shifted = np.abs(part - whole[top : top + height, left + 2 : left + 2 + width]).mean()
    assert difference < 1.5, difference
    assert shifted > difference, (shifted, difference)


@check
def a_lower_quality_is_a_smaller_file_of_the_same_picture():
    fine = _download(IMAGE, downsample=TIER, quality=95)
    fine_bytes = (scratch / "image.jpg").stat().st_size
    coarse = _download(IMAGE, downsample=TIER, quality=20)
    assert (scratch / "image.jpg").stat().st_size < fine_bytes
    assert np.abs(fine - coarse).mean() < 6


@check
def the_expression_view_is_a_different_picture_of_the_same_size():
    image, expression = _download(IMAGE, downsample=TIER), _download(IMAGE, downsample=TIER, view="expression")
    assert expression.shape == image.shape
    assert np.abs(image - expression).mean() > 20


@check
def an_unknown_image_is_an_error_and_leaves_no_file():
    path = scratch / "absent.jpg"
    assert _refusal(lambda: images.download_section_image(1, str(path))) == 404
    assert not path.exists()


# SynchronizationApi


@check
def image_to_reference_agrees_with_the_alignments():
    for x, y in ((0, 0), (6000.5, 3700.25), (WIDTH, HEIGHT)):
        answer = synchronization.get_image_to_reference(IMAGE, x, y)["image_to_reference"]
        np.testing.assert_allclose([answer[axis] for axis in "xyz"], to_reference(x, y), rtol=0, atol=1e-6)


@check
def reference_to_image_agrees_with_the_alignments_for_each_dataset():
    pir = np.round(to_reference(6000, 3700), 3)
    answers = synchronization.get_reference_to_image(REFERENCE_SPACE, *pir, [DATASET, CORONAL_DATASET])
    found = {int(answer["image_sync"]["section_data_set_id"]): answer["image_sync"] for answer in answers}
    assert set(found) == {DATASET, CORONAL_DATASET}
    sync = found[DATASET]
    assert sync["section_image_id"] == IMAGE, sync
    np.testing.assert_allclose([sync["x"], sync["y"]], to_image(*pir), rtol=0, atol=1e-6)


@check
def image_to_image_is_image_to_reference_and_reference_to_image():
    x, y = 6000.0, 3700.0
    at = synchronization.get_image_to_reference(IMAGE, x, y)["image_to_reference"]
    (direct,) = synchronization.get_image_to_image(IMAGE, x, y, [CORONAL_DATASET])
    (chained,) = synchronization.get_reference_to_image(REFERENCE_SPACE, at["x"], at["y"], at["z"], [CORONAL_DATASET])
    direct, chained = direct["image_sync"], chained["image_sync"]
    assert direct["section_image_id"] == chained["section_image_id"]
    np.testing.assert_allclose(  # coordinates are asked for with six decimals
        [direct["x"], direct["y"]], [chained["x"], chained["y"]], rtol=0, atol=1e-5
    )


@check
def the_same_place_has_the_same_colour_in_both_datasets():
    sagittal = _download(IMAGE, downsample=TIER)
    differences = []
    for column, row in itertools.product(range(250, 550, 50), range(180, 340, 40)):
        x, y = ((pixel + 0.5) * 2**TIER - 0.5 for pixel in (column, row))
        # By space 9, which is the frame of space 10 too; `image_to_image` goes to the other side of the brain.
        at = synchronization.get_image_to_reference(IMAGE, x, y)["image_to_reference"]
        (answer,) = synchronization.get_reference_to_image(9, at["x"], at["y"], at["z"], [CORONAL_DATASET])
        sync = answer["image_sync"]
        part = {"left": round(sync["x"]), "top": round(sync["y"]), "width": 1, "height": 1}
        coronal = _download(sync["section_image_id"], downsample=TIER, quality=100, **part)[0, 0]
        differences.append(np.abs(sagittal[row, column] - coronal).max())
    assert len(differences) == 24
    # the nearest coronal section is up to 100 um away, beyond the edge of a region now and then
    assert np.median(differences) <= 4, differences


@check
def what_is_not_emulated_is_refused():
    queries = {
        "image_to_image_2d": lambda: synchronization.get_image_to_image_2d(IMAGE, 10, 10, [69177656]),
        "image_to_atlas": lambda: synchronization.get_image_to_atlas(IMAGE, 10, 10, 1),
        "structure_to_image": lambda: synchronization.get_structure_to_image(DATASET, [315]),
    }
    for name, query in queries.items():
        assert _refusal(query) == 404, name
    assert rma.model_query("Equalization") == []  # what get_section_image_ranges asks for: none is known
    for answer in (
        rma.model_query("AtlasImage"),
        rma.service_query("mouse_differential", [("set", "mouse")]),
    ):
        assert isinstance(answer, str), answer  # the error's text, where rows would be a list


def _refusal(query: Callable[[], object]) -> int:
    """The HTTP status with which `query` fails, through either of the two libraries; it is wrong for it not to."""
    try:
        answer = query()
    except HTTPError as error:
        return error.code
    except requests.HTTPError as error:
        return error.response.status_code
    raise AssertionError(f"answered {answer}")


if __name__ == "__main__":
    sys.exit(run("allensdk"))
