"""People's texts as token ids: the name of a model's mark, in a text, is text like any other."""

from collections.abc import Sequence
from typing import Any


class PlainText:
    """A tokenizer of transformers, uncut, that finds none of its marks in a text.

    It would: "<|endoftext|>" in a text ends it there, and what follows is in no vector.

    `replaced` says by which id one is replaced that comes about nevertheless: a vocabulary may have
    its marks among the pieces of words, as XLM-RoBERTa's has.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        marks = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        unknown = tokenizer.unk_token_id
        marks.pop(tokenizer.unk_token, None)
        ids = self.ids(["", *marks])
        around = ids[0]
        self.replaced: dict[int, int] = {
            mark: unknown
            for mark, found in zip(marks.values(), ids[1:], strict=True)
            if unknown is not None and found.count(mark) > around.count(mark)
        }

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the model's own marks around each text."""
        # Longer than the context is expected here; the tokenizer need not warn of it.
        tokens = self._tokenizer(
            list(texts), split_special_tokens=True, truncation=False, padding=False, verbose=False
        )
        ids: list[list[int]] = tokens["input_ids"]
        return ids
