"""The table of volumes of the standard "Atlas Asset Organization"."""

import io
import math
from pathlib import Path

import nrrd
import numpy as np
import pandas as pd
import pytest

from atlaszarr import Terminology, region_volumes
from atlaszarr.errors import AtlaszarrWarning
from atlaszarr.regions.tables import to_parcellation_volumes
from tiny_atlas import ONTOLOGY, labels

DATA = Path(__file__).parents[4] / "shared" / "data"


def test_each_structure_has_a_row_with_its_descendants():
    values = labels()
    table = pd.read_csv(io.StringIO(to_parcellation_volumes(region_volumes(values, ONTOLOGY, voxel_size=25))))
    assert list(table.columns) == ["identifier", "voxel_count", "volume_mm3"]
    assert list(table["identifier"]) == [structure.id for structure in ONTOLOGY]
    counts = dict(zip(table["identifier"], table["voxel_count"], strict=True))
    assert counts[997] == (values > 0).sum()
    assert counts[8] == np.isin(values, [3, 3_000_000_003]).sum()
    assert table["volume_mm3"].to_numpy() == pytest.approx(table["voxel_count"].to_numpy() * 0.025**3)


def test_a_structure_without_voxels_has_a_row_and_a_label_without_a_structure_has_none():
    values = labels()
    values[values == 7] = 12
    with pytest.warns(AtlaszarrWarning, match="12"):
        volumes = region_volumes(values, ONTOLOGY, voxel_size=25)
    table = pd.read_csv(io.StringIO(to_parcellation_volumes(volumes)), index_col="identifier")
    assert table.loc[7, "voxel_count"] == 0
    assert len(table) == len(ONTOLOGY)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")
def test_the_real_annotation_has_the_known_volume_of_the_retrosplenial_area():
    values = nrrd.read(str(DATA / "ccf/annotation_50_ccf2017.nrrd"))[0]
    terminology = Terminology.read(DATA / "ontology/structure_graph_1.json")
    text = to_parcellation_volumes(region_volumes(values, terminology, voxel_size=50))
    row = pd.read_csv(io.StringIO(text), index_col="identifier").loc[terminology["RSP"].id]
    assert row["voxel_count"] == 83_846
    assert math.isclose(row["volume_mm3"], 10.4808, abs_tol=5e-5)
