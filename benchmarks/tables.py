"""Write the tables of benchmarks/README.md from benchmarks/results/*.json, between its markers.

python benchmarks/tables.py            (writes)
python benchmarks/tables.py --check    (only says whether the README is up to date; exit code 2 where it is not)
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import RESULTS, make_parser
from utils.errors import ConfigError, run_command

README = Path(__file__).resolve().parent / "README.md"
START, END = "<!-- results: {} -->", "<!-- end -->"
DIGITS = 4


def render(kept: dict[str, Any]) -> str:
    """Return the Markdown of one result: where and how, single figures, rows, bars."""
    hardware, facts = kept["hardware"], kept["facts"]
    machine = [hardware["cpu"], hardware["cores"], *([hardware["gpu"]] if hardware["gpu"] else [])]
    if hardware["load"] is not None:
        machine.append(f"load average {hardware['load']} at the end")
    versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    parts = [f"`{kept['command']}`, {kept['date']}, {', '.join(machine)}, {versions}."]
    single = [f"{name} {show(value)}" for name, value in facts.items() if isinstance(value, (int, float, str))]
    if single:
        parts.append("; ".join(single))
    if facts.get("rows"):
        parts.append(table(facts["rows"]))
    if facts.get("bars"):
        parts.append(table([describe_bar(bar) for bar in facts["bars"]]))
    return "\n\n".join(parts)


def describe_bar(bar: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a bar."""
    direction = "at least" if bar["at_least"] else "at most"
    unit = f" {bar['unit']}" if bar["unit"] else ""
    cells = {"bar": bar["title"], "measured": f"{show(bar['value'])}{unit}"}
    return cells | {"must": f"{direction} {bar['must']:g}", "goal": f"{bar['goal']:g}", "verdict": bar["verdict"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table with a column for every key that a row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([show(row.get(name)) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def show(value: Any) -> str:
    """Return a value as text; numbers with a few significant digits, nothing for None."""
    if value is None:
        return ""
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
