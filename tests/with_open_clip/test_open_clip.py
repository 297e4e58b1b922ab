"""open_clip's models against open_clip's own transform, tokenizer and towers, for the same weights.

Run by `make test-open-clip`, in an environment of its own. The weights are random: there is no hub.
"""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoints import WORDS
from support.pickles import Runs
from support.pictures import encoded, noise

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings
from pgclip_workers.models.checkpoint import resolve
from pgclip_workers.models.clip import ClipEncoder
from pgclip_workers.models.open_clip_checkpoint import OpenClipCheckpoint, _Memory
from pgclip_workers.pictures.decode import Pixels, decode
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.sources import Limits

open_clip = pytest.importorskip("open_clip", minversion="3")

SHAPES = [
    (224, 224),
    (225, 224),
    (229, 224),
    (50, 31),
    (31, 200),
    (120, 90),
    (640, 360),
    (300, 299),
]
# After the resize to 224 the long side is 3, 7 and 111 longer than the crop.
UNEVEN = [(227, 224), (224, 231), (640, 427)]
PICTURES = [encoded(noise(n, *shape), "PNG") for n, shape in enumerate(SHAPES)]
TEXTS = [" ".join(WORDS.split()[n : 2 * n + 3]) for n in range(7)]
ODD = ["", "  A   Cat\n", "Tom &amp; Jerry's, 1984!", "naïve façade 🐈", "über_cool"]
LONG = " ".join(WORDS.split() * 15)
# Exact but for the order of sums, or for 8 bits of mantissa.
LIMIT = {"float32": 0.9999, "bfloat16": 0.999}

SQUASHED = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
TOWER = {"width": 64, "layers": 2}


def resnet(folder: Path) -> str:
    """Calibrated, and with the small residuals of a trained one: else it is chaotic."""
    model = open_clip.create_model("RN50")
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):
            parameter.data.fill_(0.2)
    for each in model.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.momentum = None  # so that its statistics become the batch's
    pixels = torch.stack([torch.tensor(np.asarray(noise(n, 224, 224))) for n in range(16)])
    with torch.no_grad():
        model.train().encode_image(pixels.permute(0, 3, 1, 2) / 64 - 2)
    return built_in("RN50", model, folder)


def vit(folder: Path) -> str:
    return built_in("ViT-B-32", open_clip.create_model("ViT-B-32"), folder)


def built_in(name: str, model: torch.nn.Module, folder: Path) -> str:
    path = folder / "weights.pt"
    torch.save(spread(model).half().state_dict(), path)  # as OpenAI's are
    return f"{name}/{path}"


def siglip(folder: Path) -> str:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map", "timm_proj": "none"}
    text = {
        "context_length": 64, "width": 192, "heads": 3, "layers": 2, "no_causal_mask": True,
        "pool_type": "last", "proj_bias": True, "act_kwargs": {"approximate": "tanh"},
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }  # fmt: skip
    config = {"embed_dim": 192, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}
    return local(folder, config, {**SQUASHED, "interpolation": "bicubic"}, hub_tokenizer(), 2)


def clipa(folder: Path) -> str:
    from transformers import BertTokenizer

    letters = sorted(set("abcdefghijklmnopqrstuvwxyz"))
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*marks, *letters, *("##" + each for each in letters)]
    tokenizer = BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)})
    text = {
        **TOWER, "context_length": 32, "heads": 2, "no_causal_mask": True, "pool_type": "last",
        "tokenizer_kwargs": {"strip_sep_token": True},
    }  # fmt: skip
    vision = {**TOWER, "image_size": 224, "patch_size": 32, "head_width": 32, "pool_type": "avg"}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    return local(folder, config, {**SQUASHED, "interpolation": "bilinear"}, tokenizer, 2)


def roberta(folder: Path) -> str:
    """With a text tower of transformers, as the multilingual models have."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    tower = XLMRobertaConfig(vocab_size=600, num_attention_heads=2, **sizes, **ids)
    XLMRobertaModel(tower).save_pretrained(folder / "tower")
    text = {"hf_model_name": str(folder / "tower"), "context_length": 77}
    vision = {**TOWER, "image_size": 224, "patch_size": 32, "head_width": 32}
    config = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    return local(folder, config, {"interpolation": "bicubic"}, hub_tokenizer(), 2)


def local(
    folder: Path, config: dict[str, Any], rules: dict[str, Any], tokenizer: Any, factor: float
) -> str:
    tokenizer.save_pretrained(folder)
    text = {"vocab_size": 600, "hf_tokenizer_name": "in this folder", **config["text_cfg"]}
    config = {"custom_text": True, **config, "text_cfg": text}
    settings = {"model_cfg": config, "preprocess_cfg": rules}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    model = open_clip.create_model(f"local-dir:{folder}")
    torch.save(spread(model, factor).state_dict(), folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


def hub_tokenizer() -> Any:
    """Like T5's: nothing before a text, and what ends it is what it is padded with."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )


