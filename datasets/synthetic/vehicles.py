"""From a look to a vehicle in space: lofts for body, cabin and cargo box, and everything fixed or painted on them."""

from itertools import product
from typing import NamedTuple

import numpy as np

from datasets.synthetic.looks import TRIM, Look
from datasets.synthetic.shapes import HEADLAMP, TAIL_LAMP, Colour, Loft, Mesh, Patches, disc, loft, motif, rectangle

UNDER, BODY, FAR_MIRROR, UPPER, MIRROR, ROOF = 0.0, 1.0, 1.5, 2.0, 2.5, 3.0  # drawing order
RUBBER, CHROME, AMBER, SHADOW = (0.07, 0.07, 0.08), (0.72, 0.74, 0.76), (0.95, 0.55, 0.12), (0.04, 0.04, 0.04)
LAMP_WHITE, LAMP_RED = (0.93, 0.94, 0.90), (0.62, 0.06, 0.08)
CLEARANCE = 0.22  # metres under the body
BUMPER_TOP = 0.55
GLASS_HEIGHT = 0.80  # metres at most


class Vehicle(NamedTuple):
    """A vehicle ready to be photographed; key points in the order of VeRi's key point files."""

    look: Look
    mesh: Mesh
    keypoints: np.ndarray  # float [20, 3]
    outward: np.ndarray  # float [20, 3]: the direction from which each key point is seen
    height: float


def make_vehicle(look: Look) -> Vehicle:
    """Build the mesh and the key points of a look."""
    patches = Patches()
    body, cabin = _make_body(look), _make_cabin(look)
    cargo = _make_cargo(look) if look.type_name == "truck" else None
    _add_body(patches, look, body)
    _add_stripes(patches, look, body)
    _add_ends(patches, look, body)
    for x in _axles(look):
        for sign in (-1, 1):
            _add_wheel(patches, look, body, sign, x)
    _add_cabin(patches, look, cabin)
    _add_mirrors(patches, look)
    if cargo is not None:
        patches.add_loft(cargo, look.second, UPPER)
    _add_motifs(patches, look, body, cabin, cargo)
    _add_roof(patches, look, cargo or cabin)
    keypoints, outward = _keypoints(look, body, cabin)
    height = float(cargo.z[-1]) if cargo else look.shape.roof
    return Vehicle(look, patches.mesh(), keypoints, outward, height)


def _make_body(look: Look) -> Loft:
    shape, end, half = look.shape, look.shape.length / 2, look.shape.width / 2
    base_rear, base_front = (share * shape.length for share in shape.cabin_base)
    if look.type_name in ("pickup", "truck"):
        base_rear = -end + 0.04
    return loft(
        (CLEARANCE, -end + 0.10, end - 0.10, half * 0.94),
        (BUMPER_TOP, -end, end, half),
        (shape.hood, -end + 0.02, end - 0.04, half),
        (shape.belt, base_rear, base_front, half * 0.96),
    )


def _make_cabin(look: Look) -> Loft:
    shape, half = look.shape, look.shape.width / 2
    base_rear, base_front = (share * shape.length for share in shape.cabin_base)
    top_rear, top_front = (share * shape.length for share in shape.cabin_top)
    taper = 0.95 if look.type_name in ("van", "bus", "truck") else 0.82
    return loft(
        (shape.belt, base_rear, base_front, half * 0.95),
        (shape.roof - 0.08, top_rear, top_front, half * taper),
        (shape.roof, top_rear + 0.10, top_front - 0.12, half * (taper - 0.06)),
    )


def _make_cargo(look: Look) -> Loft:
    shape = look.shape
    rear, front, half = -shape.length / 2, 0.22 * shape.length, shape.width / 2 * 1.02
    return loft((shape.belt - 0.2, rear, front, half), (shape.roof + 0.55, rear, front, half))


def _axles(look: Look) -> tuple[float, float]:
    """Return x of the rear and of the front wheels."""
    return -0.30 * look.shape.length, 0.32 * look.shape.length


