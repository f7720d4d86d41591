"""A phase in words."""

from configs.phases import ROUTED_TO, TITLES, Phase


def describe_losses(first: Phase, last: Phase | None = None) -> str:
    """Return the active losses with their weights, e.g. `CE 1, TripletX 1.2 (dark), SupCon 0.3`.

    With `last`, the end of a run of epochs, a weight that moves is written 0.3->0.15.
    """
    last = last or first
    where = ROUTED_TO if first.routed else {}
    parts = []
    for name, weight in first.weights.items():
        if weight > 0 or last.weights[name] > 0:
            end = last.weights[name]
            value = f"{weight:.4g}" if end == weight else f"{weight:.4g}->{end:.4g}"
            of = f" ({where[name]})" if name in where else ""
            parts.append(f"{TITLES[name]} {value}{of}")
    return ", ".join(parts) or "none"
