"""Products, and the views of schema pgclip as models that products join."""

import uuid

from django.db import models


class IndexedItem(models.Model):
    """Read-only: view pgclip.items, where each submission's state is."""

    id = models.BigIntegerField(primary_key=True)
    collection = models.TextField()
    key = models.TextField()
    state = models.TextField()
    reason = models.TextField(null=True)
    error = models.TextField(null=True)
    metadata = models.JSONField()
    stored_at = models.DateTimeField(null=True)

    class Meta:
        """The quotes are part of the name: Django would else take the dot for a letter."""

        managed = False
        db_table = '"pgclip"."items"'

    def __str__(self) -> str:
        return self.key


class IndexedLabel(models.Model):
    """Read-only: view pgclip.labels, a row for each zero-shot label of an item."""

    pk = models.CompositePrimaryKey("item_id", "set", "label")
    item = models.ForeignKey(IndexedItem, models.DO_NOTHING, related_name="labels")
    set = models.TextField()
    label = models.TextField()
    score = models.FloatField()

    class Meta:
        """As above. Best labels first."""

        managed = False
        db_table = '"pgclip"."labels"'
        ordering = ("-score",)

    def __str__(self) -> str:
        return self.label


class Product(models.Model):
    """Something for sale. `item` is what pgclip made of its picture."""

    # Known before the product is saved, so that it can be the item's key.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    image = models.ImageField(upload_to="products/")
    # A view can't be referred to by a constraint; pgclip keeps an item's id for as long as it is.
    item = models.OneToOneField(
        IndexedItem, models.DO_NOTHING, null=True, editable=False, db_constraint=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Newest first."""

        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name

    @property
    def labels(self) -> list[IndexedLabel]:
        """What is in the picture, by the label set "general", best first."""
        if self.item is None:
            return []
        return [label for label in self.item.labels.all() if label.set == "general"]


class Review(models.Model):
    """What somebody says of a product. Its table is kept in step by the migration that makes it,
    so nothing here, nor where reviews are written, knows of pgclip."""

    product = models.ForeignKey(Product, models.CASCADE, related_name="reviews")
    stars = models.PositiveSmallIntegerField()
    body = models.TextField(max_length=4000)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Newest first."""

        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.body[:80]
