"""The encoder alone, without a database or a queue; on a GPU if there is one.

python benchmarks/bare.py        # needs torch, transformers, numpy, pillow and this folder
"""

import sys

from checkpoint import make_checkpoint
from figures import Figure, keep, show
from here import DATA
from sequential import Sequential, products


def main() -> int:
    """Prints the table and keeps results/bare.json."""
    DATA.mkdir(parents=True, exist_ok=True)
    model = make_checkpoint(DATA / "ViT-B-32-random")
    keep(show(bare(Sequential(model))), "python benchmarks/bare.py", "bare")
    return 0


def bare(loop: Sequential) -> list[Figure]:
    """Pixels and texts to vectors, beside the device's matrix products."""
    sizes = (1, 8, 64, 256) if loop.device.startswith("cuda") else (1, 8, 64)
    precision = str(loop.dtype).removeprefix("torch.")
    rate, flops = products(loop.dtype, loop.device), loop.flops_of_an_image()
    images = {size: loop.images_per_second(size) for size in sizes}
    texts = {size: loop.texts_per_second(size) for size in sizes}
    most = sizes[-1]
    figures = [
        Figure(f"matrix product 4096³, {precision}", rate / 1e9, "GFLOP/s"),
        Figure("an image through ViT-B/32, as transformers computes it", flops / 1e9, "GFLOP"),
        *(Figure(f"pixels to vectors, batches of {n}", images[n], "images/s") for n in sizes),
        Figure(f"… of {most} as a share of the product", images[most] * flops / rate, "", "≥ 0.65"),
        Figure(f"… of {most} from two threads", loop.images_per_second(most, 2), "images/s"),
        Figure(f"… of {most} by transformers' own", loop.plain_per_second(most), "images/s"),
    ]
    for mode in ("default", "reduce-overhead") if loop.device.startswith("cuda") else ("freezing",):
        name = f"… of {most} by transformers' own, torch.compile, {mode}"
        figures.append(Figure(name, loop.plain_per_second(most, mode), "images/s"))
    figures += [
        Figure(f"short texts to vectors, batches of {n}", texts[n], "texts/s") for n in sizes
    ]
    return figures


if __name__ == "__main__":
    sys.exit(main())
