"""The rows of a refinement: depths of sections with and without contrast, flags, missing images, and refinement.csv."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from atlaszarr.dataset_refinement.comparison import Fit
from atlaszarr.dataset_refinement.report import Depths, Refinement, rows_of, table_of
from atlaszarr.refinement.depth import OFFSETS
from atlaszarr.refinement.section import Figures, RefinedSection


def scores(best=0.0, correlation=0.5):
    return {"scores": np.exp(-(((OFFSETS - best) / 300) ** 2)).tolist(), "correlation": correlation}


def fit(reason="refined", unseen=0.6, correction=40.0, dice=0.92):
    before, after = Figures(0.2, min(0.1, unseen), 0.93), Figures(0.7, unseen, 0.97)
    kept = reason == "refined"
    section = RefinedSection(np.zeros((2, 4, 4)), 25.0, kept, reason, before, after, 100.0, (30.0, 80.0), 0.7)
    return Fit(section, Figures(0.15, min(0.05, unseen), dice), correction)


def test_a_fit_is_restored_from_json_without_its_field():
    one = fit()
    known = Fit.from_json(one.to_json())
    assert (known.recorded, known.section.after, known.section.deformation) == (
        one.recorded,
        one.section.after,
        (30.0, 80.0),
    )
    assert (known.correction, known.section.weight) == (one.correction, one.section.weight) == (40.0, 0.6)
    assert known.section.field.size == 0


def test_a_section_without_contrast_has_the_depth_of_the_dataset_and_no_part_in_it(dataset):
    found = {k: scores(100.0) for k in range(len(dataset.sections))}
    found[2] = scores(-900.0, correlation=0.0)
    depths = Depths.found(dataset, found)
    assert depths.dataset == pytest.approx(100, abs=20)
    assert depths.of == dict.fromkeys(found, pytest.approx(depths.dataset, abs=1e-9))
    assert depths.far == frozenset()
    assert 2 not in depths.clear
    assert depths.of_fits == {k: (um, depths.dataset, None) for k, um in depths.of.items()}


def test_a_fit_that_is_refused_has_the_depth_of_the_dataset_unless_the_section_clearly_fits_its_own():
    depths = Depths(20.0, {0: 20.0, 1: 400.0, 2: 400.0}, clear=frozenset({0, 2}))
    assert depths.of_fits == {0: (20.0, 20.0, None), 1: (400.0, 20.0, None), 2: (400.0, 400.0, None)}


def test_a_section_that_is_moved_to_a_doubtful_depth_is_far_only_beyond_300_um(dataset):
    sections = (replace(dataset.sections[0], image_id=k + 1, depth=1000.0 * k) for k in range(10))
    dataset = replace(dataset, sections=tuple(sections))
    depths = Depths(25.0, dict.fromkeys(range(10), 25.0), doubtful={3: -150.0, 4: 400.0, 5: 500.0})
    assert depths.of_fits[3] == (25.0, 25.0, -150.0)
    fits = {k: fit(correction=25.0).to_json() for k in range(10)}
    # Little contrast: far less correlation than the others.
    fits |= {k: fit(unseen=0.15, correction=um).to_json() for k, um in ((3, -150.0), (4, 400.0), (5, 25.0))}
    rows = rows_of(dataset, depths, fits, {}, {})
    assert [row.flag for row in rows[2:6]] == ["", "", "depth", "correlation"]


def test_sections_without_contrast_alone_keep_their_depths(dataset):
    depths = Depths.found(dataset, {k: scores(300.0, correlation=0.0) for k in (0, 3)})
    assert depths == Depths(of={0: 0.0, 3: 0.0})
    assert Depths.found(dataset, {}) == Depths()


def test_the_figures_before_are_those_of_the_record_and_those_after_of_what_is_written(dataset):
    written = {0: {"sha256": "x", "figures": {"correlation": 0.65, "unseen": 0.9, "dice": 0.96}, "jacobian": 0.8}}
    depths = replace(Depths(25.0, of={0: 40.0, 1: 90.0}), far=frozenset({1}))
    fits = {0: fit().to_json(), 1: fit("no rise on the unseen half", 0.08, correction=25.0).to_json()}
    missing = {dataset.sections[2].image_id: "status 404"}
    rows = rows_of(dataset, depths, fits, {**written, 1: {"sha256": None}}, missing)
    first, second, third, fourth, *_ = rows
    assert (first.correlation_before, first.correlation_after) == (0.15, 0.65)
    assert (first.unseen_before, first.unseen_after) == (0.05, 0.6)
    assert (first.dice_before, first.dice_after, first.jacobian) == (0.92, 0.96, 0.8)
    assert (first.kept, first.flag, first.reason, first.depth_um) == (True, "", "refined", 40.0)
    assert (second.kept, second.flag, second.jacobian, second.depth_um) == (False, "depth", 0.7, 25.0)
    assert (third.reason, third.kept, third.depth_um) == ("image missing: status 404", False, None)
    assert fourth.reason == "not compared yet"
    table = list(csv.DictReader(io.StringIO(table_of(rows).decode())))
    assert list(table[0]) == [
        *(
            "image_id",
            "section_number",
            "depth_recorded_um",
            "depth_um",
            "correlation_before",
            "correlation_after",
        ),
        *("unseen_before", "unseen_after", "dice_before", "dice_after", "affine_um", "deformation_p50_um"),
        *("deformation_p95_um", "jacobian", "kept", "flag", "reason"),
    ]
    assert [row["kept"] for row in table[:3]] == ["true", "false", "false"]
    assert [row["unseen_after"] for row in table[:3]] == ["0.6", "0.08", ""]


def test_the_report_is_shown_as_text_as_a_table_and_in_notebooks(dataset):
    fits = {k: fit(correction=25.0).to_json() for k in range(len(dataset.sections))}
    depths = Depths(25.0, dict.fromkeys(fits, 25.0), frozenset({4}))
    rows = rows_of(dataset, depths, fits, {}, {})
    report = Refinement(dataset.id, "x", "built", rows, depths.dataset, ())
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
    fits = {k: fit(correction=25.0).to_json() for k in range(len(seen))}
    depths = Depths(25.0, dict.fromkeys(fits, 25.0), frozenset(range(far)))
    rows = rows_of(dataset, depths, fits, {}, {last.image_id: "status 404"})
    report = Refinement(dataset.id, "x", "built", rows, 25.0, ())
    assert len(report.flagged) == far
    assert report.warning.startswith(f"{far} of {len(seen)} sections are flagged") == bool(more)
    assert ("warning" in dict(report.describe())) == bool(more)


def report_of(dataset, fits, shared=25.0):
    content = {k: each.to_json() for k, each in enumerate(fits)}
    rows = rows_of(dataset, Depths(shared, dict.fromkeys(content, shared)), content, {}, {})
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
