"""What --query, --text and --modality ask for: images and sentences, each by itself or several as one query."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from os.path import basename, isfile
from typing import NamedTuple

from configs.modalities import MODALITIES, TEXT, VIS, modality_of
from tools.loose_images import check_paths
from tools.sentences import why_no_sentence
from utils.commands import path_flag
from utils.errors import ConfigError
from utils.paths import user_path

ITEM = re.compile(r"([^\W\d_]+)=(.*)", re.DOTALL)  # modality=value
FLAG = "--query"
HOW = f'{FLAG} nir=a.jpg {TEXT}="a man in a red coat"'


class Query(NamedTuple):
    """What is searched for at once."""

    items: dict[str, str]  # path of an image, or a sentence, by modality in the order of MODALITIES

    @property
    def images(self) -> dict[str, str]:
        """The paths of the images by modality."""
        return {name: value for name, value in self.items.items() if name != TEXT}

    @property
    def text(self) -> str:
        """The sentence, '' = none."""
        return self.items.get(TEXT, "")

    @property
    def is_plain(self) -> bool:
        """Whether it is a query of any model: an RGB image, or a sentence."""
        return self.items.keys() in ({VIS}, {TEXT})

    @property
    def words(self) -> str:
        """The query as it is printed: the path, the sentence, or all items with their modalities."""
        if self.is_plain:
            return next(iter(self.items.values()))
        return " ".join(
            f'{name}="{value}"' if name == TEXT else f"{name}={value}" for name, value in self.items.items()
        )

    @property
    def kind(self) -> str:
        """What the query is called where it is printed."""
        return "text" if self.items.keys() == {TEXT} else "query"


def modality_flag(text: str) -> str:
    """Return the modality that a name given on the command line stands for; argparse's error for another word."""
    try:
        return modality_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def query_word(text: str) -> str:
    """Return a word of --query given on the command line, the ~ of a path expanded; errors as `path_flag`."""
    return text if ITEM.fullmatch(text) else path_flag(text)


def parse_queries(groups: Sequence[Sequence[str]], texts: Sequence[str]) -> list[Query]:
    """Return the queries of each --query, whose words are those of `query_word`, then those of --text.

    The words of a --query are items `modality=value`, which make up one query, or paths of images, each of which is a
    query by itself: an image of MODALITIES' first, RGB. A word that names a file is a path. Raises ConfigError for an
    absent file, an unknown modality or one that is given twice, an empty sentence, and for items among paths.
    """
    queries = []
    for words in groups:
        items = [_split(word) for word in words]
        if all(item is None for item in items):
            check_paths(words, FLAG, folders=False)
            queries += [Query({VIS: path}) for path in words]
        else:
            queries.append(_several(words, items))
    return queries + [Query({TEXT: text}) for text in texts]


def _split(word: str) -> tuple[str, str] | None:
    """Return (name, value) of an item, None for a path."""
    found = ITEM.fullmatch(word)
    return None if found is None or isfile(word) else (found[1], found[2])


def _several(words: Sequence[str], items: Sequence[tuple[str, str] | None]) -> Query:
    """Return the query of the items of one --query, which stand in `words`."""
    given: dict[str, str] = {}
    for word, item in zip(words, items, strict=True):
        if item is None:
            raise ConfigError(
                f"{FLAG}: '{word}' stands among items and has no modality; write {HOW}, a sentence in quotes, and "
                f"{FLAG} again for each further query"
            )
        try:
            name = modality_of(item[0])
        except ValueError as error:
            raise ConfigError(f"{FLAG}: no file '{word}', and {error}") from error
        if name in given:
            raise ConfigError(
                f"{FLAG} names {name} twice, a query has one item of a modality; write {FLAG} again for a further query"
            )
        given[name] = _sentence(item[1]) if name == TEXT else _image(name, item[1])
    return Query({name: given[name] for name in MODALITIES if name in given})


def _image(name: str, path: str) -> str:
    """Return the path of an image, ~ expanded."""
    flag = f"{FLAG} {name}="
    if not path:
        raise ConfigError(f"{flag} is empty; name an image file, {name}=FILE")
    checked = user_path(path, flag)
    path = str(checked) if path.startswith("~") else path
    check_paths([path], flag, folders=False)
    return path


def _sentence(text: str) -> str:
    from datasets.archives.find import is_image_name

    problem = why_no_sentence(text)
    if problem:
        raise ConfigError(f"{FLAG} {TEXT}= {problem}")
    if " " not in text and is_image_name(basename(text)):
        raise ConfigError(
            f"{FLAG} {TEXT}={text} names an image; write a sentence in quotes, or vis={text} and the like"
        )
    return text
