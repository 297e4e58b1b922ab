"""Pages: the products with their states, the upload form, the search, the reviews."""

import logging

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_safe

from pgclip import ConnectionFailed, InvalidItem, NotFound, QueryFailed, QueueFull
from products import index
from products.forms import ProductForm, ReviewForm
from products.models import Product, Review

log = logging.getLogger(__name__)


@require_safe
def products(request: HttpRequest) -> HttpResponse:
    """The newest products, with what the index says of them."""
    return render(request, "products/list.html", {"products": index.with_index()[:50]})


def add(request: HttpRequest) -> HttpResponse:
    """Adds a product. It is found as soon as a worker has encoded its picture."""
    form = ProductForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            index.save(form.save(commit=False))
            return redirect("products")
        except InvalidItem as error:
            form.add_error("image", str(error))
        except QueueFull:
            form.add_error(None, "We are busy just now. Please try again in a moment.")
    return render(request, "products/add.html", {"form": form}, status=422 if form.errors else 200)


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Products that look like what a text describes."""
    query = request.GET.get("q", "").strip()[:1000]
    found: list[index.Found] = []
    status, message = 200, ""
    try:
        found = index.search(query) if query else []
        message = "Nothing was found." if query and not found else ""
    except NotFound:  # the collection is made with the first product
        message = "Nothing was found."
    except InvalidItem as error:
        status, message = 422, str(error)
    except (QueryFailed, ConnectionFailed) as error:
        log.warning("search: %s", error)
        status, message = 503, "Search does not answer just now. Please try again in a moment."
    context = {"query": query, "found": found, "message": message}
    return render(request, "products/search.html", context, status=status)


@require_safe
def similar(request: HttpRequest, pk: str) -> HttpResponse:
    """Products that look like another one."""
    product = get_object_or_404(Product.objects.select_related("item"), pk=pk)
    found, message = [], "The picture of this product is not indexed yet."
    if product.item and product.item.stored_at:
        found, message = index.similar(product), ""
    context = {"product": product, "found": found, "message": message}
    return render(request, "products/search.html", context)


@require_safe
def thumbnail(request: HttpRequest, pk: str) -> HttpResponse:
    """A product's picture, small; until a worker has made that, the picture itself."""
    try:
        response = HttpResponse(index.thumbnail(pk), content_type="image/jpeg")
    except NotFound:
        return redirect(get_object_or_404(Product, pk=pk).image.url)
    response["Cache-Control"] = "max-age=60"
    return response


def reviews(request: HttpRequest) -> HttpResponse:
    """The newest reviews, or those that say something like a text; and the form for one more."""
    form = ReviewForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("reviews")
    query = request.GET.get("q", "").strip()[:1000]
    found: list[Review] = list(Review.objects.select_related("product")[:50])
    status, message = 422 if form.errors else 200, ""
    try:
        if query:
            found = index.search_reviews(query)
    except InvalidItem as error:
        status, message = 422, str(error)
    except (QueryFailed, ConnectionFailed) as error:
        log.warning("reviews: %s", error)
        status, message = 503, "Search does not answer just now. Please try again in a moment."
    context = {"form": form, "reviews": found, "asked": query, "message": message}
    return render(request, "products/reviews.html", context, status=status)
