"""Two experiments set by set, where a test has several sets of queries: each set paired and tested by itself."""

from collections.abc import Sequence

import numpy as np

from utils.statistics.bootstrap import PerQuery
from utils.statistics.paired import Comparison, compare_tables, holm
from utils.tables import align, percent

NOTE = "p: paired permutation test of a set alone, by Holm for all sets."


def compare_sets(
    first: Sequence[PerQuery], second: Sequence[PerQuery], metric: str, unit: str
) -> dict[str, Comparison]:
    """Return the comparison of each set, see `compare_tables`; {} where the paired tables hold one set."""
    if "set" not in first[0]:
        return {}
    names = dict.fromkeys(first[0]["set"].tolist())
    return {
        name: compare_tables(*([_of_set(table, name) for table in side] for side in (first, second)), metric, unit)
        for name in names
        if (_of_set(first[0], name)["first_hit"] >= 0).any()
    }


def _of_set(table: PerQuery, name: str) -> PerQuery:
    rows = table["set"] == name
    return {key: np.asarray(values)[rows] for key, values in table.items() if key not in ("set", "weight")}


def sets_table(sets: dict[str, Comparison], metric: str) -> str:
    """Return the table of the sets in percent, p corrected for their number."""
    rows = [["set", f"A {metric}", f"B {metric}", "B - A", "95 % interval", "p"]]
    for (name, one), p in zip(sets.items(), holm([one.p_units for one in sets.values()]), strict=True):
        low, high = (100 * bound for bound in one.interval)
        change = f"{100 * one.difference:+.2f}", f"{low:+.2f} to {high:+.2f}"
        rows.append([name, percent(one.first), percent(one.second), *change, f"{p:.4f}"])
    return f"{align(rows, (0,))}\n{NOTE}"


def sets_content(sets: dict[str, Comparison]) -> dict[str, dict[str, object]]:
    """Return the numbers of the sets, ready for JSON, as fractions."""
    adjusted = holm([one.p_units for one in sets.values()])
    return {
        name: {
            "a": one.first,
            "b": one.second,
            "difference": one.difference,
            "interval": list(one.interval),
            "p_units": one.p_units,
            "p_holm": p,
        }
        for (name, one), p in zip(sets.items(), adjusted, strict=True)
    }
