"""YAML read in bounded time: neither its depth nor the number of its nodes grows without end."""

from typing import Any

import yaml

MAX_DEPTH = 20  # of sections and lists in each other; the keys need four
MAX_NODES = 6000  # keys and values


class BoundedComposer(yaml.composer.Composer):
    """The composer of a loader that refuses more than MAX_DEPTH levels and MAX_NODES nodes by a YAMLError."""

    _depth = _count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Return the next node; see yaml.composer.Composer."""
        self._depth += 1
        self._count += 1
        mark = self.peek_event().start_mark
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels in each other", mark)
        if self._count > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES:,} keys and values", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class TextLoader(BoundedComposer, yaml.BaseLoader):
    """A loader without types: each scalar is the text that is written."""


class _PlainLoader(BoundedComposer, yaml.SafeLoader):
    """A loader of YAML's own types, without merge keys (<<): 30 of them may stand for 2^30 entries."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave merge keys, which this project never writes, to be refused as a key of no known type."""


def plain_tree(text: str) -> dict[str, Any] | None:
    """Return the nested values of a YAML `text` that this project wrote, None where it is damaged."""
    try:
        loader = _PlainLoader(text)
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
    except Exception:  # a value that does not fit its tag raises nearly anything
        return None
    return content if isinstance(content, dict) and _is_bounded(content) else None


def _is_bounded(content: dict[str, Any]) -> bool:
    """Return whether a walk through all values ends soon: an alias may stand for as much as it likes."""
    pending, count = [content], 0
    while pending and count <= MAX_NODES:
        value = pending.pop()
        count += 1
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not pending
