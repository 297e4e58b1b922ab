"""The forms for products and reviews."""

from django import forms
from django.core.files.uploadedfile import UploadedFile

from products.models import Product, Review

IMAGE_BYTES = 10 * 2**20


class ProductForm(forms.ModelForm):
    """A product with its picture. ImageField refuses what Pillow can't open."""

    class Meta:
        """What a visitor fills in."""

        model = Product
        fields = ("name", "price", "image")

    def clean_image(self) -> UploadedFile:
        """A picture that is not too large; a limit in the web server in front comes first."""
        image: UploadedFile = self.cleaned_data["image"]
        if image.size > IMAGE_BYTES:
            raise forms.ValidationError(f"A picture may have {IMAGE_BYTES >> 20} MiB.")
        return image


class ReviewForm(forms.ModelForm):
    """What somebody says of a product."""

    stars = forms.IntegerField(min_value=1, max_value=5, initial=5)

    class Meta:
        """What a visitor fills in."""

        model = Review
        fields = ("product", "stars", "body")
