"""Makes the untrained model, its tokenizer and its image processor, in transformers' formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

IMAGE_SIZE, PATCH_SIZE = 64, 16
VISION_LAYERS, TEXT_LAYERS = 4, 2
WIDTH, DIMENSION = 192, 128  # of both towers, of vectors
VOCABULARY, LONGEST_TEXT = 4096, 32
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(corpus: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer (lower-case byte-level BPE) learned from a corpus.

    Every byte is in the vocabulary, inside a word and at its end: no text can meet the unknown
    token, which in CLIP is also the end of the text.
    """
    style = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = style.normalizer, style.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(alphabet),
        special_tokens=[BEGIN, END],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    vocabulary: dict[str, int] = learner.get_vocab()
    for letter in alphabet:
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST_TEXT)


def make_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """CLIP's own preprocessing at this model's size: shortest edge, bicubic, centre crop."""
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def make_model(tokenizer: CLIPTokenizer, width: int, dimension: int) -> CLIPModel:
    """The model with random weights, float32."""
    shared = {"projection_dim": dimension, "hidden_act": "gelu"}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": width // 32,
        "max_position_embeddings": LONGEST_TEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": width // 32,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    }
    config = CLIPConfig(
        text_config=text | shared, vision_config=vision | shared, projection_dim=dimension
    )
    return CLIPModel(config)


def start_from_patches(model: CLIPModel, pixels: Tensor) -> None:
    """Makes the patch embedding a whitened PCA of real patches: (n, 3, size, size) pixels.

    A random embedding of a patch sees little but its mean; this one sees its details from the
    first step. In a trial of 150 steps the loss fell half as far again.
    """
    embeddings = model.vision_model.embeddings
    width = model.config.vision_config.hidden_size
    patches = F.unfold(pixels, PATCH_SIZE, stride=PATCH_SIZE).transpose(1, 2).flatten(0, 1)
    _, spread, axes = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    spread = spread[:width, None] / len(patches) ** 0.5
    turn = torch.linalg.qr(torch.randn(width, width)).Q
    weight = turn @ (axes[:width] / (spread + 0.1 * spread[0])) * 0.7
    shape = embeddings.patch_embedding.weight.shape
    embeddings.patch_embedding.weight.data = weight.reshape(shape).contiguous()
    nn.init.normal_(embeddings.position_embedding.weight, std=0.3)


def save_processor(processor: CLIPProcessor, folder: Path) -> None:
    """Writes tokenizer and image processor; before their first use, which leaves traces in them."""
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def save_weights(model: CLIPModel, folder: Path) -> None:
    """Writes config and weights; float16 on disk, float32 once loaded."""
    model.config.dtype = torch.float32
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
