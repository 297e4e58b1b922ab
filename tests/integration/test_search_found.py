"""The right things are found, by every kind of query."""

import json
from typing import Any

import numpy as np
import psycopg2
import psycopg2.extras
import pytest
from PIL import Image
from support.pictures import encoded
from support.processes import Live, eventually
from support.zoo import ANIMALS, LONG, THINGS, Sql, keys, label_score, picture

from pgclip.searching.queries import Like


@pytest.mark.parametrize(
    "thing", ["penguin", "guitar", "banana", "airplane", "umbrella", "rabbit", "bicycle"]
)
def test_a_text_finds_its_picture(ask: Any, thing: str) -> None:
    assert ask.search(thing, kind="image", k=3)[0].key == thing


@pytest.mark.parametrize("thing", ["lion", "penguin", "banana"])
def test_a_picture_finds_its_like(ask: Any, zoo: Live, thing: str) -> None:
    hits = ask.search(image=picture(thing), kind="image", k=3)
    assert hits[0].key == thing
    assert hits[0].score == pytest.approx(1, abs=2e-3)
    cropped = zoo.folder / f"{thing}.jpg"
    image = Image.open(picture(thing)).convert("RGB")
    image = image.crop((10, 10, image.width - 10, image.height - 10))
    cropped.write_bytes(encoded(image, "JPEG"))
    assert ask.search(image=cropped, kind="image", k=3)[0].key == thing


@pytest.mark.parametrize(
    ("thing", "text"),
    [("guitar", "guitar-drum"), ("lion", "lion-king-animals"), ("banana", "yellow-banana")],
)
def test_a_picture_finds_its_text(ask: Any, thing: str, text: str) -> None:
    hits = ask.search(image=picture(thing), kind="text", k=3)
    assert hits[0].key == text
    assert {hit.kind for hit in hits} == {"text"}


@pytest.mark.parametrize(
    ("query", "text"),
    [("a dog", "dog-asleep"), ("a red car", "red-car-front-house"), ("a volcano", "old-volcano")],
)
def test_a_text_finds_a_text(ask: Any, query: str, text: str) -> None:
    assert ask.search(query, kind="text", collection="texts", k=3)[0].key == text


def test_texts_and_pictures_are_found_together(ask: Any) -> None:
    hits = ask.search("a stethoscope", k=2)
    assert {hit.key for hit in hits} == {"stethoscope", "doctor-stethoscope"}
    assert {hit.kind for hit in hits} == {"image", "text"}


@pytest.mark.parametrize(
    ("thing", "similar"),
    [("automobile", "fire-engine"), ("red-heart", "broken-heart"), ("hamburger", "pizza")],
)
def test_an_item_finds_its_likes_but_not_itself(ask: Any, thing: str, similar: str) -> None:
    hits = ask.search(like=thing, collection="things", k=50)
    assert hits[0].key == similar
    assert sorted(keys(hits)) == sorted(set(THINGS) - {thing})


def test_an_item_finds_its_likes_in_another_collection(in_sql: Sql) -> None:
    hits = in_sql(
        "SELECT * FROM pgclip.similar('penguin-ice', 1, 'texts', collection => 'animals')"
    )
    assert keys(hits) == ["penguin"]


def test_a_collection_is_searched_alone(ask: Any) -> None:
    assert ask.search("a guitar", k=1)[0].collection != "animals"
    hits = ask.search("a guitar", collection="animals", k=100)
    assert sorted(keys(hits)) == sorted(ANIMALS)
    assert {hit.collection for hit in hits} == {"animals"}


def test_a_query_minus_something_moves_away_from_it(ask: Any) -> None:
    plain = ask.search([("a heart", 1.0)], kind="image", collection="things", k=4)
    assert plain[0].key == "red-heart"
    assert keys(plain) == keys(ask.search("a heart", kind="image", collection="things", k=4))
    minus = [("a heart", 1.0), ("red", -0.5)]
    hits = ask.search(minus, kind="image", collection="things", k=100)
    assert hits[0].key in ("yellow-heart", "blue-heart")
    assert keys(hits).index("red-heart") > 1


def test_a_query_minus_an_item_moves_away_from_it(ask: Any) -> None:
    plain = ask.search("a cat", collection="animals", k=2)
    assert keys(plain) == ["cat", "black-cat"]
    minus = [("a cat", 1.0), (Like("black-cat", "animals"), -0.5)]
    hits = ask.search(minus, collection="animals", k=10)
    assert hits[0].key == "cat"
    assert "black-cat" not in keys(hits)


def test_the_heavier_part_of_a_query_wins(ask: Any) -> None:
    guitar, violin = "a guitar", picture("violin")
    options = {"kind": "image", "collection": "things", "k": 2}
    assert keys(ask.search([(guitar, 1.0), (violin, 0.2)], **options)) == ["guitar", "violin"]
    assert keys(ask.search([(guitar, 0.2), (violin, 1.0)], **options)) == ["violin", "guitar"]


def test_text_picture_and_item_make_one_query(ask: Any) -> None:
    parts = [("trumpet", 1.0), (picture("guitar"), 1.0), (Like("lion", "animals"), 1.0)]
    hits = ask.search(parts, kind="image", k=50)
    ours = [hit.key for hit in hits if hit.collection in ("animals", "things")]
    assert set(ours[:3]) == {"trumpet", "guitar", "lion"}


