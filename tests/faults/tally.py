"""What the tests of faults tried and what held, over all processes of a run, printed as one table at its end."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

PROPERTY = "fault"  # the name under which a test's report carries its counts
Count = Callable[..., None]


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Count a test marked `@pytest.mark.fault(kind)` as one that was tried; it held where the test passes."""
    for mark in request.node.iter_markers("fault"):
        request.node.user_properties.append((PROPERTY, [mark.args[0], 1, None]))
    yield


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Count:
    """`tally(kind, tried, held)`: for a test that tries many faults in one loop; call it before the assertion."""

    def count(kind: str, tried: int, held: int) -> None:
        request.node.user_properties.append((PROPERTY, [kind, tried, held]))

    return count


def table_of(reports: list[pytest.TestReport]) -> list[str]:
    """Return the lines of the table: kind, tried, held."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY:
                kind, tried, held = value
                sums[kind][0] += tried
                sums[kind][1] += held if held is not None else int(report.passed)
    width = max(map(len, sums), default=0)
    return [f"{kind:<{width}}  {tried:>7,} tried  {held:>7,} held" for kind, (tried, held) in sorted(sums.items())]


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Print the table where tests of faults ran."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if getattr(report, "when", "") == "call"
    ]
    lines = table_of(reports)
    if lines:
        terminalreporter.section("faults: what was tried, what held")
        for line in lines:
            terminalreporter.write_line(line)
