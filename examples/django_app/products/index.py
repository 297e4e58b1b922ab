"""What the shop asks of pgclip: to index a product, to forget one, to find some."""

import functools
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import QuerySet

from pgclip import Client
from products.models import Product, Review

COLLECTION = "products"
SEARCH_SECONDS = 5.0

# One query for the neighbours and the products; ids of items are what both sides know.
SIMILAR = """
    SELECT p.*, h.score
    FROM pgclip.similar(%(key)s, k => %(k)s, of_collection => %(collection)s,
                        collection => %(collection)s) h
    JOIN products_product p ON p.item_id = h.item_id
    ORDER BY h.score DESC
"""


class Found(NamedTuple):
    """A product and how near it is, from -1 to 1."""

    product: Product
    score: float


@functools.cache
def client() -> Client:
    """The process's client, from PGCLIP_*. A server may fork after it was made."""
    return Client()


def save(product: Product) -> None:
    """Saves a product and submits its picture: both or neither.

    Raises InvalidItem and QueueFull. What was saved with the same picture before is not encoded
    again.
    """
    with transaction.atomic():
        product.save()
        with product.image.open("rb") as picture:
            # connection=: part of this transaction. Workers hear of it when it has committed.
            job = client().submit_image(
                picture,
                key=str(product.pk),
                collection=COLLECTION,
                metadata={"name": product.name},
                connection=connection,
            )
        product.item_id = job.item_id
        product.save(update_fields=["item"])


def forget(instance: Product, **_: Any) -> None:
    """Takes a deleted product out of the index, in the transaction that deletes it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.delete(%s, %s)", [str(instance.pk), COLLECTION])


def thumbnail(pk: object) -> bytes:
    """A product's picture, small, a JPEG that a worker made. Raises NotFound until there is one."""
    return client().thumbnail(str(pk), collection=COLLECTION)


def search(query: str, k: int = 24) -> list[Found]:
    """Products nearest to a text, best first. Raises InvalidItem, NotFound and QueryFailed."""
    hits = client().search(query, k=k, collection=COLLECTION, timeout=SEARCH_SECONDS)
    products = {str(pk): it for pk, it in with_index().in_bulk([hit.key for hit in hits]).items()}
    # One that was deleted between the two queries is left out.
    return [Found(products[hit.key], hit.score) for hit in hits if hit.key in products]


def similar(product: Product, k: int = 12) -> list[Found]:
    """Products whose pictures look like this one's, best first."""
    parameters = {"key": str(product.pk), "k": k, "collection": COLLECTION}
    products = Product.objects.raw(SIMILAR, parameters).prefetch_related("item__labels")
    return [Found(it, it.score) for it in products]


def search_reviews(query: str, k: int = 24) -> list[Review]:
    """Reviews that say something like a text, best first. Raises InvalidItem and QueryFailed.

    Nobody submits them: their table is kept in step since the migration that made it.
    """
    hits = client().search_rows(Review, query, k=k, timeout=SEARCH_SECONDS)
    return [hit.row for hit in hits]


def with_index() -> QuerySet[Product]:
    """Products with their states and labels: two queries, however many products."""
    return Product.objects.select_related("item").prefetch_related("item__labels")
