"""What the tests of the reports share."""

import pytest

from tests.tools.report.report_files import blank_chart


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are empty: the test is about what stands beside them."""
    monkeypatch.setattr("tools.svg.to_svg", blank_chart)
