"""The client: submits, follows, searches. Thin: SQL functions of schema pgclip do the work."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pgclip import binarycopy, statements
from pgclip.database import Database
from pgclip.errors import ConnectionFailed, InvalidItem, NotFound
from pgclip.items import Hit, Item, labels_from
from pgclip.jobs import Batch, Job
from pgclip.settings import Settings
from pgclip.submission import (
    Image,
    Kind,
    Submission,
    image_submission,
    query_image,
    query_text,
    submission_from,
    text_submission,
)
from pgclip.tickets import TicketOffice

_CHUNK_ITEMS = 1000
_CHUNK_BYTES = 8 * 2**20
# Larger pictures go by COPY: as a parameter a byte costs three times the processor time.
_INLINE_BYTES = 64 * 2**10


class Client:
    """Submits images and texts, and searches them.

    Settings are keyword arguments (see pgclip.settings) or PGCLIP_* variables; database_url and
    redis_url are needed. Nothing is connected before the first call. Thread-safe. Without Redis
    submissions are accepted all the same and start about a second later.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings.load(**settings)
        self._database = Database(
            self.settings.required("database_url"),
            pool_size=self.settings.pool_size,
            connect_timeout=self.settings.connect_timeout,
        )
        self.settings.required("redis_url")
        self._tickets = TicketOffice(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._tickets.close()
        self._database.close()

    def submit_image(
        self,
        image: Image,
        *,
        key: str | None = None,
        collection: str = "default",
        metadata: Mapping[str, Any] | None = None,
    ) -> Job:
        """Submits a picture: its bytes, or a Path or URL that the worker will read.

        Returns when it is committed. Same key and content: only the metadata change. A key left
        out is made from the content, or is the URL. Limits: key 1 to 1024 bytes, collection 1 to
        200, metadata an object of at most 64 KiB as JSON, picture 64 MiB.
        Raises InvalidItem and ConnectionFailed; nothing was submitted then.
        """
        return self._submit(image_submission(image, key, collection, metadata))

    def submit_text(
        self,
        text: str,
        *,
        key: str | None = None,
        collection: str = "default",
        metadata: Mapping[str, Any] | None = None,
    ) -> Job:
        """Submits a text of at most 256 KiB. Otherwise like submit_image."""
        return self._submit(text_submission(text, key, collection, metadata))

    def submit_many(self, items: Iterable[Mapping[str, Any]]) -> Batch:
        """Submits any number of items, in chunks that are committed one by one.

        Each is a mapping with image= or text=, and key=, collection=, metadata= if wanted.
        Memory stays constant. One that can't be accepted is in the batch's `refused`; the
        others are not affected. Raises ConnectionFailed, which says how many had been accepted.
        """
        batch = Batch(self._database)
        for chunk in _chunks(items, batch):
            try:
                queues = self._submit_chunk(chunk, batch)
            except ConnectionFailed as error:
                raise ConnectionFailed(
                    f"{error} {batch.accepted} items were accepted before; submitting all of "
                    "them again does no harm"
                ) from error
            for queue in queues:
                self._tickets.publish(queue, 1)
        return batch

    def search(
        self,
        query: str | None = None,
        *,
        image: bytes | Path | None = None,
        like: str | None = None,
        k: int = 10,
        collection: str | None = None,
        kind: Kind | None = None,
        timeout: float = 10.0,
    ) -> list[Hit]:
        """The k items nearest to a text, to a picture, or to the item with the key `like`.

        `collection` and `kind` narrow the search; `like` is looked up in that collection, or in
        "default". A picture given as a Path is read by this process. A new query is encoded by a
        worker, for which up to `timeout` seconds are waited.
        Raises InvalidItem, NotFound, and QueryFailed if no worker answers.
        """
        if sum(given is not None for given in (query, image, like)) != 1:
            raise InvalidItem("search for one of: a text, image=…, like=…")
        if like is not None:
            arguments = (like, k, collection or "default", collection, kind)
            return self._hits(statements.SIMILAR, arguments, f"items like {like!r}")
        if image is not None:
            data, embed, search = (
                query_image(image),
                statements.EMBED_IMAGE,
                statements.SEARCH_IMAGE,
            )
            return self._search(embed, search, data, (k, collection, kind), timeout)
        text = query_text(query or "")
        embed, search = statements.EMBED_TEXT, statements.SEARCH_TEXT
        return self._search(embed, search, text, (k, collection, kind), timeout)

    def get(self, key: str, *, collection: str = "default") -> Item:
        """An item with its state, labels and vectors. Raises NotFound."""
        import numpy as np

        what = f"item {key!r} in collection {collection!r}"
        with self._database.transaction(what) as cursor:
            cursor.execute(statements.GET_ITEM, (collection, key))
            row = cursor.fetchone()
        if row is None:
            raise NotFound(f"there is no {what}")
        labels, vectors, *described = row
        array = np.array(vectors, np.float32).reshape(len(vectors), -1 if vectors else 0)
        # Stored in half precision: back to unit norm.
        array /= np.linalg.norm(array, axis=1, keepdims=True)
        return Item(labels_from(labels), array, *described)

    def delete(self, key: str, *, collection: str = "default") -> None:
        """Deletes an item, its vectors and labels, and work for it. Raises NotFound."""
        what = f"item {key!r} in collection {collection!r}"
        with self._database.transaction(what) as cursor:
            cursor.execute(statements.DELETE, (key, collection))
            if cursor.fetchone() != (True,):
                raise NotFound(f"there is no {what}")

    def define_label_set(
        self,
        name: str,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        top_k: int = 3,
        threshold: float = 0.1,
        applies_to: Literal["image", "text", "both"] = "both",
        active: bool = True,
    ) -> None:
        """Creates or replaces a set of zero-shot labels for what is encoded from now on.

        A template holds {} where the label goes; a label's vector is the mean over templates.
        Of each set an item gets at most `top_k` labels of probability ≥ `threshold`.
        Raises InvalidItem.
        """
        arguments = (name, list(labels), templates and list(templates), top_k, threshold)
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DEFINE_LABEL_SET, (*arguments, applies_to, active))

    def drop_label_set(self, name: str) -> None:
        """Deletes a label set and its labels on all items. Raises NotFound."""
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DROP_LABEL_SET, (name,))
            if cursor.fetchone() != (True,):
                raise NotFound(f"there is no label set {name!r}")

    def _submit(self, item: Submission) -> Job:
        if len(item.data or b"") > _INLINE_BYTES:
            return self._submit_large(item)
        with self._database.transaction(str(item)) as cursor:
            if item.kind == "image":
                arguments = (item.key, item.data, item.source, item.collection, item.metadata)
                cursor.execute(statements.SUBMIT_IMAGE, arguments)
            else:
                text = (item.data or b"").decode()
                cursor.execute(
                    statements.SUBMIT_TEXT, (item.key, text, item.collection, item.metadata)
                )
            item_id, key, generation, queues = cursor.fetchone() or ()
        self._tickets.announce(queues)
        return Job(key, item.collection, item_id, generation, self._database)

    def _submit_large(self, item: Submission) -> Job:
        with self._database.transaction(str(item)) as cursor:
            ((_, item_id, key, generation, error),) = _stage(cursor, [(0, item)])
            cursor.execute(statements.TICKET_QUEUES)
            (queues,) = cursor.fetchone() or ([],)
        if error:
            raise InvalidItem(f"{item}: {error}")
        self._tickets.announce(queues)
        return Job(key, item.collection, item_id, generation, self._database)

    def _submit_chunk(self, chunk: list[tuple[int, Submission]], batch: Batch) -> list[str]:
        what = f"items {chunk[0][0]} to {chunk[-1][0]}"
        with self._database.transaction(what) as cursor:
            outcomes = _stage(cursor, chunk)
            cursor.execute(statements.TICKET_QUEUES)
            (queues,) = cursor.fetchone() or ([],)
        submissions = dict(chunk)
        for position, item_id, key, generation, error in outcomes:
            if error:
                batch._refuse(position, key, f"{submissions[position]}: {error}")
            else:
                batch._accept(position, item_id, generation)
        return list(queues)

    def _search(
        self, embed: str, search: str, query: str | bytes, rest: tuple[Any, ...], timeout: float
    ) -> list[Hit]:
        what = f"search for {query!r}" if isinstance(query, str) else "search for an image"
        with self._database.autocommit(what) as cursor:
            cursor.execute(embed, (query, timeout))
        return self._hits(search, (query, *rest), what)

    def _hits(self, statement: str, arguments: tuple[Any, ...], what: str) -> list[Hit]:
        with self._database.transaction(what) as cursor:
            cursor.execute(statement, arguments)
            rows = cursor.fetchall()
        return [
            Hit(key, score, collection, kind, source, metadata, labels_from(labels))
            for _, collection, key, kind, score, source, metadata, labels in rows
        ]


