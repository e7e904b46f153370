"""The syntax of the Allen Brain API's query language (RMA): text to a query.

A query is a model with criteria, includes and options. What cannot be understood is refused as the
service does, with line and column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_OPERATORS = ("eq", "ne", "lt", "gt", "le", "ge", "in", "li", "il")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_BARE = re.compile(r"[^\[\](),'\"]*")


class RmaError(Exception):
    """A query that cannot be parsed or evaluated; its text is the answer's `msg`."""


@dataclass(frozen=True)
class Filter:
    """One ``[attribute$operator values]``."""

    attribute: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """An association (or, without a name, the model itself), its filters, and what is nested in it."""

    name: str | None
    filters: tuple[Filter, ...] = ()
    children: tuple[Term, ...] = ()


@dataclass
class Query:
    """A model stage."""

    model: str
    criteria: list[Term] = field(default_factory=list)
    include: list[Term] = field(default_factory=list)
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Reader:
    """A cursor over the text of a query; refuses with the position, as the service does."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def accept(self, token: str) -> bool:
        accepted = self.text.startswith(token, self.position)
        if accepted:
            self.position += len(token)
        return accepted

    def expect(self, token: str) -> None:
        for character in token:
            if not self.accept(character):
                raise self.mismatch(f"expecting '{character}'")

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position)
        if not found:
            raise self.mismatch("expecting a name")
        self.position = found.end()
        return found.group()

    def mismatch(self, expected: str) -> RmaError:
        got = "<EOF>" if self.at_end else f"'{self.text[self.position]}'"
        return RmaError(f"line 1, column {self.position + 1}: mismatched character {got} {expected}")

    def terms(self) -> list[Term]:
        terms = [self.term()]
        while self.accept(","):
            terms.append(self.term())
        return terms

    def term(self) -> Term:
        name = None if self.text.startswith("[", self.position) else self.match(_NAME)
        filters = self.filters()
        children: tuple[Term, ...] = ()
        if name is not None and self.accept("("):
            children = tuple(self.terms())
            self.expect(")")
        return Term(name, filters, children)

    def filters(self) -> tuple[Filter, ...]:
        filters = []
        while self.accept("["):
            attribute = self.match(_NAME)
            self.expect("$")
            operator = next((operator for operator in _OPERATORS if self.accept(operator)), None)
            if operator is None:
                raise self.mismatch(f"expecting one of {', '.join(_OPERATORS)}")
            values = [self.value()]
            while self.accept(","):
                values.append(self.value())
            self.expect("]")
            filters.append(Filter(attribute, operator, tuple(values)))
        return tuple(filters)

    def value(self) -> str:
        for quote in "'\"":
            if self.accept(quote):
                end = self.text.find(quote, self.position)
                if end < 0:
                    self.position = len(self.text)
                    raise self.mismatch(f"expecting '{quote}'")
                value = self.text[self.position : end]
                self.position = end + 1
                return value
        return self.match(_BARE).strip()


def parse(text: str) -> Query:
    """A query in one string: ``model::M,rma::criteria,...,rma::include,...,rma::options[...]``.

    Raises
    ------
    RmaError
        With line and column, if it cannot be understood.
    """
    reader = _Reader(text.strip())
    reader.expect("model::")
    query = Query(reader.match(_NAME))
    own = reader.filters()
    if own:
        query.criteria.append(Term(None, own))
    section = ""
    while not reader.at_end:
        reader.expect(",")
        if reader.accept("rma::"):
            section = reader.match(_NAME)
            if section == "options":
                query.options |= {option.attribute: option.values for option in reader.filters()}
            elif section not in ("criteria", "include"):
                raise RmaError(f"line 1, column {reader.position}: no viable alternative at input '{section}'")
        elif section == "criteria":
            query.criteria.append(reader.term())
        elif section == "include":
            query.include.append(reader.term())
        else:
            raise reader.mismatch("expecting 'rma::'")
    return query


def parse_parameters(model: str, parameters: Mapping[str, str]) -> Query:
    """A query on one model whose parts come as parameters of the URL."""
    query = Query(model)
    for name, terms in (("criteria", query.criteria), ("include", query.include)):
        if parameters.get(name):
            reader = _Reader(parameters[name].strip())
            terms.extend(reader.terms())
            if not reader.at_end:
                raise reader.mismatch("expecting ','")
    query.options = {
        name: (parameters[name].strip("'"),)
        for name in ("num_rows", "start_row", "order", "only", "except", "tabular")
        if name in parameters
    }
    return query
