"""What a notebook shows: reports and terminologies as HTML in which every text is escaped, and progress bars."""

import sys
import types
from html.parser import HTMLParser
from itertools import chain

import numpy as np
import pytest

import atlaszarr
from atlaszarr import Terminology, build_atlas, verify
from atlaszarr.catalogue.snapshot import CatalogueReport
from atlaszarr.dataset_batch.journal import Row
from atlaszarr.dataset_batch.report import BatchReport, BatchStatus
from atlaszarr.dataset_build.estimate import Estimate
from atlaszarr.dataset_build.plan import BuildReport, Plan, Plans, ViewReport
from atlaszarr.engine.notebook import table_html
from atlaszarr.previews import PreviewReport
from atlaszarr.terminology.terminology import Structure
from atlaszarr.terminology.tree_html import MOST_SHOWN
from atlaszarr.writing import write_multiscales
from tiny_atlas import ONTOLOGY, write_sources

HOSTILE = "<script>alert('x')</script> & \"quoted\" \x1b[31m\n"


class Page(HTMLParser):
    """The elements and the text of HTML, whose tags must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def plan(target):
    return Plan(1, HOSTILE, target, (4, 5, 6), 2, HOSTILE, 3, 3, 0, 2, 3, 0, 10, 7, 8, 9, 10, 11, 12)


@pytest.mark.parametrize(
    "shown",
    [
        plan(HOSTILE),
        Plans([plan(None), plan(HOSTILE)]),
        BuildReport(1, (ViewReport(plan(HOSTILE), HOSTILE, HOSTILE, 1, ()),)),
        Estimate(),
        BatchReport(HOSTILE, HOSTILE, HOSTILE, 1, {HOSTILE: 1}, 1, 1, 1.0, (Row(1, "failed", message=HOSTILE),)),
        CatalogueReport(HOSTILE, HOSTILE, HOSTILE, 1, 2, 3, 4, [HOSTILE], 5),
        PreviewReport(1, HOSTILE, "coronal", 9, "primary", 25.0, HOSTILE, {}, (), ()),
        Terminology((Structure(1, HOSTILE, HOSTILE, f"red'{HOSTILE}", (1,)),)),
        Terminology((Structure(HOSTILE, "a", "b", "#102030", (HOSTILE,), None),)),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_every_text_is_escaped(shown):
    html = shown._repr_html_()
    page = Page(html)
    assert set(page.tags) <= {"div", "b", "table", "tr", "th", "td", "br", "details", "summary", "span", "p"}
    assert {name for name, _ in page.attributes} <= {"style", "open"}
    assert not any("script" in (value or "") for _, value in page.attributes)
    if "script" in html:
        assert "<script>alert('x')</script> & \"quoted\" \\x1b[31m\\n" in page.text
    assert "\x1b" not in html


def test_secrets_of_urls_are_not_shown():
    assert "hush" not in plan("https://me:hush@host/x.zarr?key=hush")._repr_html_()


def test_plans_are_a_tuple():
    plans = Plans([plan(None)])
    assert plans == (plan(None),)
    assert isinstance(plans, tuple)


def test_a_long_list_is_counted():
    page = Page(table_html("title", [("defects", [f"number {k}" for k in range(1000)])]))
    assert "number 19" in page.text
    assert "number 20" not in page.text
    assert "and 980 more" in page.text


def test_a_terminology_is_a_tree_with_its_root_open():
    page = Page(ONTOLOGY._repr_html_())
    assert page.tags.count("details") == 2  # root and A have children
    assert [name for name, _ in page.attributes if name == "open"] == ["open"]
    assert "Terminology of 5 structures" in page.text
    assert [page.text.index(name) for name in ("Area A, one", "Area a, one", "Area B")] == sorted(
        page.text.index(name) for name in ("Area A, one", "Area a, one", "Area B")
    )
    assert any("background:#FF7080" in (value or "") for _, value in page.attributes)


def test_a_large_terminology_shows_its_upper_levels():
    groups = [Structure(k, f"G{k}", f"Group {k}", "#000000", (1, k)) for k in range(2, 102)]
    leaves = {
        group.id: [
            Structure(k, f"L{k}", f"Leaf {k}", "#000000", (1, group.id, k))
            for k in range(1000 * group.id, 1000 * group.id + 50)
        ]
        for group in groups
    }
    below = chain.from_iterable([group, *leaves[group.id]] for group in groups)
    large = Terminology((Structure(1, "root", "root", "#FFFFFF", (1,)), *below))
    assert len(large) > MOST_SHOWN
    page = Page(large._repr_html_())
    assert "Group 101" in page.text
    assert "Leaf" not in page.text
    assert "and 5,000 more, further down in the tree" in page.text


def test_reports_of_real_targets_are_shown(tmp_path):
    report = build_atlas(tmp_path / "atlas", **write_sources(tmp_path / "sources"))
    assert "annotation.ome.zarr" in Page(report._repr_html_()).text
    written = write_multiscales(np.ones((4, 4, 4), np.uint8), tmp_path / "x.ome.zarr")
    assert "built" in Page(written._repr_html_()).text
    assert "Sound" in Page(verify(tmp_path / "x.ome.zarr")._repr_html_()).text
    next(
        path for path in (tmp_path / "x.ome.zarr" / "0").rglob("*") if path.name != "zarr.json" and path.is_file()
    ).unlink()
    assert "missing" in Page(verify(tmp_path / "x.ome.zarr")._repr_html_()).text


# Progress


class Cell:
    """The output of a notebook's cell, as IPython's display fills it."""

    def __init__(self):
        self.shown = []

    def modules(self, kernel=True):
        """Stand-ins for IPython and IPython.display."""
        ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        shell = types.SimpleNamespace(kernel=object()) if kernel else types.SimpleNamespace()
        ipython.get_ipython = lambda: shell
        display.HTML = str
        display.display = self.display
        return {"IPython": ipython, "IPython.display": display}

    def display(self, html, display_id):
        assert display_id is True
        self.update(html)
        return self

    def update(self, html):
        Page(html)
        self.shown.append(html)


@pytest.fixture
def cell(monkeypatch):
    cell = Cell()
    for name, module in cell.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return cell


def test_a_notebook_shows_a_bar_for_each_word_and_removes_them(cell, tmp_path):
    with atlaszarr.progress_bars("<b>Prox1</b>") as progress:
        write_multiscales(np.ones((80, 80, 80), np.uint8), tmp_path / "x.ome.zarr", chunk=32, progress=progress)
    assert Page(cell.shown[0]).text == "<b>Prox1</b>: metadata"
    bars = [Page(html) for html in cell.shown[1:-1] if html]
    assert bars
    assert all(set(bar.tags) == {"div", "progress"} for bar in bars)
    assert any("<b>Prox1</b>: " in bar.text for bar in bars)
    assert cell.shown[-1] == ""


def test_bars_are_removed_after_an_error(cell):
    def fail():
        with atlaszarr.progress_bars() as progress:
            progress(1, 2, "images")
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert "images 1/2" in cell.shown[1]
    assert cell.shown[-1] == ""


def test_the_progress_of_a_batch_is_a_bar(cell):
    with atlaszarr.progress_bars() as progress:
        progress(BatchStatus(total=9, finished=2, done=1))
    assert "3 of 9 datasets" in Page(cell.shown[1]).text
    assert ("max", "9") in Page(cell.shown[1]).attributes


def test_without_a_notebook_or_a_terminal_nothing_is_shown(cell, monkeypatch, capsys):
    for name, module in cell.modules(kernel=False).items():
        monkeypatch.setitem(sys.modules, name, module)
    with atlaszarr.progress_bars("x") as progress:
        progress(1, 2, "images")
    assert cell.shown == []
    assert capsys.readouterr() == ("", "")
