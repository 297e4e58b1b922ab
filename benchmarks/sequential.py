"""The same decode and the same encoder in one process, without a queue: what a loop would reach."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pgclip_workers  # isort: skip  # sets what torch and numpy read on import
import numpy as np
import torch
from figures import timed
from workload import short_text

from pgclip.settings import Settings
from pgclip_workers.models.clip import ClipEncoder
from pgclip_workers.pictures.decode import Pixels, decode
from pgclip_workers.pictures.sources import Limits

assert pgclip_workers


class Sequential:
    """An encoder in this process, on the device and in the precision that a worker takes."""

    def __init__(self, model: Path, batch: int = 64, **settings: object) -> None:
        self._model, self._batch = model, batch
        self._encoder = ClipEncoder(
            Settings.load({}, model=str(model), batch_size=1024, **settings)
        )
        self.device = self._encoder.device
        self.dtype: torch.dtype = getattr(torch, self._encoder.precision)

    def photos_per_second(self, photos: list[bytes]) -> float:
        """Decodes a batch, then encodes it, again and again."""
        limits = Limits(10**8, 10**9)

        def run(part: list[bytes]) -> None:
            decoded = [decode(data, None, self._encoder.preprocessing, limits) for data in part]
            self._encoder.encode_images([e.array for e in decoded if isinstance(e, Pixels)])

        run(photos[:8])
        parts = [photos[at : at + self._batch] for at in range(0, len(photos), self._batch)]
        return len(photos) / timed(lambda: [run(part) for part in parts])

    def images_per_second(self, batch: int, threads: int = 1) -> float:
        """Of pixels that are decoded already: the fastest of several tries."""
        crop = self._encoder.preprocessing.crop
        pixels = list(np.random.default_rng(0).integers(0, 256, (batch, *crop, 3), np.uint8))
        rounds = 4 if threads > 1 else 1
        with ThreadPoolExecutor(threads) as pool:

            def run() -> None:
                list(pool.map(self._encoder.encode_images, [pixels] * rounds * threads))

            return rounds * threads * batch / _fastest(run)

    def device_per_second(self, batch: int, how: str = "") -> float:
        """The model alone, of pixels on the device: as it is, as a "graph", or compiled."""
        crop = self._encoder.preprocessing.crop
        pixels = torch.randn(batch, 3, *crop, device=self.device).to(self.dtype)
        features = self._encoder._checkpoint.image_features

        def forward() -> torch.Tensor:
            return features({"pixel_values": pixels})

        with torch.inference_mode(how == ""), torch.no_grad():
            call = _captured(forward) if how == "graph" else forward
            if how not in ("", "graph"):
                call = torch.compile(forward, mode=how, dynamic=False)
            rounds = 10 if self.device.startswith("cuda") else 1

            def run() -> None:
                for _ in range(rounds):
                    last = call()
                last[0, 0].item()  # waits for the device

            return rounds * batch / _fastest(run)

    def texts_per_second(self, batch: int) -> float:
        """Of short texts, tokenised on the clock: the fastest of several tries."""
        texts = [short_text(seed) for seed in range(batch)]
        return batch / _fastest(lambda: self._encoder.encode_texts(texts))

    def plain_per_second(self, batch: int, compiled: str = "") -> float:
        """Pixels through the model as transformers has it, in the same precision."""
        model = self._plain().to(self.device, self.dtype)
        pixels = torch.randn(batch, 3, 224, 224, dtype=self.dtype, device=self.device)

        def forward(values: torch.Tensor) -> Any:
            return model.get_image_features(pixel_values=values).pooler_output

        call = _compiled(forward, compiled) if compiled else forward
        with torch.no_grad():
            return batch / _fastest(lambda: call(pixels).float().cpu())

    def flops_of_an_image(self) -> float:
        """Floating-point operations of an image, as torch counts them in transformers' model."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self._plain().get_image_features(pixel_values=torch.zeros(1, 3, 224, 224))
        return float(counter.get_total_flops())

    def _plain(self) -> Any:
        from transformers import CLIPModel

        return CLIPModel.from_pretrained(self._model).eval().requires_grad_(False)


def products(dtype: torch.dtype, device: str, side: int = 4096) -> float:
    """Floating-point operations per second of matrix products side × side × side."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    rounds = 50 if device.startswith("cuda") else 1

    def run() -> None:
        for _ in range(rounds):
            product = left @ right
        product[0, 0].item()  # waits for the device

    return 2 * side**3 * rounds / _fastest(run)


def _compiled(forward: Callable[..., Any], mode: str) -> Callable[..., Any]:
    if mode != "freezing":
        return torch.compile(forward, mode=mode, dynamic=False)
    from torch._inductor import config

    config.freezing = True
    return torch.compile(forward, dynamic=False)


def _captured(forward: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The kernels of a forward pass as one CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            forward()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = forward()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def _fastest(call: Callable[[], Any]) -> float:
    call()
    return min(timed(call) for _ in range(5))
