"""The names that an atlas gets where none are given, and what messages and help say of them."""

from contextlib import nullcontext

import pytest
from click.testing import CliRunner

import institute_assets as institute
from atlaszarr import build_atlas
from atlaszarr.assets.names import CCF, CCF_COMPONENTS, AtlasNames, referenced
from atlaszarr.cli.atlas import atlas
from atlaszarr.errors import InputError
from codes import raises


@pytest.mark.parametrize("given", [(), CCF], ids=["by default", "given"])
def test_components_of_the_default_name_and_version_are_those_of_the_allen_institute(given):
    names = AtlasNames.of(*given)
    assert names.atlas.folder == "atlases/allen-adult-mouse-ccf-atlas/2017"
    assert names.template.folder == "templates/allen-adult-mouse-stpt-template/2015"
    assert names.coordinate_space.folder == "coordinate-spaces/allen-adult-mouse-ccf-space/2015"


@pytest.mark.parametrize(("name", "version"), [("allen-adult-mouse", "2020"), ("tiny", "2017")])
def test_components_of_any_other_name_or_version_have_those_of_the_atlas(name, version):
    names = AtlasNames.of(name, version)
    assert names.atlas.folder == f"atlases/{name}-atlas/{version}"
    for asset in (names.template, names.terminology, names.coordinate_space):
        assert asset.folder.split("/")[1:] == [f"{name}-{asset.folder.split('/')[1].rpartition('-')[2]}", version]


def test_the_help_gives_the_defaults_of_the_components():
    text = "".join(CliRunner().invoke(atlas, ["--help"]).output.split())
    for default in (default for component in CCF_COMPONENTS.values() for default in component):
        assert f"[{default}fortheatlas{''.join(CCF)},elsethatoftheatlas]" in text


def test_a_terminology_that_a_manifest_names_and_that_is_missing_is_given_by_the_option_of_the_command(tmp_path):
    root = institute.write_tree(tmp_path / "tree")
    (root / institute.TERMINOLOGY / "terminology.csv").unlink()
    with raises(InputError, "file-not-found") as caught:
        build_atlas(tmp_path / "own", annotation=root / institute.SET, name="own", version="2026")
    assert f"{institute.SET}/manifest.json names," in str(caught.value)
    assert str(caught.value).endswith("give one (--ontology)")
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("version", "is_of_the_standard", "is_of_brainglobe"),
    [
        ("2017", True, True),
        ("2017-10", True, False),
        ("1.0.0", True, False),
        ("v3", True, False),
        ("v1.2", True, False),
        ("3", False, True),
        ("3.0", False, True),
    ],
)
def test_each_layout_takes_the_versions_that_the_documentation_lists(version, is_of_the_standard, is_of_brainglobe):
    names = AtlasNames.of("tiny", version)
    layouts = {(True, False): is_of_the_standard, (False, True): is_of_brainglobe}
    for layout, is_taken in layouts.items():
        with nullcontext() if is_taken else raises(InputError, "invalid-version"):
            names.refuse_versions(*layout)


def test_a_version_that_only_the_validator_of_the_standard_takes_is_read_and_not_written():
    assert referenced({"name": "x-annotation", "version": "v1-beta"}, "annotation-sets").endswith("/v1-beta")
    with raises(InputError, "invalid-version"):
        AtlasNames.of("x", "v1-beta")
