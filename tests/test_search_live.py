"""Searching by meaning with the demo model: in SQL alone, and through the client."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg2
import psycopg2.extras
import pytest
from conftest import DEMO_MODEL, REAL, ROOT, Live, WorkerFactory, eventually
from pictures import encoded
from PIL import Image

from pgclip import Client, NotFound
from pgclip.local import LocalServices
from pgclip.searching import Like

PICTURES = ROOT / "demo" / "pictures"
TEXTS: list[dict[str, str]] = json.loads((ROOT / "demo" / "texts.json").read_text())
# Legs and tags.
ANIMALS: dict[str, tuple[int, list[str]]] = {
    "dog": (4, ["pet", "fur"]), "cat": (4, ["pet", "fur"]), "black-cat": (4, ["pet", "fur"]),
    "rabbit": (4, ["pet", "fur"]), "parrot": (2, ["pet", "bird"]), "lion": (4, ["fur"]),
    "tiger": (4, ["fur"]), "bear": (4, ["fur"]), "horse": (4, ["farm"]), "cow": (4, ["farm"]),
    "pig": (4, ["farm"]), "goat": (4, ["farm"]), "duck": (2, ["farm", "bird"]),
    "penguin": (2, ["bird"]), "eagle": (2, ["bird"]), "owl": (2, ["bird"]), "frog": (4, []),
    "snake": (0, []), "whale": (0, []), "shark": (0, []), "spider": (8, []), "ant": (6, []),
}  # fmt: skip
THINGS = [
    "guitar", "violin", "trumpet", "saxophone", "drum", "red-heart", "yellow-heart", "blue-heart",
    "broken-heart", "banana", "pizza", "hamburger", "bread", "airplane", "bicycle", "automobile",
    "fire-engine", "umbrella", "stethoscope", "camera", "candle", "laptop", "sunflower", "castle",
]  # fmt: skip
PICTURE_KEYS = {*ANIMALS, *THINGS}
LONG = "nothing to see here and more of the same " * 30 + "a penguin"


def picture(name: str) -> Path:
    return next(PICTURES.glob(f"{name}.*"))


@pytest.fixture(scope="module")
def zoo(
    services: LocalServices,
    new_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """Pictures of animals and things with metadata, and the demo's texts; all are encoded."""
    folder = tmp_path_factory.mktemp("zoo")
    url = new_database()
    factory = WorkerFactory(folder, services.redis_url)
    factory(url, REAL, PGCLIP_MODEL=str(DEMO_MODEL), PGCLIP_ROOTS=str(PICTURES))
    items: list[dict[str, Any]] = [
        {
            "image": picture(name),
            "key": name,
            "collection": "animals",
            "metadata": {
                "animal": True,
                "legs": legs,
                "tags": tags,
                "about": {"title": name, "inventory": f"zx{n:04}"},
            },
        }
        for n, (name, (legs, tags)) in enumerate(ANIMALS.items())
    ]
    items += [
        {
            "image": picture(name).read_bytes(),
            "key": name,
            "collection": "things",
            "metadata": {"animal": False, "about": {"title": name}},
        }
        for name in THINGS
    ]
    others = sorted({path.stem for path in PICTURES.glob("*.*p*g")} - PICTURE_KEYS)
    items += [{"image": picture(name), "key": name, "collection": "others"} for name in others]
    items += [{**text, "collection": "texts"} for text in TEXTS]
    items += [{"text": "a letter from quillbrook", "key": "quillbrook", "collection": "texts"}]
    items += [{"text": LONG, "key": "long", "collection": "long"}]
    with Client(database_url=url, redis_url=services.redis_url) as client:
        client.submit_many(items).wait(timeout=120)
        yield Live(client, url, folder)
    factory.stop()


