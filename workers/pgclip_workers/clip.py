"""CLIP: pixels and texts into unit vectors. The only module that knows torch and transformers."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings
from pgclip_workers.encoder import Bytes, DeviceLost, Floats, TooLarge
from pgclip_workers.preprocessing import Preprocessing

log = logging.getLogger(__name__)

Input = TypeVar("Input")

# Windows of a long text overlap by this many tokens, so that no sentence is seen only in halves.
_OVERLAP = 16


class ClipEncoder:
    """A CLIP of transformers from a hub id or a folder; calls from several threads are fine."""

    def __init__(self, settings: Settings) -> None:
        where = settings.model
        try:
            config = AutoConfig.from_pretrained(where)
            model = AutoModel.from_pretrained(where, dtype="auto")
            processor = AutoImageProcessor.from_pretrained(where, backend="pil")
            self._tokenizer = AutoTokenizer.from_pretrained(where)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"PGCLIP_MODEL={where!r} can't be loaded; it is a hub id or a folder with config, "
                f"weights, tokenizer and image processor: {error}"
            ) from error
        self.name = settings.model_name or _model_name(where)
        self.preprocessing = Preprocessing.from_processor(processor, settings.fast_decode)
        self.dimension = int(config.projection_dim)
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self.device = settings.device if settings.device != "auto" else _best_device()
        self._dtype = _dtype(settings.precision, self.device)
        self.precision = str(self._dtype).removeprefix("torch.")
        self.batch_size = settings.batch_size or (256 if self.device.startswith("cuda") else 64)
        self._context = int(config.text_config.max_position_embeddings)
        self.fingerprint = {
            "fatal": {
                "weights": _weights_hash(model),
                "context": self._context,
                **self.preprocessing.fingerprint(),
            },
            "recorded": {"source": where, "engine": f"torch {torch.__version__}"},
        }
        self._model = model.eval().requires_grad_(False).to(self.device, self._dtype)
        scale, mean, std = (
            torch.tensor(value, device=self.device, dtype=torch.float32).view(1, -1, 1, 1)
            for value in (
                self.preprocessing.scale,
                self.preprocessing.mean,
                self.preprocessing.std,
            )
        )
        # (value · scale - mean) / std as one multiplication and one addition.
        self._factor, self._offset = scale / std, -mean / std

    def encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        """uint8 pictures (height, width, 3) → (n, dimension). Raises TooLarge."""
        return np.concatenate(_in_parts(self._encode_images, pixels, self.batch_size))

    def encode_texts(self, texts: Sequence[str]) -> list[Floats]:
        """For each text (windows, dimension). Raises TooLarge."""
        tokens = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._context,
            stride=min(_OVERLAP, self._context // 4),
            return_overflowing_tokens=True,
        )
        owners = np.asarray(tokens["overflow_to_sample_mapping"])
        vectors = np.concatenate(
            _in_parts(self._encode_tokens, tokens["input_ids"], self.batch_size)
        )
        return [vectors[owners == n] for n in range(len(texts))]

    @torch.inference_mode()
    def _encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        batch = torch.from_numpy(np.stack(pixels)).to(self.device, non_blocking=True)
        values = batch.permute(0, 3, 1, 2).float() * self._factor + self._offset
        output = self._model.get_image_features(pixel_values=values.to(self._dtype))
        return _unit(output)

    @torch.inference_mode()
    def _encode_tokens(self, ids: Sequence[list[int]]) -> Floats:
        padded = self._tokenizer.pad({"input_ids": list(ids)}, padding=True, return_tensors="pt")
        output = self._model.get_text_features(
            input_ids=padded["input_ids"].to(self.device),
            attention_mask=padded["attention_mask"].to(self.device),
        )
        return _unit(output)


def device_memory(device: str) -> dict[str, int]:
    """Bytes of a CUDA device: in use now, at most so far, kept by torch, and all there are."""
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "peak": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "total": torch.cuda.get_device_properties(device).total_memory,
    }


def _in_parts(
    encode: Callable[[Sequence[Input]], Floats], inputs: Sequence[Input], size: int
) -> list[Floats]:
    """Encodes in parts of at most `size`, halved whenever the device's memory is too small."""
    vectors: list[Floats] = []
    start = 0
    while start < len(inputs):
        part = inputs[start : start + size]
        try:
            vectors.append(encode(part))
        except (torch.OutOfMemoryError, MemoryError) as error:
            if len(part) == 1:
                raise TooLarge("the device has too little memory for this one alone") from error
            size = len(part) // 2
            log.warning("out of memory: the batch of %d goes on in parts of %d", len(part), size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error
        else:
            start += len(part)
    return vectors


def _unit(output: Any) -> Floats:
    """The projected features (transformers 5 has them in pooler_output) at norm 1."""
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    vectors: Floats = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return vectors


def _model_name(where: str) -> str:
    """A hub id as it is; of a folder its own name, since paths differ between machines."""
    folder = Path(where)
    return folder.resolve().name if folder.is_dir() else where


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision != "auto":
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device != "cpu":
        return torch.float16
    fast = torch.cpu.get_capabilities()
    return torch.bfloat16 if fast.get("avx512_bf16") or fast.get("amx_bf16") else torch.float32


def _weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 over the weights as the checkpoint has them, by name: the same in every format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
