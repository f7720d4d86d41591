"""The imports of a tree of packages, read from its source: those that run up, and those that go round in a circle."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

FLOORS = {
    "utils": 0,
    "configs": 1,
    "datasets": 2,
    "losses": 2,
    "model": 2,
    "solver": 2,
    "processor": 3,
    "tools": 4,
    "train": 5,
    "test": 5,
    "run_phased_loss": 5,
    "benchmarks": 5,
}


class Import(NamedTuple):
    """One import: the module it stands in, the line, and the module that it names."""

    module: str
    line: int
    named: str


def modules_of(root: Path, floors: Mapping[str, int] = FLOORS) -> dict[str, Path]:
    """The modules of the packages and scripts below `root`: dotted name -> file (of a package its __init__.py)."""
    found = {}
    for top in floors:
        paths = sorted((root / top).rglob("*.py")) if (root / top).is_dir() else [root / f"{top}.py"]
        for path in filter(Path.is_file, paths):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(modules: Mapping[str, Path]) -> list[Import]:
    """Every import among `modules`, those inside functions too but none under `if TYPE_CHECKING`, which never runs."""
    return [
        Import(module, line, named)
        for module, path in modules.items()
        for line, named in sorted(set(_imports(module, path, modules)))
        if named != module
    ]


def climbing(imports: list[Import], floors: Mapping[str, int] = FLOORS) -> list[str]:
    """The imports of a package on the same floor or a higher one, as "module:line imports module"."""
    return [
        f"{module}:{line} imports {named}"
        for module, line, named in imports
        if _top(module) != _top(named) and floors[_top(named)] >= floors[_top(module)]
    ]


def circles(imports: list[Import]) -> list[str]:
    """The circles among modules, each as one shortest way round: "a -> b -> a"."""
    graph: dict[str, set[str]] = {}
    for module, _, named in imports:
        graph.setdefault(module, set()).add(named)
    found, told = [], set()
    for start in sorted(graph):
        way = None if start in told else _way_round(graph, start)
        if way:
            told.update(way)
            found.append(" -> ".join(way))
    return found


def shares(modules: Mapping[str, Path]) -> dict[str, float]:
    """The share that each package or script has of all lines."""
    lines: dict[str, int] = {}
    for module, path in modules.items():
        lines[_top(module)] = lines.get(_top(module), 0) + len(path.read_text().splitlines())
    return {top: count / sum(lines.values()) for top, count in lines.items()}


def _top(module: str) -> str:
    return module.split(".")[0]


def _imports(module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, module) of each import of one of `modules` in the file of `module`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _that_run([ast.parse(path.read_text())]):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names = [(f"{source}.{alias.name}", source) for alias in node.names]
        else:
            continue
        for name, source in names:  # a module of a package, or something in a module
            yield from ((node.lineno, known) for known in [name if name in modules else source] if known in modules)


def _that_run(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and all below them, without what stands under `if TYPE_CHECKING`."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _that_run(node.orelse)
        else:
            yield node
            yield from _that_run(ast.iter_child_nodes(node))


def _way_round(graph: Mapping[str, set[str]], start: str) -> list[str] | None:
    """A shortest way from `start` back to it, both ends named."""
    ways, seen = [[start]], set()
    for way in ways:  # grows while it is read: breadth first
        for named in sorted(graph.get(way[-1], ())):
            if named == start:
                return [*way, start]
            if named not in seen:
                seen.add(named)
                ways.append([*way, named])
    return None
