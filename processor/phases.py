"""The plan of a run, see `configs.phases`."""

from configs.phases import Phase, PhasePlan

__all__ = ["Phase", "PhasePlan"]
