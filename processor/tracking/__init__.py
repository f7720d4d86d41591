"""A run's record in W&B and MLflow (LOGGER): what metrics.jsonl says, epoch by epoch, and what its tests found."""

from processor.tracking.record import Tracking, track_test, tracked

__all__ = ["Tracking", "track_test", "tracked"]
