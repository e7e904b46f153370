"""atldld's registered sections next to ours, from the same emulator: run by `run.py` where atlaszarr is.

`atldld_registered.py` makes atldld's, in its own environment. What is known to differ is accounted for, one by one:

- its grid point (row, column) stands for (25 row, 25 column) um, ours for the centre of a voxel;
- it divides full-resolution coordinates by 2^d, where pixel X of tier d has its centre at (X + 1/2) 2^d - 1/2;
- its sagittal planes come transposed, p down and i across, and stay in reference space 10.

Who is right about each is for the phantom to say, in closed form at points that the records alone lead to.
"""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from checks import check, run

from atlaszarr import AllenClient, iter_sections, open_sections
from atlaszarr.displacement.displacement import Displacement
from atlaszarr.testing.phantom import default_phantom

VOXEL = 25.0
TIER = 4
DATASETS = {"coronal": 74272479, "sagittal": 69289763}
#: Where slice coordinates are taken, in full-resolution pixels of all images of a dataset.
POINTS = {
    "corner": dict.fromkeys(DATASETS, (0.0, 0.0)),
    "inside": {"coronal": (2500.0, 2300.0), "sagittal": (6000.0, 3700.0)},
}
#: Of each plane, the axes 0 p, 1 i, 2 r: across it, down and across in the field's orientation.
FIXED = {"coronal": 0, "sagittal": 2}
ROWS = {"coronal": 1, "sagittal": 1}
COLUMNS = {"coronal": 2, "sagittal": 0}

#: Unit roundoff of float32, and how many such errors atldld's coordinate gathers, each of at most so much of the sum of
#: the absolute values of its terms: entries rounded (2), a product of matrices of four terms (4), the slice coordinate
#: rounded (1), a product with a point of four terms (4), the grid subtracted and added again (2).
ROUNDOFF, ROUNDINGS = 2.0**-24, 13

client = AllenClient(os.environ["ALLEN_API_URL"], cache="none", rate=1e9)
phantom = default_phantom()
scratch = Path(tempfile.mkdtemp(prefix="registered-"))


# What atldld makes, and what we make


@cache
def theirs() -> dict[str, np.ndarray]:
    ours("coronal").displacement(0).save(scratch / "ours-affine.npy")
    bent().save(scratch / "ours-bent.npy")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = Path(__file__).with_name("atldld_registered.py")
    subprocess.run([os.environ["PEER_PYTHON"], script, scratch], env=environment, check=True, timeout=200)
    with np.load(scratch / "theirs.npz") as saved:
        return dict(saved)


class Ours(NamedTuple):
    """Of one dataset."""

    opened: object
    record: object

    def position(self, id: int) -> int:
        return self.opened.image_id.values.tolist().index(id)

    def displacement(self, position: int) -> Displacement:
        return next(iter_sections(self.opened.isel(section=position))).displacement

    def plane(self, id: int) -> np.ndarray:
        return self.opened.image[self.position(id)].values

    def coordinate(self, id: int) -> float:
        return float(self.opened.coordinate[self.position(id)])


@cache
def ours(plane: str, point: str = "corner", tier: int = TIER, mirror: bool = False) -> Ours:
    record = dataset(plane)
    at = POINTS[point][plane]
    opened = open_sections(record, VOXEL, detection_xy=at, downsample=tier, mirror=mirror, client=client)
    return Ours(opened, record)


@cache
def dataset(plane: str) -> object:
    return client.section_dataset(DATASETS[plane])


def bent() -> Displacement:
    y, x = np.indices((300, 400)) / 50
    return Displacement.from_deltas(80 * np.sin(x + y), 60 * np.cos(x - y))


# Fields and slice coordinates


@check
def slice_coordinates_agree_to_float32():
    worst = 0.0
    for plane, point in ((plane, point) for plane in DATASETS for point in POINTS):
        mine, name = ours(plane, point), f"{plane} {point} {TIER}"
        for id, coordinate in zip(theirs()[f"{name} ids"].tolist(), theirs()[f"{name} coordinates"], strict=True):
            of = mine.coordinate(id)
            bound = coordinate_bound(plane, id, POINTS[point][plane])
            worst = max(worst, abs(of - coordinate) / bound)
            assert abs(of - coordinate) <= bound, (plane, point, id, of, coordinate, bound)
    return f"at most {worst:.2f} of the bound"


