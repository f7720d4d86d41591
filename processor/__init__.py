"""Training and evaluation loops."""

from processor.inference import do_inference
from processor.phases import Phase, PhasePlan
from processor.train import do_train

__all__ = ["Phase", "PhasePlan", "do_inference", "do_train"]
