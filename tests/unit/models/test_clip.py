"""A model by its name, what the checkpoint says, windows, and inputs that fail."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoints import WORDS, make_tokenizer
from support.pictures import encoded, jpeg, noise
from support.places import DEMO_MODEL

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings
from pgclip_workers.models.checkpoint import resolve
from pgclip_workers.models.clip import ClipEncoder
from pgclip_workers.models.encoder import DeviceLost
from pgclip_workers.pictures.decode import Pixels, decode
from pgclip_workers.pictures.sources import Limits
from pgclip_workers.pipeline.batch import Batch, ContentId, Job
from pgclip_workers.pipeline.encode import encode


def make(folder: Path, **settings: Any) -> ClipEncoder:
    return ClipEncoder(Settings.load({}, model=str(folder), fast_decode=False, **settings))


def test_what_the_checkpoint_says(random_clip: Path) -> None:
    encoder = make(random_clip)
    assert encoder.name == random_clip.name
    assert encoder.dimension == 32
    assert encoder.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-3)
    assert make(random_clip).fingerprint == encoder.fingerprint
    assert make(random_clip, model_name="mine").name == "mine"
    other = ClipEncoder(Settings.load({}, model=str(random_clip), fast_decode=True))
    assert other.fingerprint["fatal"] != encoder.fingerprint["fatal"]


def test_windows_overlap(random_clip: Path) -> None:
    encoder = make(random_clip, precision="float32")
    long = " ".join(WORDS.split() * 15)
    short, windows, alone = encoder.encode_texts([WORDS, long, "cat"])
    assert short.shape == alone.shape == (1, 32)
    assert len(windows) > 3
    ids, _ = encoder._checkpoint.tokenize([long])
    assert {ids[0][0], ids[1][0]} == {0}
    assert {ids[0][-1], ids[1][-1]} == {1}
    assert ids[0][-17:-1] == ids[1][1:17]
    tokens = encoder._checkpoint._tokenizer(long)["input_ids"]
    assert ids[0] == [*tokens[:76], 1]
    together = [ids[0], *(each[17:] if n else each[1:] for n, each in enumerate(ids[1:], 1))]
    assert [each for window in together for each in window if each not in (0, 1)] == tokens[1:-1]


def test_a_text_that_just_fits_is_one_window(random_clip: Path) -> None:
    encoder = make(random_clip)
    for body, windows in ((75, 1), (76, 2), (75 + 59, 2), (75 + 60, 3)):
        assert len(encoder._checkpoint._windows.cut([0, *[5] * body, 1])) == windows


def test_names_that_people_know() -> None:
    assert resolve("ViT-B/32") == "openai/clip-vit-base-patch32"
    assert resolve("ViT-L/14@336px") == "openai/clip-vit-large-patch14-336"
    assert resolve("RN50") == "open_clip:RN50/openai"
    assert resolve("google/siglip-base-patch16-224") == "google/siglip-base-patch16-224"


def test_a_model_without_shared_vectors(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, CLIPImageProcessorPil

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=600, intermediate_size=32, **sizes)).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    CLIPImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="is bert, which has no vectors"):
        make(tmp_path)


@pytest.mark.parametrize("size", [(640, 480), (1300, 1000), (4032, 3024), (900, 2100)])
def test_fast_decoding_keeps_the_vector(size: tuple[int, int]) -> None:
    data = jpeg(3, *size)
    full, fast = (
        ClipEncoder(Settings.load({}, model=str(DEMO_MODEL), fast_decode=on, precision="float32"))
        for on in (False, True)
    )
    vectors = []
    for encoder in (full, fast):
        decoded = decode(data, None, encoder.preprocessing, Limits(10**7, 10**8))
        assert isinstance(decoded, Pixels)
        vectors.append(encoder.encode_images([decoded.array])[0])
    assert float(vectors[0] @ vectors[1]) >= 0.999


def test_a_fast_resize_keeps_the_vector_as_a_precision_does() -> None:
    """Vectors of a full and of a fast resize may stand side by side."""
    encoder = ClipEncoder(Settings.load({}, model=str(DEMO_MODEL), precision="float32"))
    random = np.random.default_rng(1)
    grain = random.normal(0, 9, (427, 640, 1))
    checks = np.indices((427, 640)).sum(axis=0)[..., None]
    pictures = [np.asarray(noise(n, 640, 427)) + grain for n in range(8)]
    pictures += [random.integers(0, 256, (427, 640, 3))]
    pictures += [np.repeat(checks // side % 2 * 255, 3, axis=2) for side in (1, 2, 3, 5)]
    vectors = []
    for fast in (False, True):
        rules = replace(encoder.preprocessing, fast_decode=fast)
        files = (encoded(Image.fromarray(each.clip(0, 255).astype(np.uint8)), "PNG")
                 for each in pictures)  # fmt: skip
        decoded = [decode(data, None, rules, Limits(10**7, 10**8)) for data in files]
        vectors.append(encoder.encode_images([d.array for d in decoded if isinstance(d, Pixels)]))
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    assert len(cosines) == len(pictures)
    assert cosines[:8].min() >= 1 - 2e-5  # photographs
    assert cosines.min() >= 1 - 1e-4
    assert (vectors[0] != vectors[1]).any()


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

    monkeypatch.setattr(encoder._checkpoint, "text_features", planted)
    batch = batch_of(["a", "b"])
    with pytest.raises(DeviceLost):
        encode(batch, encoder)
    assert batch.failures == {}
