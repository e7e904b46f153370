"""Real data: the energy grid of Prox1 on the annotation of 2017, and a made-up volume on it; skipped without them."""

import functools
import http.server
import threading
import zipfile
from pathlib import Path

import nrrd
import numpy as np
import pytest

from atlaszarr import AllenClient, Grid, Terminology, open_grid, region_statistics, region_volumes
from atlaszarr.allen.records import SectionDataset
from atlaszarr.dataset_build.records import geometry
from atlaszarr.expression_grids.grids import write_grid
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.stores.documents import parse
from atlaszarr.testing.records import dataset_records, image_records
from atlaszarr.writing import write_multiscales

DATA = Path(__file__).parents[3] / "shared" / "data"
ANNOTATION = DATA / "ccf" / "annotation_25_ccf2017.nrrd"
ENERGY = DATA / "expression" / "energy.mhd"
DATASET = 69289763

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ANNOTATION.exists() and ENERGY.exists()), reason="the shared data are not here"),
]


@pytest.fixture(scope="module")
def terminology():
    return Terminology.from_structure_graph(parse((DATA / "ontology" / "structure_graph_1.json").read_bytes())["msg"])


@pytest.fixture(scope="module")
def labels():
    """The annotation of 25 um, (p, i, r)."""
    return np.ascontiguousarray(nrrd.read(str(ANNOTATION))[0])


@pytest.fixture(scope="module")
def annotation(labels, made_once):
    """The annotation of 25 um with its pyramid."""

    def make(path):
        write_multiscales(labels, path, rule="mode", geometry=geometry(Grid(reference_space(9), 25)))

    return made_once("real-25.ome.zarr", make)


@pytest.fixture
def client(tmp_path):
    """A client of a server that has the real grid of energy."""
    folder = tmp_path / "served" / "grid_data" / "download"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / str(DATASET), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(ENERGY, "energy.mhd")
        archive.write(ENERGY.with_suffix(".raw"), "energy.raw")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with AllenClient(f"http://127.0.0.1:{server.server_port}/api/v2", "none") as opened:
            yield opened
        server.shutdown()
        thread.join()


def test_the_energy_of_prox1_is_that_of_numpy_and_ten_times_the_mean_in_the_dentate_gyrus(
    client, annotation, labels, terminology, tmp_path
):
    (record,) = (record for record in dataset_records() if record["id"] == DATASET)
    dataset = SectionDataset.from_json(record, [image for image in image_records() if image["data_set_id"] == DATASET])
    write_grid(dataset, tmp_path / "g.ome.zarr", ["energy"], client=client)
    table = region_statistics(tmp_path / "g.ome.zarr", annotation, terminology, True)
    assert table.attrs["annotation_level"] == 0  # 25 um, an eighth of the distance of two points
    values = open_grid(dataset, ["energy"], client=client)["energy"].to_numpy().astype(np.float64)
    points = np.pad(labels[::8, ::8, ::8], [(0, 1)] * 3)
    middle = 29  # the last point before 5700 um is at 28 x 200 um
    for structure in terminology:
        members = [found.value for found in terminology.descendants(structure.id)]
        where = np.isin(points, members)
        row = table.loc[structure.id]
        assert row["voxels"] == where.sum()
        assert row["voxels_left"] == where[..., :middle].sum()
        inside = where & ~np.isnan(values)
        assert (row["covered"], row["covered_right"]) == (inside.sum(), inside[..., middle:].sum())
        if inside.any():
            assert row["energy"] == pytest.approx(values[inside].mean(), rel=1e-9)
            assert row["std_energy"] == pytest.approx(values[inside].std(), rel=1e-9, abs=1e-9)
    dentate, brain = (table.loc[terminology[name].id] for name in ("DG", "root"))
    assert 9 < dentate["energy"] / brain["energy"] < 15
    assert brain["covered_right"] == 0
    assert np.isnan(brain["energy_right"])
    assert dentate["energy_left"] == dentate["energy"]


def test_a_made_up_volume_is_measured_exactly_on_the_real_annotation_of_50_um(annotation, terminology, tmp_path):
    import zarr

    half = zarr.open_array(annotation / "1", mode="r")[...]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, *half.shape), np.uint8)
    section = np.repeat(np.arange(half.shape[2], dtype=np.uint32) // 8 * (np.arange(half.shape[2]) < 130), 1)
    section = np.ascontiguousarray(np.broadcast_to(section, half.shape))
    write_multiscales(
        image,
        tmp_path / "v.ome.zarr",
        labels={"section": section},
        geometry=geometry(Grid(reference_space(9), 50)),
    )
    table = region_statistics(tmp_path / "v.ome.zarr", annotation, terminology, True)
    assert (table.attrs["level"], table.attrs["annotation_level"]) == (0, 1)
    volumes = region_volumes(annotation, terminology, 1, True)
    same = [name for name in volumes.columns if name.startswith(("voxels", "volume"))]
    assert (table[same] == volumes[same]).all(axis=None)
    labelled, values = np.unique(half), {}
    for label in labelled[labelled > 0]:
        inside = (half == label) & (section != 0)
        values[int(label)] = image[:, inside].astype(np.float64)
    for structure in terminology:
        members = [found.value for found in terminology.descendants(structure.id) if found.value in values]
        found = np.concatenate([values[member] for member in members] or [np.empty((3, 0))], axis=1)
        row = table.loc[structure.id]
        assert row["covered"] == found.shape[1]
        for channel in range(3 if found.size else 0):
            assert row[f"mean_channel_{channel}"] == pytest.approx(found[channel].mean(), rel=1e-9)
            assert row[f"std_channel_{channel}"] == pytest.approx(found[channel].std(), rel=1e-9, abs=1e-9)