def _chunks(
    items: Iterable[Mapping[str, Any]], batch: Batch
) -> Iterator[list[tuple[int, Submission]]]:
    """Submissions with their positions, by count and size; refuses what is not one."""
    chunk: list[tuple[int, Submission]] = []
    size = 0
    for position, item in enumerate(items):
        batch.submitted += 1
        try:
            submission = submission_from(item)
        except InvalidItem as error:
            key = item.get("key") if isinstance(item, Mapping) else None
            batch._refuse(position, key if isinstance(key, str) else None, str(error))
            continue
        chunk.append((position, submission))
        size += submission.size
        if len(chunk) == _CHUNK_ITEMS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _stage(cursor: Any, chunk: list[tuple[int, Submission]]) -> list[tuple[Any, ...]]:
    """COPYs submissions to the staging table and has them accepted."""
    cursor.execute(statements.OPEN_STAGING)
    rows = (
        (
            binarycopy.int32(position),
            item.collection.encode(),
            None if item.key is None else item.key.encode(),
            item.kind.encode(),
            item.data,
            None if item.source is None else item.source.encode(),
            binarycopy.jsonb(item.metadata),
        )
        for position, item in chunk
    )
    binarycopy.copy_in(cursor, statements.STAGED, rows)
    cursor.execute(statements.SUBMIT_STAGED)
    outcomes: list[tuple[Any, ...]] = cursor.fetchall()
    return outcomes
