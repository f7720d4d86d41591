"""The two ways in which the average precision (AP) of a query is computed, and how figures made by the rarer one show.

Figures of the two do not compare: the trapezoid one is never above the standard one.
"""

STANDARD, TRAPEZOID = "standard", "trapezoid"
AP_RULES = (STANDARD, TRAPEZOID)


def marked(name: str, rule: str) -> str:
    """Return the name of a figure, or of what figures are of, as it is shown for AP by `rule`: `mAP (trapezoid AP)`."""
    return name if rule == STANDARD else f"{name} ({rule} AP)"


def marked_metric(metric: str, rule: str) -> str:
    """Return the name of a metric as `marked` does, where it is a mean of AP (mAP, mAP@k)."""
    return marked(metric, rule) if metric.startswith("mAP") else metric
