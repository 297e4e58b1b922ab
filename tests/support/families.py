"""Small checkpoints with random weights of every family that workers take. There is no hub here."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.checkpoints import WORDS, make_clip

CHINESE = "一只黑猫睡在朋友家红色的沙发上"
CHARACTERS = sorted(set(WORDS + "abcdefghijklmnopqrstuvwxyz") - {" "})

TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2}
VISION = {"image_size": 32, "patch_size": 8, **TOWER, **HEADS}


def make_family(family: str, folder: Path) -> Path:
    """Writes model, tokenizer and image processor of a family as transformers does."""
    import torch

    torch.manual_seed(0)
    _FAMILIES[family](folder)
    return folder


def _save(folder: Path, model: Any, tokenizer: Any, processor: Any, spread: float = 2) -> None:
    # As they come, random towers map everything to nearly one direction.
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name:
            parameter.data *= spread
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


def _siglip(folder: Path) -> None:
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    spiece = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 10), model_writer=spiece, vocab_size=40, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(spiece.getvalue())
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"])
    config = SiglipConfig(
        text_config={"vocab_size": 60, "max_position_embeddings": 64, **TOWER, **HEADS},
        vision_config=VISION,
    )
    model = SiglipModel(config)
    _mend_logits(model)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    _save(folder, model, tokenizer, processor)


def _siglip2(folder: Path) -> None:
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model, Siglip2Tokenizer

    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    vocab = {piece: n for n, piece in enumerate([*marks, *CHARACTERS])}
    tokenizer = Siglip2Tokenizer(vocab=vocab, merges=[], model_max_length=64)
    config = Siglip2Config(
        text_config={"vocab_size": 60, "max_position_embeddings": 64, **TOWER, **HEADS},
        vision_config={"patch_size": 8, "num_patches": 16, **TOWER, **HEADS},
    )
    model = Siglip2Model(config)
    _mend_logits(model)
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=20)
    _save(folder, model, tokenizer, processor)


def _mend_logits(model: Any) -> None:
    """The values that SigLIP starts its training with."""
    model.logit_scale.data.fill_(2.3026)  # ln 10
    model.logit_bias.data.fill_(-10.0)


def _metaclip_2(folder: Path) -> None:
    from transformers import CLIPImageProcessorPil, MetaClip2Config, MetaClip2Model
    from transformers import XLMRobertaTokenizer as Tokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁", *CHARACTERS]
    tokenizer = Tokenizer(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)])
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = MetaClip2Config(
        text_config={"vocab_size": 60, "max_position_embeddings": 77, **TOWER, **HEADS, **ids},
        vision_config={**VISION, "hidden_act": "gelu"},
        projection_dim=32,
    )
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    _save(folder, MetaClip2Model(config), tokenizer, CLIPImageProcessorPil(**sizes))


def _bert_tokenizer(**settings: Any) -> Any:
    from transformers import BertTokenizer

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*marks, *CHARACTERS, *("##" + each for each in CHARACTERS), *sorted(set(CHINESE))]
    return BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}, **settings)


def _align(folder: Path) -> None:
    import torch
    from transformers import AlignConfig, AlignModel, EfficientNetImageProcessorPil

    config = AlignConfig(
        text_config={"vocab_size": 100, "max_position_embeddings": 512, **TOWER, **HEADS},
        vision_config={
            "image_size": 64, "kernel_sizes": [3, 3, 5], "in_channels": [32, 16, 24],
            "out_channels": [16, 24, 30], "strides": [1, 1, 2], "num_block_repeats": [1, 1, 2],
            "expand_ratios": [1, 6, 6], "width_coefficient": 1.0, "depth_coefficient": 1.0,
            "hidden_dim": 256,
        },
        projection_dim=32,
    )  # fmt: skip
    processor = EfficientNetImageProcessorPil(
        size={"height": 76, "width": 76}, crop_size={"height": 64, "width": 64},
        do_center_crop=True, resample=2, rescale_factor=1 / 127.5, rescale_offset=True,
        do_normalize=False, include_top=False,
    )  # fmt: skip
    model = AlignModel(config)
    for parameter in model.vision_model.parameters():
        if parameter.dim() == 4:  # as it comes, nothing of a picture gets through
            torch.nn.init.kaiming_normal_(parameter)
    _save(folder, model, _bert_tokenizer(model_max_length=512), processor, spread=4)


def _chinese_clip(folder: Path) -> None:
    from transformers import ChineseCLIPConfig, ChineseCLIPImageProcessorPil, ChineseCLIPModel

    config = ChineseCLIPConfig(
        text_config={"vocab_size": 100, "max_position_embeddings": 512, **TOWER, **HEADS},
        vision_config=VISION,
        projection_dim=32,
    )
    processor = ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    _save(folder, ChineseCLIPModel(config), _bert_tokenizer(), processor, spread=4)


_FAMILIES: dict[str, Callable[[Path], object]] = {
    "clip": make_clip,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "metaclip_2": _metaclip_2,
    "align": _align,
    "chinese_clip": _chinese_clip,
}
FAMILIES = tuple(_FAMILIES)
