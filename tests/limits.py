"""The limits of the house's style, measured from source: lines, parameters, nesting, docstrings, annotations."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST_FUNCTION_LINES, MOST_PARAMETERS, MOST_NESTED = 50, 7, 3
Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


class Finding(NamedTuple):
    """One thing that is over a limit."""

    place: str  # file, or file::function, or file::Class.method
    limit: str  # file lines, function lines, parameters, nesting, docstring or annotations
    words: str


def over_the_limits(root: Path, path: Path, most_lines: int) -> Iterator[Finding]:
    """Yield what in one file is over the limits that hold for product code and tests alike."""
    text, place = path.read_text(), path.relative_to(root).as_posix()
    if len(text.splitlines()) > most_lines:
        yield Finding(place, "file lines", f"{len(text.splitlines())} lines")
    for name, node in functions_of(ast.parse(text)):
        if node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES:
            yield Finding(f"{place}::{name}", "function lines", f"{node.end_lineno - node.lineno + 1} lines")


def over_the_limits_of_the_product(root: Path, path: Path) -> Iterator[Finding]:
    """Yield what in one file is over the limits that hold for product code alone.

    A docstring is asked of modules, public classes and public functions of a module; not of `main`, for which the
    module's speaks. Annotations are asked of every public function and method.
    """
    tree, place = ast.parse(path.read_text()), path.relative_to(root).as_posix()
    if tree.body and not ast.get_docstring(tree):
        yield Finding(place, "docstring", "the module has no docstring")
    for node in tree.body:
        named = isinstance(node, (*Function.__args__, ast.ClassDef)) and is_public(node.name) and node.name != "main"
        if named and not ast.get_docstring(node):
            yield Finding(f"{place}::{node.name}", "docstring", "no docstring")
    for name, node in functions_of(tree):
        if len(parameters_of(node)) > MOST_PARAMETERS:
            yield Finding(f"{place}::{name}", "parameters", f"{len(parameters_of(node))} parameters")
        if nesting(node.body) > MOST_NESTED:
            yield Finding(f"{place}::{name}", "nesting", f"{nesting(node.body)} levels")
        if is_public(node.name) and not is_annotated(node):
            yield Finding(f"{place}::{name}", "annotations", "a parameter or the result is not annotated")


def helpers_without_annotations(root: Path, path: Path) -> Iterator[Finding]:
    """Yield the functions and fixtures of one test file, other than the tests, that are not annotated."""
    for name, node in functions_of(ast.parse(path.read_text())):
        if not node.name.startswith("test_") and not is_annotated(node):
            place = f"{path.relative_to(root).as_posix()}::{name}"
            yield Finding(place, "annotations", "a parameter or the result is not annotated")


def functions_of(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Yield (dotted name, node) of every function below `node`, nested ones too."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, (*Function.__args__, ast.ClassDef))
        if isinstance(child, Function):
            yield prefix + child.name, child
        yield from functions_of(child, f"{prefix}{child.name}." if named else prefix)


def parameters_of(node: Function) -> list[ast.arg]:
    """Return the parameters of a function without self and cls."""
    args = node.args
    every = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
    return [arg for arg in every if arg is not None and arg.arg not in ("self", "cls")]


def is_annotated(node: Function) -> bool:
    """Whether the result and every parameter have a type."""
    return node.returns is not None and all(arg.annotation is not None for arg in parameters_of(node))


def is_public(name: str) -> bool:
    """Whether a name is for others; __init__ and its like are as well."""
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def nesting(body: list[ast.stmt]) -> int:
    """Return how many blocks (if, for, while, with, try, match) stand in one another; an elif is as deep as its if."""
    return max((_depth(statement) for statement in body), default=0)


def _depth(node: ast.AST) -> int:
    if isinstance(node, (*Function.__args__, ast.ClassDef)):
        return 0  # measured by itself
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        return max(1 + nesting(node.body), _depth(node.orelse[0]))
    return isinstance(node, BLOCKS) + max((_depth(child) for child in ast.iter_child_nodes(node)), default=0)
