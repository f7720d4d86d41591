"""Keys by the beginnings of their names."""

from collections.abc import Iterator

from configs.keys import KEYS


def keys_of(beginnings: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys with one of these names, or below one that ends in a dot or an underscore."""
    for key in KEYS:
        if any(key == start or (start[-1] in "._" and key.startswith(start)) for start in beginnings):
            yield key
