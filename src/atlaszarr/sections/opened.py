"""What a lazy Dataset carries of its opening, so that it can be written after any steps of xarray and dask.

It is text in the attributes of a scalar coordinate: xarray keeps scalar coordinates in selections, arithmetic, merges
and files, while arithmetic of earlier versions drops the attributes of a Dataset. What differs between two openings of
equal values is in the encoding of the coordinate, which xarray does not compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..allen.records import SectionDataset
from ..errors import InputError
from ..stores.documents import parse_object
from ..versions import version
from .fields import AppliedFields, SectionFields
from .options import Options, SectionsOptions, VolumeOptions

if TYPE_CHECKING:
    import xarray as xr

#: The scalar coordinate whose value is the id of the section dataset.
COORDINATE = "dataset_id"
#: Its attribute that holds the dataset and the options as JSON, and the key of the rest in its encoding.
_ATTRIBUTE = "atlaszarr"


@dataclass(frozen=True)
class Opened:
    """The opening of a lazy Dataset by `open_volume` or `open_sections`.

    Attributes
    ----------
    dataset : SectionDataset
    options : VolumeOptions or SectionsOptions
        Those of the first view.
    fields : SectionFields or None
        What registers sections beyond their records. Once the encoding is lost, no more is known of a user's own
        fields.
    api_url : str or None
        None if the encoding is lost, as in a file.
    arrays : mapping of str to str
        Names of the dask arrays of the Dataset when it was opened, by variable; empty if the encoding is lost.
    """

    dataset: SectionDataset
    options: Options
    fields: SectionFields | None = None
    api_url: str | None = None
    arrays: Mapping[str, str] = field(default_factory=dict)

    def coordinate(self) -> dict[str, Any]:
        """The coordinate that carries the opening, for the constructor of a Dataset."""
        record = {
            "version": version(),
            "mode": self.options.mode,
            "options": asdict(self.options),
            "fields": None if self.fields is None else self.fields.provenance,
            "dataset": self.dataset.to_dict(),
        }
        text = json.dumps(record, separators=(",", ":"))
        rest = {"api": self.api_url, "arrays": dict(self.arrays), "fields": self.fields}
        return {COORDINATE: ((), self.dataset.id, {_ATTRIBUTE: text}, {_ATTRIBUTE: rest})}

    @classmethod
    def of(cls, dataset: xr.Dataset) -> Opened:
        """The opening of a Dataset.

        Raises
        ------
        InputError
            If the Dataset does not carry one.
        """
        carrier = dataset.coords.get(COORDINATE)
        if carrier is None or _ATTRIBUTE not in carrier.attrs:
            lacks = f"coordinate {COORDINATE!r}" if carrier is None else f"attribute of the coordinate {COORDINATE!r}"
            raise InputError(
                f"the Dataset lacks the {lacks} that open_volume and open_sections give it; keep it "
                "(opened.assign(image=...) does), or pass one variable as an array",
                code="unknown-dataset",
            )
        opener = version()
        try:
            record = parse_object(str(carrier.attrs[_ATTRIBUTE]))
            opener = str(record.get("version", opener))
            rest = carrier.encoding.get(_ATTRIBUTE, {})
            kind = {each.mode: each for each in (VolumeOptions, SectionsOptions)}[record["mode"]]
            return cls(
                SectionDataset.from_dict(record["dataset"]),
                kind.of(record["options"]),
                rest["fields"] if rest else _applied(record["fields"]),
                rest.get("api"),
                rest.get("arrays", {}),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if opener != version():
                raise InputError(
                    f"the Dataset was opened by atlaszarr {opener}, and this is {version()}, which does not read its "
                    f"coordinate {COORDINATE!r} ({error}); open the Dataset again",
                    code="version-mismatch",
                ) from None
            raise InputError(
                f"the attribute of the coordinate {COORDINATE!r} of the Dataset is damaged ({error}); open it again",
                code="unknown-dataset",
            ) from None


def _applied(recorded: Mapping[str, Any] | None) -> SectionFields | None:
    return AppliedFields(dict(recorded)) if recorded and "sha256" in recorded else None
