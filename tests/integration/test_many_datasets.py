"""The emulator with invented records for many section datasets, whose images it makes when they are asked for."""

import csv
from pathlib import Path

import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.allen.records import SectionDataset
from atlaszarr.catalogue.criteria import Criterion
from atlaszarr.testing import Emulator
from atlaszarr.testing.many_datasets import invented_datasets

#: The section datasets of the Allen Institute, which are not part of this package.
TABLE = Path(__file__).parents[3] / "shared" / "data" / "api" / "ish_datasets.csv"
ROW = {"gene": "Prox1", "animal_id": "5", "sex": "Male", "age": "P56", "plane_of_section": "coronal"}
ROWS = [ROW | {"experiment_id": str(id), "treatment": "ISH"} for id in (30, 10, 20)]


def test_the_records_of_an_id_are_always_the_same():
    datasets, images = invented_datasets(ROWS)
    again, images_again = invented_datasets(reversed(ROWS))
    assert datasets == again
    assert list(images) == list(images_again)
    assert [dataset["id"] for dataset in datasets] == [10, 20, 30]


def test_invented_datasets_can_be_registered_and_have_the_usual_number_of_sections():
    planes = ("coronal", "variable")
    datasets, images = invented_datasets(
        [ROWS[0] | {"experiment_id": id, "plane_of_section": planes[id % 2]} for id in range(40)]
    )
    for record in datasets:
        dataset = SectionDataset.from_json(record, images.of(record["id"]))
        dataset.validate_registration()
        low, high = (50, 63) if dataset.plane == "coronal" else (14, 23)
        assert low <= len(dataset.sections) + len(dataset.skipped) <= high
        assert 4000 < max(section.width for section in dataset.sections) < 16000


def test_queries_for_images_of_datasets_equal_those_of_listed_images(connect):
    datasets, images = invented_datasets(ROWS)
    with Emulator(datasets, images) as lazy, Emulator(datasets, list(images)) as listed:
        for criteria, where in (
            ([], {"data_set_id": 20}),
            ([], {"id": 1_000_105}),
            ([], {"id": 1_000_199}),
            ([], {"id": 5}),
            ([Criterion("data_set_id", "in", (30, 10, 99))], {}),
            ([Criterion("data_set_id", "in", (30, 10)), Criterion("id", "gt", 1_000_040)], {}),
            ([], {}),
        ):
            answers = [
                connect(service)._query("SectionImage", criteria, ["alignment2d"], where=where)
                for service in (lazy, listed)
            ]
            assert answers[0] == answers[1]
        assert connect(lazy).section_dataset(20) == connect(listed).section_dataset(20)
        image = connect(lazy).section_dataset(20).sections[20].image_id
        assert (connect(lazy).image(image, 6) == connect(listed).image(image, 6)).all()


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="the table of the Allen Institute's section datasets is not here")
def test_a_thousand_of_the_institutes_datasets_are_catalogued(tmp_path):
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))[::44]
    with Emulator(*invented_datasets(rows)) as service, AllenClient(service.url, "none", rate=1e9) as client:
        report = client.write_catalogue(tmp_path / "c")
        assert (report.datasets, report.misfits) == (len(rows), 0)
        assert report.requests == service.count() < 45
        with AllenClient(service.url, "none", catalogue=tmp_path / "c") as offline:
            service.reset()
            for row in rows[::100]:
                assert len(offline.section_dataset(int(row["experiment_id"])).sections) > 10
            assert service.count() == 0
