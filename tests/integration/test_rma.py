"""Metadata queries over HTTP, in all forms that clients send."""

from __future__ import annotations

import csv
import io
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
import urllib3

from atlaszarr.testing import Emulator
from atlaszarr.testing.records import dataset_records, image_records


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def http():
    with urllib3.PoolManager() as pool:
        yield pool


@pytest.fixture
def ask(emulator, http):
    """The envelope of a metadata query, given what follows /data/."""

    def get(path):
        response = http.request("GET", f"{emulator.url}/data/{path}")
        assert response.status == 200
        return response.json()

    return get


def ids(answer):
    assert answer["success"] is True
    return [record["id"] for record in answer["msg"]]


EXPERIMENTS = (
    "criteria=model::SectionDataSet,rma::criteria,[failed$eq'false'],products[abbreviation$eq'Mouse'],"
    "plane_of_section[name$eq'{plane}'],genes[acronym$eq'{gene}']"
)


@pytest.mark.parametrize(
    ("plane", "gene", "expected"),
    [("sagittal", "Prox1", [69289763]), ("coronal", "Nrp1", [74272479]), ("coronal", "Prox1", [])],
)
def test_nested_criteria_find_the_datasets_of_a_gene_and_plane(ask, plane, gene, expected):
    answer = ask("query.json?" + EXPERIMENTS.format(plane=plane, gene=gene))
    assert ids(answer) == expected
    assert answer["total_rows"] == answer["num_rows"] == len(expected)
    assert answer["id"] == answer["start_row"] == 0


@pytest.mark.parametrize("encode", [str, lambda text: quote(text, safe="=&"), lambda text: quote(text, safe="=&:,$")])
def test_raw_and_percent_encoded_queries_are_the_same(ask, encode):
    query = "criteria=model::SectionImage,rma::criteria,section_data_set[id$eq69289763],rma::include,alignment2d"
    assert len(ids(ask(f"query.json?{encode(query)}"))) == 18


def test_q_is_another_name_for_criteria(ask):
    query = "model::SectionImage,rma::criteria,[data_set_id$eq74272479],rma::options[num_rows$eq'all'][count$eqfalse]"
    assert len(ids(ask(f"query.json?q={query}"))) == 60


def test_filters_may_follow_the_model_directly(ask):
    assert ids(ask("query.json?q=model::SectionImage[id$eq69177654]")) == [69177654]


def test_a_page_has_50_rows_unless_more_are_asked_for(ask):
    criteria = "criteria=model::SectionImage,rma::criteria,[data_set_id$eq74272479]"
    first = ask(f"query.json?{criteria}")
    rest = ask(f"query.json?{criteria},rma::options[start_row$eq50][num_rows$eq2000]")
    assert (first["num_rows"], first["total_rows"], first["start_row"]) == (50, 60, 0)
    assert (rest["num_rows"], rest["total_rows"], rest["start_row"]) == (10, 60, 50)
    assert len({*ids(first), *ids(rest)}) == 60


def test_associations_are_in_the_answer_only_if_included(ask):
    (bare,) = ask("SectionDataSet/69289763.json")["msg"]
    assert not {"alignment3d", "genes", "products", "plane_of_section", "treatments", "specimen"} & set(bare)
    include = "alignment3d,genes,products,plane_of_section,treatments,specimen(donor(age))"
    (full,) = ask(f"SectionDataSet/69289763.json?include={include}")["msg"]
    assert full["alignment3d"]["tvr_00"] == 1.0283
    assert [gene["acronym"] for gene in full["genes"]] == ["Prox1"]
    assert full["products"][0]["abbreviation"] == "Mouse"
    assert full["plane_of_section"] == {"id": 2, "name": "sagittal"}
    assert full["treatments"][0]["name"] == "ISH"
    assert full["specimen"]["donor"]["age"]["name"] == "P56"
    (outer,) = ask("SectionDataSet/69289763.json?include=specimen(donor)")["msg"]
    assert "age" not in outer["specimen"]["donor"]


