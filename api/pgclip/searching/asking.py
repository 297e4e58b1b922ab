"""What a client offers for asking about one thing, and about each of many."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pgclip import statements
from pgclip.arguments import (
    collection_name,
    filter_json,
    kind_of,
    name_text,
    text,
    text_list,
    whole_number,
)
from pgclip.errors import InvalidItem
from pgclip.items import Choice, Classified, Hit, Kind, Similarity
from pgclip.searching.queries import Like, Picture, is_picture, item_of, query_text
from pgclip.searching.search import Searching, asked_again
from pgclip.submitting.pictures import query_image

# Items that one transaction classifies.
_PAGE = 1000

# A key with its collection, a text, a picture: the one that is asked about, the others None.
_Thing = tuple[str | None, str, str | None, bytes | None]


class Asking(Searching):
    """The part of Client that asks about one thing: an item, a text or a picture.

    On stored vectors and the model's own scale; what is not stored yet is encoded once, as queries
    are. Of an item with several vectors their mean counts.
    """

    @asked_again
    def similarity(
        self,
        key: str | Path | Like | None = None,
        other: str | Picture | Like | None = None,
        *,
        query: str | None = None,
        image: Picture | None = None,
        collection: str = "default",
        timeout: float = 10.0,
    ) -> Similarity:
        """How like each other two are: the cosine, and its relevance once calibrated.

        One is an item (its key), or query=… (a text), or image=…; the other a text, a picture, or
        an item (Like). Raises InvalidItem, NotFound, QueryFailed.
        """
        one = self._thing(key, collection, query, image, timeout)
        if isinstance(other, Like):
            with_key, within = item_of(other)
            another: _Thing = (with_key, within, None, None)
        else:
            picture = is_picture(other)
            words = None if picture else query_text(other)
            another = self._thing(
                None,
                collection,
                words,
                other if picture else None,
                timeout,
            )
        row = self._row(statements.SIMILARITY, (*one, *another), "similarity")
        return Similarity(*row)

    @asked_again
    def classify(
        self,
        key: str | Path | Like | None = None,
        labels: Iterable[str] = (),
        *,
        template: str = "{}",
        query: str | None = None,
        image: Picture | None = None,
        collection: str = "default",
        timeout: float = 10.0,
    ) -> list[Choice]:
        """Which of some labels fits an item, a text or a picture; the most probable first.

        `template` has {} where a label goes. Probabilities are the model's own: a softmax over the
        labels, or a sigmoid for each where the model was trained so (SigLIP). Raises InvalidItem,
        NotFound, QueryFailed.
        """
        thing = self._thing(key, collection, query, image, timeout)
        words = self._embed_prompts(statements.PROMPTS, labels, template, timeout)
        arguments = (*thing, words, template)
        (probabilities,) = self._row(statements.CLASSIFY, arguments, "classification")
        choices = map(Choice, words, probabilities)
        return sorted(choices, key=lambda choice: -choice.probability)

    def classify_items(
        self,
        labels: Iterable[str],
        *,
        template: str = "{}",
        collection: str | None = None,
        kind: Kind | None = None,
        filter: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
    ) -> Iterator[Classified]:
        """Each item that matches and has a vector, with its probabilities, in pages as it is read.

        Raises InvalidItem, NotFound, QueryFailed.
        """
        narrowing = (collection_name(collection), kind_of(kind), filter_json(filter))
        words = self._embed_prompts(statements.PROMPTS, labels, template, timeout)
        return self._classified(words, template, narrowing)

    @asked_again
    def answer(
        self,
        key: str | Path | Like | None = None,
        question: str = "",
        answers: Iterable[str] = (),
        *,
        query: str | None = None,
        image: Picture | None = None,
        collection: str = "default",
        timeout: float = 10.0,
    ) -> list[Choice]:
        """Which of some answers to a question fits, the most probable first.

        Each is read together with the question. So is none of them, whose name is None: its
        probability is that of the question alone. Raises InvalidItem, NotFound, QueryFailed.
        """
        thing = self._thing(key, collection, query, image, timeout)
        asked = query_text(question)
        words = self._embed_prompts(statements.QUESTION_PROMPTS, answers, asked, timeout)
        with self._database.transaction("answer") as cursor:
            cursor.execute(statements.ANSWER, (*thing, asked, words))
            return [Choice(*row) for row in cursor.fetchall()]

    @asked_again
    def captions(
        self,
        key: str | Path | Like | None = None,
        *,
        image: Picture | None = None,
        collection: str = "captions",
        of_collection: str = "default",
        k: int = 3,
        timeout: float = 10.0,
    ) -> list[Hit]:
        """What could be said of an item or a picture: the nearest texts of a collection.

        Raises InvalidItem, NotFound, QueryFailed.
        """
        key, within, _, picture = self._thing(key, of_collection, None, image, timeout)
        bank = name_text(collection, "collection")
        arguments = (key, bank, whole_number(k, "k"), picture, within)
        return self._hits(statements.CAPTIONS, arguments, "captions")

    def _classified(
        self, labels: list[str], template: str, narrowing: tuple[Any, ...]
    ) -> Iterator[Classified]:
        last = 0
        while True:
            with self._database.transaction("classification") as cursor:
                arguments = (labels, template, *narrowing, last, _PAGE)
                cursor.execute(statements.CLASSIFY_ITEMS, arguments)
                rows = cursor.fetchall()
            for item, collection, key, label, probability, all_of_them in rows:
                each = dict(zip(labels, all_of_them, strict=True))
                yield Classified(item, collection, key, label, probability, each)
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def _thing(
        self, key: object, collection: str, words: object, image: object, timeout: float
    ) -> _Thing:
        """What is asked about, encoded if it is not stored."""
        if sum(given is not None for given in (key, words, image)) != 1:
            raise InvalidItem("ask about one of: an item's key, query=…, image=…")
        if key is not None:
            return (*item_of(key, collection), None, None)  # type: ignore[arg-type]
        if words is not None:
            asked = query_text(words)
            self._embed(asked, timeout)
            return None, collection, asked, None
        picture = query_image(image)
        self._embed(picture, timeout)
        return None, collection, None, picture

    def _embed_prompts(
        self, statement: str, labels: object, around: object, timeout: float
    ) -> list[str]:
        """Has the texts encoded that some labels stand for, all at once; returns the labels.

        `around`: a template, or a question. Raises InvalidItem.
        """
        words = list(dict.fromkeys(text_list(labels, "labels")))
        (prompts,) = self._row(statement, (words, text(around, "asking", "text")), "asking")
        self._embed_all(prompts, timeout)
        return words

    def _row(self, statement: str, arguments: tuple[Any, ...], what: str) -> tuple[Any, ...]:
        with self._database.transaction(what) as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchone() or ()
