"""What a client offers for finding things. SQL functions of schema pgclip do the work."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pgclip import statements
from pgclip.arguments import (
    collection_name,
    kind_of,
    number,
    seconds,
    text,
    text_list,
    whole_number,
)
from pgclip.database import Database
from pgclip.errors import InvalidItem, PgclipError, QueryFailed, SchemaError, sqlstate
from pgclip.items import Calibration, Duplicate, Hit, Kind, hit_from
from pgclip.searching.queries import (
    Like,
    Picture,
    Query,
    item_of,
    narrowed,
    query_text,
    search_for,
    search_options,
    text_or_picture,
    vector_numbers,
    weighted_parts,
)
from pgclip.searching.segments import Segment, segments
from pgclip.settings import Settings
from pgclip.submitting.pictures import query_image

if TYPE_CHECKING:
    import numpy as np

# SQLSTATE of a type that is gone, of which Postgres says that its "cache lookup failed".
_INTERNAL = "XX000"
_NO_VECTOR = "PC003"
P = ParamSpec("P")
R = TypeVar("R")


def asked_again(call: Callable[P, R]) -> Callable[P, R]:
    """Of what has something encoded first and asks then: both again, once, if another model has
    come to be the live one between the two."""

    @functools.wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except QueryFailed as error:
            if sqlstate(error) != _NO_VECTOR:
                raise
            return call(*args, **kwargs)

    return run


class Searching:
    """The part of Client that searches."""

    settings: Settings
    _database: Database

    @asked_again
    def search(
        self,
        query: str | Sequence[tuple[Query, float]] | None = None,
        *,
        image: Picture | None = None,
        like: str | Path | Like | None = None,
        k: int = 10,
        collection: str | None = None,
        kind: Kind | None = None,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        exact: bool = False,
        recall: float | None = None,
        after: Hit | None = None,
        model: str | None = None,
        timeout: float = 10.0,
    ) -> list[Hit]:
        """The k items nearest to a text, to a picture, or to the item with the key `like`.

        A query may be several, each with a weight: [("beach", 1.0), ("people", -0.5), (image,
        0.7)]; see pgclip.weigh in SQL. `like` is looked up in `collection`, or in "default".
        A picture is bytes, a binary file, a Pillow image, or a Path that this process reads. A new
        query is encoded by a worker, for which up to `timeout` seconds are waited.

        `collection`, `kind` and `filter` (see docs/search.md) narrow the search; `min_score` (a
        cosine) and `min_relevance` (0 to 1, once calibrated) leave out what does not fit. `after`,
        the last hit of a page, begins the next. `exact` compares every vector; `recall` asks for
        another share of the nearest, on average, than the workers' PGCLIP_RECALL. `model` is
        another than the live one, such as one that is being filled, by its name.
        Raises InvalidItem, NotFound, and QueryFailed if no worker answers.
        """
        if sum(given is not None for given in (query, image, like)) != 1:
            raise InvalidItem("search for one of: a text, weighted queries, image=…, like=…")
        options = search_options(
            k, collection, kind, filter, min_score, min_relevance, exact, recall, after, model
        )
        if like is not None:
            key, within = item_of(like, collection or "default")
            return self._hits(
                statements.SIMILAR, (model, key, within, *options), f"items like {key!r:.100}"
            )
        if query is not None and not isinstance(query, str):
            return self._search_weighted(query, options, timeout, model)
        given = self._embed(text_or_picture(query, image, "search for"), timeout, model)
        statement = statements.SEARCH_TEXT if image is None else statements.SEARCH_IMAGE
        return self._hits(statement, (model, given, *options), search_for(given))

    def search_vector(
        self,
        vector: "Sequence[float] | np.ndarray[Any, Any]",
        *,
        query_kind: Kind | None = None,
        k: int = 10,
        collection: str | None = None,
        kind: Kind | None = None,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        exact: bool = False,
        recall: float | None = None,
        after: Hit | None = None,
        model: str | None = None,
    ) -> list[Hit]:
        """The k items nearest to a vector of shape (dim,), of any length but 0.

        `query_kind`: what it was made of, for the relevance and for how much of an index is
        looked at. Otherwise as in search.
        """
        values = vector_numbers(vector)
        options = search_options(
            k, collection, kind, filter, min_score, min_relevance, exact, recall, after, model
        )
        asked = kind_of(query_kind, "query_kind")
        return self._hits(
            statements.SEARCH_VECTOR, (model, values, *options, asked), "search for a vector"
        )

    @asked_again
    def hybrid(
        self,
        query: str,
        *,
        k: int = 10,
        collection: str | None = None,
        kind: Kind | None = None,
        filter: Mapping[str, Any] | None = None,
        depth: int | None = None,
        timeout: float = 10.0,
    ) -> list[Hit]:
        """The k items that vectors and words together find: reciprocal rank fusion.

        Words are those of texts, and of the metadata chosen with configure_text_search; "quotes"
        and -exclusions begin where a word does. Hits say their rank in both, of which the first
        `depth` count (None: 100, or k). Raises as search does.
        """
        narrowing = narrowed(k, collection, kind, filter)
        depth = None if depth is None else whole_number(depth, "depth")
        given = self._embed(query_text(query), timeout)
        arguments = (given, *narrowing, depth)
        return self._hits(statements.HYBRID, arguments, search_for(given))

    def embed(
        self,
        query: str | None = None,
        *,
        image: Picture | None = None,
        model: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Has a query encoded, so that SQL of your own can call pgclip.search with it.

        By the live model, or the one that is named. Waits up to `timeout` seconds for a worker,
        unless the query was asked before. Raises InvalidItem, and QueryFailed if no worker answers.
        """
        self._embed(text_or_picture(query, image, "embed"), timeout, model)

    def forget_queries(self, query: str | None = None, *, image: Picture | None = None) -> int:
        """Forgets what was asked: vectors, and texts and pictures where they were kept.

        All of it, or one text or picture. Returns how many vectors. The owner of the schema may;
        the next search of each is encoded.
        """
        words = None if query is None else query_text(query)
        picture = None if image is None else query_image(image)
        with self._database.transaction("forgetting queries") as cursor:
            cursor.execute(statements.FORGET_QUERIES, (words, picture))
            (count,) = cursor.fetchone() or (0,)
            return int(count)

    def duplicates_of(
        self,
        key: str | Path,
        *,
        collection: str = "default",
        within: str | None = None,
        min_score: float = 0.9,
        near: float | None = None,
        k: int = 100,
    ) -> list[Duplicate]:
        """Items that an item may be a duplicate of, nearest first, in a collection or in all.

        Tiers: "identical" (the same bytes), "near" (a cosine of `near` or more; None: 0.97, or
        `min_score` if that is more), and "similar" (`min_score`).
        Raises NotFound, QueryFailed, InvalidItem.
        """
        key, collection = item_of(key, collection)
        least, most = number(min_score, "min_score"), whole_number(k, "k")
        arguments = (
            *(key, collection, collection_name(within), least, number(near, "near"), most),
        )
        with self._database.transaction(f"duplicates of {key!r:.100}") as cursor:
            cursor.execute(statements.DUPLICATES_OF, arguments)
            return [Duplicate(*row) for row in cursor.fetchall()]

    def duplicate_groups(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        min_score: float = 0.95,
        near: float | None = None,
        neighbours: int = 20,
        timeout: float = 3600.0,
    ) -> list[list[Duplicate]]:
        """Groups of items that are duplicates of one another, the largest first.

        One search through the index for each content, a few milliseconds each; `timeout` in
        seconds. Of each item the nearest `neighbours` are looked at. Tiers as in duplicates_of.
        """
        arguments = (
            collection_name(collection),
            kind_of(kind),
            number(min_score, "min_score"),
            number(near, "near"),
            whole_number(neighbours, "neighbours"),
        )
        groups: dict[int, list[Duplicate]] = {}
        rows = self._at_length(statements.DUPLICATE_GROUPS, arguments, timeout, "duplicates")
        for group, *row in rows:
            groups.setdefault(group, []).append(Duplicate(*row))
        return list(groups.values())

    def calibrate(self, *, sample: int = 300, timeout: float = 600.0) -> int:
        """Measures how unrelated pairs score, so that hits have a relevance.

        Again after the data have changed a lot. Returns how many directions were calibrated.
        """
        asked = (whole_number(sample, "sample"),)
        ((count,),) = self._at_length(statements.CALIBRATE, asked, timeout, "calibration")
        return int(count)

    def set_calibration(
        self, query_kind: Kind, item_kind: Kind, *, midpoint: float, slope: float
    ) -> None:
        """Says what is relevant: a score of `midpoint` has relevance 0.5, 2 / slope more 0.88."""
        direction = (kind_of(query_kind, "query_kind"), kind_of(item_kind, "item_kind"))
        curve = (number(midpoint, "midpoint"), number(slope, "slope"))
        with self._database.transaction("calibration") as cursor:
            cursor.execute(statements.SET_CALIBRATION, (*direction, *curve))

    def calibrations(self) -> list[Calibration]:
        """Every calibration of every model."""
        with self._database.transaction("calibrations") as cursor:
            cursor.execute(statements.CALIBRATIONS)
            return [Calibration(*row) for row in cursor.fetchall()]

    def index_metadata(self, path: str, *, timeout: float = 3600.0) -> None:
        """Makes an index for ranges of a field of the metadata. Submissions wait meanwhile."""
        what = f"index of {path!r:.100}"
        self._at_length(statements.INDEX_METADATA, (text(path, what, "path"),), timeout, what)

    def drop_metadata_index(self, path: str) -> bool:
        """Drops such an index; returns whether there was one."""
        what = f"index of {path!r:.100}"
        with self._database.transaction(what) as cursor:
            cursor.execute(statements.DROP_METADATA_INDEX, (text(path, what, "path"),))
            return cursor.fetchone() == (True,)

    def configure_text_search(
        self, *, language: str = "english", fields: Sequence[str] = (), timeout: float = 3600.0
    ) -> None:
        """Chooses the language of words, and fields of the metadata whose words count.

        `language` is a text search configuration of Postgres ("simple" for none), `fields` are
        paths such as about.title. All words are indexed anew, and submissions wait for it.
        """
        arguments = (text(language, "text search", "language"), text_list(fields, "fields"))
        self._at_length(statements.CONFIGURE_TEXT_SEARCH, arguments, timeout, "text search")

    def segments(self) -> list[Segment]:
        """Every segment of every model's vectors."""
        return segments(self._database)

    def _search_weighted(
        self,
        parts: Sequence[tuple[Query, float]],
        options: tuple[Any, ...],
        timeout: float,
        model: str | None,
    ) -> list[Hit]:
        vectors: list[tuple[str, tuple[str | bytes | None, ...]]] = []
        weights: list[float] = []
        kinds: set[Kind | None] = set()
        for given, weight in weighted_parts(parts):
            if isinstance(given, tuple):
                vectors.append((statements.ITEM_EMBEDDING, (*given, model)))
                kinds.add(None)
            else:
                self._embed(given, timeout, model)
                is_text = isinstance(given, str)
                embedding = statements.TEXT_EMBEDDING if is_text else statements.IMAGE_EMBEDDING
                vectors.append((embedding, (given, model)))
                kinds.add("text" if is_text else "image")
            weights.append(weight)
        statement = statements.SEARCH_WEIGHTED.format(", ".join(sql for sql, _ in vectors))
        arguments = [value for _, values in vectors for value in values]
        # A relevance is known for queries of one kind.
        kind = kinds.pop() if len(kinds) == 1 else None
        asked = (model, *arguments, weights, *options, kind)
        return self._hits(statement, asked, "weighted search")

    def _embed(self, given: str | bytes, timeout: float, model: str | None = None) -> str | bytes:
        """Has a query encoded; returns it.

        It is asked for and then looked for, in statements of their own: a CALL that waits would
        hold a pooler's session, of which there may be two for everybody.
        """
        timeout = seconds(timeout)
        if not self._request(given, model):
            self._await_embedding(given, timeout, model)
        return given

    def _request(self, given: str | bytes, model: str | None) -> bool:
        """Asks for a query's vector; whether it is there. One that a crash of Postgres loses is
        asked again; nobody waits for the disk."""
        asked = (given, None) if isinstance(given, str) else (None, given)
        with self._database.transaction(search_for(given), synchronous_commit="off") as cursor:
            cursor.execute(statements.REQUEST_EMBEDDING, (*asked, model))
            return cursor.fetchone() == (True,)

    def _embed_all(self, prompts: Sequence[str], timeout: float) -> None:
        """Has texts encoded: asked for together, so that a worker takes them together."""
        end = time.monotonic() + seconds(timeout)
        with self._database.transaction("prompts", synchronous_commit="off") as cursor:
            cursor.execute(statements.REQUEST_EMBEDDINGS, (list(prompts),))
            lacking = [prompt for (prompt,) in cursor.fetchall()]
        for prompt in lacking:  # at least one look at each
            self._await_embedding(prompt, max(0.01, end - time.monotonic()))

    def _await_embedding(
        self, given: str | bytes, timeout: float, model: str | None = None
    ) -> None:
        kind, data = ("text", given.encode()) if isinstance(given, str) else ("image", given)
        asked = (kind, sha256(data).digest(), model)
        begin = time.monotonic()
        while (waited := time.monotonic() - begin) < timeout:
            # A twentieth of the wait so far, so that it gets that much longer at most.
            time.sleep(max(0.001, min(waited / 20, 0.02)))
            with self._database.statements(search_for(given)) as cursor:
                cursor.execute(statements.IS_EMBEDDED, asked)
                (is_there,) = cursor.fetchone() or (None,)
            if is_there is None:  # another model is live now, or Postgres has lost it
                is_there = self._request(given, model)
            if is_there:
                return
        with self._database.statements(search_for(given)) as cursor:
            cursor.execute(statements.RAISE_UNANSWERED, (timeout, model))

    def _hits(self, statement: str, arguments: tuple[Any, ...], what: str) -> list[Hit]:
        try:
            return self._hits_at_once(statement, arguments, what)
        except PgclipError as error:
            # An upgrade of the schema that commits while a search is under way takes functions
            # and types from under it.
            if not isinstance(error, SchemaError) and sqlstate(error) != _INTERNAL:
                raise
            return self._hits_at_once(statement, arguments, what)

    def _hits_at_once(self, statement: str, arguments: tuple[Any, ...], what: str) -> list[Hit]:
        with self._database.transaction(what) as cursor:
            cursor.execute(statement, arguments)
            return [hit_from(row) for row in cursor.fetchall()]

    def _at_length(
        self, statement: str, arguments: tuple[Any, ...], timeout: float, what: str
    ) -> list[tuple[Any, ...]]:
        """A statement's rows, if it takes no longer than `timeout` seconds."""
        with self._database.transaction(what) as cursor:
            cursor.execute(statements.LOCAL_TIMEOUT, (f"{seconds(timeout) * 1000:.0f}",))
            cursor.execute(statement, arguments)
            return cursor.fetchall()