def test_the_section_images_of_a_dataset_can_be_included(ask):
    query = "criteria=model::SectionDataSet,rma::criteria,[id$eq69289763],rma::include,genes,section_images"
    (record,) = ask(f"query.json?{query},rma::options[start_row$eq0][num_rows$eq25000]")["msg"]
    assert [image["section_number"] for image in record["section_images"]][:3] == [6, 14, 22]
    assert "alignment2d" not in record["section_images"][0]


def test_an_included_association_can_be_filtered(ask):
    query = "SectionDataSet/69289763.json?include=section_images[section_number$lt20](alignment2d)"
    (record,) = ask(query)["msg"]
    assert [image["section_number"] for image in record["section_images"]] == [6, 14]
    assert record["section_images"][0]["alignment2d"]["tsv_00"] == 1.04849


def test_an_image_is_found_by_the_genes_and_the_specimen_of_its_dataset(ask):
    query = "criteria=model::SectionImage,rma::criteria,data_set{}(genes[acronym$eqProx1])"
    assert len(ids(ask("query.json?" + query.format("[specimen_id$eq68870790]")))) == 18
    assert len(ids(ask("query.json?" + query.format("")))) == 18
    assert ids(ask("query.json?" + query.format("[specimen_id$eq1]"))) == []


def test_associations_nest_in_criteria(ask):
    query = "query.json?criteria=model::SectionDataSet,rma::criteria,specimen(donor(age[name$eq'{}']))"
    assert len(ids(ask(query.format("P56")))) == 2
    assert ids(ask(query.format("P4"))) == []


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("[section_number$eq70]", [70]),
        ("[section_number$ne70][section_number$gt62][section_number$le86]", [78, 86]),
        ("[section_number$lt14]", [6]),
        ("[section_number$ge150]", [150, 158]),
        ("[section_number$in70,78,79]", [70, 78]),
        ("[failed$in'true']", []),
        ("[failed$in'false','true'][section_number$eq6]", [6]),
        ("[path$li'*/69177654.aff']", [70]),
        ("[image_type$li'prim*'][section_number$eq6]", []),
        ("[image_type$il'prim*'][section_number$eq6]", [6]),
        ("[expression_path$li'*']&num_rows=1", [6]),
        ("[axes$eq'x']", []),
    ],
)
def test_every_operator_selects_as_documented(ask, criterion, expected):
    answer = ask(f"SectionImage/query.json?criteria=[data_set_id$eq69289763],{criterion}")
    assert [record["section_number"] for record in answer["msg"]] == expected


def test_order_start_row_and_num_rows_choose_the_page(ask):
    query = "SectionImage/query.json?criteria=[data_set_id$eq69289763]&order={}&num_rows=3&start_row=1"
    for order in ("section_number$desc", "section_images.section_number+desc", "'section_number$desc'"):
        answer = ask(query.format(order))
        assert [record["section_number"] for record in answer["msg"]] == [150, 142, 134]
        assert answer["total_rows"] == 18
    in_options = "rma::options[order$eq'data_set_id$desc','section_number'][num_rows$eq2]"
    answer = ask(f"query.json?criteria=model::SectionImage,rma::criteria,[id$gt0],{in_options}")
    assert [record["section_number"] for record in answer["msg"]] == [5, 13]


def test_only_and_except_choose_the_attributes(ask):
    (record,) = ask("SectionImage/69177654.json?only=id,section_number&include=alignment2d")["msg"]
    assert set(record) == {"id", "section_number", "alignment2d"}
    query = "query.json?q=model::SectionImage,rma::criteria,[id$eq69177654],rma::options"
    assert set(ask(f"{query}[only$eq'id,section_images.width']")["msg"][0]) == {"id", "width"}
    assert "width" not in ask(f"{query}[except$eqwidth,height]")["msg"][0]


@pytest.mark.parametrize(
    ("model", "total"), [("ReferenceSpace", 10), ("Product", 6), ("Gene", 2), ("PlaneOfSection", 12)]
)
def test_the_small_models_are_served(ask, model, total):
    assert ask(f"query.json?criteria=model::{model}")["total_rows"] == total
    assert ask(f"{model}/query.json?num_rows=1")["num_rows"] == 1


