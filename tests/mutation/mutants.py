"""Mutants of a file: its text with one small fault each, as mutmut makes them."""

import difflib
import re
from pathlib import Path
from typing import NamedTuple

import libcst
from mutmut.mutation.file_mutation import Mutation, create_mutations

STRICT = re.compile(r",\s*strict=\w+")  # of zip: fires on an error within a function, which no caller can cause


class Mutant(NamedTuple):
    """One fault in one file."""

    file: str  # path from the root of the project
    line: int  # from 1: the first that differs
    text: str  # of the whole file
    diff: str  # the lines that differ


class Mutable:
    """A file of the project and the faults that can be put into it.

    Left out are annotations and decorated functions (mutmut's rule) and prose: a text with a space in it is a message.
    """

    def __init__(self, root: Path, file: str) -> None:
        self._file, self._text = file, (root / file).read_text(encoding="utf-8")
        self._module, mutations, _, _ = create_mutations(file, self._text)
        self.mutations = [mutation for mutation in mutations if not _is_prose(mutation.original_node)]

    def mutant(self, mutation: Mutation) -> Mutant | None:
        """Return the file with one of its `mutations`; None where that changes `strict` of zip alone."""
        old, new = self._text, self._module.deep_replace(mutation.original_node, mutation.mutated_node).code
        if STRICT.sub("", old) == STRICT.sub("", new):
            return None
        changes = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]  # without names
        diff = "\n".join(line for line in changes if line[0] in "+-")
        return Mutant(self._file, _first_line(old, new), new, diff)


def _is_prose(node: libcst.CSTNode) -> bool:
    return isinstance(node, libcst.SimpleString) and " " in node.value


def _first_line(old: str, new: str) -> int:
    same = [a == b for a, b in zip(old.splitlines(), new.splitlines(), strict=False)]
    return 1 + (same.index(False) if False in same else len(same))