def spread(model: torch.nn.Module, factor: float = 2) -> torch.nn.Module:
    # As they come, random towers map everything to nearly one direction.
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name and "attnpool" not in name:
            parameter.data *= factor
    return model


MAKERS: dict[str, Callable[[Path], str]] = {
    each.__name__: each for each in (resnet, vit, siglip, clipa, roberta)
}


@dataclass(frozen=True)
class Reference:
    """A model's name behind open_clip:, and what open_clip makes of the test's inputs."""

    name: str
    transform: Any
    tokenizer: Any
    images: "np.ndarray[Any, Any]"
    texts: "np.ndarray[Any, Any]"
    logits: "np.ndarray[Any, Any]"


@pytest.fixture(scope="module", params=MAKERS)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    name = MAKERS[request.param](folder)
    model, weights = (name, None) if name.startswith("local-dir:") else name.split("/", 1)
    module, _, transform = open_clip.create_model_and_transforms(model, pretrained=weights)
    tokenizer = open_clip.get_tokenizer(model)
    pixels = torch.stack([transform(Image.open(io.BytesIO(data))) for data in PICTURES])
    with torch.inference_mode():
        images = module.eval().encode_image(pixels, normalize=True)
        texts = module.encode_text(tokenizer(TEXTS), normalize=True)
        logits, _ = module.get_logits(pixels, tokenizer(TEXTS))
    yield Reference(name, transform, tokenizer, *(each.numpy() for each in (images, texts, logits)))
    encoder_of.cache_clear()
    for path in folder.rglob("*.pt"):
        path.unlink()


@cache
def encoder_of(name: str, precision: str = "float32", batch_size: int = 4) -> ClipEncoder:
    settings = Settings.load(
        {},
        model=f"open_clip:{name}",
        fast_decode=False,
        precision=precision,
        batch_size=batch_size,
        device="cpu",
    )
    return ClipEncoder(settings)


def pixels_of(data: bytes, rules: Preprocessing) -> Any:
    decoded = decode(data, None, rules, Limits(10**7, 10**7))
    assert isinstance(decoded, Pixels)
    return decoded.array


@pytest.mark.parametrize("precision", LIMIT)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_vectors_are_the_references(reference: Reference, precision: str, batch_size: int) -> None:
    encoder = encoder_of(reference.name, precision, batch_size)
    images = encoder.encode_images([pixels_of(data, encoder.preprocessing) for data in PICTURES])
    windows = encoder.encode_texts(TEXTS)
    assert [each.shape for each in windows] == [(1, encoder.dimension)] * len(TEXTS)
    for ours, theirs in ((images, reference.images), (np.concatenate(windows), reference.texts)):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        found = (ours * theirs).sum(axis=1).min()
        print(f"least cosine {found:.6f}, of others {(theirs[1:] * theirs[:-1]).sum(axis=1).max()}")
        assert found >= LIMIT[precision]
        # The reference's differ among themselves, so that a cosine near 1 means something.
        assert (theirs[1:] * theirs[:-1]).sum(axis=1).max() < 0.999


def test_logits_are_the_references(reference: Reference) -> None:
    encoder = encoder_of(reference.name)
    images = encoder.encode_images([pixels_of(data, encoder.preprocessing) for data in PICTURES])
    logits = encoder.logit_scale * images @ np.concatenate(encoder.encode_texts(TEXTS)).T
    np.testing.assert_allclose(logits + (encoder.logit_bias or 0), reference.logits, atol=1e-3)
    assert encoder.logit_bias == (-10 if "siglip" in reference.name else None)


@pytest.mark.parametrize("shape", [*SHAPES, *UNEVEN])
def test_pixels_are_the_references(reference: Reference, shape: tuple[int, int]) -> None:
    data = encoded(noise(7, *shape), "PNG")
    ours = pixels_of(data, encoder_of(reference.name).preprocessing)
    image = Image.open(io.BytesIO(data))
    for step in reference.transform.transforms[:-2]:  # all but to_tensor and normalize
        image = step(image)
    np.testing.assert_array_equal(ours, np.asarray(image))


def test_tokens_are_the_references(reference: Reference) -> None:
    checkpoint = encoder_of(reference.name)._checkpoint
    texts = [*TEXTS, *ODD]
    windows, owners = checkpoint.tokenize(texts)
    assert owners == list(range(len(texts)))
    padded = checkpoint.pad(windows)["input_ids"]
    assert padded.dtype == torch.int64
    assert padded.tolist() == reference.tokenizer(texts).tolist()