def test_an_unknown_id_is_a_success_without_rows(ask):
    for query in ("SectionDataSet/1.json", "query.json?criteria=model::SectionDataSet,rma::criteria,[id$eq1]"):
        answer = ask(query)
        assert answer["success"] is True
        assert (answer["total_rows"], answer["msg"]) == (0, [])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("criteria=model::SectionImage,rma::criteria,[id$eq1]]", "line 1, column 43: mismatched character ']'"),
        ("criteria=model::Gene,rma::criteria,[acronym$eq'it's']", "line 1, column 42: mismatched character 's'"),
        ("criteria=model::Gene,rma::criteria,[acronym$eq'Prox1]", "mismatched character <EOF>"),
        ("criteria=model::Gene,rma::criteria,[acronym$is'x']", "expecting one of eq, ne"),
        ("criteria=model::Gene,[id$eq1]", "expecting 'rma::'"),
        ("criteria=Gene", "mismatched character 'G' expecting 'm'"),
        ("criteria=", "mismatched character <EOF>"),
        ("criteria=model::Nothing", "uninitialized constant ApiModel::Nothing"),
        ("criteria=model::SectionImage,rma::criteria,[colour$eq1]", "SectionImage has no attribute named 'colour'"),
        ("criteria=model::SectionImage,rma::criteria,friends[id$eq1]", "no association named 'friends'"),
        ("criteria=model::SectionImage,rma::include,friends", "no association named 'friends'"),
        ("criteria=model::SectionImage,rma::options[num_rows$eqmany]", "'many' is not a number of rows"),
    ],
)
def test_an_invalid_query_fails_with_a_message(ask, query, message):
    answer = ask(f"query.json?{query}")
    assert answer["success"] is False
    assert message in answer["msg"]


def test_xml_carries_the_same_records(emulator, http):
    url = f"{emulator.url}/data/SectionImage/69177654.xml?include=alignment2d"
    root = ElementTree.fromstring(http.request("GET", url).data)
    assert root.attrib["success"] == "true"
    (image,) = root.findall("section-images/section-image")
    assert image.findtext("section-number") == "70"
    assert image.findtext("alignment2d/tsv-04") == "2081.73"
    refused = ElementTree.fromstring(http.request("GET", f"{emulator.url}/data/query.xml?criteria=x").data)
    assert refused.attrib["success"] == "false"


def test_csv_has_a_column_per_attribute(emulator, http):
    url = f"{emulator.url}/data/SectionImage/query.csv?criteria=[data_set_id$eq69289763]"
    rows = list(csv.DictReader(io.StringIO(http.request("GET", url).data.decode())))
    assert [row["section_number"] for row in rows][:2] == ["6", "14"]


def test_any_records_can_be_served_as_they_are(http):
    (dataset,) = (record for record in dataset_records() if record["id"] == 69289763)
    images = [record for record in image_records() if record["data_set_id"] == 69289763]
    dataset |= {"alignment3d": None, "plane_of_section_id": 99, "section_thickness": 0.0}
    images[0]["alignment2d"] = None
    images[1]["section_number"] = images[2]["section_number"]
    raw = {key: value for key, value in dataset.items() if key != "genes"}
    with Emulator(datasets=[raw], images=images[:3]) as emulator:
        url = f"{emulator.url}/data/SectionDataSet/query.json?include=alignment3d,genes,plane_of_section"
        (record,) = http.request("GET", url).json()["msg"]
        assert (record["alignment3d"], record["plane_of_section"], record["section_thickness"]) == (None, None, 0.0)
        assert record["genes"][0]["acronym"] == "Prox1"
        answer = http.request("GET", f"{emulator.url}/data/SectionImage/query.json?include=alignment2d").json()
        assert [image["section_number"] for image in answer["msg"]] == [6, 22, 22]
        assert answer["msg"][0]["alignment2d"] is None


def test_equalization_is_found_through_the_images_of_its_dataset(http, ask):
    query = "query.json?q=model::Equalization,rma::criteria,section_data_set(section_images[id$in{}])"
    assert ids(ask(query.format("69177654,74081221"))) == []
    window = {"id": 3, "red_lower": 0, "red_upper": 900}
    datasets = [record | {"equalization": window} for record in dataset_records()]
    with Emulator(datasets=datasets) as emulator:
        (found,) = http.request("GET", f"{emulator.url}/data/{query.format('69177654')}").json()["msg"]
    assert found["red_upper"] == 900
