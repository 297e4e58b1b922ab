"""The Django example, run as its README says."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.databases import run_sql
from support.examples import (
    PICTURES,
    Environment,
    Page,
    command,
    commands,
    environment,
    is_thumbnail,
    serving,
)
from support.places import ROOT
from support.processes import Live, eventually, free_port

from pgclip.local import LocalServices

# Django


@pytest.fixture(scope="module")
def shop(live: Live, services: LocalServices, tmp_path_factory: Any) -> Environment:
    """What the shop's processes run with, its tables made."""
    environ = environment(
        live.database_url,
        services.redis_url,
        DJANGO_DEBUG="1",
        DJANGO_MEDIA_ROOT=str(tmp_path_factory.mktemp("media")),
    )
    assert "export DJANGO_DEBUG=1" in commands()
    subprocess.run(command("manage.py migrate"), cwd=ROOT, env=environ, check=True)
    return environ


@pytest.fixture(scope="module")
def django(shop: Environment, tmp_path_factory: Any) -> Iterator[httpx.Client]:
    port = free_port()
    run = [*command("manage.py runserver", **{"8000": str(port)}), "--noreload"]
    with serving(run, shop, port, tmp_path_factory.mktemp("django") / "log") as http:
        yield http


def manage(shop: Environment, *arguments: str) -> str:
    run = [*command("manage.py migrate")[:-1], *arguments]
    done = subprocess.run(run, cwd=ROOT, env=shop, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def add_product(http: httpx.Client, name: str, image: bytes) -> httpx.Response:
    token = http.get("/add/").cookies["csrftoken"]
    form = {"name": name, "price": "9.50", "csrfmiddlewaretoken": token}
    return http.post("/add/", data=form, files={"image": ("picture.jpg", image)})


def states(http: httpx.Client) -> list[str]:
    classes = Page(http.get("/").text).all("span", "class")
    return [name.removeprefix("state ") for name in classes if name.startswith("state ")]


def test_the_shop_shows_and_finds_products(django: httpx.Client, live: Live) -> None:
    for name in ("banana", "guitar", "penguin"):
        added = add_product(django, f"{name} <b>", (PICTURES / f"{name}.jpg").read_bytes())
        assert (added.status_code, added.headers.get("location")) == (302, "/"), added.text
    eventually(lambda: states(django) == ["done"] * 3)
    page = Page(django.get("/").text)
    assert page.all("img", "alt") == ["penguin <b>", "guitar <b>", "banana <b>"]
    assert "musical instrument" in page.words
    eventually(
        lambda: (
            is_thumbnail(django.get(page.all("img", "src")[0]).content) or not live.client.heal()
        )
    )
    large = [href for href in page.all("a", "href") if "/media/" in href]
    assert django.get(large[0]).content == (PICTURES / "penguin.jpg").read_bytes()
    found = Page(django.get("/search/", params={"q": "a banana"}).text)
    assert found.all("img", "alt")[0] == "banana <b>"
    (similar,) = (
        href
        for href, image in zip(
            [href for href in found.all("a", "href") if "/similar/" in href],
            found.all("img", "alt"),
            strict=True,
        )
        if image == "banana <b>"
    )
    others = Page(django.get(similar).text).all("img", "alt")
    assert sorted(others) == ["guitar <b>", "penguin <b>"]
    empty = Page(django.get("/search/", params={"q": " "}).text)
    assert empty.all("img", "alt") == []


def test_the_shop_refuses_what_is_no_picture(django: httpx.Client, live: Live) -> None:
    before = live.client.count(collection="products")
    assert add_product(django, "nothing", b"not a picture").status_code == 422
    assert live.client.count(collection="products") == before
    assert django.get("/search/", params={"q": "a\0b"}).status_code == 422


ROLLED_BACK = """
from django.core.files.base import ContentFile
from django.db import transaction
from products import index
from products.models import IndexedItem, Product

product = Product(name="never", price=1)
product.image = ContentFile(open(PICTURE, "rb").read(), "never.jpg")
try:
    with transaction.atomic():
        index.save(product)
        assert IndexedItem.objects.get(key=str(product.pk)).state == "queued"
        raise KeyError("something else goes wrong")
except KeyError:
    print(product.pk)
"""


DELETED = """
from products.models import Product

product = Product.objects.filter(name__startswith="banana").first()
print(product.pk)
Product.objects.filter(pk=product.pk).delete()
"""


def test_a_product_that_is_rolled_back_was_never_submitted(shop: Environment, live: Live) -> None:
    code = ROLLED_BACK.replace("PICTURE", repr(str(PICTURES / "lemon.jpg")))
    key = manage(shop, "shell", "-v", "0", "-c", code).strip()
    assert list(live.client.items(collection="products", keys=[key])) == []
    assert run_sql(live.database_url, "SELECT FROM products_product WHERE name = 'never'") == []


def test_a_product_that_is_deleted_leaves_the_index(
    django: httpx.Client, shop: Environment, live: Live
) -> None:
    add_product(django, "banana again", (PICTURES / "banana.jpg").read_bytes())
    key = manage(shop, "shell", "-v", "0", "-c", DELETED).strip()
    assert len(key) == 36
    assert list(live.client.items(collection="products", keys=[key])) == []


def test_the_admin_shows_states_and_labels(django: httpx.Client, shop: Environment) -> None:
    assert command("manage.py createsuperuser")[-1] == "createsuperuser"
    account = {"DJANGO_SUPERUSER_USERNAME": "ann", "DJANGO_SUPERUSER_PASSWORD": "a long one"}
    options = ("createsuperuser", "--no-input", "--email", "ann@example.org")
    manage({**shop, **account}, *options)
    add_product(django, "in the admin", (PICTURES / "trumpet.jpg").read_bytes())
    eventually(lambda: set(states(django)) == {"done"})
    with httpx.Client(base_url=django.base_url) as admin:
        admin.get("/admin/login/")
        login = {"username": "ann", "password": "a long one"}
        login["csrfmiddlewaretoken"] = admin.cookies["csrftoken"]
        assert admin.post("/admin/login/?next=/admin/", data=login).status_code == 302
        html = admin.get("/admin/products/product/?item__state=done&o=3").text
        assert "musical instrument" in Page(html).words
        (change,) = re.findall(r'href="([^"]+)">in the admin<', html)
        change = change.partition("?")[0]
        form = {"name": "renamed", "price": "3", "csrfmiddlewaretoken": admin.cookies["csrftoken"]}
        assert admin.post(change, data=form).status_code == 302
    assert "renamed" in Page(django.get("/").text).words


def test_reviews_are_found_without_being_submitted(django: httpx.Client, live: Live) -> None:
    add_product(django, "reviewed", (PICTURES / "violin.jpg").read_bytes())
    page = django.get("/reviews/").text
    product = re.search(r'<option value="([^"]+)">reviewed<', page)
    assert product
    for stars, body in ((5, "a cat in the snow"), (1, "pizza <b>with</b> everything")):
        form = {"product": product[1], "stars": stars, "body": body,
                "csrfmiddlewaretoken": django.cookies["csrftoken"]}  # fmt: skip
        assert django.post("/reviews/", data=form).status_code == 302
    assert "pizza <b>with</b> everything" in Page(django.get("/reviews/").text).words

    def reviews() -> tuple[int, int, int]:
        (table,) = [each for each in live.client.tables() if each.collection == "reviews"]
        return table.items, table.waiting, table.changes

    eventually(lambda: reviews() == (2, 0, 0))
    words = Page(django.get("/reviews/", params={"q": "something to eat"}).text).words
    assert words.index("pizza") < words.index("a cat in the snow")
    assert django.post("/reviews/", data={**form, "stars": 9}).status_code == 422
    run_sql(live.database_url, "DELETE FROM products_review")
    eventually(lambda: reviews() == (0, 0, 0))


def test_the_shops_migrations_are_complete(shop: Environment) -> None:
    manage(shop, "makemigrations", "--check", "--dry-run")
    manage(shop, "check", "--fail-level", "WARNING")
