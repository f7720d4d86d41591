"""Write the tables of benchmarks/README.md from benchmarks/results/*.json, between its markers.

python benchmarks/tables.py            (writes)
python benchmarks/tables.py --check    (only says whether the README is up to date; exit code 2 where it is not)
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import RESULTS, Bar, make_parser
from utils.errors import ConfigError, run_command

README = Path(__file__).resolve().parent / "README.md"
START, END = "<!-- results: {} -->", "<!-- end -->"
DIGITS = 4
RATIO = "times"  # a column with this word holds ratios


class Spread(NamedTuple):
    """A figure of the middle run, and the least and the most of all runs."""

    value: float
    least: float
    most: float


def render(kept: dict[str, Any]) -> str:
    """Return the Markdown of one result: where and how, single figures, rows, bars."""
    hardware, facts, runs = kept["hardware"], kept["facts"], kept.get("runs", [])
    machine = [hardware["cpu"], hardware["cores"], *([hardware["gpu"]] if hardware["gpu"] else [])]
    if hardware["load"] is not None:
        machine.append(f"load average {hardware['load']} at the end")
    if runs:
        machine.append(f"{len(runs)} runs, the middle one, with least and most of all beside its ratios and bars")
    versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    parts = [f"`{kept['command']}`, {kept['date']}, {', '.join(machine)}, {versions}."]
    single = [f"{name} {show(value)}" for name, value in facts.items() if isinstance(value, (int, float, str))]
    if single:
        parts.append("; ".join(single))
    if facts.get("rows"):
        parts.append(table(spread_ratios(facts["rows"], [run["rows"] for run in runs])))
    if facts.get("bars"):
        values = [[bar["value"] for bar in run["bars"]] for run in (facts, *runs)]
        found = zip(*values, strict=True)
        parts.append(table([describe_bar(bar, list(all_of)) for bar, all_of in zip(facts["bars"], found, strict=True)]))
    return "\n\n".join(parts)


def spread_ratios(rows: list[dict[str, Any]], runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows with the least and the most of all runs beside each ratio."""
    if not runs:
        return rows
    return [
        {
            name: spread(value, [run[number][name] for run in runs])
            if isinstance(value, float) and RATIO in name
            else value
            for name, value in row.items()
        }
        for number, row in enumerate(rows)
    ]


def spread(value: float, all_of: list[float]) -> Spread:
    """Return a figure with the least and the most of all runs."""
    return Spread(value, min(all_of), max(all_of))


def describe_bar(bar: dict[str, Any], values: list[float]) -> dict[str, Any]:
    """Return the cells of a bar; `values` are those of the run shown and of all runs, the worst of which is judged."""
    direction = "at least" if bar["at_least"] else "at most"
    unit = f" {bar['unit']}" if bar["unit"] else ""
    shown = spread(bar["value"], values) if len(values) > 1 else bar["value"]
    verdict = Bar(**{field: bar[field] for field in Bar._fields}).verdict((min if bar["at_least"] else max)(values))
    cells = {"bar": bar["title"], "measured": f"{show(shown)}{unit}"}
    return cells | {"must": f"{direction} {bar['must']:g}", "goal": f"{bar['goal']:g}", "verdict": verdict}


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table with a column for every key that a row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([show(row.get(name)) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def show(value: Any) -> str:
    """Return a value as text; numbers with a few significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Spread):
        middle, least, most = (show(number) for number in value)
        return middle if least == most else f"{middle} ({least} to {most})"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10**DIGITS else f"{value:.{DIGITS}g}"
    return str(value)


def results_of(name: str) -> list[dict[str, Any]]:
    """Return what benchmark `name` has kept, the default size first."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return sorted((entry for entry in kept if entry["benchmark"] == name), key=lambda entry: entry["variant"])


def fill(text: str) -> str:
    """Return the README's text with all results in place; ConfigError for a start without an end."""
    start, _, _ = START.partition("{}")
    before, *sections = text.split(start)
    filled = [before]
    for section in sections:
        name, marker, rest = section.partition(START.partition("{}")[2])
        if not marker or END not in rest:
            raise ConfigError(f"{README.name}: the results of '{name[:30]}' need the line {END} after their start")
        results = [render(kept) for kept in results_of(name)] or ["Not measured yet."]
        filled.append("\n\n".join([f"{start}{name}{marker}", *results, END]) + rest.partition(END)[2])
    return "".join(filled)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/tables.py", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    text = README.read_text(encoding="utf-8")
    filled = fill(text)
    if args.check and filled != text:
        raise ConfigError(f"{README.name} is not what the results give; run python benchmarks/tables.py")
    if not args.check:
        README.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_command(main))
