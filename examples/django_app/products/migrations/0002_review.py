"""The table of reviews, and that it is kept in step."""

# ruff: noqa: RUF012 - lists, as Django makes them

import django.db.models.deletion
from django.db import migrations, models

from pgclip import index_table_sql


class Migration(migrations.Migration):
    """Creates and indexes reviews."""

    dependencies = [("products", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Review",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("stars", models.PositiveSmallIntegerField()),
                ("body", models.TextField(max_length=4000)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "product",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="reviews",
                        to="products.product",
                    ),
                ),
            ],
            options={"ordering": ("-created_at",)},
        ),
        migrations.RunSQL(
            *index_table_sql(
                "products_review", text="body", metadata=["stars"], collection="reviews"
            )
        ),
    ]
