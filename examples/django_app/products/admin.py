"""Products in the admin, with what the index says of them."""

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from products import index
from products.models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Lists, filters and edits products; saved here, they are indexed as well."""

    list_display = ("name", "price", "state", "labels")
    list_filter = ("item__state",)
    readonly_fields = ("state", "error", "labels")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        """With the index, so that the list costs no query for each row."""
        return super().get_queryset(request) & index.with_index()

    def save_model(
        self, request: HttpRequest, obj: Product, form: forms.ModelForm, change: bool
    ) -> None:
        """Saves and submits."""
        index.save(obj)

    @admin.display(ordering="item__state")
    def state(self, product: Product) -> str:
        """Queued, leased, done or failed."""
        return product.item.state if product.item else "not submitted"

    def error(self, product: Product) -> str:
        """Why it failed."""
        return (product.item and product.item.error) or ""

    def labels(self, product: Product) -> str:
        """Its zero-shot labels."""
        return ", ".join(str(label) for label in product.labels)
