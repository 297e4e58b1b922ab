"""Draws the pictures that ship with the demo: `python demo/pictures.py`.

About three hundred things that people know, on quiet backgrounds, from seeds that training never
uses. Writes demo/pictures/ and its pictures.json. `--sheet` also makes one image of all of them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from emoji_data import Emoji, load_emoji
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter
from render import DEMO, Style, compose

HERE = Path(__file__).parent
NAMES = HERE / "picture_names.txt"
STYLE = Style(scale=(0.6, 0.85), rotation=8.0, offset=0.7)
SHORT_SIDE = (180, 280)
QUALITY = 76
ENDINGS = {7: ".png", 19: ".webp"}  # every 32nd picture each; the others are JPEG
PALETTE = (
    "#f4ede4", "#e3eef6", "#e8f3e6", "#fbe9e7", "#f3e8f7", "#fff6d9", "#dfe7ea", "#eadfd3",
    "#d7ecec", "#f7dfe8", "#a9cfe8", "#b9dcb5", "#f5cfa8", "#c9b8e0", "#e9b7b0", "#8fb8b5",
    "#c2a98a", "#6f8aa8", "#586b5f", "#7a5c6b",
)  # fmt: skip


def colour(rng: Generator) -> np.ndarray:
    """One colour of the palette, (3,) float in 0..255."""
    code = PALETTE[rng.integers(len(PALETTE))]
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], float)


def glow(rng: Generator, width: int, height: int) -> np.ndarray:
    """A wall, lighter around the middle."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height) - 0.45
    light = np.clip(1.08 - 0.5 * np.hypot(x, y), 0.6, 1.08)
    return colour(rng) * light[..., None]


def fade(rng: Generator, width: int, height: int) -> np.ndarray:
    """One colour above that fades into another below."""
    t = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to(colour(rng) * (1 - t) + colour(rng) * t, (height, width, 3))


def table(rng: Generator, width: int, height: int) -> np.ndarray:
    """A wooden table: boards with grain."""
    grain = rng.normal(0, 1, (height, 4)).cumsum(0)
    image = Image.fromarray(((grain - grain.min()) / np.ptp(grain) * 255).astype(np.uint8))
    lines = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), float)
    lines = lines % 37 * 1.1 - 20
    boards = np.linspace(0, rng.integers(3, 6), height, endpoint=False)
    gaps = np.where(np.diff(np.floor(boards), prepend=0) > 0, -60.0, 0.0)[:, None]
    tone = np.array([[196.0, 152, 104], [222, 186, 140], [150, 108, 74]])[rng.integers(3)]
    return tone + (lines + gaps)[..., None]


def lights(rng: Generator, width: int, height: int) -> np.ndarray:
    """Discs out of focus over a fade."""
    image = Image.fromarray(np.clip(fade(rng, width, height), 0, 255).astype(np.uint8))
    layer = image.copy()
    draw = ImageDraw.Draw(layer)
    for _ in range(rng.integers(6, 14)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(10, 45)
        fill = tuple(int(value) for value in colour(rng))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    layer = layer.filter(ImageFilter.GaussianBlur(5))
    return np.asarray(Image.blend(image, layer, 0.6))


def outdoors(rng: Generator, width: int, height: int) -> np.ndarray:
    """Sky over a meadow, sand, water or snow, blurred."""
    ground = np.array([[150.0, 190, 110], [232, 208, 160], [130, 180, 205], [236, 240, 244]])
    horizon = int(height * rng.uniform(0.5, 0.72))
    rows = np.linspace(0, 1, height)[:, None]
    sky = np.array([150.0, 196, 232]) * (1 - rows) + np.array([236.0, 242, 246]) * rows
    sky[horizon:] = ground[rng.integers(4)] * (1.05 - 0.25 * rows[horizon:])
    image = np.broadcast_to(sky[:, None], (height, width, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)))


SCENES = (glow, glow, fade, table, lights, outdoors)


def picture(emoji: Emoji, index: int) -> Image.Image:
    """The shipped picture of an emoji, decided by its index alone."""
    rng = np.random.default_rng([DEMO, index])
    short = int(rng.integers(*SHORT_SIDE))
    long = int(short * rng.choice([1.0, 1.15, 1.33]))
    width, height = (long, short) if rng.random() < 0.7 else (short, long)
    scene = SCENES[rng.integers(len(SCENES))](rng, width, height)
    return compose(emoji.char, rng, scene, STYLE)


def chosen() -> Iterator[tuple[int, Emoji]]:
    """The emoji named in picture_names.txt, with their indices, in Unicode's order."""
    names = re.split(r",\s*|\n", NAMES.read_text(encoding="utf-8").strip())
    emoji = load_emoji()
    if unknown := set(names) - {item.name for item in emoji}:
        raise SystemExit(f"{NAMES.name}: no emoji is called {', '.join(sorted(unknown))}")
    wanted = set(names)
    return ((index, item) for index, item in enumerate(emoji) if item.name in wanted)


def write_all(folder: Path) -> list[Path]:
    """Every chosen picture and pictures.json; the paths of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: dict[str, dict[str, str]] = {}
    for number, (index, emoji) in enumerate(chosen()):
        ending = ENDINGS.get(number % 32, ".jpg")
        name = re.sub(r"[^a-z0-9]+", "-", emoji.name).strip("-") + ending
        image = picture(emoji, index)
        if ending == ".png":
            image = image.resize((160, 160 * image.height // image.width)).quantize(64)
        image.save(folder / name, quality=QUALITY, optimize=True)
        listed[name] = {"name": emoji.name, "group": emoji.group}
    text = json.dumps(listed, indent=1, ensure_ascii=False)
    (folder / "pictures.json").write_text(text + "\n", encoding="utf-8")
    return [folder / name for name in listed]


def write_sheet(paths: list[Path], target: Path, columns: int = 20, side: int = 90) -> None:
    """All pictures on one sheet, to look at."""
    rows = -(-len(paths) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for number, path in enumerate(paths):
        small = Image.open(path).convert("RGB")
        small.thumbnail((side - 4, side - 4))
        sheet.paste(small, (number % columns * side, number // columns * side))
    sheet.save(target)


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "pictures")
    parser.add_argument("--sheet", type=Path, help="also write one image of all pictures")
    options = parser.parse_args()
    paths = write_all(options.output)
    if options.sheet:
        write_sheet(paths, options.sheet)
    largest = max(path.stat().st_size for path in paths)
    print(f"{len(paths)} pictures in {options.output}, the largest {largest} bytes")


if __name__ == "__main__":
    main()
