"""What a client offers for looking at many items and doing something to them, page by page."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgclip import statements
from pgclip.arguments import (
    collection_name,
    filter_json,
    key_list,
    kind_of,
    metadata_json,
    name_text,
    state_of,
    text,
    text_list,
    whole_number,
)
from pgclip.database import Database
from pgclip.errors import NotFound
from pgclip.items import (
    Collection,
    FailureCount,
    Healed,
    Hit,
    ItemInfo,
    Kind,
    Missing,
    State,
    info_from,
)
from pgclip.settings import masked
from pgclip.submitting.tickets import TicketOffice
from pgclip.submitting.transactions import transaction_of

# Items that one transaction lists, queues, cancels or deletes: so that none holds locks for long.
_PAGE = 1000
_FIRST_PAGE = 100  # of a list: often somebody wants but the first ones


class Controlling:
    """The part of Client that lists, counts, cancels, deletes and heals."""

    _database: Database
    _tickets: TicketOffice

    def items(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str | Path] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> Iterator[ItemInfo]:
        """All items that match, oldest first, read as they are asked for.

        None stands for any; `metadata` matches items whose own contain it, `filter` those that a
        search with it could find and those without vectors. Raises InvalidItem, and NotFound of a
        label or decision that the filter names.
        """
        arguments = _conditions(collection, kind, state, reason, metadata, keys)
        return self._listed([*arguments, filter_json(filter)])

    def _listed(self, arguments: Sequence[Any]) -> Iterator[ItemInfo]:
        last, page = 0, _FIRST_PAGE
        while True:
            with self._database.transaction("list of items") as cursor:
                cursor.execute(statements.LIST_ITEMS, (*arguments, last, page))
                rows = cursor.fetchall()
            for _, *row in rows:
                yield ItemInfo(**info_from(row))
            if len(rows) < page:
                return
            last, page = rows[-1][0], _PAGE

    def count(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str | Path] | None = None,
    ) -> dict[State, int]:
        """How many items that match are queued, leased, done and failed; or are in one state."""
        arguments = _conditions(collection, kind, state, reason, metadata, keys)
        with self._database.transaction("count of items") as cursor:
            cursor.execute(statements.COUNT_ITEMS, arguments)
            return dict(cursor.fetchall())

    def failures(self) -> list[FailureCount]:
        """How many items failed, by model and by reason, the most frequent first."""
        with self._database.transaction("failures") as cursor:
            cursor.execute(statements.FAILURES)
            return [FailureCount(*row) for row in cursor.fetchall()]

    def content_sizes(self, items: Iterable[Hit | int]) -> dict[int, int]:
        """How many bytes are kept of hits, or of items by their ids: by the item's id. Those of
        which none are, such as those with a source, are not in it."""
        ids = [item if isinstance(item, int) else item.item_id for item in items]
        with self._database.transaction("sizes of contents") as cursor:
            cursor.execute(statements.CONTENT_SIZES, (ids,))
            return dict(cursor.fetchall())

    def collections(self) -> list[Collection]:
        """Every collection, with its items by kind and state."""
        with self._database.transaction("collections") as cursor:
            cursor.execute(statements.COLLECTIONS)
            return [Collection(*row) for row in cursor.fetchall()]

    def drop_collection(self, name: str) -> None:
        """Drops a collection in which no item is left, and with it its name.

        Raises NotFound, and InvalidItem if it has items or submissions under way hold it.
        """
        with self._database.transaction(f"collection {name!r:.100}") as cursor:
            cursor.execute(statements.DROP_COLLECTION, (name_text(name, "collection"),))

    def retry(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str | Path] | None = None,
    ) -> int:
        """Queues failed items again, all that match; returns how many."""
        arguments = _conditions(collection, kind, None, reason, metadata, keys)
        del arguments[2]  # they have failed
        return self._in_pages(statements.RETRY, arguments, "retry")

    def cancel(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str | Path] | None = None,
    ) -> int:
        """Cancels what waits in the queue; returns how many items.

        They end as failed, with the reason "cancelled"; vectors that they had stay. What a worker
        is at is not cancelled.
        """
        arguments = _conditions(collection, kind, None, None, metadata, keys)
        del arguments[2:4]  # they wait
        return self._in_pages(statements.CANCEL, arguments, "cancel")

    def update_metadata(
        self,
        key: str | Path,
        *,
        set: Mapping[str, Any] | None = None,
        remove: Sequence[str] = (),
        collection: str = "default",
        connection: Any = None,
    ) -> dict[str, Any]:
        """Sets and removes fields of an item's metadata, at the top level; the others stay.

        Its content is left alone. A field named in both is set. Returns the metadata as they are
        then. With connection= it is part of the caller's transaction. Raises NotFound, InvalidItem.
        """
        key = name_text(key, "key")
        what = name_item(key, collection)
        fields = text_list(remove, f"{what}: remove")
        arguments = (key, collection, metadata_json(set, what), fields)
        ((changed,),) = self._execute(statements.UPDATE_METADATA, arguments, what, connection)
        return dict(changed)

    def rename(
        self,
        key: str | Path,
        new_key: str | Path,
        *,
        collection: str = "default",
        connection: Any = None,
    ) -> None:
        """Gives an item another key; its vectors, metadata and id stay.

        With connection= it is part of the caller's transaction. Raises NotFound, and InvalidItem if
        another item has that key.
        """
        key = name_text(key, "key")
        what = name_item(key, collection)
        arguments = (key, name_text(new_key, "new key"), collection)
        self._execute(statements.RENAME, arguments, what, connection)

    def delete(
        self, key: str | Path, *, collection: str = "default", connection: Any = None
    ) -> None:
        """Deletes an item, its vectors and labels, and work for it. Raises NotFound.

        With connection= it is part of the caller's transaction, as in submit_image.
        """
        key = name_text(key, "key")
        what = name_item(key, collection)
        ((was_there,),) = self._execute(statements.DELETE, (key, collection), what, connection)
        if not was_there:
            raise NotFound(f"there is no {what}")

    def delete_items(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keys: Sequence[str | Path] | None = None,
    ) -> int:
        """Deletes all items that match, in small transactions; returns how many.

        Raises InvalidItem if no condition is named.
        """
        arguments = _conditions(collection, kind, state, reason, metadata, keys)
        return self._in_pages(statements.DELETE_ITEMS, arguments, "delete items")

    def delete_duplicates(
        self, kept: Iterable[ItemInfo], others: Iterable[ItemInfo]
    ) -> list[tuple[str, str]]:
        """Deletes `others`, if one of `kept` is still there as it was read: in one transaction, and
        of them only those that are as they were read. Returns their collections and keys.
        """
        named = (
            json.dumps([
                {"collection": item.collection, "key": item.key,
                 "updated_at": item.updated_at.isoformat()}
                for item in some
            ])
            for some in (kept, others)
        )  # fmt: skip
        with self._database.transaction("delete duplicates") as cursor:
            cursor.execute(statements.DELETE_DUPLICATES, tuple(named))
            return [(collection, key) for collection, key in cursor.fetchall()]

    def missing(self, *, collection: str | None = None, limit: int = 1000) -> list[Missing]:
        """What lacks a current vector or label, and why; at most `limit`, oldest items first."""
        name, most = collection_name(collection), whole_number(limit, "limit")
        with self._database.transaction("missing") as cursor:
            cursor.execute(statements.LOCAL_TIMEOUT, ("0",))  # it looks at every item
            cursor.execute(statements.MISSING, (name, name, most))
            return [Missing(*row) for row in cursor.fetchall()]

    def heal(self) -> Healed:
        """Queues what has neither vector, failure nor job, has outdated labels made anew, and
        thumbnails that are lacking.

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

    def _execute(
        self, statement: str, arguments: tuple[Any, ...], what: str, connection: Any
    ) -> Sequence[Sequence[Any]]:
        """A statement's rows, of a transaction of its own or within the caller's."""
        if connection is not None:
            return transaction_of(connection).execute(statement, arguments)
        with self._database.transaction(what) as cursor:
            cursor.execute(statement, arguments)
            return list(cursor.fetchall())

    def _in_pages(self, statement: str, arguments: Sequence[Any], what: str) -> int:
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


def _conditions(
    collection: object, kind: object, state: object, reason: object, metadata: object, keys: object
) -> list[Any]:
    """Which items: as Postgres takes it. Raises InvalidItem."""
    return [
        collection_name(collection),
        kind_of(kind),
        state_of(state),
        None if reason is None else text(reason, "reason", "reason"),
        None if metadata is None else metadata_json(metadata, "items to look for"),
        key_list(keys),
    ]


def name_item(key: str, collection: str) -> str:
    """For messages, once it is clear that Postgres can look for it. Raises InvalidItem."""
    name_text(key, "key")
    name_text(collection, "collection")
    return f"item {masked(key)!r:.100} in collection {collection!r:.100}"