@check
def fields_agree_to_float32_at_the_tier_that_ours_takes():
    return compare_fields(
        (plane, point, TIER, f"{plane} {point} {TIER} fields") for plane in DATASETS for point in POINTS
    )


@check
def fields_agree_to_float32_at_full_resolution():
    return compare_fields((plane, "corner", 0, f"{plane} fields at tier 0") for plane in DATASETS)


@check
def a_mirror_changes_the_slice_coordinate_and_nothing_else():
    plain, mirrored = (ours("sagittal", mirror=mirror) for mirror in (False, True))
    np.testing.assert_allclose(plain.opened.coordinate, 11400 - mirrored.opened.coordinate, rtol=0, atol=1e-9)
    for id in plain.opened.image_id.values.tolist():
        pair = [one.displacement(one.position(id)).coordinates() for one in (plain, mirrored)]
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-9)


def compare_fields(cases) -> str:
    """Every field of ours against atldld's, with its conventions put on; says how far apart they are."""
    worst, most = 0.0, 0.0
    for plane, point, tier, name in cases:
        mine = ours(plane, point, tier)
        for id, field in zip(theirs()[f"{plane} {point} {TIER} ids"].tolist(), theirs()[name], strict=True):
            found = in_their_convention(mine.displacement(mine.position(id)), plane, tier)
            at = POINTS[point][plane]
            apart, bound = np.abs(found - field), field_bound(plane, id, at) / 2**tier
            assert apart.shape == (2, *((320, 456) if plane == "coronal" else (528, 320))), apart.shape
            worst, most = max(worst, (apart.max((1, 2)) / bound).max()), max(most, apart.max())
            assert worst <= 1, (plane, point, tier, id, apart.max((1, 2)), bound)
    return f"at most {most:.1e} pixel apart, {worst:.2f} of the bound"


def in_their_convention(field: Displacement, plane: str, tier: int) -> np.ndarray:
    """A field's coordinates as atldld means them: of corners, by X / 2^d, and with p down in sagittal planes."""
    half_a_pixel_back = Displacement.from_affine(field.shape, [[1, 0, -0.5], [0, 1, -0.5]])
    on = 0.5 - 0.5 / 2**tier
    to_their_tier = Displacement.from_affine((1, 1), [[1, 0, on], [0, 1, on]])
    xy = to_their_tier.compose(field.compose(half_a_pixel_back)).coordinates()
    return xy if plane == "coronal" else xy.transpose(0, 2, 1)


def coordinate_bound(plane: str, id: int, at: tuple[float, float]) -> float:
    """How far atldld's slice coordinate may be off: um."""
    record, section = dataset(plane), section_of(plane, id)
    to_plane = np.vstack([np.insert(np.asarray(section.tsv), 2, 0, axis=1), [0, 0, 1, 0], [0, 0, 0, 1]])
    terms = np.abs(record.tvr)[:3] @ np.abs(to_plane) @ [*at, section.depth, 1]
    return ROUNDINGS * ROUNDOFF * terms[FIXED[plane]]


def field_bound(plane: str, id: int, at: tuple[float, float]) -> np.ndarray:
    """How far atldld's coordinates may be off in X and Y: full-resolution pixels.

    The largest sum of absolute terms over the plane, and what an error of the slice coordinate adds.
    """
    record, section = dataset(plane), section_of(plane, id)
    to_image = np.insert(np.asarray(section.tvs), 2, 0, axis=1)
    to_section = np.vstack([np.asarray(record.trv)[:3], [0, 0, 0, 1]])
    farthest = np.array([13200.0, 8000.0, 11400.0, 1.0])
    farthest[FIXED[plane]] = abs(ours(plane).coordinate(id)) + 400
    terms = np.abs(to_image) @ np.abs(to_section) @ farthest
    across = np.abs(to_image @ to_section)[:, FIXED[plane]]
    return ROUNDINGS * ROUNDOFF * terms + across * coordinate_bound(plane, id, at)


def section_of(plane: str, id: int) -> object:
    return next(section for section in dataset(plane).sections if section.image_id == id)


# Files and warping


@check
def a_field_that_atldld_saved_is_read_as_it_is():
    for name in ("affine", "bent"):
        field = Displacement.load(scratch_of_theirs() / f"theirs-{name}.npy")
        deltas = [field.delta_x.compute(), field.delta_y.compute()]
        np.testing.assert_array_equal(deltas, theirs()[f"{name} deltas"])