def _add_band(patches: Patches, body: Loft, colour: Colour, low: float, high: float, ends: bool = True) -> None:
    """Paint a horizontal band around a loft, or on its sides only."""
    (rear_low, front_low), (rear_high, front_high) = body.span(low), body.span(high)
    corners = [(rear_low, low), (front_low, low), (front_high, high), (rear_high, high)]
    for sign in (-1, 1):
        patches.add(body.side(sign, corners), body, colour, BODY, 0.2)
    if ends:
        for front in (False, True):
            patches.add(body.end(front, rectangle(-1, low, 1, high)), body, colour, BODY, 0.2)


def _add_body(patches: Patches, look: Look, body: Loft) -> None:
    shape = look.shape
    patches.add_loft(body, look.paint, BODY)
    if look.two_tone == "sill":
        _add_band(patches, body, look.second, CLEARANCE, BUMPER_TOP)
    if look.two_tone == "nose":
        for low, high in zip(body.z[:-1], body.z[1:], strict=True):
            patches.add(body.end(True, rectangle(-1, low, 1, high)), body, look.second, BODY, 0.3)
        for sign in (-1, 1):
            wing = rectangle(0.34 * shape.length, CLEARANCE, 0.485 * shape.length, shape.hood)
            patches.add(body.side(sign, wing), body, look.second, BODY, 0.3)
    if look.type_name == "pickup":
        bed = (shape.cabin_base[0] * shape.length - body.rear[-1]) / (body.front[-1] - body.rear[-1])
        patches.add(body.top(rectangle(0.03, -0.9, bed, 0.9)), body, SHADOW, BODY)
    for sign in (-1, 1):  # door gaps
        for x in (-0.10, 0.12):
            gap = rectangle(x * shape.length - 0.015, 0.35, x * shape.length + 0.015, shape.hood)
            patches.add(body.side(sign, gap), body, TRIM, BODY)


def _add_stripes(patches: Patches, look: Look, body: Loft) -> None:
    hood = look.shape.hood
    if look.stripes == "waist":
        _add_band(patches, body, look.stripe_colour, hood - 0.20, hood - 0.06)
    if look.stripes == "double":
        for low in (hood - 0.26, hood - 0.12):
            _add_band(patches, body, look.stripe_colour, low, low + 0.07, ends=False)
    if look.stripes == "racing":
        for left, front in product((-0.42, 0.12), (False, True)):
            for low, high in zip(body.z[:-1], body.z[1:], strict=True):
                strip = rectangle(left, low, left + 0.30, high)
                patches.add(body.end(front, strip), body, look.stripe_colour, BODY, 0.2)


def _add_ends(patches: Patches, look: Look, body: Loft) -> None:
    """Add bumpers, grille, lamps, badges and plates."""
    hood = look.shape.hood
    patches.add(body.end(True, rectangle(-0.5, BUMPER_TOP, 0.5, hood - 0.05)), body, RUBBER, BODY)
    for bar in range(look.grille):
        low = BUMPER_TOP + 0.03 + bar * 0.07
        patches.add(body.end(True, rectangle(-0.48, low, 0.48, low + 0.03)), body, CHROME, BODY)
    for front in (False, True):
        patches.add(body.end(front, rectangle(-1, CLEARANCE, 1, 0.46)), body, look.bumper, BODY)
        patches.add(body.end(front, rectangle(-0.30, 0.34, 0.30, 0.54)), body, look.plate, BODY)
        for glyph in np.flatnonzero(look.glyphs):
            left = -0.26 + 0.11 * glyph
            patches.add(body.end(front, rectangle(left, 0.38, left + 0.07, 0.50)), body, RUBBER, BODY)
        badge = [(share / 9, hood - 0.09 + z / 9) for share, z in disc(0, 0, 0.7, 6)]
        patches.add(body.end(front, badge), body, CHROME, BODY)
        colour, lamp = (LAMP_WHITE, HEADLAMP) if front else (LAMP_RED, TAIL_LAMP)
        for left, right in ((-0.95, -0.60), (0.60, 0.95)):
            patches.add(
                body.end(front, rectangle(left, hood - 0.20, right, hood - 0.04)), body, colour, BODY, 0.3, lamp
            )
        for left in (-0.98, 0.86):
            patches.add(body.end(front, rectangle(left, hood - 0.20, left + 0.12, hood - 0.13)), body, AMBER, BODY)


