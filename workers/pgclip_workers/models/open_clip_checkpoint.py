"""Checkpoints of open_clip: OpenAI's ResNets, and what is published in its format."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from pgclip.errors import ConfigurationError
from pgclip_workers.models.plain_text import PlainText
from pgclip_workers.models.tensors import Tensors
from pgclip_workers.models.windows import Windows
from pgclip_workers.pictures.preprocessing import Preprocessing

# Beginnings of names that stand for configuration, weights and tokenizer together.
_WHOLE = ("hf-hub:", "local-dir:")
# Pillow's numbers. "random" is for training; open_clip's inference takes bicubic for it.
_RESAMPLE = {"bilinear": 2, "bicubic": 3, "random": 3}
# Words whose ids are remembered, a few hundred bytes each.
_WORDS = 100_000


class OpenClipCheckpoint:
    """MODEL/TAG or MODEL/FILE, with the file's whole path, `hf-hub:ID` or `local-dir:FOLDER`."""

    def __init__(self, name: str, fast_decode: bool) -> None:
        self.source = f"open_clip:{name}"
        try:
            open_clip = _library()
            model, weights = _parts(open_clip, name)
            self.module = _module(open_clip, model, weights)
            rules = open_clip.get_model_preprocess_cfg(self.module)
            self.preprocessing = _preprocessing(rules, fast_decode)
            self._tokenizer = _tokenizer(open_clip.get_tokenizer(model))
        except Exception as error:  # by torch, timm, the hub or pickle: there is no list of them
            raise ConfigurationError(
                f"PGCLIP_MODEL={self.source!r} can't be loaded: {error}"
            ) from error
        # Text towers look at the weights of their layers, to see in which precision they are.
        self.packable = False
        # Rounding adds up along the residuals of the ResNets: random ones reach 0.93 to 0.9999.
        self.bfloat16 = not hasattr(self.module.visual, "attnpool")
        self.context = self._tokenizer.context
        self.logit_scale = float(self.module.logit_scale.detach().exp())
        bias = getattr(self.module, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach())
        self._windows = Windows(self._tokenizer.ids, self.context, self._tokenizer.replaced)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """See Checkpoint."""
        return self._windows.of(self._tokenizer.ids(texts))

    def pad(self, windows: Sequence[list[int]]) -> Tensors:
        """See Checkpoint. Always to the whole context, as open_clip does."""
        return {"input_ids": self._tokenizer.pad(windows)}

    def image_features(self, pixels: Tensors) -> torch.Tensor:
        """See Checkpoint."""
        features: torch.Tensor = self.module.encode_image(pixels["pixel_values"])
        return features

    def text_features(self, tokens: Tensors) -> torch.Tensor:
        """See Checkpoint."""
        features: torch.Tensor = self.module.encode_text(tokens["input_ids"])
        return features


def _library() -> Any:
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}; pip install 'pgclip[open-clip]'") from error
    return open_clip


def _parts(open_clip: Any, name: str) -> tuple[str, str | None]:
    """The model, and its tag or file of weights unless the model's name stands for them too."""
    if name.startswith(_WHOLE):
        return name, None
    model, _, weights = name.partition("/")
    if model not in (models := open_clip.list_models()):
        near = ", ".join(get_close_matches(model, models)) or "those of open_clip.list_models()"
        raise ValueError(f"open_clip has no model {model!r}; there are {near}")
    if not open_clip.is_pretrained_cfg(model, weights) and not Path(weights).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"after {model}/ comes a file or a tag ({tags}), not {weights!r}")
    return model, weights


def _module(open_clip: Any, model: str, weights: str | None) -> Any:
    # Where weights were trained with QuickGELU and the model has GELU, open_clip only warns.
    quick = weights and open_clip.get_pretrained_cfg(model, weights).get("quick_gelu", False)
    module = open_clip.create_model(
        model,
        pretrained=weights,
        precision="fp32",
        force_quick_gelu=bool(quick),
        require_pretrained=True,  # else it goes on with random weights
    )
    return module.eval()


def _preprocessing(rules: dict[str, Any], fast_decode: bool) -> Preprocessing:
    height, width = _each(rules["size"], 2)
    mode = rules["resize_mode"]
    if mode == "squash":
        resize: tuple[int, ...] = (height, width)
    elif mode == "shortest" and height == width:
        resize = (height,)
    else:
        raise ValueError(f"resize mode {mode!r} to {height} × {width} is not supported")
    mean, std = _each(rules["mean"], 3), _each(rules["std"], 3)
    return Preprocessing(
        resize=resize,
        crop=(height, width),
        resample=_RESAMPLE[rules["interpolation"]],
        scale=1 / 255,
        mean=mean,
        std=std,
        fast_decode=fast_decode,
        even_margin=True,
    )


def _each(value: Any, times: int) -> Any:
    """A number for all of them, or as many numbers."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * times


def _tokenizer(tokenizer: Any) -> "_Words | _Pieces":
    return _Words(tokenizer) if hasattr(tokenizer, "encode") else _Pieces(tokenizer)


class _Words:
    """OpenAI's tokenizer as open_clip has it, without the cut, and without its marks in texts."""

    replaced: Mapping[int, int] = {}

    def __init__(self, tokenizer: Any) -> None:
        import regex  # comes with open_clip

        tokenizer.cache = _Memory()
        marks = "|".join(tokenizer.decoder[each] for each in tokenizer.all_special_ids)
        words = tokenizer.pat.pattern.removeprefix(marks + "|")
        tokenizer.pat = regex.compile(words, regex.IGNORECASE)
        self._tokenizer = tokenizer
        self.context = int(tokenizer.context_length)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        return [[start, *self._tokenizer.encode(text), end] for text in texts]

    def pad(self, windows: Sequence[list[int]]) -> torch.Tensor:
        return torch.tensor([ids + [0] * (self.context - len(ids)) for ids in windows])


class _Memory(dict[str, str]):
    """Takes no more once it is full: the tokenizer would keep every word that it ever saw."""

    def __setitem__(self, word: str, pieces: str) -> None:
        if len(self) < _WORDS:
            super().__setitem__(word, pieces)


class _Pieces:
    """A tokenizer of transformers as open_clip calls it, without the cut."""

    def __init__(self, tokenizer: Any) -> None:
        if getattr(tokenizer, "tokenizer_mode", ""):
            raise ValueError(f"tokenizer mode {tokenizer.tokenizer_mode!r} is not supported")
        self._clean, self._tokenizer = tokenizer.clean_fn, tokenizer.tokenizer
        self._texts = PlainText(tokenizer.tokenizer)
        self.replaced = self._texts.replaced
        # A few text towers know the end of a text by the padding that follows.
        self._without = self._tokenizer.sep_token_id if tokenizer.strip_sep_token else None
        self.context = int(tokenizer.context_length)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._texts.ids([self._clean(text) for text in texts])

    def pad(self, windows: Sequence[list[int]]) -> torch.Tensor:
        padded: torch.Tensor = self._tokenizer.pad(
            {"input_ids": list(windows)},
            padding="max_length",
            max_length=self.context,
            return_tensors="pt",
        )["input_ids"]
        return padded if self._without is None else padded.masked_fill(padded == self._without, 0)
