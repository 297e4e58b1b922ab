"""A full-size ViT-B/32 CLIP with random weights, in transformers' format: for speed, no hub.

    python benchmarks/checkpoint.py FOLDER

The tokenizer is the demo model's. A text costs by its number of tokens, whichever they are.
"""

import sys
from pathlib import Path

DEMO_MODEL = Path(__file__).resolve().parents[1] / "demo" / "model"


def make_checkpoint(folder: Path) -> Path:
    """Writes the checkpoint (605 MB in float32) unless it is there; returns the folder."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )  # everything else as transformers has it: ViT-B/32, 224 pixels, 77 tokens, 512 dimensions
    tokenizer.model_max_length = config.text_config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    CLIPModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make_checkpoint(Path(sys.argv[1])))