@check
def a_field_that_we_saved_is_read_by_atldld():
    for name, field in (("affine", ours("coronal").displacement(0)), ("bent", bent())):
        xy = field.coordinates()
        scale = max(np.abs(xy).max(), *field.shape)
        np.testing.assert_allclose(theirs()[f"ours-{name}"], xy, rtol=0, atol=3 * ROUNDOFF * scale)


@check
def warped_images_agree_within_a_grey_level():
    """With lanczos OpenCV 5 rounds places to 1/32 pixel; there, and with nearest, a few are half-way between two."""
    image, said = theirs()["image"], []
    for name in ("affine", "bent"):
        field = Displacement.load(scratch_of_theirs() / f"theirs-{name}.npy")
        rounded = Displacement.from_coordinates(*np.rint(field.coordinates() * 32) / 32)
        for way in ("nearest", "linear", "cubic", "lanczos"):
            expected = theirs()[f"{name} {way}"].astype(int)
            exact, opencv = (
                np.abs(one.warp(image, way, "constant", [238, 236, 232]) - expected).max(axis=-1)
                for one in (field, rounded if way == "lanczos" else field)
            )
            said.append(f"{name} {way} {100 * (exact > 1).mean():.3f} % (at most {exact.max()})")
            assert (opencv > 1).mean() <= (1e-4 if way in ("nearest", "lanczos") else 0), said
    return "beyond one, without that rounding: " + ", ".join(said)


def scratch_of_theirs() -> Path:
    theirs()
    return scratch


# Where they differ, by the phantom


class Shown(NamedTuple):
    """How well a plane shows the phantom at points, within the section's own plane."""

    error: float
    """Mean absolute, in grey levels."""

    shift: np.ndarray
    """(p, i, r) in um, by least squares: what is shown lies so far on from the point."""

    def __str__(self) -> str:
        p, i, r = self.shift
        return f"error {self.error:.2f}, shift {p:.1f} {i:.1f} {r:.1f} um"


def shown(picture: np.ndarray, pir: np.ndarray, plane: str, id: int) -> Shown:
    """A picture against the phantom at a point for each of its pixels, (rows, columns, 3), in the dataset's own space.

    The points are moved along the depth onto the section, by the record, so that the parallel plane is no matter here.
    """
    record, section = dataset(plane), section_of(plane, id)
    trv, tvr = (np.asarray(matrix)[:3] for matrix in (record.trv, record.tvr))
    points = pir @ trv[:, :3].T + trv[:, 3]
    points[..., 2] = section.depth
    return against_phantom(picture, points @ tvr[:, :3].T + tvr[:, 3], mirrored=False)


def against_phantom(picture: np.ndarray, pir: np.ndarray, mirrored: bool) -> Shown:
    pir = pir * [1, 1, -1] + [0, 0, 11400] if mirrored else pir
    grey, at = picture[::3, ::3].reshape(-1, 3).astype(float), pir[::3, ::3].reshape(-1, 3)
    smooth = (phantom.distance_to_edge(at) > 150) & (phantom.labels(at) > 0)
    grey, at = grey[smooth], at[smooth]
    assert len(at) > 500, len(at)
    difference = grey - phantom.rgb(at)
    gradient = np.stack([phantom.rgb(at + d) - phantom.rgb(at - d) for d in np.eye(3)], -1) / 2
    shift = np.linalg.lstsq(gradient.reshape(-1, 3), difference.reshape(-1), rcond=None)[0]
    return Shown(np.abs(difference).mean(), shift)


def points_of(shape: tuple[int, int], plane: str, coordinate: float, offset: float, transposed: bool = False):
    """(p, i, r) of the pixels of a plane: VOXEL (index + offset) um down and across, and the slice coordinate."""
    down, across = np.indices(shape) + offset
    pir = np.empty((*shape, 3))
    rows, columns = (COLUMNS, ROWS) if transposed else (ROWS, COLUMNS)
    pir[..., rows[plane]], pir[..., columns[plane]], pir[..., FIXED[plane]] = VOXEL * down, VOXEL * across, coordinate
    return pir


def one_section(plane: str, tier: int) -> tuple[int, float, np.ndarray]:
    """Of atldld's, one in mid-brain: id, slice coordinate, plane."""
    name = f"{plane} corner {tier}"
    position = len(theirs()[f"{name} ids"]) // 2
    return tuple(theirs()[f"{name} {what}"][position] for what in ("ids", "coordinates", "planes"))


