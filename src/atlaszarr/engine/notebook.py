"""HTML of reports for notebooks: tables of names and values. Every text is escaped, since names come from files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import printable

#: Items of a list that a report shows, such as defects: more are counted.
MOST_SHOWN = 20


def text_html(value: object) -> str:
    """Text as HTML on one line: without control characters and secrets of URLs, and with all markup escaped."""
    from html import escape

    return escape(printable(str(value)))


def table_html(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values, under a title.

    Parameters
    ----------
    title : str
    rows : iterable of (str, object)
        Name and value; a list or tuple as a value has a line for each of its first 20 items.
    """
    lines = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{text_html(name)}</th>"
        f"<td style='text-align:left'>{_cell(value)}</td></tr>"
        for name, value in rows
    )
    return f"<div><b>{text_html(title)}</b><table>{lines}</table></div>"


def _cell(value: object) -> str:
    if not isinstance(value, list | tuple):
        return text_html(value)
    return "<br>".join([*map(text_html, value[:MOST_SHOWN]), *_more(value)])


def _more(items: Sequence[object]) -> list[str]:
    return [f"and {len(items) - MOST_SHOWN} more"] if len(items) > MOST_SHOWN else []
