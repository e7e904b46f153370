"""The layouts of an atlas: which parts are written, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..assets.names import ANNOTATION, COMPRESSED
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION

#: ``plain``: annotation, template, hemispheres, terminology and region volumes. ``assets``: the standard "Atlas Asset
#: Organization" too. ``brainglobe``: what BrainGlobe's reader needs too.
LAYOUTS = ("plain", "assets", "brainglobe")


@dataclass(frozen=True)
class Layout:
    """The parts of an atlas to write.

    Attributes
    ----------
    assets : bool
        Whether to write everything that the standard has.
    brainglobe : bool
        Whether to write what BrainGlobe's reader needs.
    strict : bool
        Whether to leave out every name that the standard lacks.
    """

    assets: bool = False
    brainglobe: bool = False
    strict: bool = False

    @classmethod
    def of(cls, layouts: str | Sequence[str], *, brainglobe: bool = False, strict: bool = False) -> Layout:
        """The layout by its names.

        Raises
        ------
        InputError
            If a name is unknown, or `strict` is given with another layout than ``assets``.
        """
        given = {layouts} if isinstance(layouts, str) else set(layouts)
        if unknown := sorted(str(name) for name in given - set(LAYOUTS)):
            raise InputError(f"layout {unknown[0]!r} is unknown; choose of {', '.join(LAYOUTS)}", code="invalid-choice")
        layout = cls("assets" in given, brainglobe or "brainglobe" in given, strict)
        if strict and not layout.assets:
            raise InputError(
                "--strict leaves out what the standard lacks; give it with --layout assets", code="conflicting-options"
            )
        if strict and layout.brainglobe:
            raise InputError(
                "BrainGlobe's reader needs names that the standard lacks; leave out --strict or BrainGlobe's layout",
                code="conflicting-options",
            )
        return layout

    @property
    def has_annotation_set(self) -> bool:
        """Whether masks, meshes and the segmentation are written."""
        return self.assets or self.brainglobe

    @property
    def annotation(self) -> str:
        """The name of the annotation."""
        return COMPRESSED if self.strict else ANNOTATION

    @property
    def second_name(self) -> str | None:
        """The second name of the annotation, if it has one."""
        return COMPRESSED if self.has_annotation_set and not self.strict else None

    @property
    def sides(self) -> str:
        """The orientation of x: BrainGlobe's, or that of the Allen Institute."""
        return BRAINGLOBE_SIDES if self.brainglobe else ORIENTATION["x"]
