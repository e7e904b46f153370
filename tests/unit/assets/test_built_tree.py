"""The standard has nothing against an atlas that was built, with the documents that are made from its images."""

from datetime import UTC, datetime

from atlaszarr import build_atlas
from atlaszarr.assets.documents import documents
from atlaszarr.assets.names import ANNOTATION, COMPRESSED, AtlasNames, below
from atlaszarr.assets.validation import findings
from atlaszarr.credit import Credit
from atlaszarr.engine.finished_image import Finished
from atlaszarr.stores.target import Target
from tiny_atlas import write_sources


def test_only_names_of_a_built_atlas_are_not_those_of_the_standard(tmp_path):
    given = write_sources(tmp_path / "sources") | {"name": "tiny", "version": "2026"}
    build_atlas(tmp_path / "atlas", layout="assets", **given)
    root, names = Target.of(tmp_path / "atlas"), AtlasNames.of("tiny", "2026")
    image = Finished.at(below(root, f"{names.annotation_set.folder}/{COMPRESSED}"))
    made = documents(
        names,
        Credit(given["citation"], species=given["species"]),
        geometry=image.geometry,
        resolutions=image.resolutions,
        template_sources={"0": {"uri": str(given["template"])}},
        created=lambda _: datetime(2026, 11, 28, tzinfo=UTC),
    )
    root.write_all(made.items())
    assert list(findings(root)) == []
    left = {(one.kind, one.key.rpartition("/")[2]) for one in findings(root, strict=True)}
    further = ("atlaszarr", ANNOTATION, "hemispheres.ome.zarr", "terminology.csv", "volumes.csv")
    assert left == {("extra", name) for name in further}
