"""The rows of a refinement: flags, missing images, refinement.csv, and warnings."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from atlaszarr.dataset_refinement.comparison import Fit
from atlaszarr.dataset_refinement.report import Refinement, rows_of, table_of
from atlaszarr.refinement.depth import SectionDepth
from atlaszarr.refinement.section import Figures, RefinedSection


def fit(reason="refined", unseen=0.6, correction=40.0, dice=0.92, agreement=0.7, far=False, turned=False):
    before, after = Figures(0.2, min(0.1, unseen), 0.93), Figures(0.7, unseen, 0.97)
    kept = reason == "refined"
    section = RefinedSection(np.zeros((2, 4, 4)), 25.0, kept, reason, before, after, 100.0, (30.0, 80.0), 0.7)
    depth = SectionDepth(correction, agreement, far, turned)
    return Fit(section, Figures(0.15, min(0.05, unseen), dice), depth)


def test_a_fit_is_restored_from_json_without_its_field():
    one = fit()
    known = Fit.from_json(one.to_json())
    assert (known.recorded, known.section.after, known.section.deformation) == (
        one.recorded,
        one.section.after,
        (30.0, 80.0),
    )
    assert (known.depth, known.section.weight) == (one.depth, one.section.weight) == ((40.0, 0.7, False, False), 0.6)
    assert known.section.field.size == 0


def test_sections_are_flagged_by_their_depths_and_by_what_the_others_lead_to_expect(dataset):
    sections = (replace(dataset.sections[0], image_id=k + 1, depth=1000.0 * k) for k in range(10))
    dataset = replace(dataset, sections=tuple(sections))
    fits = {k: fit(correction=25.0).to_json() for k in range(10)}
    # Little contrast: far less correlation than the others.
    pale = {"unseen": 0.15, "correction": 25.0}
    fits |= {3: fit(**pale, agreement=0.4).to_json(), 4: fit(**pale, agreement=0.1).to_json()}
    fits |= {5: fit(far=True).to_json(), 6: fit(turned=True).to_json(), 7: fit(**pale, agreement=None).to_json()}
    rows = rows_of(dataset, 25.0, fits, {}, {})
    assert [row.flag for row in rows[2:9]] == ["", "", "correlation", "depth", "orientation", "correlation", ""]
    assert [row.agreement for row in rows[3:5]] == [0.4, 0.1]


def test_the_figures_before_are_those_of_the_record_and_those_after_of_what_is_written(dataset):
    written = {0: {"sha256": "x", "figures": {"correlation": 0.65, "unseen": 0.9, "dice": 0.96}, "jacobian": 0.8}}
    fits = {0: fit().to_json(), 1: fit("no rise on the unseen half", 0.08, correction=25.0, far=True).to_json()}
    missing = {dataset.sections[2].image_id: "status 404"}
    rows = rows_of(dataset, 25.0, fits, {**written, 1: {"sha256": None}}, missing)
    first, second, third, fourth, *_ = rows
    assert (first.correlation_before, first.correlation_after) == (0.15, 0.65)
    assert (first.unseen_before, first.unseen_after) == (0.05, 0.6)
    assert (first.dice_before, first.dice_after, first.jacobian) == (0.92, 0.96, 0.8)
    assert (first.kept, first.flag, first.reason, first.depth_um) == (True, "", "refined", 40.0)
    assert (second.kept, second.flag, second.jacobian, second.depth_um) == (False, "depth", 0.7, 25.0)
    assert (third.reason, third.kept, third.depth_um) == ("image missing: status 404", False, 25.0)
    assert fourth.reason == "not compared yet"
    table = list(csv.DictReader(io.StringIO(table_of(rows).decode())))
    assert list(table[0]) == [
        *(
            "image_id",
            "section_number",
            "depth_recorded_um",
            "depth_um",
            "agreement",
            "correlation_before",
            "correlation_after",
        ),
        *("unseen_before", "unseen_after", "dice_before", "dice_after", "affine_um", "deformation_p50_um"),
        *("deformation_p95_um", "jacobian", "kept", "flag", "reason"),
    ]
    assert [row["kept"] for row in table[:3]] == ["true", "false", "false"]
    assert [row["unseen_after"] for row in table[:3]] == ["0.6", "0.08", ""]


def test_a_written_field_is_judged_and_not_the_fit_that_it_was_made_of(dataset):
    bad = {"sha256": "x", "figures": {"correlation": 0.6, "unseen": 0.9, "dice": 0.96}, "jacobian": 0.2}
    (row, other, *_) = rows_of(dataset, 40.0, {k: fit().to_json() for k in (0, 1)}, {0: bad}, {})
    assert (row.jacobian, row.flag, other.flag) == (0.2, "jacobian", "")


def test_a_section_that_is_fitted_and_whose_image_is_missing_since_has_no_figures(dataset):
    ids = [section.image_id for section in dataset.sections]
    rows = rows_of(dataset, 25.0, {0: fit().to_json()}, {}, {ids[0]: "status 503"})
    assert (rows[0].reason, rows[0].kept, rows[0].depth_um, rows[0].correlation_before) == (
        "image missing: status 503",
        False,
        40.0,
        None,
    )


def test_a_dataset_that_lies_elsewhere_is_a_warning_of_its_own(dataset):
    report = report_of(dataset, [fit(correction=330.0, far=True)] * len(dataset.sections), 330.0)
    assert "the whole dataset is corrected by +330 um in depth" in report.warning


def test_the_report_is_shown_as_text_as_a_table_and_in_notebooks(dataset):
    fits = {k: fit(correction=25.0, far=k == 4).to_json() for k in range(len(dataset.sections))}
    rows = rows_of(dataset, 25.0, fits, {}, {})
    report = Refinement(dataset.id, "x", "built", rows, 25.0, ())
    assert report.ok
    assert dict(report.describe())["flags"] == "1 depth"
    assert dict(report.describe())["depth of the dataset"] == "+25 um"
    assert report.table.loc[dataset.sections[4].image_id, "flag"] == "depth"
    assert report.to_dict()["sections"][0]["image_id"] == dataset.sections[0].image_id
    html = report._repr_html_()
    assert f"section {dataset.sections[4].section_number} (image {dataset.sections[4].image_id}): depth" in html
    assert not Refinement(dataset.id, "x", "unfinished", rows, 0.0, ()).ok


@pytest.mark.parametrize("more", [0, 1])
def test_flags_of_more_than_half_of_the_sections_that_have_images_are_a_warning(dataset, more):
    *seen, last = dataset.sections
    far = len(seen) // 2 + more
    fits = {k: fit(correction=25.0, far=k < far).to_json() for k in range(len(seen))}
    rows = rows_of(dataset, 25.0, fits, {}, {last.image_id: "status 404"})
    report = Refinement(dataset.id, "x", "built", rows, 25.0, ())
    assert len(report.flagged) == far
    assert report.warning.startswith(f"{far} of {len(seen)} sections are flagged") == bool(more)
    assert ("warning" in dict(report.describe())) == bool(more)


def report_of(dataset, fits, shared=25.0):
    content = {k: each.to_json() for k, each in enumerate(fits)}
    rows = rows_of(dataset, shared, content, {}, {})
    return Refinement(dataset.id, "x", "built", rows, shared, ())


def test_a_section_that_passes_another_in_depth_is_flagged(dataset):
    step = dataset.sections[1].depth - dataset.sections[0].depth
    moves = [25.0] * len(dataset.sections)
    moves[1], moves[4] = 25.0 + 1.5 * step, 25.0 - 0.4 * step
    report = report_of(dataset, [fit(correction=each) for each in moves])
    assert [row.flag for row in report.sections] == ["", "order", "", "", "", ""]
    assert dict(report.describe())["flags"] == "1 order"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reason": "no rise on the unseen half", "unseen": 0.06}, "unseen half is 0.06"),
        ({"dice": 0.8}, "before 0.80"),
        ({"unseen": 0.13, "dice": 0.9}, ""),  # a stain of little contrast
    ],
    ids=["correlation", "tissue", "low contrast"],
)
def test_a_dataset_that_the_annotation_does_not_fit_is_a_warning_although_no_section_differs(dataset, wrong, said):
    few = len(dataset.sections) // 2 - 1
    good, bad = ([fit(correction=25.0, **each) for _ in dataset.sections] for each in ({}, wrong))
    report = report_of(dataset, bad[few:] + good[:few])
    assert report.flagged == ()
    assert report.warning.startswith("the annotation does not seem to fit this dataset") == bool(said)
    assert said in report.warning
    assert report.to_dict()["warning"] == report.warning
    assert ("warning" in dict(report.describe())) == bool(said)
    assert report_of(dataset, good[few:] + bad[:few]).warning == ""


def test_sections_without_contrast_do_not_say_that_the_annotation_does_not_fit(dataset):
    blank = [fit("no contrast", unseen=0.0, correction=25.0, dice=0.0)] * len(dataset.sections)
    assert "sections are flagged" in report_of(dataset, blank).warning
    half = len(blank) // 2
    assert report_of(dataset, [fit(correction=25.0)] * half + blank[half:]).warning == ""
