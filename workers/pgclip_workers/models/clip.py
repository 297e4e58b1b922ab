"""CLIP: pixels and texts into unit vectors, on a device."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from pgclip.settings import Settings
from pgclip_workers.models import naflex
from pgclip_workers.models.capacity import Capacity, Turns
from pgclip_workers.models.checkpoint import OPEN_CLIP, load, weights_hash
from pgclip_workers.models.device import best_device, best_dtype
from pgclip_workers.models.encoder import Bytes, Floats
from pgclip_workers.models.first_token import shorten
from pgclip_workers.models.packed import pack
from pgclip_workers.models.patches import centred, fold_normalisation
from pgclip_workers.models.swish import turn_into_swish
from pgclip_workers.models.tensors import Tensors
from pgclip_workers.pictures.preprocessing import Preprocessing


class ClipEncoder:
    """A model of the CLIP kind by its name; see checkpoint.py. Any thread may call it.

    Calls from several threads overlap: while one waits for the device, another's work is queued.
    """

    def __init__(self, settings: Settings) -> None:
        checkpoint = load(settings.model, settings.fast_decode)
        self._checkpoint = checkpoint
        self.name = settings.model_name or _model_name(checkpoint.source)
        self.preprocessing = checkpoint.preprocessing
        self.logit_scale, self.logit_bias = checkpoint.logit_scale, checkpoint.logit_bias
        self.device = settings.device if settings.device != "auto" else best_device()
        self._dtype = best_dtype(settings.precision, self.device, checkpoint.bfloat16)
        self.precision = str(self._dtype).removeprefix("torch.")
        self.batch_size = settings.batch_size or (256 if self.device.startswith("cuda") else 64)
        # Metal has not been tried from several threads.
        turns = Turns(together=self.device != "mps")
        self._images = Capacity(self.batch_size, turns)
        self._texts = Capacity(self.batch_size, turns)
        self._of_thread = threading.local()
        self.fingerprint = {
            "fatal": {
                "weights": weights_hash(checkpoint.module),
                "context": checkpoint.context,
                **self.preprocessing.fingerprint(),
            },
            "recorded": {
                "source": checkpoint.source,
                "engine": f"torch {torch.__version__}",
                "logit_bias": self.logit_bias,
            },
        }
        self._factor, self._offset = _normalisation(self.preprocessing)
        self._folded = False
        self._put_on_device(checkpoint.module)
        (probe,) = self.encode_texts(["a photo"])
        self.dimension = int(probe.shape[1])

    def encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        """uint8 pictures (height, width, 3) → (n, dimension). Raises TooLarge and DeviceLost."""
        return np.concatenate(self._images.run(self._forward_images, pixels))

    def encode_texts(self, texts: Sequence[str]) -> list[Floats]:
        """For each text (windows, dimension). Raises TooLarge and DeviceLost."""
        windows, owners = self._checkpoint.tokenize(texts)
        # By length, so that the short are not padded to the long.
        order = sorted(range(len(windows)), key=lambda n: len(windows[n]))
        by_length = np.concatenate(
            self._texts.run(self._forward_windows, [windows[n] for n in order])
        )
        vectors = np.empty_like(by_length)
        vectors[order] = by_length
        # The windows of a text follow each other, and every text has one.
        return np.split(vectors, np.searchsorted(owners, np.arange(1, len(texts))))

    def _put_on_device(self, module: torch.nn.Module) -> None:
        module.requires_grad_(False)
        shorten(module)
        if self._checkpoint.packable:
            module.float()  # what is folded into weights is rounded once, with them
            turn_into_swish(module)
            self._folded = fold_normalisation(module, self._factor, self._offset)
        if self._checkpoint.packable and self.device == "cpu":
            pack(module, self._dtype)
        else:
            module.to(self.device, self._dtype)
        shape, repeat = (-1, 1, 1), 1
        if self.preprocessing.max_patches:  # a patch's values are channels, again and again
            shape, repeat = (1, 1, -1), self.preprocessing.patch_size**2
        self._factor, self._offset = (
            each.repeat(repeat).view(shape).to(self.device) for each in (self._factor, self._offset)
        )
        if self.device.startswith("cuda"):  # the threads' streams must find all of it there
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def _forward_images(self, pixels: Sequence[Bytes]) -> Floats:
        with self._stream():
            inputs = self._to_device(self._stack(pixels))
            values = inputs["pixel_values"]
            if not self.preprocessing.max_patches:
                values = values.permute(0, 3, 1, 2)
            if self._folded:
                values = centred(values, self._dtype)
            else:  # as uint8 to the device: a quarter of the bytes, and normalised at its speed
                values = values.float().mul_(self._factor).add_(self._offset).to(self._dtype)
            inputs["pixel_values"] = values
            return _unit(self._checkpoint.image_features(inputs))

    @torch.inference_mode()
    def _forward_windows(self, windows: Sequence[list[int]]) -> Floats:
        with self._stream():
            tokens = self._to_device(self._checkpoint.pad(windows))
            return _unit(self._checkpoint.text_features(tokens))

    def _stack(self, pixels: Sequence[Bytes]) -> Tensors:
        if self.preprocessing.max_patches:
            return naflex.stack(pixels, self.preprocessing.patch_size)
        pinned = self.device.startswith("cuda")
        stacked = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=pinned)
        np.stack(pixels, out=stacked.numpy())
        return {"pixel_values": stacked}

    def _to_device(self, tensors: Tensors) -> Tensors:
        # From pinned memory this returns at once, and the copy takes its turn on the stream.
        return {name: each.to(self.device, non_blocking=True) for name, each in tensors.items()}

    def _stream(self) -> AbstractContextManager[object]:
        """On CUDA a stream for each thread, so that one's copies run beside another's kernels."""
        if not self.device.startswith("cuda"):
            return nullcontext()
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._of_thread.stream)


def _normalisation(rules: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """(value · scale - mean) / std as one factor and one offset for each channel."""
    mean, std = torch.tensor(rules.mean), torch.tensor(rules.std)
    return rules.scale / std, -mean / std


def _unit(features: torch.Tensor) -> Floats:
    """Features at norm 1, in float32, on the host: the one point that waits for the device."""
    vectors: Floats = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return vectors


def _model_name(source: str) -> str:
    """A hub id as it is; of a folder or file its own name, since paths differ between machines."""
    if source.startswith(OPEN_CLIP):
        model, _, weights = source.partition("/")
        local = model.endswith("local-dir:") or weights.startswith("/")
        return f"{model}/{Path(weights).name}" if local else source
    folder = Path(source)
    return folder.resolve().name if folder.is_dir() else source
