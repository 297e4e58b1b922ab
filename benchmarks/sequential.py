"""The same decode and the same encoder in one process, without a queue: what a loop would reach."""

from pathlib import Path

import numpy as np
from figures import timed
from workload import short_text

import pgclip_workers  # noqa: F401  sets what torch reads on import

BATCH = 64


class Sequential:
    """An encoder in this process."""

    def __init__(self, model: Path) -> None:
        from pgclip.settings import Settings
        from pgclip_workers.clip import ClipEncoder

        self._model = model
        self._encoder = ClipEncoder(Settings.load({}, model=str(model), batch_size=BATCH))
        import torch

        self.dtype: torch.dtype = getattr(torch, self._encoder.precision)

    def photos_per_second(self, photos: list[bytes]) -> float:
        """Decodes a batch, then encodes it, again and again."""
        from pgclip_workers.decode import Pixels, decode
        from pgclip_workers.sources import Limits

        limits = Limits(10**8, 10**9)

        def run(part: list[bytes]) -> None:
            decoded = [decode(data, None, self._encoder.preprocessing, limits) for data in part]
            self._encoder.encode_images([e.array for e in decoded if isinstance(e, Pixels)])

        run(photos[:8])
        parts = [photos[at : at + BATCH] for at in range(0, len(photos), BATCH)]
        return len(photos) / timed(lambda: [run(part) for part in parts])

    def images_per_second(self, batch: int) -> float:
        """Of pixels that are decoded already: the fastest of several tries."""
        crop = self._encoder.preprocessing.crop
        pixels = list(np.random.default_rng(0).integers(0, 256, (batch, *crop, 3), np.uint8))
        return batch / _fastest(lambda: self._encoder.encode_images(pixels))

    def texts_per_second(self, batch: int) -> float:
        """Of short texts, tokenised on the clock: the fastest of several tries."""
        texts = [short_text(seed) for seed in range(batch)]
        return batch / _fastest(lambda: self._encoder.encode_texts(texts))

    def plain_images_per_second(self, batch: int) -> float:
        """By the model as transformers has it, in the same precision."""
        import torch

        plain = self._plain().to(self.dtype)
        pixels = torch.randn(batch, 3, 224, 224, dtype=self.dtype)
        with torch.inference_mode():
            return batch / _fastest(lambda: plain.get_image_features(pixel_values=pixels))

    def flops_of_an_image(self) -> float:
        """Floating-point operations of an image, as torch counts them in transformers' model."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self._plain().get_image_features(pixel_values=torch.zeros(1, 3, 224, 224))
        return float(counter.get_total_flops())

    def _plain(self) -> "object":
        from transformers import CLIPModel

        return CLIPModel.from_pretrained(self._model).eval()


def _fastest(call: "object") -> float:
    call()
    return min(timed(call) for _ in range(5))