def _add_wheel(patches: Patches, look: Look, body: Loft, sign: int, x: float) -> None:
    radius, half = look.shape.wheel, look.shape.width / 2
    for inset in (0.24, 0.02):
        tyre = np.array([(u, sign * (half - inset), v) for u, v in disc(x, radius, radius)])
        patches.add(tyre, None, RUBBER, UNDER)
    for edge in (x - 0.8 * radius, x + 0.8 * radius):
        tread = [(edge, sign * y, z) for y, z in rectangle(half - 0.24, 0.04, half - 0.02, 1.5 * radius)]
        patches.add(np.array(tread), None, RUBBER, UNDER)

    def paint(points: list[tuple[float, float]], colour: Colour) -> None:
        flat = np.array([(u, sign * (half + 0.02), v) for u, v in points])
        patches.add(flat, body, colour, BODY)

    paint(disc(x, 1.05 * radius, 1.15 * radius), SHADOW)
    paint(disc(x, radius, radius), RUBBER)
    paint(disc(x, radius, 0.72 * radius), look.rim)
    if not look.spokes:
        paint(disc(x, radius, 0.28 * radius), TRIM)
        return
    paint(disc(x, radius, 0.60 * radius), TRIM)
    for spoke in range(look.spokes):
        angle, reach = 2 * np.pi * spoke / look.spokes, 0.64 * radius
        tips = [(x + reach * np.cos(angle + turn), radius + reach * np.sin(angle + turn)) for turn in (-0.28, 0.28)]
        paint([(x, radius), *tips], look.rim)


def _add_cabin(patches: Patches, look: Look, cabin: Loft) -> None:
    shape = look.shape
    paint = look.second if look.two_tone == "roof" else look.paint
    patches.add_loft(cabin, paint, UPPER)
    low, high = shape.belt + 0.04, shape.belt + min(shape.roof - shape.belt - 0.12, GLASS_HEIGHT)
    for front in (False, True):
        sill = low if front or look.type_name not in ("van", "bus") else low + 0.2
        patches.add(cabin.end(front, rectangle(-0.88, sill, 0.88, high)), cabin, look.glass, UPPER, 0.9)
    first = 0.70 if look.type_name == "van" else 0.05
    edges = np.linspace(first, 0.96, shape.windows + 1)
    for left, right in zip(edges[:-1] + 0.012, edges[1:] - 0.012, strict=True):
        (rear_low, front_low), (rear_high, front_high) = cabin.span(low), cabin.span(high)
        pane = [(rear_low + t * (front_low - rear_low), low) for t in (left, right)]
        pane += [(rear_high + t * (front_high - rear_high), high) for t in (right, left)]
        for sign in (-1, 1):
            patches.add(cabin.side(sign, pane), cabin, look.glass, UPPER, 0.7)
    if look.stripes == "racing":
        for left in (-0.42, 0.12):
            patches.add(cabin.top(rectangle(0, left, 1, left + 0.30)), cabin, look.stripe_colour, UPPER, 0.2)


def _mirror(look: Look, sign: int) -> Loft:
    shape = look.shape
    x = shape.cabin_base[1] * shape.length - 0.35
    low = shape.belt + 0.02
    middle = sign * (shape.width / 2 + 0.10)
    return loft((low, x, x + 0.16, 0.11), (low + 0.16, x, x + 0.16, 0.11), middle=middle)


def _add_mirrors(patches: Patches, look: Look) -> None:
    for sign in (-1, 1):
        patches.add_loft(_mirror(look, sign), look.bumper, MIRROR)


def _add_motifs(patches: Patches, look: Look, body: Loft, cabin: Loft, cargo: Loft | None) -> None:
    """Paint the motif on both sides, the rear, the front and, for the roof "number", the top."""
    shape, size = look.shape, look.motif_size
    door = 0.5 * (0.34 + shape.hood)
    places = {
        "truck": (cargo, -0.13 * shape.length, shape.roof - 0.2, 0.62),
        "van": (cabin, -0.18 * shape.length, 0.5 * (shape.belt + shape.roof), 0.46),
        "bus": (cabin, 0.0, shape.roof - 0.42, 0.36),
        "pickup": (body, -0.16 * shape.length, door + 0.05, 0.32),
    }
    carrier, x, z, half = places.get(look.type_name, (body, 0.0, door + 0.03, 0.30))
    level = BODY if carrier is body else UPPER
    for sign in (-1, 1):
        for polygon in motif(look.motif, x, z, half * size):
            patches.add(carrier.side(sign, polygon), carrier, look.motif_colour, level)
    rear_z = z if carrier is not body else 0.5 * (BUMPER_TOP + shape.belt)
    rear_size = half if carrier is not body else 0.5 * (shape.belt - BUMPER_TOP)
    width = carrier.half[0]
    for polygon in motif(look.motif, 0, 0, rear_size * size):
        points = [(y / width, rear_z + v) for y, v in polygon]
        patches.add(carrier.end(False, points), carrier, look.motif_colour, level)
    middle, rise = 0.5 * (shape.hood + shape.belt), 0.45 * (shape.belt - shape.hood)
    for polygon in motif(look.motif, 0, 0, 1.0):
        points = [(0.42 * y, middle + rise * v) for y, v in polygon]
        patches.add(body.end(True, points), body, look.motif_colour, BODY)


