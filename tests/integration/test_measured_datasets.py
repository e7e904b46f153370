"""Section datasets with their expression view, and grids of the emulated service, measured by region."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client
from ngff_zarr import from_ngff_zarr

from atlaszarr import AllenClient, Grid, Terminology, build, open_grid, open_volume, region_statistics, verify
from atlaszarr.dataset_build.records import geometry
from atlaszarr.errors import AtlaszarrWarning, InputError, NotFoundError
from atlaszarr.expression_grids.grids import write_grid
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.testing import Emulator
from atlaszarr.testing.grids import grid_values
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.records import dataset_records, image_records
from atlaszarr.writing import write_multiscales
from codes import raises
from phantom_annotations import write_annotations

#: Prox1, sagittal, low r.
DATASET = 69289763
PLACED = geometry(Grid(reference_space(9), 100))
TERMINOLOGY = Terminology.from_structure_graph(structure_graph()["msg"])


@pytest.fixture(scope="module")
def service():
    """An emulator with eight sections of a dataset, of which one has no expression view."""
    datasets = [record for record in dataset_records() if record["id"] == DATASET]
    images = [record for record in image_records() if record["data_set_id"] == DATASET][4:12]
    images[3] = images[3] | {"expression_path": None}
    with Emulator(datasets, images) as running:
        yield running


@pytest.fixture(scope="module")
def built(service, tmp_path_factory):
    """A folder with the dataset in both views and the annotation of the phantom, at 100 um."""
    folder = write_annotations(tmp_path_factory.mktemp("measured"))
    with AllenClient(service.url, "none", rate=1e9) as client:
        build(DATASET, folder / "x.ome.zarr", client=client, resolution=100, view=["primary", "expression"])
    return folder


@pytest.fixture(scope="module")
def table(built):
    return region_statistics(built / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)


def stored(path):
    return zarr.open_array(path, mode="r")[...]


def occurring(labels):
    """The structures of some labels, the structures above them, and five others."""
    present = set(np.unique(labels).tolist())
    found = [one for one in TERMINOLOGY if present & {part.value for part in TERMINOLOGY.descendants(one.id)}]
    return found + [one for one in TERMINOLOGY if one not in found][:5]


def test_density_intensity_and_energy_are_those_of_numpy(built, table):
    labels = stored(built / "two.ome.zarr" / "0")
    image, section = (stored(built / "x.ome.zarr" / path) for path in ("0", "labels/section/0"))
    view, other = (stored(built / "x.expression.ome.zarr" / path) for path in ("0", "labels/section/0"))
    expressing, grey = (view != 0).any(axis=0) & (other != 0), (image.sum(axis=0, dtype=int) + 1) // 3
    paired = expressing & (section == other)
    assert 0 < np.count_nonzero(paired) < np.count_nonzero(expressing)
    middle = labels.shape[2] // 2
    for structure in occurring(labels):
        mine = [found.value for found in TERMINOLOGY.descendants(structure.id)]
        for suffix, members in (("", mine), ("_direct", [structure.value]), ("_left", mine), ("_right", mine)):
            where = np.isin(labels, members)
            where[..., middle:] &= suffix != "_left"
            where[..., :middle] &= suffix != "_right"
            row = table.loc[structure.id]
            assert row[f"covered{suffix}"] == np.count_nonzero(where & (section != 0))
            covered, shown = np.count_nonzero(where & (other != 0)), np.count_nonzero(where & expressing)
            assert (row[f"expression_covered{suffix}"], row[f"expressing{suffix}"]) == (covered, shown)
            density = shown / covered if covered else np.nan
            intensity = grey[where & paired].mean() if (where & paired).any() else np.nan
            assert row[f"density{suffix}"] == pytest.approx(density, rel=1e-12, nan_ok=True)
            assert row[f"intensity{suffix}"] == pytest.approx(intensity, rel=1e-12, nan_ok=True)
            energy = density * intensity if shown else density
            assert row[f"energy{suffix}"] == pytest.approx(energy, rel=1e-12, nan_ok=True)
            if (inside := where & (section != 0)).any():
                assert row[f"mean_green{suffix}"] == pytest.approx(image[1][inside].mean(), rel=1e-12)
                assert row[f"std_green{suffix}"] == pytest.approx(image[1][inside].std(), rel=1e-9, abs=1e-9)
    assert table.attrs["dataset"] == DATASET


def test_the_expression_view_alone_has_density_and_no_means_of_its_colours(built, table):
    alone = region_statistics(built / "x.expression.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)
    assert not [name for name in alone.columns if name.startswith(("mean_", "std_"))]
    assert alone["density"].equals(table["density"])
    assert (alone["covered"] == table["expression_covered"]).all()
    assert alone["energy"].isna().all()


def test_an_expression_view_of_other_options_is_not_used(built, service, tmp_path):
    with AllenClient(service.url, "none", rate=1e9) as client:
        build(DATASET, tmp_path / "x.ome.zarr", client=client, resolution=100, fill="none")
    shutil.copytree(built / "x.expression.ome.zarr", tmp_path / "x.expression.ome.zarr")
    with pytest.warns(AtlaszarrWarning, match="with other options"):
        found = region_statistics(tmp_path / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY)
    assert found["density"].isna().all()


def test_an_unfinished_expression_view_is_refused(built, tmp_path):
    shutil.copytree(built / "x.ome.zarr", tmp_path / "x.ome.zarr")
    shutil.copytree(built / "x.expression.ome.zarr", tmp_path / "x.expression.ome.zarr")
    root = tmp_path / "x.expression.ome.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"] = {"atlaszarr": document["attributes"]["atlaszarr"] | {"state": "unfinished"}}
    root.write_text(json.dumps(document))
    with raises(InputError, "target-unfinished"):
        region_statistics(tmp_path / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY)


@pytest.mark.slow
def test_workers_of_an_active_client_give_the_same_table(built, cluster, table, service):
    with Client(cluster):
        found = region_statistics(built / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)
        opened = (from_ngff_zarr(str(built / name)) for name in ("x.ome.zarr", "two.ome.zarr"))  # cannot be sent
        assert region_statistics(*opened, TERMINOLOGY)["voxels"].equals(table["voxels"])
        with AllenClient(service.url, "none", rate=1e9) as client:
            lazy = open_volume(DATASET, 100, client=client)
            alike = region_statistics(lazy, built / "two.ome.zarr", TERMINOLOGY)
        write_multiscales(
            stored(built / "x.ome.zarr" / "0"), "memory://measured/v.ome.zarr", geometry=PLACED, scheduler="threads"
        )
        with raises(InputError, "target-in-memory"):
            region_statistics("memory://measured/v.ome.zarr", built / "two.ome.zarr", TERMINOLOGY)
    assert found.equals(table)
    same = [name for name in table.columns if name.split("_")[0] in ("covered", "mean", "std")]
    same = [name for name in same if name in alike.columns]
    assert alike[same].equals(table[same])
    with AllenClient(service.url, "none", rate=1e9) as client:
        write_grid(DATASET, built / "grid.ome.zarr", client=client)
    arguments = built / "grid.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True
    assert region_statistics(*arguments, scheduler=cluster).equals(region_statistics(*arguments, workers=1))


@pytest.fixture(scope="module")
def terminology(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminology") / "terminology.csv"
    path.write_text(TERMINOLOGY.to_csv())
    return path


def test_the_command_prints_every_format(command, built, terminology, table):
    given = ("measure", built / "x.ome.zarr", "--annotation", built / "two.ome.zarr", "--terminology", terminology)
    ran = command(*given, "--region", "CTX", "--region", "CP", "--by-hemisphere")
    assert ran.code == 0
    firsts = [line.split()[0] for line in ran.out.splitlines()]
    assert firsts[:7] == ["region", "CTX", "left", "right", "CP", "left", "right"]
    assert ran.out.splitlines()[0].endswith("energy")
    found = pd.read_csv(io.StringIO(command(*given, "--format", "csv").out), index_col="identifier")
    assert found["expressing"].tolist() == table["expressing"].tolist()
    assert found["energy"].to_numpy() == pytest.approx(table["energy"].to_numpy(), nan_ok=True)
    document = json.loads(command(*given, "--json", "--region", "CP").out)
    assert document["dataset"] == DATASET
    assert [row["acronym"] for row in document["regions"]] == ["CP"]


def test_several_volumes_are_one_table_with_a_column_dataset(command, built, terminology):
    views = built / "x.ome.zarr", built / "x.expression.ome.zarr"
    given = ("measure", *views, "--annotation", built / "two.ome.zarr", "--terminology", terminology, "--region", "CP")
    found = pd.read_csv(io.StringIO(command(*given, "--format", "csv").out))
    assert found["dataset"].tolist() == [DATASET, DATASET]
    assert found["density"].nunique() == 1
    assert [document["dataset"] for document in json.loads(command(*given, "--json").out)] == [DATASET, DATASET]
    assert str(views[1]) in command(*given).out


def test_the_command_refuses_wrong_input_in_one_sentence(command, built, terminology):
    for arguments in (
        [built / "none.ome.zarr", "--annotation", built / "two.ome.zarr", "--terminology", terminology],
        [built / "x.ome.zarr", "--annotation", built / "two.ome.zarr"],
        [
            built / "x.ome.zarr",
            "--annotation",
            built / "two.ome.zarr/1",
            "--terminology",
            terminology,
            "--region",
            "XX",
        ],
    ):
        ran = command("measure", *arguments)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)


@pytest.mark.slow
def test_a_grid_is_that_of_the_service_without_its_minus_ones(service, tmp_path, connect):
    client = connect(service)
    assert write_grid(DATASET, tmp_path / "g.ome.zarr", client=client).state == "built"
    assert verify(tmp_path / "g.ome.zarr", deep=True).ok
    opened = open_grid(DATASET, client=client)
    expected = grid_values(service.phantom, service.catalogue.dataset(DATASET))
    fine, coarse = stored(tmp_path / "g.ome.zarr" / "0"), stored(tmp_path / "g.ome.zarr" / "1")
    for channel, name in enumerate(("energy", "density", "intensity")):
        values = np.where(expected[name] == -1, np.nan, expected[name])
        assert np.array_equal(fine[channel], values, equal_nan=True)
        assert np.array_equal(opened[name].to_numpy(), values, equal_nan=True)
        padded = np.pad(values, [(0, n % 2) for n in values.shape], constant_values=np.nan).astype(np.float64)
        eight = padded.reshape(34, 2, 21, 2, 29, 2).swapaxes(1, 2).swapaxes(3, 4).swapaxes(2, 3).reshape(34, 21, 29, 8)
        counted = (~np.isnan(eight)).sum(axis=-1)
        mean = np.where(counted > 0, np.nansum(eight, axis=-1) / np.maximum(counted, 1), np.nan)
        np.testing.assert_allclose(coarse[channel], mean, rtol=1e-6)
    root = json.loads((tmp_path / "g.ome.zarr" / "zarr.json").read_text())["attributes"]
    assert "Lein" in root["atlaszarr"]["citation"]
    assert json.loads((tmp_path / "g.ome.zarr" / "atlaszarr" / "build.json").read_text())["dataset"]["id"] == DATASET
    assert float(opened["r_um"][-1]) == 11400


@pytest.mark.slow
def test_a_grid_is_finished_repaired_and_not_mixed_with_another(service, tmp_path, connect, contents):
    client, target = connect(service), tmp_path / "g.ome.zarr"
    write_grid(DATASET, target, client=client)
    before = contents(target)
    assert write_grid(DATASET, target, client=client).state == "already finished"
    (target / "0" / "c" / "0" / "0" / "0" / "0").unlink()
    assert write_grid(DATASET, target, client=client).state == "resumed"
    assert contents(target) == before
    with raises(InputError, "different-options"):
        write_grid(DATASET, target, ["energy"], client=client)


def test_a_grid_is_fetched_once_into_the_cache(service, tmp_path, connect):
    service.reset()
    client = connect(service, cache=str(tmp_path / "cache"))
    for _ in range(2):
        open_grid(DATASET, ["density"], client=client)
    assert service.count("grid_data") == 1


def test_a_dataset_without_grid_is_named(serve, connect, records, command, tmp_path):
    records[0][0]["reference_space_id"] = 5
    emulator = serve()
    id = records[0][0]["id"]
    with raises(NotFoundError, "grid-not-found") as caught:
        open_grid(id, client=connect(emulator))
    assert str(id) in str(caught.value)
    ran = command("grid", id, tmp_path / "g.ome.zarr", "--api-url", emulator.url)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert not (tmp_path / "g.ome.zarr").exists()


@pytest.mark.slow
def test_a_damaged_grid_is_fetched_again(serve, connect, records):
    emulator = serve(faults=[{"match": {"path": "grid_data"}, "do": "cut", "times": 1}])
    id = records[0][0]["id"]
    grid = open_grid(id, ["energy"], client=connect(emulator))
    assert int(grid["energy"].notnull().sum()) > 10_000
    assert emulator.count("grid_data") == 2


def test_a_grid_is_measured_at_its_points(built, service, connect):
    client = connect(service)
    write_grid(DATASET, built / "g.ome.zarr", client=client)
    table = region_statistics(built / "g.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)
    assert table.equals(region_statistics(open_grid(DATASET, client=client), built / "two.ome.zarr", TERMINOLOGY, True))
    labels, values = stored(built / "two.ome.zarr" / "0"), open_grid(DATASET, client=client)["energy"].to_numpy()
    padded = np.pad(labels, [(0, 2 * n - m) for n, m in zip(values.shape, labels.shape, strict=True)])
    points = padded[::2, ::2, ::2]  # every second voxel of 100 um
    for structure in occurring(labels):
        where = np.isin(points, [found.value for found in TERMINOLOGY.descendants(structure.id)])
        inside = where & ~np.isnan(values)
        row = table.loc[structure.id]
        assert (row["voxels"], row["covered"]) == (where.sum(), inside.sum())
        assert row["covered_right"] == 0
        mean = values[inside].astype(np.float64).mean() if inside.any() else np.nan
        assert row["energy"] == pytest.approx(mean, rel=1e-9, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("ome_zarr", ["0.4", "0.6"])
def test_a_grid_of_every_version_of_ome_zarr_is_measured_alike(service, tmp_path, connect, built, ome_zarr):
    client = connect(service)
    write_grid(DATASET, tmp_path / "old.ome.zarr", ["density"], client=client, ome_zarr=ome_zarr)
    write_grid(DATASET, tmp_path / "new.ome.zarr", ["density"], client=client)
    assert verify(tmp_path / "old.ome.zarr", deep=True).ok
    old, new = (
        region_statistics(tmp_path / f"{name}.ome.zarr", built / "two.ome.zarr", TERMINOLOGY) for name in ("old", "new")
    )
    assert old.equals(new)
    assert old["density"].notna().any()
    assert old["energy"].isna().all()


def test_a_grey_volume_has_the_intensity_of_the_colour_volume(built, service, tmp_path, connect, table):
    build(DATASET, tmp_path / "x.ome.zarr", client=connect(service), resolution=100, grey=True)
    shutil.copytree(built / "x.expression.ome.zarr", tmp_path / "x.expression.ome.zarr")
    grey = region_statistics(tmp_path / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)
    assert "mean_grey" in grey.columns
    for name in ("density", "intensity", "energy"):
        assert grey[name].equals(table[name])


def test_the_genes_by_regions_of_the_documentation_are_a_matrix(built, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "expression.md").read_text()
    (code,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    for gene in ("prox1", "nrp1"):
        shutil.copytree(built / "x.ome.zarr", tmp_path / f"{gene}.ome.zarr")
        shutil.copytree(built / "x.expression.ome.zarr", tmp_path / f"{gene}.expression.ome.zarr")
    shutil.copytree(built / "two.ome.zarr", tmp_path / "ccf")
    (tmp_path / "terminology.csv").write_text(TERMINOLOGY.to_csv())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["matrix"].shape == (2, len(TERMINOLOGY))
    assert names["matrix"].loc["Prox1", "CP"] > 0


def test_a_collection_of_sections_is_refused(built, service, tmp_path, connect):
    build(DATASET, tmp_path / "s.ome.zarr", client=connect(service), resolution=200, mode="sections")
    with raises(InputError, "not-an-image"):
        region_statistics(tmp_path / "s.ome.zarr", built / "two.ome.zarr", TERMINOLOGY)
    with raises(InputError, "no-matching-level"):
        region_statistics(tmp_path / "s.ome.zarr" / "0", built / "two.ome.zarr", TERMINOLOGY)


def test_sides_have_the_names_of_the_annotation(built, table, tmp_path):
    """BrainGlobe calls low r right: the voxels are the same, the names are exchanged."""
    shutil.copytree(built / "two.ome.zarr", tmp_path / "a.ome.zarr")
    shutil.rmtree(tmp_path / "a.ome.zarr" / "atlaszarr")
    root = tmp_path / "a.ome.zarr" / "zarr.json"
    root.write_text(root.read_text().replace("left-to-right", "right-to-left"))
    found = region_statistics(built / "x.ome.zarr", tmp_path / "a.ome.zarr", TERMINOLOGY, True)
    assert found["covered"].equals(table["covered"])
    for name in ("covered", "energy", "std_red_direct"):
        assert found[f"{name}_right"].equals(table[f"{name}_left"])
        assert found[f"{name}_left"].equals(table[f"{name}_right"])


def test_a_volume_that_lost_its_section_label_is_not_taken_as_covered_everywhere(built, tmp_path):
    shutil.copytree(built / "x.ome.zarr", tmp_path / "x.ome.zarr")
    shutil.rmtree(tmp_path / "x.ome.zarr" / "labels" / "section")
    with raises(InputError, "missing-label") as caught:
        region_statistics(tmp_path / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY)
    assert "x.ome.zarr/labels/section is missing" in str(caught.value)


def test_an_image_without_sections_is_paired_with_its_expression_view(built, tmp_path):
    image = stored(built / "x.ome.zarr" / "0")
    write_multiscales(image, tmp_path / "x.ome.zarr", geometry=PLACED)
    shutil.copytree(built / "x.expression.ome.zarr", tmp_path / "x.expression.ome.zarr")
    root = tmp_path / "x.expression.ome.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"].pop("atlaszarr")
    root.write_text(json.dumps(document))
    shutil.rmtree(tmp_path / "x.expression.ome.zarr" / "atlaszarr")
    with pytest.warns(AtlaszarrWarning, match="absent"):
        found = region_statistics(tmp_path / "x.ome.zarr", built / "two.ome.zarr", TERMINOLOGY)
    view, other = (stored(built / "x.expression.ome.zarr" / path) for path in ("0", "labels/section/0"))
    where = (view != 0).any(axis=0) & (other != 0) & (stored(built / "two.ome.zarr" / "0") > 0)
    grey = (image.sum(axis=0, dtype=int) + 1) // 3
    assert found.loc[997, "intensity"] == pytest.approx(grey[where].mean(), rel=1e-12)


@pytest.fixture(scope="module")
def backwards(built):
    """The annotation of the phantom at 100 um with its first axis reversed, and its orientation too."""
    values = stored(built / "two.ome.zarr" / "0")
    words = {**PLACED.orientation, "z": "posterior-to-anterior"}
    placed = replace(PLACED, orientation=words)
    write_multiscales(values[::-1], built / "backwards.ome.zarr", rule="mode", geometry=placed, levels=1)
    return built / "backwards.ome.zarr"


def test_a_lazy_volume_has_the_orientation_of_a_built_one(built, backwards, service, connect, table):
    lazy = open_volume(DATASET, 100, client=connect(service))
    for volume in (lazy, lazy.transpose("x", "c", "z", "y")):
        found = region_statistics(volume, backwards, TERMINOLOGY)
        for name in ("voxels", "covered", "mean_red", "std_red"):
            assert found[name].equals(table[name])
    assert region_statistics(lazy["image"], backwards, TERMINOLOGY)["mean_red"].equals(
        region_statistics(lazy["image"], built / "two.ome.zarr", TERMINOLOGY)["mean_red"]
    )


@pytest.mark.slow
def test_a_lazy_grid_has_the_orientation_of_a_written_one(backwards, service, connect, tmp_path):
    client = connect(service)
    write_grid(DATASET, tmp_path / "grid.ome.zarr", client=client)
    for grid in (open_grid(DATASET, client=client), tmp_path / "grid.ome.zarr"):
        with raises(InputError, "orientations-differ"):
            region_statistics(grid, backwards, TERMINOLOGY)


def test_a_level_of_a_build_and_of_a_grid_is_measured_as_the_whole_is(built, service, connect, tmp_path, table):
    annotation = built / "two.ome.zarr"
    assert region_statistics(built / "x.ome.zarr" / "0", annotation, TERMINOLOGY, True).equals(table)
    alone = region_statistics(built / "x.expression.ome.zarr", annotation, TERMINOLOGY)
    assert region_statistics(built / "x.expression.ome.zarr" / "0", annotation, TERMINOLOGY).equals(alone)
    write_grid(DATASET, tmp_path / "grid.ome.zarr", client=connect(service))
    first, again = (region_statistics(tmp_path / "grid.ome.zarr" / part, annotation, TERMINOLOGY) for part in ("", "0"))
    assert first.equals(again)
    assert again.attrs["dataset"] == DATASET


@pytest.mark.parametrize("include", [None, 5, [], ["energy", "energy"], ["shape"], [["energy"]]])
def test_quantities_that_a_grid_lacks_are_refused(service, connect, include):
    with raises(InputError, "unknown-value") as caught:
        open_grid(DATASET, include, client=connect(service))
    assert "energy, density, intensity" in str(caught.value)


def test_the_order_of_the_views_of_a_build_does_not_matter(built, service, connect, tmp_path, table):
    views = ["expression", "primary"]
    build(DATASET, tmp_path / "x.ome.zarr", client=connect(service), resolution=100, view=views)
    found = region_statistics(tmp_path / "x.primary.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)
    assert found.equals(table)
    shutil.copytree(built / "x.ome.zarr", tmp_path / "y.primary.ome.zarr")
    shutil.copytree(built / "x.ome.zarr", tmp_path / "y.ome.zarr")  # not an expression view
    found = region_statistics(tmp_path / "y.primary.ome.zarr", built / "two.ome.zarr", TERMINOLOGY, True)
    assert found["density"].isna().all()
