"""Estimates of selections of a catalogue, compared with the exact plans of their datasets."""

import json

import numpy as np
import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.dataset_build.api import plan
from atlaszarr.dataset_build.estimate import estimate
from atlaszarr.errors import AtlaszarrError, InputError
from atlaszarr.testing import Emulator
from atlaszarr.testing.many_datasets import invented_datasets
from atlaszarr.testing.records import invented, invented_elsewhere
from codes import raises

AGES = ("E11.5", "E13.5", "E15.5", "E18.5", "P4", "P14", "P28", "P56", "P56", "unknown")
NOWHERE = "http://127.0.0.1:1/api/v2"


def rows():
    """Rows of the table that `invented_datasets` takes: every age, both planes, with and without expression."""
    return [
        {
            "experiment_id": 100 + 13 * number,
            "gene": f"Gene{number % 5}",
            "animal_id": 7,
            "sex": "Male",
            "age": AGES[number % len(AGES)],
            "plane_of_section": "coronal" if number % 3 else "variable",
            "treatment": "NISSL" if number % 7 == 3 else "ISH",
        }
        for number in range(30)
    ]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a catalogue, without a service: invented datasets, and some that cannot be registered."""
    folder = tmp_path_factory.mktemp("estimates") / "c"
    datasets, images = invented_datasets(rows())
    images = list(images)
    others = [invented_elsewhere("HumanNT", 5), invented_elsewhere("DevMouse", 6), invented(7, space=9)]
    strange, strange_images = invented(8)
    others.append((strange, [*strange_images, {**strange_images[0], "id": 8_500_000}]))  # a number twice
    unknown, unknown_images = invented(9)
    others.append((unknown | {"plane_of_section_id": 3}, unknown_images))
    for record, more in others:
        datasets.append(record)
        images += more
    with Emulator(datasets, images) as service, AllenClient(service.url, "none", rate=1e9) as online:
        online.write_catalogue(folder)
    with AllenClient(NOWHERE, "none", catalogue=folder) as offline:
        yield offline


def figures_of_plans(client, **options):
    """Sums over all datasets that can be built, and for each: images, requests, pixels, download, uncompressed."""
    found = {}
    for id in client.search(limit=None).index.tolist():
        try:
            plans = plan(id, client=client, **options)
        except AtlaszarrError:
            continue
        found[id] = np.sum(
            [
                (p.sections_used, p.image_requests, p.pixels, p.download_bytes, p.uncompressed_bytes, p.stored_bytes)
                for p in plans
            ],
            axis=0,
        )
    return found


def figures_of(found):
    return np.array(
        (
            found.images,
            found.image_requests,
            found.pixels,
            found.download_bytes,
            found.uncompressed_bytes,
            found.stored_bytes,
        )
    )


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 100.0},
        {"resolution": 50.0, "fill": "linear", "view": ["primary", "expression"]},
        {"resolution": 60.0, "fill": "none", "grey": True, "mirror": True},
        {"resolution": 50.0, "chunk": 32, "shard": 64, "levels": 3, "max_gap": 1.0},
        {"resolution": 80.0, "downsample": 1},
    ],
    ids=str,
)
def test_an_estimate_is_within_five_per_cent_of_the_exact_plans(client, options):
    plans = figures_of_plans(client, **options)
    found = estimate(client.catalogue, **options)
    assert found.datasets == 35
    assert found.registered == len(plans) > 20
    exact = np.sum(list(plans.values()), axis=0)
    assert np.abs(figures_of(found) / exact - 1).max() < 0.02
    for id, figures in plans.items():
        one = estimate(client.catalogue, id=id, **options)
        assert np.abs(figures_of(one) / figures - 1).max() < 0.05, id


@pytest.mark.slow
def test_an_estimate_of_a_selection_is_the_sum_over_the_datasets_that_a_search_finds(client):
    for criteria in ({"gene": "gene1"}, {"plane": "coronal"}, {"product": "DevMouse"}, {"specimen": 7}, {"limit": 4}):
        ids = client.search(**{"limit": None} | criteria).index.tolist()
        found = estimate(client.catalogue, resolution=100, **criteria)
        assert found.datasets == len(ids) > 0
        parts = [estimate(client.catalogue, resolution=100, id=id) for id in ids]
        assert found.images == sum(part.images for part in parts)
        assert found.core_hours == pytest.approx(sum(part.core_hours for part in parts))
        together = estimate(client.catalogue, resolution=100, id=ids)
        assert together.core_hours == pytest.approx(found.core_hours)
        assert (figures_of(together) == figures_of(found)).all()


@pytest.mark.parametrize(
    ("criteria", "code"),
    [
        ({"mode": "sections"}, "not-supported"),
        ({"fill": "most"}, "unknown-value"),
        ({"max_gap": 0.5}, "out-of-range"),
        ({"limit": 0}, "out-of-range"),
        ({"gene": "a'"}, "unsupported-character"),
        ({"resolution": -1.0}, "out-of-range"),
        ({"colour": 1}, "unknown-option"),
    ],
    ids=str,
)
def test_an_invalid_criterion_or_option_of_an_estimate_is_refused(client, criteria, code):
    with raises(InputError, code):
        estimate(client.catalogue, **criteria)


def test_the_command_plan_estimates_a_selection(client, command, tmp_path):
    options = ("--catalogue", client.catalogue.url, "--api-url", NOWHERE, "--resolution", 100)
    outcome = command("plan", "--gene", "Gene1", *options, "--json")
    assert json.loads(outcome.out) == estimate(client.catalogue, gene="Gene1", resolution=100).to_dict()
    outcome = command("plan", "--plane", "coronal", "--limit", 2, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("section datasets     2, ")
    (tmp_path / "ids.csv").write_text("id\n100\n113\n126\n")
    outcome = command("plan", "--ids", tmp_path / "ids.csv", *options, "--json")
    assert json.loads(outcome.out) == estimate(client.catalogue, id=[100, 113, 126], resolution=100).to_dict()
    plain = json.loads(outcome.out)
    for name in ("fields", "refine"):
        outcome = command("plan", "--ids", tmp_path / "ids.csv", *options, f"--{name}", "x", "--json")
        more = json.loads(outcome.out)["core_hours"] - plain["core_hours"]
        assert more == pytest.approx(2.7 * plain["images"] / 3600 if name == "refine" else 0.0)
        assert "at their recorded depths" in outcome.err
    outcome = command("plan", "--gene", "nothing", *options)
    assert outcome.out.startswith("section datasets     0, 0 of them can be registered")
    assert json.loads(command("plan", 8, *options, "--json").out)[0]["metadata_requests"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no section datasets are chosen"),
        (("--gene", "x", "5"), "--gene selects several section datasets"),
        (("--displacement",), "--displacement is not supported for an estimate"),
        (("--refine", "x", "5"), "run `atlaszarr refine 5 FIELDS"),
        (("--catalogue", "nowhere"), "is not a finished catalogue"),
    ],
    ids=str,
)
def test_a_plan_of_nothing_is_refused_in_one_line(command, arguments, words):
    outcome = command("plan", *arguments, "--api-url", NOWHERE)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


#: Values of one section image of ten that a build skips, or takes in another way.
STRANGE = [
    {"width": 2**39},
    {"height": 0},
    {"width": 65501},
    {"section_number": 2**39},
    {"resolution": 2e4},
    {"resolution": 1e-30},
    {"tier_count": 99},
    {"tier_count": 0},
    {"failed": True},
    {"alignment2d": {"tsv_00": 0.0}},
    {"alignment2d": {"tsv_00": 1e11}},
    {"alignment2d": {"tvs_04": 7.0}},
    {"alignment2d": dict.fromkeys(("tsv_00", "tsv_01", "tsv_02", "tsv_03"), 1.0)},
]
#: Values of a section dataset that cannot be registered.
UNREGISTERED = [
    {"section_thickness": 2e4},
    {"alignment3d": {"tvr_00": 1e11}},
    {"alignment3d": {"tvr_09": 1e4}},
    {"alignment3d": dict.fromkeys(("tvr_00", "tvr_03", "tvr_06"), 0.0)},
]


def test_an_estimate_leaves_out_the_images_and_datasets_that_a_plan_leaves_out(tmp_path):
    datasets, images = [], []
    for number, change in enumerate([{}, *STRANGE, *UNREGISTERED]):
        record, its_images = invented(100 + number, numbers=range(100, 200, 10))
        its_images = [image | {"id": image["id"] + 1000 * number} for image in its_images]
        if change in UNREGISTERED:
            record |= {"alignment3d": record["alignment3d"] | change.get("alignment3d", {})}
            record |= {name: value for name, value in change.items() if name != "alignment3d"}
        else:
            aligned = its_images[5]["alignment2d"] | change.get("alignment2d", {})
            its_images[5] = its_images[5] | change | {"alignment2d": aligned}
        datasets.append(record)
        images += its_images
    with Emulator(datasets, images) as service, AllenClient(service.url, "none", rate=1e9) as online:
        online.write_catalogue(tmp_path / "c")
    client = AllenClient(NOWHERE, "none", catalogue=tmp_path / "c")
    plans = figures_of_plans(client, resolution=200)
    assert set(plans) == set(range(100, 101 + len(STRANGE)))
    assert len({int(figures[0]) for figures in plans.values()}) == 2
    for id in client.search(limit=None).index.tolist():
        found = estimate(client.catalogue, id=id, resolution=200)
        assert found.registered == (id in plans)
        exact = plans.get(id, np.zeros(6))
        assert figures_of(found)[:4].tolist() == exact[:4].tolist(), id
