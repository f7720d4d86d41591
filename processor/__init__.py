"""Training and evaluation loops."""

from processor.evaluation.evaluate import do_inference
from processor.phases import Phase, PhasePlan
from processor.systems import make_stage
from processor.train import do_train, train_stages

__all__ = ["Phase", "PhasePlan", "do_inference", "do_train", "make_stage", "train_stages"]