def _add_roof(patches: Patches, look: Look, carrier: Loft) -> None:
    top, half = float(carrier.z[-1]), float(carrier.half[-1])
    rear, front = float(carrier.rear[-1]), float(carrier.front[-1])
    middle, length = 0.5 * (rear + front), front - rear

    def block(start: float, end: float, width: float, height: float, colour: Colour, offset: float = 0.0) -> None:
        patches.add_loft(loft((top, start, end, width), (top + height, start, end, width), middle=offset), colour, ROOF)

    if look.roof in ("rails", "rack"):
        for sign in (-1, 1):
            block(rear, front, 0.05, 0.09, CHROME if look.roof == "rails" else TRIM, sign * half * 0.9)
    if look.roof == "rack":
        for share in (0.15, 0.5, 0.85):
            block(rear + share * length - 0.05, rear + share * length + 0.05, half, 0.14, TRIM)
    if look.roof == "box":
        block(middle - 0.32 * length, middle + 0.32 * length, 0.55 * half, 0.30, look.roof_colour)
    if look.roof == "sunroof":
        patches.add(carrier.top(rectangle(0.3, -0.7, 0.85, 0.7)), carrier, look.glass, UPPER, 0.9)
    if look.roof == "sign":
        block(middle - 0.12, middle + 0.12, 0.34, 0.24, look.roof_colour)
    if look.roof == "lightbar":
        for offset, colour in ((-0.30, (0.8, 0.1, 0.1)), (0.30, (0.1, 0.2, 0.85))):
            block(middle - 0.13, middle + 0.13, 0.30, 0.16, colour, offset)
    if look.roof == "number":
        for polygon in motif(look.motif, 0, 0, 0.8 * half):
            points = [(0.5 + u / length, v / half) for u, v in polygon]
            patches.add(carrier.top(points), carrier, look.motif_colour, UPPER)


def _keypoints(look: Look, body: Loft, cabin: Loft) -> tuple[np.ndarray, np.ndarray]:
    """Return [20, 3] positions and outward directions in VeRi's order.

    Wheels (left front, left rear, right front, right rear), fog lamps and headlamps (right, left), front badge and
    plate, mirrors (left, right), roof corners (right front, left front, left rear, right rear), rear lamps (right,
    left), rear badge and plate. Reference: Wang et al., ICCV 2017, figure 3.
    """
    shape, half = look.shape, look.shape.width / 2
    rear_axle, front_axle = _axles(look)
    wheels = [(x, sign * half, shape.wheel) for sign in (1, -1) for x in (front_axle, rear_axle)]
    lamp, badge = shape.hood - 0.12, shape.hood - 0.09
    front = body.end(True, [(-0.8, 0.34), (0.8, 0.34), (-0.78, lamp), (0.78, lamp), (0, badge), (0, 0.44)])
    mirrors = [_mirror(look, sign).centre for sign in (1, -1)]
    roof = cabin.top([(1, -1), (1, 1), (0, 1), (0, -1)])
    rear = body.end(False, [(-0.78, lamp), (0.78, lamp), (0, badge), (0, 0.44)])
    outward = [(0, 1, 0)] * 2 + [(0, -1, 0)] * 2 + [(1, 0, 0)] * 6 + [(0, 1, 0), (0, -1, 0)]
    outward += [(1, -1, 1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1)] + [(-1, 0, 0)] * 4
    return np.concatenate([wheels, front, mirrors, roof, rear]), np.array(outward, dtype=float)