@check
def a_pixel_of_ours_shows_what_lies_at_the_centre_of_its_voxel():
    said = []
    for plane, tier in ((plane, tier) for plane in DATASETS for tier in (1, TIER)):
        id, _, _ = one_section(plane, tier)
        mine = ours(plane, tier=tier)
        picture = mine.plane(id)
        points = points_of(picture.shape[:2], plane, mine.coordinate(id), 0.5)
        found = shown(picture, points, plane, id)
        said.append(f"{plane}, tier {tier}: {found}")
        assert found.error < 0.7, said
        assert np.abs(in_plane(found, plane)).max() < 1.5, said
    return "; ".join(said)


@check
def a_coarse_pixel_of_atldlds_shows_what_lies_half_a_tier_pixel_on():
    said = []
    for plane, tier, on in ((plane, *case) for plane in DATASETS for case in ((1, 0.5), (TIER, 7.5))):
        id, coordinate, picture = one_section(plane, tier)
        points = points_of(picture.shape[:2], plane, coordinate, 0.0, transposed=plane == "sagittal")
        found = shown(picture, points, plane, id)
        said.append(f"{plane}, tier {tier}: {found}")
        expected = on * 1.049 * scale_of(plane)
        np.testing.assert_allclose(in_plane(found, plane), expected, rtol=0, atol=1.5, err_msg=str(said))
    return "; ".join(said)


@check
def laid_over_voxels_atldlds_pixels_are_half_a_voxel_off():
    """At tier 1, where the tiers' centres are no matter; at tier 4 the two errors partly cancel."""
    said = []
    for plane in DATASETS:
        id, coordinate, picture = one_section(plane, 1)
        points = points_of(picture.shape[:2], plane, coordinate, 0.5, transposed=plane == "sagittal")
        found = shown(picture, points, plane, id)
        said.append(f"{plane}, tier 1: {found}")
        expected = 0.5 * 1.049 * scale_of(plane) - VOXEL / 2
        np.testing.assert_allclose(in_plane(found, plane), expected, rtol=0, atol=1.5, err_msg=str(said))
    return "; ".join(said)


def in_plane(found: Shown, plane: str) -> np.ndarray:
    return found.shift[[ROWS[plane], COLUMNS[plane]]]


def scale_of(plane: str) -> np.ndarray:
    """Length in the space of a um of a section, down and across; it turns them little."""
    tvr = np.asarray(dataset(plane).tvr)[:3]
    return np.abs(tvr[[ROWS[plane], COLUMNS[plane]], :2]).max(axis=1)


@check
def sagittal_planes_of_ours_have_i_down_and_p_across_and_atldlds_the_reverse():
    id, coordinate, picture = one_section("sagittal", TIER)
    mine = ours("sagittal")
    said = []
    for who, plane in (("ours", mine.plane(id)), ("atldld's", picture)):
        square = plane[:320, :320]
        upright, turned = (
            shown(square, points_of((320, 320), "sagittal", coordinate, 0.0, transposed), "sagittal", id).error
            for transposed in (False, True)
        )
        said.append(f"{who}: {upright:.2f} with i down and p across, {turned:.2f} with p down and i across")
        best, other = (upright, turned) if who == "ours" else (turned, upright)
        assert best < 1, said
        assert other > 10 * best, said
    return "grey levels of error, " + "; ".join(said)


@check
def a_sagittal_section_shows_the_left_side_as_ours_and_atldlds_say():
    id, coordinate, picture = one_section("sagittal", TIER)
    mine = ours("sagittal")
    said = []
    for who, plane, at, transposed, offset in (
        ("ours", mine.plane(id), mine.coordinate(id), False, 0.5),
        ("atldld's", picture, float(coordinate), True, 0.0),
    ):
        points = points_of(plane.shape[:2], "sagittal", at, offset, transposed)
        found = against_phantom(plane, points, mirrored=False)
        other = against_phantom(plane, points, mirrored=True)
        said.append(f"{who} at r = {at:.0f} um: {found.error:.2f}, at {11400 - at:.0f}: {other.error:.2f}")
        assert at < 5700, said
        assert other.error > 3 * found.error, said
    return "grey levels of error, " + "; ".join(said)


if __name__ == "__main__":
    sys.exit(run("atldld"))
