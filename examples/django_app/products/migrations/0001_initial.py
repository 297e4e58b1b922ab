"""The table of products. The views belong to pgclip and are only made known to Django."""

# ruff: noqa: RUF012 - lists, as Django makes them

import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates products."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="IndexedItem",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("collection", models.TextField()),
                ("key", models.TextField()),
                ("state", models.TextField()),
                ("reason", models.TextField(null=True)),
                ("error", models.TextField(null=True)),
                ("metadata", models.JSONField()),
                ("stored_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": '"pgclip"."items"',
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="IndexedLabel",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "item_id",
                        "set",
                        "label",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("set", models.TextField()),
                ("label", models.TextField()),
                ("score", models.FloatField()),
            ],
            options={
                "db_table": '"pgclip"."labels"',
                "ordering": ("-score",),
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("price", models.DecimalField(decimal_places=2, max_digits=10)),
                ("image", models.ImageField(upload_to="products/")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "item",
                    models.OneToOneField(
                        db_constraint=False,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="products.indexeditem",
                    ),
                ),
            ],
            options={
                "ordering": ("-created_at",),
            },
        ),
    ]
