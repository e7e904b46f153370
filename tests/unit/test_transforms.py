"""The affine transformations against recorded answers of the real service."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atlaszarr.transforms import apply, compose, image_to_reference, reference_to_image, tier_affine

FIGURES = Path(__file__).parents[1] / "figures" / "recorded_synchronisation.csv"


def recorded(service):
    with FIGURES.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            {
                "number": int(row["section_number"]),
                "thickness": float(row["thickness_um"] or "nan"),
                "pir": [float(row[name]) for name in "pir"],
                "xy": [float(row[name]) for name in "xy"],
                "affine2": np.array([[float(row[f"a2_{i}{j}"]) for j in range(3)] for i in range(2)]),
                "affine3": np.array([[float(row[f"a3_{i}{j}"]) for j in range(4)] for i in range(3)]),
            }
            for row in rows
            if row["service"] == service
        ]


def test_thirty_recorded_answers_are_read():
    assert (len(recorded("image_to_reference")), len(recorded("reference_to_image"))) == (20, 10)


@pytest.mark.parametrize("answer", recorded("image_to_reference"))
def test_image_to_reference_reproduces_the_service_to_1e_9_um(answer):
    depth = answer["number"] * answer["thickness"]
    pir = image_to_reference(answer["xy"], depth, answer["affine2"], answer["affine3"])
    np.testing.assert_allclose(pir, answer["pir"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("answer", recorded("reference_to_image"))
def test_reference_to_image_reproduces_the_service_to_1e_9_pixels(answer):
    xy, _ = reference_to_image(answer["pir"], answer["affine2"], answer["affine3"])
    np.testing.assert_allclose(xy, answer["xy"], rtol=0, atol=1e-9)


coordinate = st.floats(-2e4, 2e4)
well_conditioned = st.integers(0, 2**32 - 1)


def random_affines(seed):
    rng = np.random.default_rng(seed)
    affine2 = np.hstack([np.eye(2) + 0.2 * rng.uniform(-1, 1, (2, 2)), rng.uniform(-3e3, 3e3, (2, 1))])
    affine3 = np.hstack([np.eye(3) + 0.2 * rng.uniform(-1, 1, (3, 3)), rng.uniform(-3e3, 3e3, (3, 1))])
    return affine2, affine3


def inverse(affine):
    linear = np.linalg.inv(affine[:, :-1])
    return np.hstack([linear, -linear @ affine[:, -1:]])


@given(well_conditioned, coordinate, coordinate, st.floats(0, 2e4))
def test_with_exact_inverses_a_round_trip_returns_to_the_pixel_and_the_depth(seed, x, y, depth):
    tsv, tvr = random_affines(seed)
    pir = image_to_reference([x, y], depth, tsv, tvr)
    back, depth_back = reference_to_image(pir, inverse(tsv), inverse(tvr))
    np.testing.assert_allclose([*back, depth_back], [x, y, depth], rtol=0, atol=1e-6)


@given(st.integers(0, 19), coordinate, coordinate)
def test_image_to_reference_does_not_use_the_inverses_of_tvs_and_trv(which, x, y):
    answer = recorded("image_to_reference")[which]
    tsv, tvr = answer["affine2"], answer["affine3"]
    rounded = [np.round(inverse(matrix), 6) for matrix in (tsv, tvr)]
    assume(abs(x) + abs(y) > 1000)
    out = image_to_reference([x, y], 2500.0, tsv, tvr)
    swapped = image_to_reference([x, y], 2500.0, *rounded)
    expected = tvr[:, :3] @ np.array([*(tsv[:, :2] @ [x, y] + tsv[:, 2]), 2500.0]) + tvr[:, 3]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-9)
    assert np.abs(swapped - expected).max() > 1.0


@given(st.integers(0, 9), st.tuples(coordinate, coordinate, coordinate))
def test_reference_to_image_applies_trv_then_tvs(which, pir):
    answer = recorded("reference_to_image")[which]
    tvs, trv = answer["affine2"], answer["affine3"]
    plane = trv[:, :3] @ np.array(pir) + trv[:, 3]
    xy, depth = reference_to_image(pir, tvs, trv)
    np.testing.assert_allclose(xy, tvs[:, :2] @ plane[:2] + tvs[:, 2], rtol=0, atol=1e-9)
    assert depth == pytest.approx(plane[2], abs=1e-9)


def test_arrays_of_points_keep_their_shape():
    tsv, tvr = random_affines(1)
    xy = np.random.default_rng(0).uniform(0, 1e4, (4, 5, 2))
    pir = image_to_reference(xy, 1000.0, tsv, tvr)
    assert pir.shape == (4, 5, 3)
    back, depth = reference_to_image(pir, inverse(tsv), inverse(tvr))
    assert back.shape == (4, 5, 2)
    assert depth.shape == (4, 5)
    np.testing.assert_allclose(image_to_reference(xy[2, 3], 1000.0, tsv, tvr), pir[2, 3], atol=1e-9)


@given(st.integers(0, 8), st.integers(0, 5000), st.integers(0, 5000))
def test_the_centre_of_a_tier_pixel_is_the_mean_of_its_full_resolution_pixels(downsample, x, y):
    pixels = np.arange(2**downsample)
    centre = [(x * 2**downsample + pixels).mean(), (y * 2**downsample + pixels).mean()]
    np.testing.assert_allclose(apply(tier_affine(downsample), centre), [x, y], rtol=0, atol=1e-9)


@given(well_conditioned, st.tuples(coordinate, coordinate, coordinate))
def test_a_composed_affine_applies_both_in_order(seed, point):
    _, inner = random_affines(seed)
    _, outer = random_affines(seed + 1)
    np.testing.assert_allclose(apply(compose(outer, inner), point), apply(outer, apply(inner, point)), atol=1e-6)
