"""Sentences as a user writes them on the command line."""

import argparse
from collections.abc import Sequence

from configs.keys import KEYS
from utils.errors import ConfigError


def sentence(text: str) -> str:
    """Return a sentence given on the command line; argparse's error for one that is empty or no text."""
    problem = why_no_sentence(text)
    if problem:
        raise argparse.ArgumentTypeError(problem)
    return text


def why_no_sentence(text: str) -> str:
    """Return what is wrong with a sentence, '' = nothing."""
    if not text.strip():
        return "is empty; write a sentence"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"got {text!r}, which is no UTF-8 text"
    return ""


def check_quotes(texts: Sequence[str], opts: Sequence[str], way_out: str = "") -> None:
    """Raise ConfigError where words of a sentence were taken for the first KEY of `opts`: it lacks its quotes.

    `texts` are what --text was given; `way_out` ends the message.
    """
    if texts and opts and opts[0] not in KEYS and "." not in opts[0]:
        whole = " ".join([texts[-1], *opts])
        raise ConfigError(
            f"--text takes one sentence in quotes, got '{opts[0]}' beside it; write --text \"{whole}\"{way_out}"
        )
