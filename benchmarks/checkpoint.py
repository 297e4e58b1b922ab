"""A full-size ViT-B/32 CLIP with random weights, in transformers' format: for speed, no hub.

    python benchmarks/checkpoint.py FOLDER

The tokenizer is the demo model's. A text costs by its number of tokens, whichever they are.
"""

import sys
from pathlib import Path

DEMO_MODEL = Path(__file__).resolve().parents[1] / "demo" / "model"


# What differs from transformers' defaults, which are ViT-B/32: 224 pixels, 77 tokens and 512
# dimensions.
_SIZES: dict[str, dict[str, dict[str, int]]] = {
    "ViT-B-32": {"text": {}, "vision": {}, "both": {}},
    "ViT-L-14": {
        "text": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
        },
        "both": {"projection_dim": 768},
    },
}


def make_checkpoint(folder: Path, model: str = "ViT-B-32") -> Path:
    """Writes the checkpoint (B/32 605 MB in float32) unless it is there; returns the folder."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    torch.manual_seed(0)
    size = _SIZES[model]
    config = CLIPConfig(
        vision_config=size["vision"],
        text_config={
            **size["text"],
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        **size["both"],
    )
    tokenizer.model_max_length = config.text_config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    CLIPModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make_checkpoint(Path(sys.argv[1])))
