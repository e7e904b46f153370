"""A parser of the Allen Brain API's query language (RMA).

A query is a model with criteria, includes and options. Syntax errors name the line and column, as the service's do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_OPERATORS = ("eq", "ne", "lt", "gt", "le", "ge", "in", "li", "il")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_BARE = re.compile(r"[^\[\](),'\"]*")


class RmaError(Exception):
    """A query that cannot be parsed or evaluated; the message becomes the answer's `msg`."""


@dataclass(frozen=True)
class Filter:
    """A filter ``[attribute$operator values]``."""

    attribute: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """An association (without a name: the model itself) with its filters and nested terms."""

    name: str | None
    filters: tuple[Filter, ...] = ()
    children: tuple[Term, ...] = ()


@dataclass
class Query:
    """A parsed query on a model."""

    model: str
    criteria: list[Term] = field(default_factory=list)
    include: list[Term] = field(default_factory=list)
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Parser:
    """A recursive-descent parser of the text of a query."""

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
        match = pattern.match(self.text, self.position)
        if not match:
            raise self.mismatch("expecting a name")
        self.position = match.end()
        return match.group()

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
    """Parse a query in a single string: ``model::M,rma::criteria,...,rma::include,...,rma::options[...]``.

    Raises
    ------
    RmaError
        For a syntax error, with line and column.
    """
    parser = _Parser(text.strip())
    parser.expect("model::")
    query = Query(parser.match(_NAME))
    if filters := parser.filters():
        query.criteria.append(Term(None, filters))
    section = ""
    while not parser.at_end:
        parser.expect(",")
        if parser.accept("rma::"):
            section = parser.match(_NAME)
            if section == "options":
                query.options |= {option.attribute: option.values for option in parser.filters()}
            elif section not in ("criteria", "include"):
                raise RmaError(f"line 1, column {parser.position}: no viable alternative at input '{section}'")
        elif section == "criteria":
            query.criteria.append(parser.term())
        elif section == "include":
            query.include.append(parser.term())
        else:
            raise parser.mismatch("expecting 'rma::'")
    return query


def parse_parameters(model: str, parameters: Mapping[str, str]) -> Query:
    """Parse a query on a model whose parts are parameters of the URL; RmaError as in `parse`."""
    query = Query(model)
    for name, terms in (("criteria", query.criteria), ("include", query.include)):
        if parameters.get(name):
            parser = _Parser(parameters[name].strip())
            terms.extend(parser.terms())
            if not parser.at_end:
                raise parser.mismatch("expecting ','")
    query.options = {
        name: (parameters[name].strip("'"),)
        for name in ("num_rows", "start_row", "order", "only", "except", "tabular")
        if name in parameters
    }
    return query