def test_twice_the_weights_are_the_same_query(ask: Any) -> None:
    hits = ask.search([("a guitar", 1.0), ("wood", 0.5)], k=20)
    doubled = ask.search([("a guitar", 2.0), ("wood", 1.0)], k=20)
    assert keys(hits) == keys(doubled)


def test_a_text_of_several_windows_counts_once_with_its_best(
    ask: Any, in_sql: Sql, zoo: Live
) -> None:
    vectors = zoo.client.get("long", collection="long").vectors
    assert len(vectors) > 2
    (hit,) = ask.search("a penguin", collection="long", k=10)
    (row,) = in_sql("SELECT pgclip.query_embedding('a penguin')::real[] AS vector")
    scores = vectors @ np.asarray(row.vector, np.float32)
    assert hit.score == pytest.approx(scores.max(), abs=2e-3)
    assert scores.max() - scores.min() > 0.3
    found = ask.search("a penguin", kind="text", k=1000)
    assert keys(found).count("long") == 1
    assert "long" in keys(found)[:3]


def test_hits_carry_what_is_known(ask: Any) -> None:
    image, text = (
        ask.search("a penguin", kind="image", k=1)[0],
        ask.search("a penguin on the ice", collection="texts", k=1)[0],
    )
    assert (image.key, image.kind, image.collection) == ("penguin", "image", "animals")
    assert image.source == picture("penguin").as_uri()
    assert image.metadata["about"] == {"title": "penguin", "inventory": "zx0013"}
    assert label_score(image, "bird") > 0.5
    assert image.snippet is None
    assert 0 < image.score < 1
    assert (text.key, text.kind, text.source) == ("penguin-ice", "text", None)
    assert text.snippet == "a penguin on the ice"
    assert text.metadata == {}
    assert text.score == pytest.approx(1, abs=2e-3)


def test_a_snippet_is_how_a_text_begins(ask: Any) -> None:
    (hit,) = ask.search("a penguin", collection="long", k=1)
    assert hit.snippet == LONG[:500]


def test_sql_alone_submits_and_finds(in_sql: Sql) -> None:
    data = picture("peacock").read_bytes()
    in_sql("SELECT pgclip.submit_image('by-sql', %s, collection => 'sql')", data)
    metadata = json.dumps({"lang": "en"})
    in_sql("SELECT pgclip.submit_text('an old volcano', 'text', 'sql', %s)", metadata)
    ended = "SELECT key FROM pgclip.items WHERE collection = 'sql' AND state = 'done'"
    eventually(lambda: len(in_sql(ended)) == 2)
    in_sql("CALL pgclip.embed('a peacock')")
    hits = in_sql("SELECT * FROM pgclip.search('a peacock', collection => 'sql')")
    assert keys(hits) == ["by-sql", "text"]
    assert hits[1].metadata == {"lang": "en"}


def test_a_requested_vector_comes_by_itself(in_sql: Sql) -> None:
    request = "SELECT pgclip.request_embedding('a sailboat in a storm') AS there"
    assert in_sql(request)[0].there is False
    eventually(lambda: in_sql(request)[0].there)
    assert in_sql("SELECT * FROM pgclip.search('a sailboat in a storm', k => 1)")


@pytest.mark.parametrize(
    "call",
    [
        "search('never asked for')",
        "hybrid('never asked for')",
        "search_image('\\x1234')",
        "search_vector(pgclip.weigh(ARRAY[pgclip.query_embedding('never asked for')], ARRAY[1]))",
    ],
)
def test_a_query_without_a_vector_says_what_to_do(in_sql: Sql, call: str) -> None:
    with pytest.raises(psycopg2.Error, match="not there yet") as caught:
        in_sql(f"SELECT * FROM pgclip.{call}")
    assert caught.value.pgcode == "PC003"
    assert "CALL pgclip.embed" in (caught.value.diag.message_hint or "")


def test_the_client_embeds_for_sql_of_ones_own(zoo: Live, in_sql: Sql) -> None:
    zoo.client.embed("a rocket at night")
    zoo.client.embed(image=picture("dog"))
    assert in_sql("SELECT * FROM pgclip.search('a rocket at night', k => 1)")
    found = in_sql(
        "SELECT * FROM pgclip.search_image(%s, k => 1, collection => 'animals')",
        picture("dog").read_bytes(),
    )
    assert keys(found) == ["dog"]


def test_a_vector_of_ones_own_finds(zoo: Live, in_sql: Sql) -> None:
    vector = zoo.client.get("penguin", collection="animals").vectors[0]
    hits = zoo.client.search_vector(vector, query_kind="image", collection="animals", k=2)
    assert hits[0].key == "penguin"
    rows = in_sql(
        "SELECT * FROM pgclip.search_vector(pgclip.as_vector(%s), 2, 'animals')",
        [float(value) * 100 for value in vector],
    )
    assert keys(rows) == keys(hits)


def test_an_index_of_a_field_changes_no_answer(ask: Any, zoo: Live) -> None:
    options: dict[str, Any] = {"filter": {"legs": {"ge": 2, "lt": 8}}, "k": 100}
    before = keys(ask.search("an animal", **options))
    ask.index_metadata("legs")
    try:
        assert keys(ask.search("an animal", **options)) == before
        assert len(before) > 10
    finally:
        assert zoo.client.drop_metadata_index("legs") is True
    assert zoo.client.drop_metadata_index("legs") is False
