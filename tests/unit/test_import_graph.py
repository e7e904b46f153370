"""Which module of the package imports which: the rooms, what each may know of, and that none leads back to itself."""

import ast
import re
from pathlib import Path

import pytest

import atlaszarr

SOURCE = Path(atlaszarr.__file__).parent
PACKAGE = "atlaszarr"


def module_of(path):
    """The dotted name of a file: `engine.ledger`, `engine` for its `__init__`, an empty name for the package's."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in SOURCE.rglob("*.py")}
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}


def absolute(module, relative, level):
    """The name below the package that `from` names in a module, None for another package's."""
    if level:
        here = module.split(".") if module else []
        base = here[: len(here) - level + (module in PACKAGES)]
        return ".".join([*base, relative] if relative else base)
    first, _, rest = relative.partition(".")
    return rest if first == PACKAGE else None


def loads(tree):
    """Whether a module calls `import_module`."""
    names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return bool(names & {"import_module", "importlib.import_module"})


def named(module, node, loader):
    """Dotted names that a node of the syntax tree imports from the package: modules, or what they hold.

    Of a module that calls `import_module`, each text that names a module counts.
    """
    match node:
        case ast.Import():
            return [absolute(module, alias.name, 0) for alias in node.names]
        case ast.ImportFrom():
            base = absolute(module, node.module or "", node.level)
            return [] if base is None else [f"{base}.{alias.name}".strip(".") for alias in node.names]
        case ast.Constant(str(text)) if loader and re.fullmatch(r"\.+\w+(\.\w+)*|atlaszarr(\.\w+)+", text):
            dots = len(text) - len(text.lstrip("."))
            return [name] if (name := absolute(module, text[dots:], dots)) in FILES else []
    return []


def imports():
    """What each module imports of the package, wherever in its text, for types alone too: {module: {module}}."""
    found = {}
    for module, path in FILES.items():
        text = path.read_text()
        tree = ast.parse(text)
        loader = "import_module" in text and loads(tree)
        names = [name for node in ast.walk(tree) for name in named(module, node, loader) if name is not None]
        found[module] = {name if name in FILES else name.rpartition(".")[0] for name in names} - {module}
    return found


def room(module):
    """The package or the module at the top that a module belongs to; of the package itself, its own name."""
    return module.partition(".")[0] or PACKAGE


@pytest.fixture(scope="module")
def graph():
    return imports()


@pytest.fixture(scope="module")
def rooms(graph):
    """The rooms that each room imports; the package's own `__init__` names every room, to load it on demand."""
    found = {room(module): set() for module in FILES if module}
    for importer, imported in graph.items():
        if importer:
            found[room(importer)] |= {room(module) for module in imported} - {room(importer), PACKAGE}
    return found


def circles(graph):
    """Groups of names each of which leads to all others of its group."""
    reached = {}
    for start in graph:
        found, ahead = set(), [start]
        while ahead:
            new = graph[ahead.pop()] - found
            found |= new
            ahead += new
        reached[start] = found
    return {frozenset({name, *(other for other in found if name in reached[other])})
            for name, found in reached.items() if name in found}  # fmt: skip


def test_every_import_of_the_package_is_understood(graph):
    assert len(FILES) > 50
    assert {module for found in graph.values() for module in found} <= set(FILES)
    assert "boxes" in graph["engine.pyramid"]
    assert {f".{module}" for module in graph[""]} >= set(atlaszarr._HOMES.values())


def test_at_most_fourteen_modules_lie_at_the_top():
    assert len([module for module in FILES if "." not in module and module not in PACKAGES]) <= 14


def test_the_foundations_import_nothing_of_the_package(rooms):
    assert {name: rooms[name] for name in ("boxes", "errors", "versions") if rooms[name]} == {}


def test_stores_know_errors_alone(rooms):
    assert rooms["stores"] <= {"errors"}


def test_the_engine_could_be_a_package_of_its_own(graph):
    allowed = {"boxes", "errors", "native", "stores", "versions"}
    further = {module: {m for m in found if room(m) not in allowed | {"engine"}} for module, found in graph.items()}
    assert {module: found for module, found in further.items() if room(module) == "engine" and found} == {}


def test_no_module_of_the_engine_imports_itself_through_others(graph):
    assert (
        circles({m: {i for i in found if room(i) == "engine"} for m, found in graph.items() if room(m) == "engine"})
        == set()
    )


def test_no_room_leads_back_to_itself(rooms):
    assert circles(rooms) == set()


def test_no_module_at_the_top_has_the_name_of_a_public_function(rooms):
    assert set(rooms) & set(atlaszarr.__all__) == set()
