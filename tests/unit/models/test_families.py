"""Every family's vectors against transformers' own model and processor, for the same weights."""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoints import WORDS
from support.families import CHINESE, FAMILIES, make_family
from support.pictures import encoded, noise
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from pgclip.settings import Settings
from pgclip_workers.models.clip import ClipEncoder
from pgclip_workers.pictures.decode import Pixels, decode
from pgclip_workers.pictures.sources import Limits

SHAPES = [(50, 80), (57, 77), (64, 64), (200, 31), (31, 200), (120, 90), (33, 32), (300, 299)]
PICTURES = [encoded(noise(n, *shape), "PNG") for n, shape in enumerate(SHAPES)]
TEXTS = [" ".join(WORDS.split()[n : 2 * n + 3]) for n in range(7)]
# Exact but for the order of sums, or for 8 or 11 bits of mantissa.
LIMIT = {"float32": 0.9999, "bfloat16": 0.999, "float16": 0.999}
# How each family's model card pads.
PADDING: dict[str, dict[str, Any]] = {
    "siglip": {"padding": "max_length", "max_length": 64},
    "siglip2": {"padding": "max_length", "max_length": 64},
    "align": {"padding": "max_length", "max_length": 64},
}


@dataclass
class Reference:
    """What transformers makes of the test's pictures and texts: unit vectors and logits."""

    images: "np.ndarray[Any, Any]"
    texts: "np.ndarray[Any, Any]"
    logits: "np.ndarray[Any, Any]"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(family, tmp_path_factory.mktemp("families") / family)


@pytest.fixture(scope="module")
def texts(family: str) -> list[str]:
    return [CHINESE[:n] for n in (1, 4, 9, 15)] if family == "chinese_clip" else TEXTS


@pytest.fixture(scope="module")
def reference(family: str, folder: Path, texts: list[str]) -> Reference:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = [Image.open(io.BytesIO(data)) for data in PICTURES]
    inputs = {
        **processor(images, return_tensors="pt"),
        **tokenizer(texts, return_tensors="pt", **PADDING.get(family, {"padding": True})),
    }
    with torch.inference_mode():
        output = AutoModel.from_pretrained(folder).eval()(**inputs)
    return Reference(
        *(
            torch.nn.functional.normalize(vectors, dim=-1).numpy()
            for vectors in (output.image_embeds, output.text_embeds)
        ),
        logits=output.logits_per_image.numpy(),
    )


@cache
def encoder_of(folder: Path, precision: str, batch_size: int) -> ClipEncoder:
    settings = Settings.load(
        {}, model=str(folder), fast_decode=False, precision=precision, batch_size=batch_size
    )
    return ClipEncoder(settings)


def pixels_of(encoder: ClipEncoder) -> list[Any]:
    decoded = [decode(data, None, encoder.preprocessing, Limits(10**6, 10**6)) for data in PICTURES]
    return [each.array for each in decoded if isinstance(each, Pixels)]


@pytest.mark.parametrize("precision", LIMIT)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_vectors_are_the_references(
    folder: Path, texts: list[str], reference: Reference, precision: str, batch_size: int
) -> None:
    encoder = encoder_of(folder, precision, batch_size)
    images = encoder.encode_images(pixels_of(encoder))
    windows = encoder.encode_texts(texts)
    assert [each.shape for each in windows] == [(1, encoder.dimension)] * len(texts)
    for ours, theirs in ((images, reference.images), (np.concatenate(windows), reference.texts)):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        assert (ours * theirs).sum(axis=1).min() >= LIMIT[precision]
        # The reference's differ among themselves, so that a cosine near 1 means something.
        assert (theirs[1:] * theirs[:-1]).sum(axis=1).max() < 0.999


@pytest.mark.parametrize("precision", LIMIT)
def test_batch_mates_make_no_difference(folder: Path, texts: list[str], precision: str) -> None:
    encoder = encoder_of(folder, precision, 64)
    pixels = pixels_of(encoder)
    together = encoder.encode_images(pixels)
    alone = np.concatenate([encoder.encode_images([each]) for each in pixels])
    assert (together * alone).sum(axis=1).min() >= LIMIT[precision]
    many = encoder.encode_texts([" ".join(texts) * 2, *texts])[1:]
    single = [encoder.encode_texts([text])[0] for text in texts]
    for ours, theirs in zip(many, single, strict=True):
        assert float((ours * theirs).sum()) >= LIMIT[precision]


def test_logits_are_the_references(folder: Path, texts: list[str], reference: Reference) -> None:
    encoder = encoder_of(folder, "float32", 64)
    images = encoder.encode_images(pixels_of(encoder))
    logits = encoder.logit_scale * images @ np.concatenate(encoder.encode_texts(texts)).T
    logits += encoder.logit_bias or 0
    np.testing.assert_allclose(logits, reference.logits, atol=1e-2 * encoder.logit_scale)


def test_sigmoid_or_softmax(family: str, folder: Path) -> None:
    bias = encoder_of(folder, "float32", 64).logit_bias
    assert bias == (-10 if family.startswith("siglip") else None)


def test_a_text_beyond_the_context_has_windows(family: str, folder: Path, texts: list[str]) -> None:
    encoder = encoder_of(folder, "float32", 64)
    context = encoder._checkpoint.context
    assert context == {"clip": 77, "metaclip_2": 77, "chinese_clip": 52}.get(family, 64)
    long = " ".join(texts * 12)
    (vectors,) = encoder.encode_texts([long])
    windows, owners = encoder._checkpoint.tokenize([texts[0], long])
    assert len(vectors) == len(windows) - 1 > 3
    assert owners == [0] + [1] * len(vectors)
    assert all(len(window) == context for window in windows[1:-1])
    assert len(windows[-1]) <= context


def test_the_names_of_marks_are_text(folder: Path, texts: list[str]) -> None:
    """Of those that end or begin a text, and of all others; what follows them counts."""
    encoder = encoder_of(folder, "float32", 64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = [name for name in tokenizer.all_special_tokens if name != tokenizer.unk_token]
    assert names
    (plain,), _ = encoder._checkpoint.tokenize([texts[0]])
    for name in (*names, "＜s＞", "＜／s＞"):  # the full width is folded by some
        between = [f"{texts[0]}{name}{texts[1]}", f"{texts[0]} {name} {texts[2]}"]
        windows, _ = encoder._checkpoint.tokenize([*between, name, " ".join(between * 20)])
        for mark in tokenizer.all_special_ids:
            if mark != tokenizer.unk_token_id:
                assert {window.count(mark) for window in windows} == {plain.count(mark)}
        one, other = encoder.encode_texts(between)
        assert float((one * other).sum()) < 0.99999
