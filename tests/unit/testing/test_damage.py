"""Damage of emulated sections: each kind where its numbers say, at every tier, and the truth that is written of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atlaszarr.errors import InputError
from atlaszarr.testing import BrainPhantom, Damage, Deformation, Emulator
from atlaszarr.testing.catalogue import Catalogue
from atlaszarr.testing.damage import KINDS, SectionDamage, SectionTruth
from atlaszarr.testing.drawing import Drawing, Painter
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.records import alignment_matrix, depth
from atlaszarr.transforms import apply
from codes import raises

DATASET = 74272479
CATALOGUE = Catalogue()
IMAGES = [record["id"] for record in CATALOGUE.images_of(DATASET)]
IMAGE = IMAGES[len(IMAGES) // 2]
RECORD = CATALOGUE.image(IMAGE)
TSV, TVR = alignment_matrix(RECORD, "tsv"), alignment_matrix(CATALOGUE.dataset(DATASET), "tvr")
DEPTH = depth(RECORD, CATALOGUE.dataset(DATASET))
BRAIN = BrainPhantom().of_dataset(DATASET)
PAPER = np.rint(BRAIN.background)
#: The middle of the image in the section plane, in um.
X, Y = apply(TSV, [RECORD["width"] / 2 - 0.5, RECORD["height"] / 2 - 0.5])
NOTHING = {"do": "depth_error", "um": 0}


def painter(*rules, seed=0, deformation=None):
    return Painter(CATALOGUE, BrainPhantom(), damage=Damage(rules, seed), deformation=deformation)


def plane(tier):
    """(x, y) in um of the pixel centres of the image."""
    y, x = np.mgrid[: RECORD["height"] >> tier, : RECORD["width"] >> tier]
    return apply(TSV, (np.stack([x, y], axis=-1) + 0.5) * 2**tier - 0.5)


def draw(*rules, tier=5, view=None, **options):
    shape = plane(tier).shape[:2]
    return painter(*rules, **options).draw(RECORD, Drawing(tier, view), (0, 0), shape).astype(int)


def pixel(tier):
    """The mean size of a pixel in the brain, in um."""
    return float(np.linalg.norm(TVR[:, :2] @ TSV[:, :2], axis=0).mean()) * 2**tier


def brain_at(xy, deeper=0.0):
    """(p, i, r) of points of the section plane."""
    section = np.concatenate([xy, np.full((*xy.shape[:-1], 1), DEPTH + deeper)], axis=-1)
    return apply(TVR, section)


def expected(xy, deeper=0.0, tier=5, brain=BRAIN):
    return np.rint(brain.rgb(brain_at(xy, deeper), pixel(tier)))


def truth(*rules, deformation=None):
    damage = [SectionDamage(rule["do"], {key: rule[key] for key in rule if key != "do"}) for rule in rules]
    return SectionTruth(DATASET, DEPTH, deformation, damage)


@pytest.mark.parametrize("tier", [4, 6])
def test_a_hole_is_the_same_ellipse_at_every_tier(tier):
    hole = {"do": "hole", "x": X + 800, "y": Y - 300, "radius_x": 700, "radius_y": 450}
    whole, drawn = draw(NOTHING, tier=tier), draw(hole, tier=tier)
    at = plane(tier)
    inside = ((at[..., 0] - X - 800) / 700) ** 2 + ((at[..., 1] - Y + 300) / 450) ** 2 < 1
    assert (drawn[inside] == PAPER).all()
    assert (whole[inside] != PAPER).any(axis=-1).mean() > 0.8
    np.testing.assert_array_equal(drawn[~inside], whole[~inside])
    np.testing.assert_array_equal(painter(hole).truth(IMAGE).missing(at), inside)
    heat = draw({**hole, "radius_x": 5000, "radius_y": 5000}, tier=tier, view="expression")
    assert (draw(NOTHING, tier=tier, view="expression") > 0).any()
    assert not heat[np.hypot(*(at - [X + 800, Y - 300]).transpose(2, 0, 1)) < 5000].any()


def test_half_a_section_is_lost_along_a_line():
    drawn = draw({"do": "half_lost", "x": X, "y": Y, "direction": 90})
    lost = plane(5)[..., 1] > Y
    assert 0.3 < lost.mean() < 0.7
    assert (drawn[lost] == PAPER).all()
    np.testing.assert_array_equal(drawn[~lost], draw(NOTHING)[~lost])


def test_a_section_upside_down_shows_the_mirrored_point():
    drawn = draw({"do": "upside_down"})
    mirrored = plane(5) * [1, -1] + [0, 2 * Y]
    assert (drawn == expected(mirrored)).mean() > 0.9999
    assert (drawn == draw(NOTHING)).mean() < 0.9


def test_damage_before_a_flip_is_flipped_with_the_section():
    hole = {"do": "hole", "x": X, "y": Y - 900, "radius_x": 300, "radius_y": 300}
    flip = {"do": "upside_down", "y": Y}
    above, below = np.array([X, Y - 900]), np.array([X, Y + 900])
    assert [truth(hole, flip).missing(at) for at in (above, below)] == [False, True]
    assert [truth(flip, hole).missing(at) for at in (above, below)] == [True, False]


def test_a_tear_opens_a_wedge_and_moves_the_tissue_beside_it():
    tear = {"do": "tear", "x": X, "y": Y, "direction": 30.0, "opening": 12.0}
    torn, at = truth(tear), plane(5)
    turned = np.degrees(np.arctan2(at[..., 1] - Y, at[..., 0] - X)) - 30
    angle = np.abs((turned + 180) % 360 - 180)
    np.testing.assert_array_equal(torn.missing(at), angle < 6)
    assert (draw(tear)[angle < 6] == PAPER).all()
    distance = np.hypot(*(at - [X, Y]).transpose(2, 0, 1))
    found = torn.displacement(at)
    np.testing.assert_allclose(found[angle >= 60], 0, atol=1e-8)
    # By the angle alone, and the same on both sides: from the lips to nothing at 60 degrees.
    beside = (angle >= 6) & (angle < 60)
    turn = np.radians(angle - (angle - 6) * 60 / 54)
    np.testing.assert_allclose(
        np.linalg.norm(found[beside], axis=-1), (2 * distance * np.sin(np.abs(turn) / 2))[beside], atol=1e-6
    )
    drawn = draw(tear)
    assert (drawn[beside] == expected(at + found[..., :2])[beside]).mean() > 0.9999


def test_a_fold_shows_two_layers_and_draws_the_tissue_behind_it_near():
    fold = {"do": "fold", "x": X, "y": Y, "direction": 0.0, "width": 400.0, "length": 3000.0}
    at = plane(5)
    s, across = at[..., 0] - X, at[..., 1] - Y
    width = 400 * np.maximum(1 - (2 * across / 3000) ** 2, 0)
    double = (s >= 0) & (s < width)
    np.testing.assert_array_equal(truth(fold).folded(at), double)
    drawn = draw(fold)
    layers = [BRAIN.rgb(brain_at(part), pixel(5)) for part in (at, at + width[..., None] * [1, 0])]
    both = np.rint(layers[0] * layers[1] / BRAIN.background)
    assert double.sum() > 100
    assert (drawn[double] == both[double]).mean() > 0.999
    assert drawn[double].mean() < draw(NOTHING)[double].mean() - 20
    behind = (s >= width) & (width > 0) & (s < width + 3200)
    moved = np.where(behind, width * (1 - (s - width) / 3200), 0)
    displaced = truth(fold).displacement(at)
    np.testing.assert_allclose(displaced, np.stack([moved, 0 * s, 0 * s], axis=-1), atol=1e-8)
    assert (drawn[~double] == expected(at + displaced[..., :2])[~double]).mean() > 0.999
    assert not truth(fold).missing(at).any()


def test_a_hole_that_is_made_before_a_fold_shows_the_tissue_below():
    fold = {"do": "fold", "x": X, "y": Y, "direction": 0.0, "width": 400.0, "length": 3000.0}
    hole = {"do": "hole", "x": X + 150, "y": Y, "radius_x": 50, "radius_y": 50}
    at = np.array([X + 150, Y])
    assert not truth(hole, fold).missing(at)
    assert truth(fold, hole).missing(at)


def test_uneven_stain_multiplies_the_darkness():
    stain = {"do": "uneven_stain", "amplitude": 0.3, "wavelength": 5000, "direction": 90, "phase": 45}
    factor = 1 + 0.3 * np.sin(2 * np.pi * plane(5)[..., 1] / 5000 + np.pi / 4)
    raw = BRAIN.rgb(brain_at(plane(5)), pixel(5))
    paper = np.array(BRAIN.background)
    assert np.abs(draw(stain) - np.clip(paper + (raw - paper) * factor[..., None], 0, 255)).max() <= 1
    assert (factor.min(), factor.max()) == pytest.approx((0.7, 1.3), abs=0.01)


def test_contrast_scales_the_structures_about_their_mean():
    drawn = draw({"do": "contrast", "factor": 1 / 3})
    other = BRAIN.with_contrast(1 / 3)
    tissue = BRAIN.levels > 0
    np.testing.assert_allclose(other.levels[tissue] - 0.42, (BRAIN.levels[tissue] - 0.42) / 3)
    assert not other.levels[~tissue].any()
    assert (drawn == expected(plane(5), brain=other)).mean() > 0.9999


def test_a_depth_error_shows_the_brain_deeper_than_the_record_says():
    rule = {"match": {"dataset": DATASET}, "do": "depth_error", "um": 400}
    assert (draw(rule) == expected(plane(5), deeper=400)).mean() > 0.9999
    assert (BRAIN.labels(brain_at(plane(5))) != BRAIN.labels(brain_at(plane(5), 400))).mean() > 0.05
    found = painter(rule).truth(IMAGE).displacement(plane(5))
    np.testing.assert_allclose(found, np.broadcast_to([0.0, 0.0, 400.0], found.shape))


def test_a_drawn_depth_error_is_one_of_a_dataset_and_of_a_single_section_its_own():
    whole, single = {"do": "depth_error"}, {"match": {"image": IMAGE}, "do": "depth_error"}
    sections = [painter(whole, single).truth(id) for id in [*IMAGES[:3], IMAGE]]
    assert [len(section.damage) for section in sections] == [1, 1, 1, 2]
    assert len({section.damage[0].numbers["um"] for section in sections}) == 1
    own, shared = sections[-1].damage[1].numbers["um"], sections[-1].damage[0].numbers["um"]
    assert own != shared
    np.testing.assert_allclose(sections[-1].displacement([X, Y]), [0, 0, own + shared], atol=1e-9)


def test_a_rotation_turns_the_dataset_about_the_middle_of_the_brain():
    rule = {"do": "rotation", "about_x": 0, "about_y": 2, "about_depth": 0}
    section = painter(rule).truth(IMAGE)
    numbers = section.damage[0].numbers
    centre = np.array([numbers["x"], numbers["y"], numbers["depth"]])
    np.testing.assert_allclose(apply(TVR, centre), [6600, 4000, 5700], atol=1e-6)
    at = plane(6)
    arm = np.stack([at[..., 0] - centre[0], np.full(at.shape[:2], DEPTH - centre[2])], axis=-1)
    found = section.displacement(at)
    np.testing.assert_allclose(found[..., 1], 0, atol=1e-8)
    length = 2 * np.linalg.norm(arm, axis=-1) * np.sin(np.radians(1))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), length, atol=1e-8)
    cosine, sine = np.cos(np.radians(2)), np.sin(np.radians(2))
    np.testing.assert_allclose(found[..., 2], (cosine - 1) * arm[..., 1] - sine * arm[..., 0], atol=1e-8)


def test_all_damage_and_a_deformation_together_are_what_the_truth_says():
    rules = [{"do": kind} for kind in KINDS if kind not in ("uneven_stain", "contrast")]
    one = painter(*rules, seed=4, deformation=Deformation(120, 3))
    at, section = plane(5), one.truth(IMAGE)
    drawn = one.draw(RECORD, Drawing(5), (0, 0), at.shape[:2])
    missing, clear = section.missing(at), ~section.folded(at)
    moved = section.displacement(at)
    pir = apply(TVR, np.concatenate([at, np.full((*at.shape[:2], 1), DEPTH)], axis=-1) + moved)
    colours = np.where(missing[..., None], PAPER, np.rint(BRAIN.rgb(pir, pixel(5))))
    assert (drawn == colours)[clear].mean() > 0.9999
    assert 0.02 < missing.mean() < 0.98
    np.testing.assert_allclose(one.points(IMAGE, 5, (0, 0), at.shape[:2]), pir, atol=1e-8)


def test_the_same_seed_draws_the_same_bytes_and_another_one_other_damage():
    rules = [{"do": kind} for kind in KINDS]
    bytes_of = [painter(*rules, seed=seed).jpeg(IMAGE, Drawing(5)) for seed in (1, 1, 2)]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_hole_lies_in_tissue(seed):
    (hole,) = painter({"do": "hole"}, seed=seed).truth(IMAGE).damage
    assert BRAIN.labels(brain_at(np.array([hole.numbers["x"], hole.numbers["y"]]))) > 0
    assert 200 <= hole.numbers["radius_x"] <= 600


@pytest.mark.parametrize(("name", "value"), [("x", X + 2500.0), ("y", Y - 1500.0)])
def test_a_coordinate_that_is_given_is_kept_and_the_other_one_is_found_in_tissue(name, value):
    for seed in range(8):
        (hole,) = painter({"do": "hole", name: value}, seed=seed).truth(IMAGE).damage
        assert hole.numbers[name] == value
        assert BRAIN.labels(brain_at(np.array([hole.numbers["x"], hole.numbers["y"]]))) > 0


def test_a_part_of_a_damaged_section_is_that_of_the_whole():
    whole = painter({"do": "tear"}, {"do": "fold"}, seed=2)
    picture = whole.draw(RECORD, Drawing(5), (0, 0), plane(5).shape[:2])
    np.testing.assert_array_equal(whole.draw(RECORD, Drawing(5), (40, 30), (70, 90)), picture[30:100, 40:130])


def test_the_written_truth_has_the_numbers_of_every_section(tmp_path):
    rules = [{"match": {"image": IMAGE}, "do": "tear", "opening": 9}, {"match": {"dataset": DATASET}, "do": "rotation"}]
    emulator = Emulator(phantom=BrainPhantom(), deformation=Deformation(90, 1), damage=Damage(rules, 7))
    emulator.write_truth(tmp_path / "truth.json")
    document = json.loads((tmp_path / "truth.json").read_text())
    sections = document["damage"]["sections"]
    assert (len(document["datasets"][str(DATASET)]), document["damage"]["seed"]) == (6, 7)
    assert {len(sections[str(id)]["damage"]) for id in IMAGES if id != IMAGE} == {1}
    assert sections[str(CATALOGUE.images_of(69289763)[0]["id"])]["damage"] == []
    written = sections[str(IMAGE)]
    assert written["damage"][0]["opening"] == 9
    assert (written["dataset"], written["depth_um"]) == (DATASET, DEPTH)
    # The displacement, from the document alone, at points far from the tear.
    at = plane(6)
    angle = np.degrees(np.arctan2(*(at - [written["damage"][0][key] for key in "xy"]).transpose(2, 0, 1)[::-1]))
    far = np.abs((angle - written["damage"][0]["direction"] + 180) % 360 - 180) > 61
    point = np.concatenate([at, np.full((*at.shape[:2], 1), DEPTH)], axis=-1)
    shift = np.zeros_like(point)
    for wave in document["datasets"][str(DATASET)]:
        sine = np.sin(point @ wave["radians_per_um"] + wave["phase"])
        shift += sine[..., None] * [wave["x_um"], wave["y_um"], 0]
    found = apply(written["section_to_brain"], point + shift) - point
    assert far.mean() > 0.3
    np.testing.assert_allclose(found[far], emulator.truth(IMAGE).displacement(at)[far], atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "code", "word"),
    [
        ("hole", "invalid-damage", "'hole'"),
        ({"do": "burn"}, "unknown-value", "'burn'"),
        ({"x": 1}, "unknown-value", "'None'"),
        ({"do": "hole", "depth": 3}, "unknown-option", "'depth'"),
        ({"do": "hole", "x": "3"}, "invalid-damage", "'3' as its x"),
        ({"do": "hole", "radius_x": 0}, "invalid-damage", "0 as its radius_x"),
        ({"do": "tear", "opening": float("nan")}, "invalid-damage", "nan as its opening"),
        ({"do": "contrast", "factor": True}, "invalid-damage", "True as its factor"),
        ({"do": "hole", "match": {"path": "x"}}, "invalid-damage", "'path'"),
        ({"do": "hole", "match": {"image": "1"}}, "invalid-damage", "'1'"),
        ({"do": "hole", "match": {"image": 5}}, "image-not-served", "image 5"),
        ({"do": "hole", "match": {"dataset": 5}}, "image-not-served", "dataset 5"),
        ({"do": "hole", "match": {"dataset": 69289763, "image": IMAGE}}, "image-not-served", f"image {IMAGE}"),
        ({"do": "hole", "match": {"image": 101321610}}, "image-not-served", "101321610"),
        ({"do": "hole", "match": {"image": 10**400}}, "image-not-served", "more than 60 digits"),
        ({"do": "hole", "x": 10**400}, "invalid-damage", "more than 60 digits as its x"),
        ({"do": "hole", "x": list(range(10**5))}, "invalid-damage", "[0, 1, 2, 3, 4, 5, ...] as its x"),
        ({"do": "hole", "k" * 10**5: 1}, "unknown-option", "kkk"),
        ({"do": "h" * 10**5}, "unknown-value", "hhh"),
    ],
)
def test_damage_that_is_not_possible_is_one_sentence(rule, code, word):
    with raises(InputError, code) as caught:
        painter(rule)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("seed", [-1, 1.5, "1", 2**53 + 1])
@pytest.mark.parametrize("of", [lambda seed: Damage([], seed=seed), lambda seed: Deformation(9, seed)])
def test_a_seed_that_is_no_whole_number_within_limits_is_refused(of, seed):
    with raises(InputError, "invalid-value"):
        of(seed)


@pytest.mark.parametrize("text", ["[" * 10**5, "[" * 200 + "]" * 200, "[{]", "\ufeff[]", "[1" + "0" * 5000 + "]"])
def test_a_file_that_is_not_json_or_too_deep_is_refused(tmp_path, text):
    (tmp_path / "damage.json").write_text(text)
    with raises(InputError, "not-json"):
        Damage.load(tmp_path / "damage.json")


def test_many_folds_take_no_longer_than_their_layers():
    folds = [{"do": "fold", "x": 1e5 - 10 * k, "y": Y, "direction": 0, "width": 1, "length": 1} for k in range(60)]
    at = plane(6)
    assert not truth(*folds).missing(at).any()
    assert not truth(*folds).folded(at).any()
    # Three folds across one another: eight layers where they meet.
    across = [{"do": "fold", "x": X, "y": Y, "direction": 40 * k, "width": 500, "length": 9000} for k in range(3)]

    def layers(layer):
        return 1 + sum(layers(below) for _, below in layer.below)

    assert layers(truth(*across).shown(at)) == 8


def test_an_image_with_given_pixels_has_no_damage():
    given = {IMAGE: {5: np.zeros((RECORD["height"] >> 5, RECORD["width"] >> 5, 3), np.uint8)}}
    with raises(InputError, "conflicting-options"):
        Painter(CATALOGUE, BrainPhantom(), given, damage=Damage([{"match": {"image": IMAGE}, "do": "hole"}]))
    other = Painter(CATALOGUE, BrainPhantom(), given, damage=Damage([{"match": {"dataset": DATASET}, "do": "hole"}]))
    assert [len(other.truth(id).damage) for id in (IMAGE, IMAGES[0])] == [0, 1]


def test_images_without_alignment_have_no_truth_and_do_not_hide_others(tmp_path):
    first, *others = CATALOGUE.images_of(DATASET)
    records = [CATALOGUE.dataset(DATASET)], [{**first, "alignment2d": None}, *others]
    emulator = Emulator(
        *records, phantom=BrainPhantom(), damage=Damage([{"match": {"dataset": DATASET}, "do": "tear"}])
    )
    emulator.write_truth(tmp_path / "truth.json")
    sections = json.loads((tmp_path / "truth.json").read_text())["damage"]["sections"]
    assert set(sections) == {str(image["id"]) for image in others}
    with raises(InputError, "image-not-served"):
        Painter(emulator.catalogue, BrainPhantom(), damage=Damage([{"match": {"image": first["id"]}, "do": "tear"}]))


def test_a_dataset_with_a_singular_matrix_can_be_damaged():
    record = CATALOGUE.dataset(DATASET)
    flat = {key: 0.0 if key.startswith("tvr") else value for key, value in record["alignment3d"].items()}
    catalogue = Catalogue([{**record, "alignment3d": flat}], CATALOGUE.images_of(DATASET))
    damaged = Painter(catalogue, BrainPhantom(), damage=Damage([{"do": "hole"}, {"do": "rotation"}]))
    assert np.isfinite(list(damaged.truth(IMAGE).damage[1].numbers.values())).all()
    assert damaged.jpeg(IMAGE, Drawing(6))


def test_other_wrong_use_is_refused():
    with raises(InputError, "unsupported-damage"):
        Painter(CATALOGUE, default_phantom(), damage=Damage([{"do": "contrast"}]))
    with raises(InputError, "image-not-served"):
        Emulator().truth(101321610)


@pytest.mark.parametrize(("text", "code"), [("{}", "invalid-damage"), ("[", "not-json"), (None, "unreadable-file")])
def test_a_file_that_is_no_list_of_damage_is_refused(tmp_path, text, code):
    if text is not None:
        (tmp_path / "damage.json").write_text(text)
    with raises(InputError, code) as caught:
        Damage.load(tmp_path / "damage.json")
    assert "damage.json" in str(caught.value)