class Sql:
    """Asks as one does who has nothing but a connection to Postgres, in autocommit."""

    def __init__(self, live: Live) -> None:
        self._connection = psycopg2.connect(
            live.database_url, cursor_factory=psycopg2.extras.RealDictCursor
        )
        self._connection.autocommit = True

    def __call__(self, statement: str, *arguments: Any) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            rows = cursor.fetchall() if cursor.description else []
            return [SimpleNamespace(**row) for row in rows]

    def close(self) -> None:
        self._connection.close()

    def search(
        self, query: Any = None, *, image: Any = None, like: Any = None, **options: Any
    ) -> list[Any]:
        if isinstance(query, list):
            vectors = ", ".join(self._vector(part) for part, _ in query)
            weights = [float(weight) for _, weight in query]
            return self._ask(f"search_vector(pgclip.weigh(ARRAY[{vectors}], %s)", weights, options)
        if like is not None:
            if "collection" in options:
                options["of_collection"] = options["collection"]
            return self._ask("similar(%s", like, options)
        if image is not None:
            image = image.read_bytes()
            self("CALL pgclip.embed(image => %s)", image)
            return self._ask("search_image(%s", image, options)
        self("CALL pgclip.embed(%s)", query)
        return self._ask("search(%s", query, options)

    def hybrid(self, query: str, **options: Any) -> list[Any]:
        self("CALL pgclip.embed(%s)", query)
        return self._ask("hybrid(%s", query, options)

    def duplicates_of(self, key: str, **options: Any) -> list[Any]:
        return self._ask("duplicates_of(%s", key, options)

    def duplicate_groups(self, **options: Any) -> list[Any]:
        groups: dict[int, list[Any]] = {}
        named = ", ".join(f"{name} => %s" for name in options)
        for row in self(f"SELECT * FROM pgclip.duplicate_groups({named})", *options.values()):
            groups.setdefault(row.group, []).append(row)
        return list(groups.values())

    def index_metadata(self, path: str) -> None:
        self("SELECT pgclip.index_metadata(%s)", path)

    def configure_text_search(self, **options: Any) -> None:
        named = ", ".join(f"{name} => %s" for name in options)
        self(f"SELECT pgclip.configure_text_search({named})", *options.values())

    def calibrate(self) -> int:
        (row,) = self("SELECT pgclip.calibrate() AS count")
        return int(row.count)

    def _vector(self, part: Any) -> str:
        with self._connection.cursor() as cursor:
            if isinstance(part, Like):
                arguments, call = (part.key, part.collection), "item_embedding(%s, %s)"
            elif isinstance(part, Path):
                arguments, call = (part.read_bytes(),), "query_embedding(image => %s)"
                cursor.execute("CALL pgclip.embed(image => %s)", arguments)
            else:
                arguments, call = (part,), "query_embedding(%s)"
                cursor.execute("CALL pgclip.embed(%s)", arguments)
            return "pgclip." + cursor.mogrify(call, arguments).decode().replace("%", "%%")

    def _ask(self, call: str, first: Any, options: dict[str, Any]) -> list[Any]:
        if after := options.pop("after", None):
            options |= {"after_score": after.score, "after_item": after.item_id}
        if "filter" in options:
            options["filter"] = json.dumps(options["filter"])
        named = "".join(f", {name} => %s" for name in options)
        return self(f"SELECT * FROM pgclip.{call}{named})", first, *options.values())


@pytest.fixture(params=["sql", "client"])
def ask(request: pytest.FixtureRequest, zoo: Live) -> Iterator[Any]:
    """Both ways to ask; what is true of one is true of the other."""
    if request.param == "client":
        yield zoo.client
        return
    asker = Sql(zoo)
    yield asker
    asker.close()


@pytest.fixture
def sql(zoo: Live) -> Iterator[Sql]:
    asker = Sql(zoo)
    yield asker
    asker.close()


def keys(hits: list[Any]) -> list[str]:
    return [hit.key for hit in hits]


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


def test_an_item_finds_its_likes_in_another_collection(sql: Sql) -> None:
    hits = sql("SELECT * FROM pgclip.similar('penguin-ice', 1, 'texts', collection => 'animals')")
    assert keys(hits) == ["penguin"]


def test_a_collection_is_searched_alone(ask: Any) -> None:
    assert ask.search("a guitar", k=1)[0].collection != "animals"
    hits = ask.search("a guitar", collection="animals", k=100)
    assert sorted(keys(hits)) == sorted(ANIMALS)
    assert {hit.collection for hit in hits} == {"animals"}


def legs(accepted: Callable[[int], bool]) -> set[str]:
    return {name for name, (count, _) in ANIMALS.items() if accepted(count)}


