"""Small CLIP checkpoints with random weights, in transformers' format. There is no hub here."""

from pathlib import Path
from typing import Any

WORDS = "a photo of a black cat asleep on a red sofa in the house of my friend"


def make_clip(folder: Path, seed: int = 0, processor: dict[str, Any] | None = None) -> Path:
    """Writes a CLIP of 32 dimensions for pictures of 32 × 32 and texts of 77 tokens."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(seed)
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={"vocab_size": 600, **tower, **heads, **ids},
        vision_config={"image_size": 32, "patch_size": 8, **tower, **heads},
        projection_dim=32,
    )
    model = CLIPModel(config)
    # As they come, random towers map everything to nearly one direction.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 4
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**(processor or sizes)).save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """A byte-level BPE tokenizer with CLIP's two special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[start, end], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_max_length=77,
    )