def test_the_names_of_marks_are_text(reference: Reference) -> None:
    encoder = encoder_of(reference.name)
    checkpoint = encoder._checkpoint
    marks = {*checkpoint._windows._before, *checkpoint._windows._after}
    (plain,), _ = checkpoint.tokenize([TEXTS[0]])
    for name in ("<start_of_text>", "<end_of_text>", "</s>", "[SEP]", "[CLS]", "[PAD]"):
        pair = [f"{TEXTS[0]}{name}{TEXTS[1]}", f"{TEXTS[0]}{name}{TEXTS[2]}"]
        windows, _ = checkpoint.tokenize(pair)
        for mark in marks:
            assert {window.count(mark) for window in windows} == {plain.count(mark)}
        one, other = encoder.encode_texts(pair)
        assert one.shape != other.shape or np.abs(one - other).max() > 1e-4


def test_a_long_text_has_overlapping_windows(reference: Reference) -> None:
    encoder = encoder_of(reference.name)
    checkpoint = encoder._checkpoint
    windows, owners = checkpoint.tokenize([TEXTS[0], LONG])
    assert owners == [0] + [1] * (len(windows) - 1)
    assert len(windows) > 3
    padded = checkpoint.pad(windows)["input_ids"]
    assert padded.shape == (len(windows), checkpoint.context)
    assert padded[:2].tolist() == reference.tokenizer([TEXTS[0], LONG]).tolist()
    overlap = min(16, checkpoint.context // 4)
    first, second = windows[1][:-1], windows[2]
    assert any(second[n : n + overlap] == first[-overlap:] for n in (0, 1))
    short, long = encoder.encode_texts([TEXTS[0], LONG])
    assert (len(short), len(long)) == (1, len(windows) - 1)


def test_the_name_is_kept(reference: Reference) -> None:
    assert encoder_of(reference.name).fingerprint["recorded"]["source"] == (
        f"open_clip:{reference.name}"
    )


def test_names_that_people_know() -> None:
    assert resolve("RN50") == "open_clip:RN50/openai"
    assert resolve("RN50x64") == "open_clip:RN50x64/openai"


def test_weights_trained_with_quick_gelu_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: "a file")
    monkeypatch.setattr(open_clip.factory, "load_checkpoint", lambda *_, **__: None)
    for name, activation in (("RN50/openai", "QuickGELU"), ("ViT-B-32/laion2b_e16", "GELU")):
        module = OpenClipCheckpoint(name, fast_decode=False).module
        assert type(module.transformer.resblocks[0].mlp.gelu).__name__ == activation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN51/openai", "has no model 'RN51'; there are RN50"),
        ("ViT-B/32", "has no model 'ViT-B'; there are ViT-B-"),
        ("RN50", "after RN50/ comes a file or a tag .*openai.*, not ''"),
        ("RN50/nowhere", "not 'nowhere'"),
        ("RN50//no/such/file.pt", "not '/no/such/file.pt'"),
        ("local-dir:/no/such/folder", "not found"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        OpenClipCheckpoint(name, fast_decode=True)
    assert str(caught.value).startswith(f"PGCLIP_MODEL='open_clip:{name}' can't be loaded")


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pgclip\[open-clip\]'"):
        OpenClipCheckpoint("RN50/openai", fast_decode=True)


def test_files_that_are_no_weights_of_the_model(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"not weights")
    others = tmp_path / "others.pt"
    torch.save({"x": torch.ones(1)}, others)
    for path in (garbage, others):
        with pytest.raises(ConfigurationError, match="can't be loaded"):
            OpenClipCheckpoint(f"ViT-S-32/{path}", fast_decode=True)


def test_what_is_pickled_beside_weights_does_not_run(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"x": torch.ones(1), "more": Runs(tmp_path / "ran")}, weights)
    with pytest.raises(ConfigurationError, match="can't be loaded"):
        OpenClipCheckpoint(f"ViT-S-32/{weights}", fast_decode=True)
    assert not (tmp_path / "ran").exists()


def test_folders_that_are_refused(tmp_path: Path) -> None:
    name = clipa(tmp_path)
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"]["resize_mode"] = "longest"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="resize mode 'longest' to 224 × 224"):
        OpenClipCheckpoint(name, fast_decode=True)
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"weights .* could not be loaded"):
        OpenClipCheckpoint(name, fast_decode=True)


def test_words_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgclip_workers.models.open_clip_checkpoint._WORDS", 2)
    memory = _Memory({"a": "a", "b": "b"})
    memory["c"] = "c"
    assert memory == {"a": "a", "b": "b"}
