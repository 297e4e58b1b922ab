"""Checkpoints of transformers: every model with get_image_features and get_text_features."""

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pgclip.errors import ConfigurationError
from pgclip_workers.models.plain_text import PlainText
from pgclip_workers.models.tensors import Tensors
from pgclip_workers.models.windows import Windows
from pgclip_workers.pictures.preprocessing import Preprocessing

# Families trained on shorter texts than their text towers have room for: ALIGN by its processor
# in transformers, Chinese-CLIP by section 3.1 of arXiv:2211.01335.
_TRAINED_CONTEXT = {"align": 64, "chinese_clip": 52}
# Families trained on texts padded to the whole context, without a mask. The others have a mask, or
# look at no token after the last, so that padding is the longest of the batch.
_PADDED_TO_CONTEXT = ("siglip", "siglip2")


class TransformersCheckpoint:
    """A hub id or a folder with config, weights, tokenizer and image processor."""

    def __init__(self, source: str, fast_decode: bool) -> None:
        _hide_loading()
        try:
            config = AutoConfig.from_pretrained(source)
            # model.safetensors where there is one; of a pickle, tensors and nothing that runs.
            self.module = AutoModel.from_pretrained(source, dtype="auto").eval()
            processor = AutoImageProcessor.from_pretrained(source, backend="pil")
            self._tokenizer = AutoTokenizer.from_pretrained(source)
            self.preprocessing = Preprocessing.from_processor(processor, fast_decode)
        except (OSError, ValueError, ImportError) as error:
            raise ConfigurationError(
                f"PGCLIP_MODEL={source!r} can't be loaded; it is a hub id or a folder with config, "
                f"weights, tokenizer and image processor: {error}"
            ) from error
        except UnpicklingError as error:
            raise ConfigurationError(
                f"PGCLIP_MODEL={source!r} is not loaded: its weights are a pickle of more than "
                "tensors, which could run anything. Take a checkpoint with model.safetensors; if "
                "you trust this one, make that of it with safetensors.torch.save_file"
            ) from error
        if not hasattr(self.module, "get_image_features"):
            raise ConfigurationError(
                f"PGCLIP_MODEL={source!r} is {config.model_type}, which has no vectors that "
                "pictures and texts share; CLIP, SigLIP, MetaCLIP 2, ALIGN and Chinese-CLIP have"
            )
        self.source = source
        self.packable = self.bfloat16 = True
        family = config.model_type
        self.context = _TRAINED_CONTEXT.get(family) or min(
            int(config.text_config.max_position_embeddings), int(self._tokenizer.model_max_length)
        )
        self._padding = "max_length" if family in _PADDED_TO_CONTEXT else "longest"
        self.logit_scale, self.logit_bias = _logits(self.module)
        self._texts = PlainText(self._tokenizer)
        self._windows = Windows(self._texts.ids, self.context, self._texts.replaced)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """See Checkpoint."""
        return self._windows.of(self._texts.ids(texts))

    def pad(self, windows: Sequence[list[int]]) -> Tensors:
        """See Checkpoint."""
        padded = self._tokenizer.pad(
            {"input_ids": list(windows)},
            padding=self._padding,
            max_length=self.context,
            return_tensors="pt",
        )
        return dict(padded)

    def image_features(self, pixels: Tensors) -> torch.Tensor:
        """See Checkpoint."""
        return _features(self.module.get_image_features(**pixels))

    def text_features(self, tokens: Tensors) -> torch.Tensor:
        """See Checkpoint."""
        return _features(self.module.get_text_features(**tokens))


def _hide_loading() -> None:
    """No bar of tensors that are read, which takes a second; one of a download stays."""
    downloads = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()


def _logits(model: Any) -> tuple[float, float | None]:
    if hasattr(model, "temperature"):  # ALIGN divides by it
        return 1 / model.temperature.item(), None
    bias = getattr(model, "logit_bias", None)
    return model.logit_scale.float().exp().item(), None if bias is None else bias.item()


def _features(output: Any) -> torch.Tensor:
    """The projected features, which transformers 5 has in pooler_output."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features
