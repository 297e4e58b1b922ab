"""The client: submits, follows, searches. Thin: SQL functions of schema pgclip do the work."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from pgclip import statements
from pgclip.database import Database
from pgclip.errors import InvalidItem, NotFound
from pgclip.following import Follower
from pgclip.intake import Intake
from pgclip.items import (
    Collection,
    Healed,
    Item,
    ItemInfo,
    LabelSet,
    Missing,
    State,
    info_from,
    labels_from,
)
from pgclip.jobs import Batch, Job
from pgclip.searching import Searching
from pgclip.settings import Settings, masked
from pgclip.submission import (
    Image,
    Kind,
    image_submission,
    metadata_json,
    name_text,
    text_submission,
)
from pgclip.tickets import TicketOffice
from pgclip.transactions import transaction_of

# Items that one transaction lists, queues, cancels or deletes: so that none holds locks for long.
_PAGE = 1000


class Client(Searching):
    """Submits images and texts, and searches them.

    Settings are keyword arguments (see pgclip.settings) or PGCLIP_* variables; database_url and
    redis_url are needed. Nothing is connected before the first call. Thread-safe, and safe to
    make before a server forks. Without Redis submissions are accepted all the same and start about
    a second later.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings.load(**settings)
        self._database = self._connections(self.settings.pool_size)
        self._follower = Follower(self._connections(1))
        self.settings.required("redis_url")
        self._tickets = TicketOffice(self.settings)
        self._intake = Intake(self._database, self._follower, self._tickets, self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Whoever waits for a job is woken."""
        self._follower.close()
        self._tickets.close()
        self._database.close()

    def submit_image(
        self,
        image: Image,
        *,
        key: str | None = None,
        collection: str = "default",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        keep_source: bool | None = None,
        connection: Any = None,
    ) -> Job:
        """Submits a picture: its bytes, a binary file, or a Path or URL that the worker will read.

        Returns when it is committed. Same key and content: only the metadata change. A key left
        out is made from the content, or is the URL. Limits: key 1 to 1024 bytes, collection 1 to
        200, metadata an object of at most 64 KiB as JSON, picture 64 MiB.

        `priority` 0 is first, 9 last; a step is a head start of 30 s. keep_source=False drops the
        bytes once they are encoded (None: as the setting says).

        With connection= (a SQLAlchemy Session or Connection, Django's, or any DB-API connection)
        it is part of the caller's transaction: accepted when that commits, never submitted if it
        is rolled back.

        Raises InvalidItem, QueueFull and ConnectionFailed; nothing was submitted then.
        """
        item = image_submission(
            image,
            key=key,
            collection=collection,
            metadata=metadata,
            priority=priority,
            keep_source=self._keep(keep_source),
        )
        return self._intake.submit(item, connection)

    def submit_text(
        self,
        text: str,
        *,
        key: str | None = None,
        collection: str = "default",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        keep_source: bool | None = None,
        connection: Any = None,
    ) -> Job:
        """Submits a text of at most 256 KiB. Otherwise like submit_image."""
        item = text_submission(
            text,
            key=key,
            collection=collection,
            metadata=metadata,
            priority=priority,
            keep_source=self._keep(keep_source),
        )
        return self._intake.submit(item, connection)

    def submit_many(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        priority: int = 1,
        keep_source: bool | None = None,
        connection: Any = None,
    ) -> Batch:
        """Submits any number of items, in chunks that are committed one by one.

        Each is a mapping with image= or text=, and key=, collection=, metadata=, priority=,
        keep_source= if wanted. Memory stays constant. One that can't be accepted is in the batch's
        `refused`; the others are not affected. With connection= all are part of that transaction.
        Raises ConnectionFailed and QueueFull, which say how many had been accepted.
        """
        defaults = {"priority": priority, "keep_source": self._keep(keep_source)}
        return self._intake.submit_many(items, connection, defaults)

    def get(self, key: str, *, collection: str = "default") -> Item:
        """An item with its state, labels and vectors. Raises NotFound."""
        import numpy as np

        what = _item(key, collection)
        with self._database.transaction(what) as cursor:
            cursor.execute(statements.GET_ITEM, (collection, key))
            row = cursor.fetchone()
        if row is None:
            raise NotFound(f"there is no {what}")
        labels, vectors, *described = row
        array = np.array(vectors, np.float32).reshape(len(vectors), -1 if vectors else 0)
        # Stored in half precision: back to unit norm.
        array /= np.linalg.norm(array, axis=1, keepdims=True)
        return Item(**info_from(described), labels=labels_from(labels), vectors=array)

    def content(self, key: str, *, collection: str = "default") -> bytes:
        """The bytes of a picture or text that was submitted inline.

        Raises NotFound if there is no such item or its bytes were not kept.
        """
        with self._database.transaction(_item(key, collection)) as cursor:
            cursor.execute(statements.CONTENT, (key, collection))
            (data,) = cursor.fetchone() or (b"",)
        return bytes(data)

    def items(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> Iterator[ItemInfo]:
        """All items that match, oldest first, read as they are asked for.

        None stands for any; `metadata` matches items whose own contain it. Raises InvalidItem.
        """
        contains = _contains(metadata)
        arguments = (collection, kind, state, reason, contains, _keys(keys))
        last = 0
        while True:
            with self._database.transaction("list of items") as cursor:
                cursor.execute(statements.LIST_ITEMS, (*arguments, last, _PAGE))
                rows = cursor.fetchall()
            for _, *row in rows:
                yield ItemInfo(**info_from(row))
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def count(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[State, int]:
        """How many items are queued, leased, done and failed."""
        with self._database.transaction("count of items") as cursor:
            cursor.execute(statements.COUNT_ITEMS, (collection, kind, _contains(metadata)))
            return dict(cursor.fetchall())

    def collections(self) -> list[Collection]:
        """Every collection, with its items by kind and state."""
        with self._database.transaction("collections") as cursor:
            cursor.execute(statements.COLLECTIONS)
            return [Collection(*row) for row in cursor.fetchall()]

    def retry(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> int:
        """Queues failed items again, all that match; returns how many."""
        arguments = (collection, kind, reason, _contains(metadata), _keys(keys))
        return self._in_pages(statements.RETRY, arguments, "retry")

    def cancel(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> int:
        """Cancels what waits in the queue; returns how many items.

        They end as failed, with the reason "cancelled"; vectors that they had stay. What a worker
        is at is not cancelled.
        """
        arguments = (collection, kind, _contains(metadata), _keys(keys))
        return self._in_pages(statements.CANCEL, arguments, "cancel")

    def delete(self, key: str, *, collection: str = "default", connection: Any = None) -> None:
        """Deletes an item, its vectors and labels, and work for it. Raises NotFound.

        With connection= it is part of the caller's transaction, as in submit_image.
        """
        what = _item(key, collection)
        if connection is not None:
            rows = transaction_of(connection).execute(statements.DELETE, (key, collection))
        else:
            with self._database.transaction(what) as cursor:
                cursor.execute(statements.DELETE, (key, collection))
                rows = cursor.fetchall()
        if not rows[0][0]:
            raise NotFound(f"there is no {what}")

    def delete_items(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> int:
        """Deletes all items that match, in small transactions; returns how many.

        Raises InvalidItem if no condition is named.
        """
        contains = _contains(metadata)
        arguments = (collection, kind, state, reason, contains, _keys(keys))
        return self._in_pages(statements.DELETE_ITEMS, arguments, "delete items")

    def missing(self, *, collection: str | None = None, limit: int = 1000) -> list[Missing]:
        """What lacks a current vector or label, and why; at most `limit`, oldest items first."""
        with self._database.transaction("missing") as cursor:
            cursor.execute(statements.LOCAL_TIMEOUT, ("0",))  # it looks at every item
            cursor.execute(statements.MISSING, (collection, collection, limit))
            return [Missing(*row) for row in cursor.fetchall()]

    def heal(self) -> Healed:
        """Queues what has neither vector, failure nor job, and has outdated labels made anew.

        For all items and models that take work. Labels are made from the stored vectors, nothing is
        encoded for them. Items that failed are left alone; see retry.
        """
        jobs, relabeled, last = 0, 0, 0
        while last is not None:
            with self._database.transaction("heal") as cursor:
                cursor.execute(statements.LOCAL_TIMEOUT, ("0",))  # the last looks at every label
                cursor.execute(statements.HEAL, (last, _PAGE))
                queued, relabeled, last, queues = cursor.fetchone() or (0, 0, None, [])
            jobs += queued
            if queued:
                self._tickets.announce(queues)
        return Healed(jobs, relabeled)

    def label_sets(self) -> list[LabelSet]:
        """Every label set."""
        with self._database.transaction("label sets") as cursor:
            cursor.execute(statements.LABEL_SETS)
            return [
                LabelSet(name, tuple(labels), tuple(templates), *rest)
                for name, labels, templates, *rest in cursor.fetchall()
            ]

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

    def _connections(self, size: int) -> Database:
        settings = self.settings
        return Database(
            settings.required("database_url"),
            pool_size=size,
            connect_timeout=settings.connect_timeout,
            session={
                "statement_timeout": f"{settings.statement_timeout * 1000:.0f}",  # ms
                "default_transaction_isolation": "read committed",
            },
        )

    def _keep(self, keep_source: bool | None) -> bool:
        return self.settings.keep_source if keep_source is None else keep_source

    def _in_pages(self, statement: str, arguments: tuple[Any, ...], what: str) -> int:
        """Goes through the items once, in their order, a transaction for each page."""
        total, last = 0, 0
        while last is not None:
            with self._database.transaction(what) as cursor:
                cursor.execute(statement, (*arguments, last, _PAGE))
                affected, last, *queues = cursor.fetchone() or (0, None)
            for names in queues:
                self._tickets.announce(names)
            total += int(affected)
        return total


def _keys(keys: Sequence[str] | None) -> list[str] | None:
    if isinstance(keys, str):
        raise InvalidItem(f"keys is a list of keys, not one: [{keys!r}]")
    return None if keys is None else [name_text(key, "key") for key in keys]


def _item(key: str, collection: str) -> str:
    """For messages, once it is clear that Postgres can look for it. Raises InvalidItem."""
    name_text(key, "key")
    name_text(collection, "collection")
    return f"item {masked(key)!r:.100} in collection {collection!r:.100}"


def _contains(metadata: Mapping[str, Any] | None) -> str | None:
    return None if metadata is None else metadata_json(metadata, "metadata to look for")
