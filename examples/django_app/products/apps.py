"""The app's configuration."""

from django.apps import AppConfig


class ProductsConfig(AppConfig):
    """Products, and what keeps the search index in step with them."""

    name = "products"

    def ready(self) -> None:
        """Deleted products leave the index, however they are deleted."""
        from django.db.models.signals import post_delete

        from products import index
        from products.models import Product

        post_delete.connect(index.forget, sender=Product)
