"""docs/troubleshooting.md and the code: every message that it quotes is one that the code gives."""

import ast
import re
from pathlib import Path

import pytest

from tests.floors import modules_of
from tests.pages import ROOT, blocks_of, text_of

PAGE = ROOT / "docs" / "troubleshooting.md"
GAP = "\0"  # stands for a value in a message of the code


def texts_in(path: Path) -> list[str]:
    """Return the strings of a file, those that are written in several pieces joined, values as GAP."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%[sdg]", GAP, node.value))
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """All strings of the product."""
    return [text for path in modules_of(ROOT).values() for text in texts_in(path)]


def pattern_of(quote: str) -> re.Pattern:
    """Return what a text of the code has to match: ... is any value or words, at either end also nothing."""
    return re.compile(".*".join(map(re.escape, quote.split("..."))), re.DOTALL)


def test_every_message_that_is_quoted_is_one_of_the_code(texts):
    quotes = [" ".join(block.text.split()) for block in blocks_of(PAGE) if not block.language]
    assert len(quotes) >= 25
    assert [quote for quote in quotes if not any(pattern_of(quote).search(text) for text in texts)] == []


def test_a_quote_has_words_of_its_own_and_a_message_that_is_none_is_found(texts):
    quotes = [" ".join(block.text.split()) for block in blocks_of(PAGE) if not block.language]
    assert [quote for quote in quotes if len(re.findall(r"[a-z]{2,}", quote)) < 3] == []
    assert not any(pattern_of("the gallery is empty, ... images").search(text) for text in texts)


def test_words_of_logs_in_sentences_are_those_of_the_code(texts):
    for words in re.findall(r"`\.\.\. ([^`]+)`", text_of(PAGE)):
        assert any(words in text for text in texts), words
