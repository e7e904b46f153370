"""Defects of a built site: links within it that lead nowhere, and examples without a picture."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.links |= {given[name] for name in ("href", "src") if name in given}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}


def broken_links(site: Path) -> list[str]:
    """The links of all pages to files or anchors that the site does not have, each with its page.

    Parameters
    ----------
    site : Path
        The folder of the HTML.
    """
    static = site / "_static"  # of the theme, with templates in it
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html")) if static not in path.parents}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            anchor = unquote(parts.fragment)
            if not to.exists() or (to in pages and anchor not in pages[to].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def without_picture(site: Path, examples: list[str]) -> list[str]:
    """The examples whose page is missing or has no picture of its own."""
    return [
        name
        for name in examples
        if not (site / "gallery" / f"{name}.html").exists()
        or f"sphx_glr_{name}_001.png" not in (site / "gallery" / f"{name}.html").read_text(encoding="utf-8")
    ]


def finished(app: Any, failed: Exception | None) -> None:
    """Refuse a site with defects: a handler of Sphinx's event ``build-finished``."""
    from gallery_inputs import EXAMPLES
    from sphinx.errors import ExtensionError

    if failed or app.builder.format != "html":
        return
    site = Path(app.outdir).resolve()
    defects = [f"the link leads nowhere: {link}" for link in broken_links(site)]
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    defects += [f"the gallery has no picture of {name}" for name in without_picture(site, names)]
    if defects:
        raise ExtensionError("\n".join(["the site has defects:", *defects]))
