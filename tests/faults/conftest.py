"""Every test of faults is counted."""

from tests.faults.tally import counted, tally

__all__ = ["counted", "tally"]
