"""A checkpoint is data: what is pickled in one does not run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import make_clip
from support.pickles import Runs

from pgclip.errors import ConfigurationError
from pgclip_workers.models.checkpoint import load, weights_hash


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip")


def pickled(clip: Path, **more: Any) -> None:
    """Adds the weights as transformers had them before safetensors."""
    torch.save(load_file(clip / "model.safetensors") | more, clip / "pytorch_model.bin")


def test_safetensors_come_first(clip: Path, tmp_path: Path) -> None:
    pickled(clip, more=Runs(tmp_path / "ran"))
    load(str(clip), True)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_of_tensors_is_loaded(clip: Path) -> None:
    expected = weights_hash(load(str(clip), True).module)
    pickled(clip)
    (clip / "model.safetensors").unlink()
    assert weights_hash(load(str(clip), True).module) == expected


def test_a_pickle_of_anything_else_is_refused(clip: Path, tmp_path: Path) -> None:
    pickled(clip, more=Runs(tmp_path / "ran"))
    (clip / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"Take a checkpoint with model\.safetensors"):
        load(str(clip), True)
    assert not (tmp_path / "ran").exists()
    torch.load(clip / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()  # so it could have
