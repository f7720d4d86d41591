"""By which metrics the best of some epochs is picked, in training and in the tables of a launch."""

from configs.keys.irra import NAME as IRRA

USUAL = ("mAP", "Rank-1")  # the first decides, the second between equals
PICKED_BY: dict[str, tuple[str, str]] = {IRRA: ("Rank-1", "mAP")}  # by MODEL.NAME: others than USUAL


def picked_by(name: str) -> tuple[str, str]:
    """Return the metrics that pick the best epoch of the system MODEL.NAME `name`, the one that decides first.

    Searching images by words is compared by Rank-1 (Jiang and Ye, CVPR 2023, section 4), images among themselves by
    mAP.
    """
    return PICKED_BY.get(name, USUAL)
