"""The model made faster on a processor is the same model."""

from pathlib import Path

import pytest
import torch
from support.families import VISION, make_family
from torch import nn

from pgclip.settings import Settings
from pgclip_workers.models import packed
from pgclip_workers.models.clip import ClipEncoder
from pgclip_workers.models.first_token import FirstTokenLayer
from pgclip_workers.models.packed import PackedLinear, pack
from pgclip_workers.models.patches import PatchProduct, centred, fold_normalisation
from pgclip_workers.models.swish import turn_into_swish


def encoder_of(folder: Path) -> ClipEncoder:
    return ClipEncoder(Settings.load({}, model=str(folder), precision="float32", device="cpu"))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_feed_forward_blocks(activation: str, dtype: torch.dtype) -> None:
    from transformers.models.clip.modeling_clip import CLIPMLP, CLIPVisionConfig

    torch.manual_seed(0)
    block = CLIPMLP(CLIPVisionConfig(**VISION, hidden_act=activation))
    for parameter in block.parameters():
        parameter.data.normal_(0, 0.2)
    rows = torch.randn(7, 5, 64)
    with torch.inference_mode():
        reference = block(rows)
        turn_into_swish(block)
        found = pack(block, dtype)(rows.to(dtype)).float()
    # oneDNN multiplies in bfloat16 where the processor has AVX-512, and elsewhere says so.
    packs = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert isinstance(block.fc1, PackedLinear) is packs
    tolerance = 1e-4 if dtype == torch.float32 else 0.03
    assert ((found - reference).norm() / reference.norm()).item() < tolerance


def test_what_torch_does_not_offer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed.platform, "machine", lambda: "aarch64")
    layer = nn.Sequential(nn.Linear(4, 4))
    assert type(pack(layer, torch.bfloat16)[0]) is nn.Linear
    assert layer[0].weight.dtype == torch.bfloat16

    monkeypatch.undo()

    def gone(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(PackedLinear, "forward", gone)
    assert type(pack(nn.Sequential(nn.Linear(4, 4)), torch.float32)[0]) is nn.Linear


@pytest.mark.parametrize(
    ("family", "shortened"),
    [("clip", True), ("metaclip_2", True), ("chinese_clip", True), ("siglip", False)],
)
def test_which_towers_end_with_the_first_token(
    family: str, shortened: bool, tmp_path: Path
) -> None:
    encoder = encoder_of(make_family(family, tmp_path / family))
    module: nn.Module = encoder._checkpoint.module
    assert any(isinstance(each, FirstTokenLayer) for each in module.modules()) is shortened
    assert any(isinstance(each, PackedLinear) for each in module.modules())
    assert any(isinstance(each, PatchProduct) for each in module.modules())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (35, 44)])
def test_the_patch_embedding_is_the_convolution_of_normalised_pixels(
    bias: bool, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    model = nn.Module()
    convolution = model.patch_embedding = nn.Conv2d(3, 24, 8, 8, bias=bias)
    factor, offset = torch.rand(3) / 64, torch.randn(3)
    pixels = torch.randint(0, 256, (5, *size, 3)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        normalised = pixels.float() * factor.view(3, 1, 1) + offset.view(3, 1, 1)
        reference = convolution(normalised)
        assert fold_normalisation(model, factor, offset)
        found = model.patch_embedding(centred(pixels, torch.float32))
    torch.testing.assert_close(found, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "other",
    [nn.Linear(192, 24), nn.Conv2d(3, 24, 8, 4), nn.Conv2d(3, 24, 8, 8, padding=1)],
)
def test_other_patch_embeddings_are_left(other: nn.Module) -> None:
    model = nn.Module()
    model.patch_embedding = other
    assert not fold_normalisation(model, torch.ones(3), torch.zeros(3))
    assert model.patch_embedding is other
