"""Pages give every item once, whatever comes between."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import Live
from support.zoo import PICTURE_KEYS, keys, picture


def pages(search: Callable[..., list[Any]], size: int) -> Iterator[list[Any]]:
    """Pages one after another, until one is empty."""
    last = None
    while page := search(k=size, after=last) if last else search(k=size):
        yield page
        last = page[-1]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_give_every_item_once_and_in_order(ask: Any, size: int) -> None:
    def search(**options: Any) -> list[Any]:
        found: list[Any] = ask.search("an animal", filter={"animal": {"exists": True}}, **options)
        return found

    walked = [hit for page in pages(search, size) for hit in page]
    whole = search(k=10_000)
    assert keys(walked) == keys(whole)
    assert {hit.key for hit in whole if hit.collection in ("animals", "things")} == PICTURE_KEYS
    assert len({hit.item_id for hit in walked}) == len(walked)


def test_pages_of_every_item_there_is(ask: Any, zoo: Live, lions: None) -> None:
    def search(**options: Any) -> list[Any]:
        found: list[Any] = ask.search("a lion", **options)
        return found

    walked = [hit.item_id for page in pages(search, 9) for hit in page]
    assert walked == [hit.item_id for hit in search(k=10_000)]
    assert len(walked) == sum(collection.done for collection in zoo.client.collections())


@pytest.fixture(scope="module")
def twins(zoo: Live) -> None:
    """Thirty items with the same picture, and others."""
    data = picture("guitar").read_bytes()
    same = [{"image": data, "key": f"twin-{n:02}", "collection": "twins"} for n in range(30)]
    others = [
        {"image": picture(name).read_bytes(), "key": name, "collection": "twins"}
        for name in ("violin", "dog", "pizza")
    ]
    zoo.client.submit_many([*same, *others]).wait(timeout=60)


@pytest.mark.parametrize("size", [1, 4, 29, 30])
def test_pages_of_items_that_are_alike(ask: Any, twins: None, size: int) -> None:
    def search(**options: Any) -> list[Any]:
        found: list[Any] = ask.search("a guitar", collection="twins", **options)
        return found

    walked = [hit for page in pages(search, size) for hit in page]
    assert [hit.item_id for hit in walked] == [hit.item_id for hit in search(k=100)]
    assert len({hit.key for hit in walked}) == len(walked) == 33
    assert len({hit.score for hit in walked[:30]}) == 1


def test_an_item_added_between_pages_disturbs_no_other(ask: Any, zoo: Live, twins: None) -> None:
    def search(**options: Any) -> list[Any]:
        found: list[Any] = ask.search("a guitar", collection="twins", **options)
        return found

    before = keys(search(k=100))
    added = f"added-{type(ask).__name__}"
    walked: list[Any] = []
    for nth, page in enumerate(pages(search, 8)):
        walked += page
        if nth == 1:
            data = picture("guitar").read_bytes()
            zoo.client.submit_image(data, key=added, collection="twins").wait(timeout=60)
    try:
        assert len({hit.key for hit in walked}) == len(walked)
        assert [key for key in keys(walked) if key != added] == before
        assert keys(walked) == keys(search(k=100))
    finally:
        zoo.client.delete(added, collection="twins")
