"""The client: submits, follows, searches. Thin: SQL functions of schema pgclip do the work."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pgclip import statements
from pgclip.arguments import name_text
from pgclip.changing.comparing import Comparing
from pgclip.controlling import Controlling, name_item
from pgclip.database import Database
from pgclip.errors import NotFound
from pgclip.items import (
    Hit,
    Item,
    info_from,
    labels_from,
)
from pgclip.labelling.promising import Promising
from pgclip.labelling.sets import Labelling
from pgclip.searching.asking import Asking
from pgclip.settings import Settings
from pgclip.submitting.following import Follower
from pgclip.submitting.intake import Intake
from pgclip.submitting.jobs import Batch, Job
from pgclip.submitting.submission import Image, image_submission, text_submission
from pgclip.submitting.tickets import TicketOffice
from pgclip.tables.calls import Tables


class Client(Controlling, Labelling, Comparing, Promising, Asking, Tables):
    """Submits images and texts, and searches them.

    Settings are keyword arguments (see pgclip.settings) or PGCLIP_* variables; database_url and
    redis_url are needed. Nothing is connected before the first call. Thread-safe, and safe to
    make before a server forks. Without Redis submissions are accepted all the same and start about
    a second later.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings.load(**settings)
        self._database = self._connections(self.settings.pool_size)
        self._follower = Follower(self._connections(1, self.settings.unpooled_url))
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
        merge_metadata: bool = False,
        connection: Any = None,
    ) -> Job:
        """Submits a picture: its bytes, a binary file, a Pillow image, or a Path or URL that the
        worker will read.

        Returns when it is committed. Same key and content: only the metadata change. A key left
        out is made from the content, or is the path or the URL. Limits: key 1 to 1024 bytes,
        collection 1 to 200, metadata an object of at most 64 KiB as JSON, picture 64 MiB.

        `priority` 0 is first, 9 last; a step is a head start of 30 s. keep_source=False drops the
        bytes once they are encoded (None: as the setting says). With merge_metadata=True fields
        that the item has, and that are not given, stay.

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
            merge_metadata=merge_metadata,
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
        merge_metadata: bool = False,
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
            merge_metadata=merge_metadata,
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
        keep_source=, merge_metadata= if wanted. Memory stays constant. One that can't be accepted
        is in the batch's `refused`; the others are not affected. With connection= all are part of
        that transaction. Raises ConnectionFailed and QueueFull, which say how many had been
        accepted.
        """
        defaults = {"priority": priority, "keep_source": self._keep(keep_source)}
        return self._intake.submit_many(items, connection, defaults)

    def get(self, key: str | Path, *, collection: str = "default") -> Item:
        """An item with its state, labels and vectors. A Path is a file's key. Raises NotFound."""
        import numpy as np

        key = name_text(key, "key")
        what = name_item(key, collection)
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

    def content(self, key: str | Path, *, collection: str = "default") -> bytes:
        """The bytes of a picture or text that was submitted inline.

        Raises NotFound if there is no such item or its bytes were not kept.
        """
        key = name_text(key, "key")
        with self._database.transaction(name_item(key, collection)) as cursor:
            cursor.execute(statements.CONTENT, (key, collection))
            (data,) = cursor.fetchone() or (b"",)
        return bytes(data)

    def thumbnail(self, key: str | Path, *, collection: str = "default") -> bytes:
        """A picture's small one, a JPEG, as workers make them (PGCLIP_THUMBNAILS).

        Raises NotFound if there is no such item, or no thumbnail of it.
        """
        key = name_text(key, "key")
        what = name_item(key, collection)
        with self._database.transaction(what) as cursor:
            cursor.execute(statements.THUMBNAIL, (key, collection))
            row = cursor.fetchone()
        if row is None:
            raise NotFound(f"there is no thumbnail of {what}")
        return bytes(row[0])

    def thumbnails(self, items: Iterable[Hit | int]) -> dict[int, bytes]:
        """Those of hits, or of items by their ids, as far as there are any: by the item's id."""
        ids = [item if isinstance(item, int) else item.item_id for item in items]
        with self._database.transaction("thumbnails") as cursor:
            cursor.execute(statements.THUMBNAILS, (ids,))
            return {item_id: bytes(data) for item_id, data in cursor.fetchall()}

    def _connections(self, size: int, url: str = "") -> Database:
        settings = self.settings
        return Database(
            url or settings.required("database_url"),
            pool_size=size,
            connect_timeout=settings.connect_timeout,
            local={"statement_timeout": f"{settings.statement_timeout * 1000:.0f}"},  # ms
        )

    def _keep(self, keep_source: bool | None) -> bool:
        return self.settings.keep_source if keep_source is None else keep_source
