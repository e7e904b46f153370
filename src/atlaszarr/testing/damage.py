"""Damage of emulated sections, and errors of where their records put them, in closed form.

A section is torn, folded, cut, stained unevenly or turned upside down, or its dataset lies deeper than its record says.
Damage is a list of rules, from Python or a JSON file: ``{"match": {"image": 74081149}, "do": "hole", "x": 4000,
"y": 3000, "radius_x": 300, "radius_y": 400}``. Numbers that a rule lacks are drawn at random, the same for the same
seed. All is evaluated at points of the section plane, in um, never on pixels: it is the same at every tier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, brief
from ..transforms import apply, compose
from .deformation import Deformation, validate_seed
from .faults import load_rules, match_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Largest coordinate in um: eight times the longest axis of an adult mouse brain.
_FARTHEST = 100_000.0
#: A coordinate; one that is missing is not drawn between limits, see `KINDS`.
_PLACE = (-_FARTHEST, _FARTHEST, 0.0, 0.0)
_DIRECTION = (-360.0, 360.0, 0.0, 360.0)
_TURN = (-10.0, 10.0, -2.0, 2.0)
#: The kinds of damage, each with its numbers: the smallest and the largest, and from and to where one that is missing
#: is drawn. x or y that is missing is that of a point with tissue, of ``upside_down`` of the middle of the image, of
#: ``rotation`` of the middle of the reference space. The ranges are chosen, not measured: damage that is seen at a
#: glance, in sections that a person would still register.
KINDS: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "hole": {"x": _PLACE, "y": _PLACE, "radius_x": (1, 1e4, 200, 600), "radius_y": (1, 1e4, 200, 600)},
    "tear": {"x": _PLACE, "y": _PLACE, "direction": _DIRECTION, "opening": (0, 40, 5, 15)},
    "fold": {
        **{"x": _PLACE, "y": _PLACE, "direction": _DIRECTION},
        **{"width": (1, 1000, 100, 300), "length": (1, _FARTHEST, 2000, 4000)},
    },
    "half_lost": {"x": _PLACE, "y": _PLACE, "direction": _DIRECTION},
    "upside_down": {"y": _PLACE},
    "uneven_stain": {
        **{"amplitude": (0, 0.9, 0.2, 0.5), "wavelength": (1000, _FARTHEST, 6000, 15000)},
        **{"direction": _DIRECTION, "phase": _DIRECTION},
    },
    "contrast": {"factor": (0, 2, 0.2, 0.6)},
    "depth_error": {"um": (-5000, 5000, -300, 300)},
    "rotation": {
        **{"about_x": _TURN, "about_y": _TURN, "about_depth": _TURN},
        **{"x": _PLACE, "y": _PLACE, "depth": _PLACE},
    },
}
#: Half the angle of the sector, in degrees, in which the tissue on both sides of a tear gives way: the widest tear, of
#: 40 degrees, presses it to two thirds of its angle.
_TEAR_SECTOR = 60.0
#: Widths of a fold over which the tissue behind it is drawn towards it, and so stretched by 8/7 at most.
_FOLD_REACH = 8.0
#: Points among which the first one with tissue is taken: of tissue on 2 % of an image one is found in 199 of 200 cases.
_TRIES = 256

#: What each kind does, for readers of the truth.
FORMULA = (
    "a pixel at q = (x, y) um of the section plane (tsv), and at the depth of the record (section number times "
    "thickness), shows the brain at tvr (M (p + u(p, depth), depth)): u is the displacement above, M the affine under "
    "section_to_brain, and p follows from q by undoing the damage in reverse order. With a direction (degrees from x "
    "to y), s is the component of q - (x, y) along it and l that across it, from x to y. hole: no tissue where "
    "((q_x - x) / radius_x)^2 + ((q_y - y) / radius_y)^2 < 1. half_lost: no tissue where s > 0. upside_down: "
    "p = (q_x, 2 y - q_y). tear: with the angle a = atan2(|l|, s) in degrees, no tissue where a < opening / 2; from "
    "there to 60 the angle becomes (a - opening / 2) 60 / (60 - opening / 2), at the same distance from (x, y) and on "
    "the same side. fold: w = width max(0, 1 - (2 l / length)^2); where 0 <= s < w the section has two layers, s and "
    "s + w, of which s is on top; where w <= s < w + 8 width, s becomes s + w (1 - (s - w) / (8 width)). uneven_stain: "
    "the darkness is multiplied by 1 + amplitude sin(360 s / wavelength + phase), in degrees, with s from (0, 0). "
    "contrast: the difference of the darkness of each structure from 0.42 is multiplied by factor, or by the product "
    "of several, and the result is limited to 0 to 1. depth_error: M adds um to the depth. rotation: M turns about the "
    "axes through (x, y, depth), first x, then y, then depth"
)


@dataclass(frozen=True)
class DamageRule:
    """One damage, of the sections that match.

    Attributes
    ----------
    do : str
        One of `KINDS`.
    dataset, image : int or None
        Id of the section dataset, and of the section image; None for all.
    numbers : mapping of str to float
        Those of the kind, in um and degrees; the ones that are missing are drawn at random.

    Raises
    ------
    InputError
        If the kind is unknown, or an id or a number is invalid.
    """

    do: str
    dataset: int | None = None
    image: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.do not in KINDS:
            raise InputError(
                f"a section cannot have the damage {brief(self.do)}; the kinds are {', '.join(KINDS)}",
                code="unknown-value",
            )
        if unknown := next((name for name in self.numbers if name not in KINDS[self.do]), None):
            raise InputError(
                f"damage of kind '{self.do}' has no {brief(unknown)}; it has {', '.join(KINDS[self.do])}",
                code="unknown-option",
            )
        for name in ("dataset", "image"):
            id = getattr(self, name)
            if id is not None and (not isinstance(id, int) or isinstance(id, bool)):
                raise InputError(
                    f"the {name} of a damage must be an id, a whole number, not {brief(id)}", code="invalid-damage"
                )
        for name, number in self.numbers.items():
            least, most, *_ = KINDS[self.do][name]
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not is_number or not least <= number <= most:
                raise InputError(
                    f"damage of kind '{self.do}' cannot have {brief(number)} as its {name}: it must be a number from "
                    f"{least:g} to {most:g}",
                    code="invalid-damage",
                )

    @classmethod
    def from_dict(cls, rule: Any) -> DamageRule:
        """From JSON.

        Raises
        ------
        InputError
            If the rule is invalid.
        """
        if not isinstance(rule, Mapping):
            raise InputError(f"a damage must be an object, not {brief(rule)}", code="invalid-damage")
        match = match_of(rule, "damage", ("dataset", "image"))
        numbers = {key: value for key, value in rule.items() if key not in ("match", "do")}
        return cls(str(rule.get("do")), match.get("dataset"), match.get("image"), numbers)


class Damage:
    """Damage of the sections of an emulator.

    Parameters
    ----------
    rules : iterable of DamageRule or dict
        In the order in which a section is damaged: each is where its numbers say, unless a later one of the same
        section moves the tissue.
    seed : int
        Of the numbers that the rules lack.

    Raises
    ------
    InputError
        If a rule or the seed is invalid.
    """

    def __init__(self, rules: Iterable[DamageRule | Mapping[str, Any]], seed: int = 0) -> None:
        self.rules = tuple(rule if isinstance(rule, DamageRule) else DamageRule.from_dict(rule) for rule in rules)
        self.seed = seed
        validate_seed(seed)

    @classmethod
    def load(cls, path: str | Path, seed: int = 0) -> Damage:
        """From a JSON file with a list of rules.

        Raises
        ------
        InputError
            If the file cannot be read, is not JSON, or holds an invalid rule.
        """
        return cls(load_rules(path, "damage", "invalid-damage"), seed)

    def __repr__(self) -> str:
        return f"Damage({self.rules}, {self.seed})"


@dataclass(frozen=True)
class SectionDamage:
    """A damage of one section, with all its numbers."""

    do: str
    numbers: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {"do": self.do, **self.numbers}


def damage_of_section(
    damage: Damage,
    dataset_id: int,
    image_id: int,
    middle: Sequence[float],
    centre: Sequence[float],
    find_tissue: Callable[[np.random.Generator, Mapping[str, float]], Sequence[float]],
) -> tuple[SectionDamage, ...]:
    """The damage of a section: the rules that match it, with the numbers that they lack.

    Parameters
    ----------
    damage : Damage
    dataset_id, image_id : int
    middle : sequence of float
        (x, y) of the middle of the image in the section plane, in um.
    centre : sequence of float
        (x, y, depth) of the middle of the reference space, in um.
    find_tissue : callable
        Gives a random point (x, y) with tissue, with the x or y of the numbers of a rule.
    """
    found = []
    for at, rule in enumerate(damage.rules):
        if rule.dataset not in (None, dataset_id) or rule.image not in (None, image_id):
            continue
        # An error of a whole dataset is one for all its sections.
        is_shared = rule.image is None and rule.do in ("depth_error", "rotation")
        random = np.random.default_rng([damage.seed, at, dataset_id, 0 if is_shared else image_id])
        limits = KINDS[rule.do]
        numbers = {name: float(random.uniform(low, high)) for name, (_, _, low, high) in limits.items()}
        if rule.do == "upside_down":
            numbers["y"] = float(middle[1])
        elif rule.do == "rotation":
            numbers |= zip(("x", "y", "depth"), map(float, centre), strict=True)
        elif "x" in limits and not {"x", "y"} <= set(rule.numbers):
            numbers |= zip(("x", "y"), map(float, find_tissue(random, rule.numbers)), strict=True)
        found.append(SectionDamage(rule.do, numbers | {name: float(value) for name, value in rule.numbers.items()}))
    return tuple(found)


def point_with_tissue(
    random: np.random.Generator,
    pixels: tuple[int, int],
    tsv: ArrayLike,
    is_tissue: Callable[[Array], Mask],
    given: Mapping[str, float],
) -> Array:
    """A random point of an image's plane with tissue; the middle of the image if no tissue is found.

    Parameters
    ----------
    random : Generator
    pixels : tuple of int
        Width and height of the image.
    tsv : array_like, shape (2, 3)
        Pixels to um of the section plane.
    is_tissue : callable
        Whether there is tissue at points (n, 2) of the section plane.
    given : mapping of str to float
        The ``x`` or ``y`` that the point must have, if any.

    Returns
    -------
    ndarray, float64, shape (2,)
        (x, y), in um.
    """
    middle = np.divide(pixels, 2.0) - 0.5
    points = apply(tsv, np.vstack([random.uniform(-0.5, np.subtract(pixels, 0.5), (_TRIES, 2)), middle]))
    for axis, name in enumerate("xy"):
        points[:, axis] = given.get(name, points[:, axis])
    found = np.flatnonzero(is_tissue(points))
    return np.asarray(points[found[0] if len(found) else -1])


@dataclass
class Layer:
    """What a section shows at n points: tissue, and tissue below it where the section is folded.

    It is filled by undoing damage, from the last to the first: `points` moves back, step by step, to where the tissue
    was in the section before all damage.

    Attributes
    ----------
    points : ndarray, float64, shape (2, n)
        Where the tissue was before the damage, in um of the section plane.
    missing : ndarray, bool, shape (n,)
        Where there is no tissue.
    stain : ndarray, float64, shape (n,), or float
        Factor of the darkness.
    below : list of (ndarray of int, Layer)
        The points with tissue below, and that tissue.
    """

    points: Array
    missing: Mask
    stain: Array | float = 1.0
    below: list[tuple[NDArray[np.intp], Layer]] = field(default_factory=list)

    def is_empty(self) -> Mask:
        """Where there is no tissue in any layer."""
        empty = self.missing.copy()
        for at, below in self.below:
            empty[at] &= below.is_empty()
        return empty


def shown(points: Array, damage: Sequence[SectionDamage]) -> Layer:
    """What a damaged section shows at points.

    Parameters
    ----------
    points : ndarray, float64, shape (2, n)
        (x, y) in um of the section plane.
    damage : sequence of SectionDamage
        In the order in which the section is damaged.

    Returns
    -------
    Layer
        Of the points before the damage, which is undone from the last to the first.
    """
    layer = Layer(points.copy(), np.zeros(points.shape[1], bool))
    for at in reversed(range(len(damage))):
        undo = _UNDO.get(damage[at].do)
        if undo is not None:
            undo(layer, damage[at].numbers, damage[:at])
    return layer


def _along(points: Array, numbers: Mapping[str, float], turned: float = 0.0) -> Array:
    """The component of points along the direction of a damage, turned by degrees, from its x and y."""
    angle = math.radians(numbers["direction"] + turned)
    x, y = points[0] - numbers.get("x", 0.0), points[1] - numbers.get("y", 0.0)
    return np.asarray(math.cos(angle) * x + math.sin(angle) * y)


def _across(points: Array, numbers: Mapping[str, float]) -> Array:
    """The component across the direction, from x to y."""
    return _along(points, numbers, 90.0)


def _back(along: Array, across: Array, numbers: Mapping[str, float]) -> Array:
    """The points of components that `_along` and `_across` give."""
    angle = math.radians(numbers["direction"])
    x = numbers["x"] + math.cos(angle) * along - math.sin(angle) * across
    return np.stack([x, numbers["y"] + math.sin(angle) * along + math.cos(angle) * across])


def _hole(layer: Layer, numbers: Mapping[str, float], _: Sequence[SectionDamage]) -> None:
    x, y = layer.points[0] - numbers["x"], layer.points[1] - numbers["y"]
    layer.missing |= np.square(x / numbers["radius_x"]) + np.square(y / numbers["radius_y"]) < 1.0


def _half_lost(layer: Layer, numbers: Mapping[str, float], _: Sequence[SectionDamage]) -> None:
    layer.missing |= _along(layer.points, numbers) > 0.0


def _upside_down(layer: Layer, numbers: Mapping[str, float], _: Sequence[SectionDamage]) -> None:
    layer.points[1] = 2.0 * numbers["y"] - layer.points[1]


def _uneven_stain(layer: Layer, numbers: Mapping[str, float], _: Sequence[SectionDamage]) -> None:
    along = _along(layer.points, numbers)
    turn = 2.0 * math.pi / numbers["wavelength"]
    layer.stain = layer.stain * (1.0 + numbers["amplitude"] * np.sin(turn * along + math.radians(numbers["phase"])))


def _tear(layer: Layer, numbers: Mapping[str, float], _: Sequence[SectionDamage]) -> None:
    sector, half = math.radians(_TEAR_SECTOR), math.radians(numbers["opening"]) / 2.0
    along, across = _along(layer.points, numbers), _across(layer.points, numbers)
    at = np.flatnonzero(math.tan(sector) * along > np.abs(across))
    along, across = along[at], across[at]
    angle = np.arctan2(np.abs(across), along)
    layer.missing[at] |= angle < half
    closed = np.maximum(angle - half, 0.0) * (sector / (sector - half))
    distance = np.hypot(along, across)
    layer.points[:, at] = _back(distance * np.cos(closed), np.copysign(distance * np.sin(closed), across), numbers)


def _fold(layer: Layer, numbers: Mapping[str, float], before: Sequence[SectionDamage]) -> None:
    along, across = _along(layer.points, numbers), _across(layer.points, numbers)
    reach = _FOLD_REACH * numbers["width"]
    at = np.flatnonzero(
        (along >= 0.0) & (along < numbers["width"] + reach) & (np.abs(across) < numbers["length"] / 2.0)
    )
    along, across = along[at], across[at]
    width = numbers["width"] * (1.0 - np.square(2.0 * across / numbers["length"]))
    is_double = along < width
    moved = along + np.maximum(width * (1.0 - (along - width) / reach), 0.0)
    layer.points[:, at[~is_double]] = _back(moved[~is_double], across[~is_double], numbers)
    double = at[is_double]
    if not double.size:  # else n folds would call one another 2**n times
        return
    below = shown(_back((along + width)[is_double], across[is_double], numbers), before)
    below.missing |= layer.missing[double]
    below.stain = below.stain * (layer.stain if isinstance(layer.stain, float) else layer.stain[double])
    layer.below.append((double, below))


_UNDO: dict[str, Callable[[Layer, Mapping[str, float], Sequence[SectionDamage]], None]] = {
    "hole": _hole,
    "tear": _tear,
    "fold": _fold,
    "half_lost": _half_lost,
    "upside_down": _upside_down,
    "uneven_stain": _uneven_stain,
}


def section_to_brain(damage: Sequence[SectionDamage]) -> Array:
    """The affine from (x, y, depth) as the record has it to what the section shows: float64, shape (3, 4), in um."""
    affine = np.eye(3, 4)
    for item in damage:
        numbers = item.numbers
        if item.do == "depth_error":
            affine[2, 3] += numbers["um"]
        elif item.do == "rotation":
            centre = np.array([numbers["x"], numbers["y"], numbers["depth"]])
            turn = np.eye(3)
            for axis, name in enumerate(("about_x", "about_y", "about_depth")):
                angle = math.radians(numbers[name])
                step, (one, other) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
                step[one, one] = step[other, other] = math.cos(angle)
                step[one, other], step[other, one] = -math.sin(angle), math.sin(angle)
                turn = step @ turn
            affine = compose(np.column_stack([turn, centre - turn @ centre]), affine)
    return affine


def contrast(damage: Sequence[SectionDamage]) -> float:
    """The factor of the contrast between structures."""
    return math.prod(item.numbers["factor"] for item in damage if item.do == "contrast")


class SectionTruth:
    """What an emulated section shows where: its damage, its deformation, and the error of its position.

    Parameters
    ----------
    dataset_id : int
    depth : float
        That of the record, section number times thickness, in um.
    deformation : Deformation, optional
    damage : sequence of SectionDamage
        In the order in which the section is damaged.
    """

    def __init__(
        self,
        dataset_id: int,
        depth: float,
        deformation: Deformation | None = None,
        damage: Sequence[SectionDamage] = (),
    ) -> None:
        self.dataset_id, self.depth, self.deformation, self.damage = dataset_id, depth, deformation, tuple(damage)
        self.contrast = contrast(self.damage)
        self._to_brain = section_to_brain(self.damage)

    def shown(self, xy: ArrayLike) -> Layer:
        """What the section shows at points (..., 2) of the section plane, in um: as many, in C order."""
        return shown(np.ascontiguousarray(np.asarray(xy, np.float64).reshape(-1, 2).T), self.damage)

    def brain_points(self, layer: Layer) -> Array:
        """Where the tissue of a layer belongs: float64, shape (n, 3), (x, y, depth) in um."""
        section = np.empty((layer.points.shape[1], 3))
        section[:, 0], section[:, 1], section[:, 2] = *layer.points, self.depth
        if self.deformation is not None:
            section[:, :2] += self.deformation.displacement(self.dataset_id, section)
        return apply(self._to_brain, section)

    def displacement(self, xy: ArrayLike) -> Array:
        """From points of the section to where the tissue that is seen there belongs.

        Where a registration says that the tissue at q belongs at p, it is wrong by p - (q + displacement(q)).

        Parameters
        ----------
        xy : array_like, shape (..., 2)
            Points in um of the section plane, to which `tsv` maps pixels.

        Returns
        -------
        ndarray, float64, shape (..., 3)
            Along x, y and depth, in um: added to (x, y) and the depth of the record it gives the point that the
            dataset's `tvr` maps to the brain. Of the upper layer in a fold; without meaning where tissue is missing.
        """
        plane = np.asarray(xy, np.float64)
        moved = self.brain_points(self.shown(plane)).reshape(*plane.shape[:-1], 3)
        moved[..., :2] -= plane
        moved[..., 2] -= self.depth
        return moved

    def missing(self, xy: ArrayLike) -> Mask:
        """Where tissue is missing (a hole, a tear, what is lost), at points as in `displacement`: bool, shape (...).

        False outside the brain, too.
        """
        plane = np.asarray(xy, np.float64)
        return self.shown(plane).is_empty().reshape(plane.shape[:-1])

    def folded(self, xy: ArrayLike) -> Mask:
        """Where the section is double, at points as in `displacement`: bool, shape (...).

        True also where tissue of one of the two layers is missing.
        """
        plane = np.asarray(xy, np.float64)
        double = np.zeros(plane.shape[:-1], bool).reshape(-1)
        for at, _ in self.shown(plane).below:
            double[at] = True
        return double.reshape(plane.shape[:-1])

    def to_dict(self) -> dict[str, Any]:
        """The section in JSON types, without the deformation."""
        return {
            "dataset": self.dataset_id,
            "depth_um": self.depth,
            "damage": [item.to_dict() for item in self.damage],
            "section_to_brain": self._to_brain.tolist(),
        }
