"""Draws pictures: one emoji from Noto Color Emoji on a varied background, as JPEG bytes.

A picture is decided by its seed alone: (split, emoji, number). Splits never share seeds, so
what is measured or shipped was never trained on. Nothing here knows captions or models.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE = 109  # the only bitmap size in the font
SPRITE_SIZE = (136, 128)
TRAIN, EVALUATE, DEMO = 0, 1, 2  # splits: the first number of every seed


@dataclass(frozen=True)
class Style:
    """The ranges a picture is drawn from; the default is for training and evaluation."""

    short_side: tuple[int, int] = (90, 220)
    scale: tuple[float, float] = (0.6, 1.0)  # sprite height over short side
    rotation: float = 14.0  # degrees either way
    jpeg_quality: tuple[int, int] = (55, 95)
    blur: float = 1.0  # largest radius, at the default sizes
    offset: float = 1.0  # 1: anywhere inside the centre square; 0: in the middle


@lru_cache(maxsize=4096)
def sprite(char: str) -> Image.Image:
    """The emoji as the font draws it, RGBA with a transparent background."""
    image = Image.new("RGBA", SPRITE_SIZE)
    font = ImageFont.truetype(FONT, FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    ImageDraw.Draw(image).text((0, 0), char, font=font, embedded_color=True, anchor="lt")
    return image


def random_colour(rng: Generator) -> np.ndarray:
    """An RGB colour, (3,) float in 0..255: any, pale or near grey."""
    colour = rng.uniform(0, 255, 3)
    kind = rng.random()
    if kind < 0.35:
        return 255 - (255 - colour) * rng.uniform(0.1, 0.5)
    if kind < 0.5:
        return colour.mean() + (colour - colour.mean()) * 0.2
    return colour


def flat(rng: Generator, width: int, height: int) -> np.ndarray:
    """One colour; white in half of the cases."""
    colour = np.full(3, 255.0) if rng.random() < 0.5 else random_colour(rng)
    return np.broadcast_to(colour, (height, width, 3))


def gradient(rng: Generator, width: int, height: int) -> np.ndarray:
    """Two colours, blended along a line or outwards from a point."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        t = x * np.cos(angle) + y * np.sin(angle)
    else:
        t = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
    t = (t - t.min()) / max(float(np.ptp(t)), 1e-6)
    return random_colour(rng) * (1 - t[..., None]) + random_colour(rng) * t[..., None]


def blotches(rng: Generator, width: int, height: int) -> np.ndarray:
    """Soft or grainy noise between colours; stretched, it looks like wood or cloth."""
    shape = rng.integers(2, 24, 2)
    if rng.random() < 0.5:
        small = rng.random((*shape, 1)) ** 1.5
        first, second = random_colour(rng), random_colour(rng)
        small = first * small + second * (1 - small)
    else:
        small = rng.uniform(0, 255, (*shape, 3))
    image = Image.fromarray(small.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(image) + rng.normal(0, rng.uniform(0, 14), (height, width, 1))


def stripes(rng: Generator, width: int, height: int) -> np.ndarray:
    """Stripes or checks of two colours."""
    y, x = np.mgrid[0:height, 0:width]
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 60)
    on = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period) > 0
    if rng.random() < 0.4:
        on ^= np.sin((x * np.sin(angle) - y * np.cos(angle)) * 2 * np.pi / period) > 0
    first = random_colour(rng)
    second = first + (random_colour(rng) - first) * rng.uniform(0.2, 0.8)
    return np.where(on[..., None], first, second)


def shapes(rng: Generator, width: int, height: int) -> np.ndarray:
    """Discs, boxes and lines over a gradient."""
    image = Image.fromarray(np.clip(gradient(rng, width, height), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 9)):
        fill = tuple(int(value) for value in random_colour(rng))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        dx, dy = rng.uniform(0.05, 0.4, 2) * width
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((x - dx, y - dy, x + dx, y + dy), fill=fill)
        elif kind == 1:
            draw.rectangle((x - dx, y - dy, x + dx, y + dy), fill=fill)
        else:
            draw.line((x - dx, y - dy, x + dx, y + dy), fill=fill, width=int(rng.integers(2, 9)))
    return np.asarray(image)


Background = Callable[[Generator, int, int], np.ndarray]
BACKGROUNDS: tuple[Background, ...] = (flat, flat, gradient, gradient, blotches, stripes, shapes)


def compose(char: str, rng: Generator, background: np.ndarray, style: Style) -> Image.Image:
    """The emoji, scaled, turned and placed inside the centre square of a background."""
    canvas = Image.fromarray(np.clip(background, 0, 255).astype(np.uint8))
    width, height = canvas.size
    short = min(width, height)
    sized = rng.uniform(*style.scale) * short
    figure = sprite(char).resize(
        (round(sized * SPRITE_SIZE[0] / SPRITE_SIZE[1]), round(sized)), Image.Resampling.BICUBIC
    )
    angle = float(np.clip(rng.normal(0, style.rotation / 2), -style.rotation, style.rotation))
    figure = figure.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    room = np.maximum(short - np.array(figure.size), 0.06 * short) / 2 * style.offset
    centre = np.array([width, height]) / 2 + rng.uniform(-room, room)
    left, top = (centre - np.array(figure.size) / 2).round().astype(int)
    canvas.paste(figure, (int(left), int(top)), figure)
    return canvas


def draw(char: str, rng: Generator, style: Style | None = None) -> Image.Image:
    """One picture of an emoji, RGB, before JPEG."""
    style = style or Style()
    short = int(rng.integers(*style.short_side, endpoint=True))
    long = round(short * rng.choice([1.0, 1.0, rng.uniform(1, 1.6)]))
    width, height = (short, long) if rng.random() < 0.5 else (long, short)
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng, width, height)
    image = compose(char, rng, background, style)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, style.blur)))
    if rng.random() < 0.5:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.25))
    return image


def encode_jpeg(image: Image.Image, rng: Generator, style: Style | None = None) -> bytes:
    """The picture as JPEG bytes of random quality."""
    buffer = io.BytesIO()
    quality = int(rng.integers(*(style or Style()).jpeg_quality, endpoint=True))
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def to_input(image: Image.Image, size: int) -> np.ndarray:
    """CLIP's geometry: shortest edge to `size` (bicubic), centre crop; (size, size, 3) uint8."""
    width, height = image.size
    factor = size / min(width, height)
    new = (max(size, int(width * factor)), max(size, int(height * factor)))
    image = image.resize(new, Image.Resampling.BICUBIC)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def render(char: str, index: int, number: int, split: int, size: int) -> np.ndarray:
    """Picture `number` of emoji `index`, drawn, through JPEG and back, as the model gets it."""
    rng = np.random.default_rng([split, index, number])
    data = encode_jpeg(draw(char, rng), rng)
    return to_input(Image.open(io.BytesIO(data)), size)
