"""Runs of equal epochs, found without looking at each of them."""

from collections.abc import Callable, Hashable, Iterable, Iterator


def runs_of(kind: Callable[[int], Hashable], last: int, turns: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of epochs 1..`last` with equal `kind`, in order.

    `kind` may change at any of `turns`; from one of them to the next each part of it changes once at most, for good (a
    weight that falls to 0, say), so that two epochs of equal kind have no other kind between them.
    """
    starts = sorted({1, *(turn for turn in turns if 1 < turn <= last)})
    changes = [start for start in starts if start == 1 or kind(start) != kind(start - 1)]
    for start, end in zip(starts, [*starts[1:], last + 1], strict=True):
        changes += _changes(kind, start, end - 1)
    changes.sort()
    yield from zip(changes, [change - 1 for change in changes[1:]] + [last], strict=True)


def _changes(kind: Callable[[int], Hashable], first: int, last: int) -> list[int]:
    """Return the epochs after `first` whose kind is not that of the epoch before."""
    if kind(first) == kind(last):
        return []
    if last == first + 1:
        return [last]
    middle = (first + last) // 2
    return _changes(kind, first, middle) + _changes(kind, middle, last)
