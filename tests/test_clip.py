"""Vectors against transformers' own model and processor, for the same weights."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import WORDS
from pictures import encoded, noise
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings
from pgclip_workers.batch import Batch, ContentId, Job
from pgclip_workers.clip import ClipEncoder
from pgclip_workers.decode import Pixels, decode
from pgclip_workers.encode import encode
from pgclip_workers.encoder import DeviceLost, TooLarge
from pgclip_workers.sources import Limits

PICTURES = [encoded(noise(n, 50 + 7 * n, 80 - 3 * n), "PNG") for n in range(9)]
TEXTS = [" ".join(WORDS.split()[n : 2 * n + 3]) for n in range(9)]
# Cosines to the reference: exact but for the order of sums, or for 8 bits of mantissa.
LIMIT = {"float32": 0.9999, "bfloat16": 0.999}


def make(folder: Path, **settings: Any) -> ClipEncoder:
    return ClipEncoder(Settings.load({}, model=str(folder), fast_decode=False, **settings))


def cosines(ours: Any, reference: torch.Tensor) -> "np.ndarray[Any, Any]":
    unit = torch.nn.functional.normalize(reference, dim=-1).numpy()
    return np.asarray((np.asarray(ours) * unit).sum(axis=1))


@pytest.fixture(scope="module")
def reference(random_clip: Path) -> dict[str, torch.Tensor]:
    model = AutoModel.from_pretrained(random_clip)
    processor = AutoImageProcessor.from_pretrained(random_clip)
    tokenizer = AutoTokenizer.from_pretrained(random_clip)
    images = [Image.open(io.BytesIO(data)) for data in PICTURES]
    with torch.inference_mode():
        pixels = processor(images, return_tensors="pt")
        tokens = tokenizer(TEXTS, return_tensors="pt", padding="max_length")
        return {
            "images": model.get_image_features(**pixels).pooler_output,
            "texts": model.get_text_features(**tokens).pooler_output,
        }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_vectors_are_the_references(
    random_clip: Path, reference: dict[str, torch.Tensor], precision: str, batch_size: int
) -> None:
    encoder = make(random_clip, precision=precision, batch_size=batch_size)
    pixels = []
    for data in PICTURES:
        decoded = decode(data, None, encoder.preprocessing, Limits(10**6, 10**6, ()))
        assert isinstance(decoded, Pixels)
        pixels.append(decoded.array)
    images = encoder.encode_images(pixels)
    texts = np.concatenate(encoder.encode_texts(TEXTS))
    for ours, theirs in ((images, reference["images"]), (texts, reference["texts"])):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        assert cosines(ours, theirs).min() >= LIMIT[precision]
    # The reference's vectors differ among themselves, so that a cosine near 1 means something.
    assert cosines(images[1:], reference["images"][:-1]).max() < 0.999


def test_what_the_checkpoint_says(random_clip: Path) -> None:
    encoder = make(random_clip)
    assert encoder.name == random_clip.name
    assert encoder.dimension == 32
    assert encoder.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-3)
    assert make(random_clip).fingerprint == encoder.fingerprint
    assert make(random_clip, model_name="mine").name == "mine"
    other = ClipEncoder(Settings.load({}, model=str(random_clip), fast_decode=True))
    assert other.fingerprint["fatal"] != encoder.fingerprint["fatal"]


def test_a_long_text_has_overlapping_windows(random_clip: Path) -> None:
    encoder = make(random_clip, precision="float32")
    long = " ".join(WORDS.split() * 15)
    short, windows, alone = encoder.encode_texts([WORDS, long, "cat"])
    assert short.shape == alone.shape == (1, 32)
    assert len(windows) > 3
    tokens = encoder._tokenizer(long)["input_ids"]
    first = encoder._encode_tokens([[*tokens[:76], tokens[-1]]])
    assert float(first[0] @ windows[0]) == pytest.approx(1, abs=1e-5)


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be loaded"):
        make(tmp_path)


def batch_of(texts: list[str]) -> Batch:
    ids = [ContentId("text", bytes([n]) * 32) for n in range(len(texts))]
    jobs = [Job(n, n, "c", f"k{n}", "text", ids[n].hash, None) for n in range(len(texts))]
    return Batch(
        lease=__import__("uuid").uuid4(),
        jobs=jobs,
        content_of=dict(enumerate(ids)),
        texts=dict(zip(ids, texts, strict=True)),
    )


def test_out_of_memory_halves_the_batch(random_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make(random_clip, precision="float32")
    whole = np.concatenate(encoder.encode_texts(TEXTS))
    original = encoder._encode_tokens
    sizes: list[int] = []

    def planted(ids: list[list[int]]) -> Any:
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("planted")
        return original(ids)

    monkeypatch.setattr(encoder, "_encode_tokens", planted)
    np.testing.assert_allclose(np.concatenate(encoder.encode_texts(TEXTS)), whole, atol=1e-5)
    assert sizes[:3] == [9, 4, 2]

    def never(ids: list[list[int]]) -> Any:
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(encoder, "_encode_tokens", never)
    with pytest.raises(TooLarge):
        encoder.encode_texts(["x"])


def test_one_input_that_fails_does_not_hurt_the_others(
    random_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(random_clip, precision="float32")
    original = encoder.encode_texts

    def planted(texts: Any) -> Any:
        if "bad" in texts:
            raise RuntimeError("planted")
        vectors = original(texts)
        return [v * np.nan if text == "nan" else v for text, v in zip(texts, vectors, strict=True)]

    monkeypatch.setattr(encoder, "encode_texts", planted)
    batch = batch_of(["a", "b", "bad", "c", "nan"])
    encode(batch, encoder)
    assert {n: failure.reason for n, failure in batch.failures.items()} == {
        2: "encoding_failed", 4: "not_finite",
    }  # fmt: skip
    assert [job.id for job in batch.done()] == [0, 1, 3]


def test_a_lost_device_is_nobodys_fault(random_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make(random_clip)

    def planted(ids: Any) -> Any:
        raise torch.AcceleratorError("device-side assert triggered")

    monkeypatch.setattr(encoder, "_encode_tokens", planted)
    batch = batch_of(["a", "b"])
    with pytest.raises(DeviceLost):
        encode(batch, encoder)
    assert batch.failures == {}