def tagged(tag: str) -> set[str]:
    return {name for name, (_, tags) in ANIMALS.items() if tag in tags}


FILTERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "value": ({"animal": True}, set(ANIMALS)),
    "eq": ({"legs": {"eq": 8}}, {"spider"}),
    "eq of a list": ({"tags": {"eq": ["pet", "fur"]}}, tagged("pet") - {"parrot"}),
    "eq of an object": ({"about": {"eq": {"title": "guitar"}}}, {"guitar"}),
    "ne": ({"legs": {"ne": 4}}, PICTURE_KEYS - legs(lambda n: n == 4)),
    "lt": ({"legs": {"lt": 4}}, legs(lambda n: n < 4)),
    "le": ({"legs": {"le": 4}}, legs(lambda n: n <= 4)),
    "gt": ({"legs": {"gt": 4}}, {"spider", "ant"}),
    "ge": ({"legs": {"ge": 8}}, {"spider"}),
    "both ends": ({"legs": {"gt": 0, "lt": 4}}, legs(lambda n: n == 2)),
    "lt of strings": ({"about.title": {"lt": "b"}}, {"ant", "airplane", "automobile"}),
    "le of strings": (
        {"about.title": {"le": "banana"}}, {"ant", "airplane", "automobile", "banana"},
    ),
    "gt of strings": ({"about.title": {"gt": "violin"}}, {"whale", "yellow-heart"}),
    "ge of strings": ({"about.title": {"ge": "violin"}}, {"violin", "whale", "yellow-heart"}),
    "in": ({"legs": {"in": [6, 8, 100]}}, {"ant", "spider"}),
    "not_in": ({"legs": {"not_in": [0, 2, 4]}}, {"ant", "spider", *THINGS}),
    "contains": ({"tags": {"contains": "pet"}}, tagged("pet")),
    "contains all": ({"tags": {"contains": ["pet", "bird"]}}, {"parrot"}),
    "exists": ({"legs": {"exists": True}}, set(ANIMALS)),
    "exists not": ({"legs": {"exists": False}}, set(THINGS)),
    "path": ({"about.title": "guitar"}, {"guitar"}),
    "$key": ({"$key": "guitar"}, {"guitar"}),
    "$key in": ({"$key": {"in": ["guitar", "dog", "nix"]}}, {"guitar", "dog"}),
    "$key ne": ({"$key": {"ne": "guitar"}}, PICTURE_KEYS - {"guitar"}),
    "$key not_in": ({"$key": {"not_in": ["guitar", "dog"]}}, PICTURE_KEYS - {"guitar", "dog"}),
    "$key starts_with": (
        {"$key": {"starts_with": "b"}}, {key for key in PICTURE_KEYS if key.startswith("b")},
    ),
    "$source": ({"$source": picture("dog").as_uri()}, {"dog"}),
    "$source starts_with": ({"$source": {"starts_with": PICTURES.as_uri()}}, set(ANIMALS)),
    "$created_at": ({"$created_at": {"lt": "2020-01-01"}}, set()),
    "$created_at ge": ({"$created_at": {"ge": "2020-01-01T00:00:00Z"}}, PICTURE_KEYS),
    "$created_at within": ({"$created_at": {"within": "1 day"}}, PICTURE_KEYS),
    "$updated_at within": ({"$updated_at": {"within": "1 day"}}, PICTURE_KEYS),
    "$and": ({"$and": [{"animal": True}, {"legs": {"gt": 4}}]}, {"ant", "spider"}),
    "$or": ({"$or": [{"legs": 6}, {"about.title": "guitar"}]}, {"ant", "guitar"}),
    "$not": ({"$not": {"animal": True}}, set(THINGS)),
    "$not of what is missing": ({"$not": {"legs": {"ge": 4}}},
                                PICTURE_KEYS - legs(lambda n: n >= 4)),
    "together": (
        {"animal": True, "$or": [{"tags": {"contains": "bird"}}, {"legs": 0}],
         "$not": {"tags": {"contains": "pet"}}},
        {"duck", "penguin", "eagle", "owl", "snake", "whale", "shark"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_through_what_it_says(ask: Any, name: str, exact: bool) -> None:
    filter, expected = FILTERS[name]
    hits = ask.search("an animal", kind="image", filter=filter, k=1000, exact=exact)
    assert {hit.key for hit in hits if hit.collection in ("animals", "things")} == expected
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_best_of_those_that_the_filter_lets_through_come_first(ask: Any) -> None:
    assert keys(ask.search("a bird", filter={"tags": {"contains": "pet"}}, k=1)) == ["parrot"]
    assert keys(ask.search("a banana", filter={"legs": {"gt": 6}}, k=1)) == ["spider"]


def test_a_filter_on_labels(ask: Any) -> None:
    wanted = {"name": "musical instrument", "set": "general", "min_score": 0.5}
    hits = ask.search("a guitar", kind="image", filter={"$label": wanted}, k=100)
    found = set(keys(hits))
    assert {"guitar", "violin"} <= found
    assert not found & {"banana", "dog", "pizza"}
    everything = ask.search("a guitar", kind="image", k=1000)
    assert found == {hit.key for hit in everything if label_score(hit, "musical instrument") >= 0.5}
    by_name = ask.search("a guitar", kind="image", filter={"$label": "musical instrument"}, k=1000)
    assert found <= set(keys(by_name))
    without = ask.search(
        "a guitar", kind="image", filter={"$not": {"$label": "musical instrument"}}, k=1000
    )
    assert set(keys(without)) == set(keys(everything)) - set(keys(by_name))


def label_score(hit: Any, name: str) -> float:
    """Of a hit of the client or of SQL, whose labels are JSON."""
    labels = [x if isinstance(x, dict) else {"label": x.name, "score": x.score} for x in hit.labels]
    return max((label["score"] for label in labels if label["label"] == name), default=0.0)


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
    hits = ask.search(parts, kind="image", k=3)
    assert set(keys(hits)) == {"trumpet", "guitar", "lion"}


def test_twice_the_weights_are_the_same_query(ask: Any) -> None:
    hits = ask.search([("a guitar", 1.0), ("wood", 0.5)], k=20)
    doubled = ask.search([("a guitar", 2.0), ("wood", 1.0)], k=20)
    assert keys(hits) == keys(doubled)


def test_a_rare_word_is_found_by_words(ask: Any) -> None:
    hits = ask.hybrid("quillbrook", k=5)
    (hit,) = [hit for hit in hits[:2] if hit.key == "quillbrook"]
    assert hit.text_rank == 1
    assert {hit.text_rank for hit in hits if hit.key != "quillbrook"} == {None}


def test_a_hybrid_search_finds_pictures_by_their_vectors(ask: Any) -> None:
    hits = ask.hybrid("a stethoscope", k=2)
    text, image = hits
    assert (text.key, text.vector_rank, text.text_rank) == ("doctor-stethoscope", 1, 1)
    assert text.fused == pytest.approx(2 / 61)
    assert (image.key, image.vector_rank, image.text_rank) == ("stethoscope", 2, None)
    assert image.fused == pytest.approx(1 / 62)
    scores = {hit.key: hit.score for hit in ask.search("a stethoscope", k=2)}
    assert {hit.key: hit.score for hit in hits} == pytest.approx(scores)


def test_an_item_beyond_the_depth_has_no_rank_there(ask: Any) -> None:
    deep = {hit.key: hit for hit in ask.hybrid("holiday", k=300, depth=300)}
    shallow = {hit.key: hit for hit in ask.hybrid("holiday", k=10, depth=10)}
    for key in ("airplane-holiday", "camera-holiday"):
        assert deep[key].vector_rank > 10
        assert shallow[key].vector_rank is None
        assert shallow[key].text_rank == deep[key].text_rank
        assert shallow[key].fused < deep[key].fused


def with_words(hits: list[Any]) -> set[str]:
    return {hit.key for hit in hits if hit.text_rank is not None}


def test_quotes_and_exclusions_in_words(ask: Any) -> None:
    options = {"k": 100, "collection": "texts"}
    holiday = {"airplane-holiday", "camera-holiday"}
    assert with_words(ask.hybrid("holiday", **options)) == holiday
    assert with_words(ask.hybrid("holiday -camera", **options)) == {"airplane-holiday"}
    assert with_words(ask.hybrid('"blue jeans"', **options)) == {"blue-jeans-t-shirt"}
    assert with_words(ask.hybrid('"jeans blue"', **options)) == set()
    anything = with_words(ask.hybrid("jeans pizza", **options))
    assert anything == {"blue-jeans-t-shirt", "slice-pizza-dinner"}


def test_a_hyphen_within_a_word_changes_nothing(ask: Any) -> None:
    """As without one, any of the words will do."""
    found = with_words(ask.hybrid("a t-shirt or pizza", k=100, collection="texts"))
    assert found == {"blue-jeans-t-shirt", "slice-pizza-dinner"}
    found = with_words(ask.hybrid("t-shirt pizza", k=100, collection="texts"))
    assert found == {"blue-jeans-t-shirt", "slice-pizza-dinner"}


def test_hybrid_search_is_narrowed(ask: Any) -> None:
    hits = ask.hybrid("holiday", k=100, kind="image", filter={"animal": False}, collection="things")
    assert sorted(keys(hits)) == sorted(THINGS)
    assert with_words(hits) == set()


def test_words_of_chosen_metadata_are_found(ask: Any) -> None:
    assert with_words(ask.hybrid("zx0013", k=5)) == set()
    ask.configure_text_search(fields=["about.inventory"])
    try:
        hits = ask.hybrid("zx0013", k=5)
        assert with_words(hits) == {"penguin"}
        assert "penguin" in keys(hits)[:2]
        # Texts are found by their words as before.
        assert "quillbrook" in with_words(ask.hybrid("quillbrook", k=5))
    finally:
        ask.configure_text_search(fields=[])
    assert with_words(ask.hybrid("zx0013", k=5)) == set()


def test_the_language_of_words_is_chosen(ask: Any) -> None:
    assert with_words(ask.hybrid("strawberry", k=5, kind="text")) == {"fresh-strawberries"}
    ask.configure_text_search(language="simple")
    try:
        assert with_words(ask.hybrid("strawberry", k=5, kind="text")) == set()
    finally:
        ask.configure_text_search(language="english")


@pytest.fixture(scope="module")
def calibrated(zoo: Live) -> None:
    assert zoo.client.calibrate() == 4


def test_calibration_covers_every_direction(ask: Any, zoo: Live) -> None:
    assert ask.calibrate() == 4
    found = {(c.query_kind, c.item_kind) for c in zoo.client.calibrations()}
    assert found == {(a, b) for a in ("image", "text") for b in ("image", "text")}
    for one in zoo.client.calibrations():
        assert one.mean is not None
        assert one.mean < one.midpoint < 1


@pytest.mark.parametrize("thing", ["penguin", "guitar", "banana", "airplane"])
def test_a_right_hit_is_relevant_and_a_wrong_one_is_not(
    ask: Any, calibrated: None, thing: str
) -> None:
    wrong = {"penguin", "guitar", "banana", "airplane", "pizza", "castle"} - {thing}
    by_text = {hit.key: hit.relevance for hit in ask.search(thing, k=1000)}
    assert by_text[thing] > max(by_text[key] for key in wrong) + 0.1
    by_image = {hit.key: hit.relevance for hit in ask.search(image=picture(thing), k=1000)}
    assert by_image[thing] > 0.9
    assert max(by_image[key] for key in wrong) < 0.2


def test_the_midpoint_has_relevance_one_half(ask: Any, zoo: Live, calibrated: None) -> None:
    (one,) = [
        c for c in zoo.client.calibrations() if (c.query_kind, c.item_kind) == ("text", "image")
    ]
    for hit in ask.search("a penguin", kind="image", k=100):
        expected = 1 / (1 + np.exp(-one.slope * (hit.score - one.midpoint)))
        assert hit.relevance == pytest.approx(expected, abs=1e-4)


def test_relevance_is_not_known_for_a_query_of_text_and_picture(ask: Any, calibrated: None) -> None:
    parts = [("a guitar", 1.0), (picture("violin"), 1.0)]
    assert {hit.relevance for hit in ask.search(parts, k=5)} == {None}


def test_least_scores_leave_out_what_does_not_fit(ask: Any, calibrated: None) -> None:
    penguin = {"collection": "animals", "k": 100}
    everything = ask.search("a penguin", **penguin)
    second = everything[1].score
    assert keys(ask.search("a penguin", **penguin, min_score=second + 0.01)) == ["penguin"]
    assert len(ask.search("a penguin", **penguin, min_score=second)) == 2
    middle = (everything[0].relevance + everything[1].relevance) / 2
    assert keys(ask.search("a penguin", **penguin, min_relevance=middle)) == ["penguin"]
    some = ask.search("a penguin", **penguin, min_relevance=everything[5].relevance * 0.999)
    assert keys(some) == keys(everything)[:6]


def test_nothing_is_found_above_a_minimum_that_nothing_reaches(ask: Any, calibrated: None) -> None:
    assert ask.search("a penguin", collection="animals", min_score=0.99) == []
    assert ask.search("a penguin", collection="animals", min_relevance=0.9999) == []
    assert ask.search("a penguin", collection="animals", filter={"legs": 4711}) == []


@pytest.fixture(scope="module")
def lions(zoo: Live) -> None:
    """A lion twice, saved anew, made smaller, turned; and other pictures."""
    data = picture("lion").read_bytes()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    smaller = image.resize((image.width * 2 // 3, image.height * 2 // 3))
    pictures = {
        "lion-a": data,
        "lion-b": data,
        "lion-saved": encoded(image, "JPEG", quality=60),
        "lion-png": encoded(image, "PNG"),
        "lion-smaller": encoded(smaller, "JPEG"),
        "lion-turned": encoded(image.rotate(15), "JPEG"),
        "dog-a": picture("dog").read_bytes(),
        "dog-b": picture("dog").read_bytes(),
        "candle": picture("candle").read_bytes(),
    }
    zoo.client.submit_many(
        {"image": image, "key": key, "collection": "lions"} for key, image in pictures.items()
    ).wait(timeout=60)


TIERS = {
    "lion-a": "identical", "lion-b": "identical", "lion-saved": "near", "lion-png": "near",
    "lion-smaller": "near", "lion-turned": "similar",
}  # fmt: skip


def test_duplicates_of_an_item(ask: Any, lions: None) -> None:
    found = ask.duplicates_of("lion-a", collection="lions", within="lions")
    assert {hit.key: hit.tier for hit in found} == {
        key: tier for key, tier in TIERS.items() if key != "lion-a"
    }
    assert found[0].key == "lion-b"
    assert [hit.score for hit in found[1:]] == sorted((h.score for h in found[1:]), reverse=True)
    near = ask.duplicates_of("lion-a", collection="lions", within="lions", min_score=0.97)
    assert "lion-turned" not in keys(near)
    everywhere = ask.duplicates_of("lion-a", collection="lions")
    assert {hit.key for hit in everywhere} == {*TIERS, "lion"} - {"lion-a"}
    assert {hit.tier for hit in everywhere if hit.key == "lion"} == {"identical"}
    assert ask.duplicates_of("candle", collection="lions", within="lions") == []
    assert len(ask.duplicates_of("lion-a", collection="lions", k=1)) == 1


def test_groups_of_duplicates(ask: Any, lions: None) -> None:
    groups = ask.duplicate_groups(collection="lions", min_score=0.9)
    assert [{hit.key: hit.tier for hit in group} for group in groups] == [
        TIERS,
        {"dog-a": "identical", "dog-b": "identical"},
    ]
    groups = ask.duplicate_groups(collection="lions", kind="image", min_score=0.97)
    assert [len(group) for group in groups] == [5, 2]
    assert ask.duplicate_groups(collection="lions", kind="text") == []
    everywhere = ask.duplicate_groups(min_score=0.97)
    assert {hit.key for hit in everywhere[0]} == {*TIERS, "lion"} - {"lion-turned"}
    for group in everywhere:
        assert [hit.score for hit in group] == sorted((h.score for h in group), reverse=True)


def test_a_copy_of_a_long_text_is_its_duplicate(ask: Any, zoo: Live) -> None:
    about = [
        *("a penguin on the ice", "a red car in front of a house", "sushi for two", "a king"),
        *("blue jeans and a t-shirt", "a castle on a mountain", "she plays the violin"),
    ]
    body = ", ".join(f"{thing} " * 12 for thing in about)
    zoo.client.submit_many(
        {"text": body, "key": f"many-{n}", "collection": "many"} for n in (1, 2)
    ).wait(timeout=60)
    assert len(zoo.client.get("many-1", collection="many").vectors) > 2
    (group,) = ask.duplicate_groups(collection="many")
    assert {hit.key: hit.tier for hit in group} == {"many-1": "identical", "many-2": "identical"}
    (hit,) = ask.duplicates_of("many-1", collection="many", within="many")
    assert (hit.key, hit.tier) == ("many-2", "identical")


def test_duplicates_of_what_is_not_there(ask: Any) -> None:
    with pytest.raises((NotFound, psycopg2.Error), match="no item nix in collection animals"):
        ask.duplicates_of("nix", collection="animals")


@pytest.mark.parametrize("query", ["a penguin", "something to eat", "red", "wood and metal"])
def test_exact_search_gives_the_same_answer(ask: Any, query: str) -> None:
    for options in ({}, {"kind": "text"}, {"collection": "animals"}, {"filter": {"legs": 4}}):
        usual = ask.search(query, k=30, **options)
        exact = ask.search(query, k=30, exact=True, **options)
        assert [(hit.key, hit.score) for hit in usual] == [(hit.key, hit.score) for hit in exact]
        assert usual


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


def test_a_text_of_several_windows_counts_once_with_its_best(ask: Any, sql: Sql, zoo: Live) -> None:
    vectors = zoo.client.get("long", collection="long").vectors
    assert len(vectors) > 2
    (hit,) = ask.search("a penguin", collection="long", k=10)
    (row,) = sql("SELECT pgclip.query_embedding('a penguin')::real[] AS vector")
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


def test_sql_alone_submits_and_finds(sql: Sql) -> None:
    data = picture("peacock").read_bytes()
    sql("SELECT pgclip.submit_image('by-sql', %s, collection => 'sql')", data)
    metadata = json.dumps({"lang": "en"})
    sql("SELECT pgclip.submit_text('an old volcano', 'text', 'sql', %s)", metadata)
    ended = "SELECT key FROM pgclip.items WHERE collection = 'sql' AND state = 'done'"
    eventually(lambda: len(sql(ended)) == 2)
    sql("CALL pgclip.embed('a peacock')")
    hits = sql("SELECT * FROM pgclip.search('a peacock', collection => 'sql')")
    assert keys(hits) == ["by-sql", "text"]
    assert hits[1].metadata == {"lang": "en"}


def test_a_requested_vector_comes_by_itself(sql: Sql) -> None:
    request = "SELECT pgclip.request_embedding('a sailboat in a storm') AS there"
    assert sql(request)[0].there is False
    eventually(lambda: sql(request)[0].there)
    assert sql("SELECT * FROM pgclip.search('a sailboat in a storm', k => 1)")


@pytest.mark.parametrize(
    "call",
    [
        "search('never asked for')",
        "hybrid('never asked for')",
        "search_image('\\x1234')",
        "search_vector(pgclip.weigh(ARRAY[pgclip.query_embedding('never asked for')], ARRAY[1]))",
    ],
)
def test_a_query_without_a_vector_says_what_to_do(sql: Sql, call: str) -> None:
    with pytest.raises(psycopg2.Error, match="not there yet") as caught:
        sql(f"SELECT * FROM pgclip.{call}")
    assert caught.value.pgcode == "PC003"
    assert "CALL pgclip.embed" in (caught.value.diag.message_hint or "")


def test_the_client_embeds_for_sql_of_ones_own(zoo: Live, sql: Sql) -> None:
    zoo.client.embed("a rocket at night")
    zoo.client.embed(image=picture("dog"))
    assert sql("SELECT * FROM pgclip.search('a rocket at night', k => 1)")
    found = sql(
        "SELECT * FROM pgclip.search_image(%s, k => 1, collection => 'animals')",
        picture("dog").read_bytes(),
    )
    assert keys(found) == ["dog"]


def test_a_vector_of_ones_own_finds(zoo: Live, sql: Sql) -> None:
    vector = zoo.client.get("penguin", collection="animals").vectors[0]
    hits = zoo.client.search_vector(vector, query_kind="image", collection="animals", k=2)
    assert hits[0].key == "penguin"
    rows = sql(
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
