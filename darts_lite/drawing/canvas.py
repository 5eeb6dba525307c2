"""Flat shapes and two ways to draw them: an SVG document and a Pillow image of the same picture; both deterministic."""

import functools
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

PAPER = "#ffffff"
WIRE, FONT = 2.0, 12.0  # default width of a line, size of text; all lengths are pixels of the SVG
SUBSCRIPT, LOWER, BASELINE = 0.7, 0.22, 0.35  # subscript's size and depth, and the baseline below the middle, of a size

ZOOM, MOST_PIXELS = 2.0, 6e6  # of an image: larger than the SVG, less where it would have more pixels
SMOOTH = 3  # an image is drawn so many times larger and then reduced, against jagged edges
PLAIN = str.maketrans("\u00d7\u2212", "x-")  # multiplication and minus sign, which Pillow's own font lacks

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Cubic Bezier segments: a start, then two controls and an end for each."""

    points: tuple[Point, ...]
    color: str
    width: float = WIRE


@dataclass(frozen=True)
class Box:
    """A rectangle with round corners; `name` is what hovering over it tells."""

    center: Point
    size: Point
    radius: float
    fill: str
    stroke: str
    name: str = ""


@dataclass(frozen=True)
class Text:
    """A word with a subscript, centred at a point or, with `left`, starting there."""

    at: Point
    word: str
    color: str
    sub: str = ""
    size: float = FONT
    left: bool = False


Shape = Curve | Box | Text


@dataclass(frozen=True)
class Picture:
    """Shapes in drawing order on a sheet of `size` (width, height)."""

    size: Point
    shapes: tuple[Shape, ...]


def to_svg(picture: Picture, title: str) -> str:
    """The picture as an SVG document; `title` is what screen readers say."""
    width, height = (math.ceil(length) for length in picture.size)
    sheet = f'width="{width}" height="{height}"'
    style = 'font-family="Inter, Helvetica, Arial, sans-serif" font-weight="500" fill="none" stroke-linecap="round"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {sheet} viewBox="0 0 {width} {height}" role="img" {style}>',
        f"<title>{_escape(title)}</title>",
        f'<rect {sheet} rx="12" fill="{PAPER}"/>',
        *(_svg_shape(shape) for shape in picture.shapes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def to_image(picture: Picture) -> "Image":
    """The picture as an RGB image at twice its size, less where that would exceed six million pixels."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = picture.size
    scale = min(ZOOM, math.sqrt(MOST_PIXELS / (width * height)))
    size = (math.ceil(width * scale), math.ceil(height * scale))
    large = scale * SMOOTH
    image = Image.new("RGB", (size[0] * SMOOTH, size[1] * SMOOTH), PAPER)
    draw = ImageDraw.Draw(image)
    for shape in picture.shapes:
        if isinstance(shape, Curve):
            points = [(x * large, y * large) for x, y in _flat(shape.points)]
            draw.line(points, shape.color, max(1, round(shape.width * large)), "curve")
        elif isinstance(shape, Box):
            x, y, across, down = (length * large for length in (*shape.center, *shape.size))
            box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
            draw.rounded_rectangle(box, shape.radius * large, shape.fill, shape.stroke, max(1, round(WIRE * large)))
    image = image.reduce(SMOOTH)
    font_of = functools.cache(ImageFont.load_default)
    draw = ImageDraw.Draw(image)  # text after the reduction: its edges are smooth already
    for shape in picture.shapes:
        if isinstance(shape, Text):
            font, small = (font_of(shape.size * scale * part) for part in (1.0, SUBSCRIPT))
            word, sub = (part.translate(PLAIN) for part in (shape.word, shape.sub))
            x, y = (length * scale for length in shape.at)
            x -= 0.0 if shape.left else (font.getlength(word) + small.getlength(sub)) / 2
            base = y + BASELINE * shape.size * scale
            draw.text((x, base), word, shape.color, font, "ls")
            draw.text((x + font.getlength(word), base + LOWER * shape.size * scale), sub, shape.color, small, "ls")
    return image


def _flat(points: Sequence[Point], steps: int = 24) -> list[Point]:
    """Points on the curve, for a back end that only has straight lines."""
    flat = [points[0]]
    for index in range(0, len(points) - 1, 3):
        p, q, r, s = points[index : index + 4]
        for step in range(1, steps + 1):
            t = step / steps
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            flat.append((a * p[0] + b * q[0] + c * r[0] + d * s[0], a * p[1] + b * q[1] + c * r[1] + d * s[1]))
    return flat


def _svg_shape(shape: Shape) -> str:
    if isinstance(shape, Curve):
        start, *rest = (f"{x:.1f} {y:.1f}" for x, y in shape.points)
        return f'<path d="M{start}C{" ".join(rest)}" stroke="{shape.color}" stroke-width="{shape.width:g}"/>'
    if isinstance(shape, Box):
        x, y = (middle - length / 2 for middle, length in zip(shape.center, shape.size, strict=True))
        width, height = shape.size
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{shape.radius:g}"'
        hint = f"<title>{_escape(shape.name)}</title>" if shape.name else ""
        return f'<rect {place} fill="{shape.fill}" stroke="{shape.stroke}" stroke-width="{WIRE:g}">{hint}</rect>'
    x, y = shape.at[0], shape.at[1] + BASELINE * shape.size
    sub = f'<tspan dy="{LOWER * shape.size:.1f}" font-size="{SUBSCRIPT * shape.size:.1f}">{_escape(shape.sub)}</tspan>'
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{shape.size:g}" fill="{shape.color}"'
    anchor = "" if shape.left else ' text-anchor="middle"'
    return f"<text {place}{anchor}>{_escape(shape.word)}{sub if shape.sub else ''}</text>"


def _escape(text: str) -> str:
    """Safe in XML, which has no place for control characters at all."""
    return html.escape("".join(letter if letter.isprintable() else "?" for letter in text))
