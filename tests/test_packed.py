"""The model made faster is the same model."""

from pathlib import Path

import pytest
import torch
from families import VISION, make_family
from torch import nn

from pgclip.settings import Settings
from pgclip_workers import packed
from pgclip_workers.clip import ClipEncoder
from pgclip_workers.first_token import FirstTokenLayer
from pgclip_workers.packed import PackedLinear, pack


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
        found = pack(block, dtype)(rows.to(dtype)).float()
    assert isinstance(block.fc1, PackedLinear)
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
