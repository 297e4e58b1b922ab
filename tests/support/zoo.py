"""Pictures and texts with the demo model's vectors, and the ways to ask for them."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from PIL import Image
from support.pictures import encoded
from support.places import DEMO_MODEL, ROOT
from support.processes import REAL, Live, WorkerFactory

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.searching.queries import Like

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


@pytest.fixture(scope="session")
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
def in_sql(zoo: Live) -> Iterator[Sql]:
    asker = Sql(zoo)
    yield asker
    asker.close()


def keys(hits: list[Any]) -> list[str]:
    return [hit.key for hit in hits]


def legs(accepted: Callable[[int], bool]) -> set[str]:
    return {name for name, (count, _) in ANIMALS.items() if accepted(count)}


def label_score(hit: Any, name: str) -> float:
    """Of a hit of the client or of SQL, whose labels are JSON."""
    labels = [x if isinstance(x, dict) else {"label": x.name, "score": x.score} for x in hit.labels]
    return max((label["score"] for label in labels if label["label"] == name), default=0.0)


@pytest.fixture(scope="module")
def lions(zoo: Live) -> Iterator[None]:
    """A lion twice, saved anew, made smaller, turned; and other pictures. Others search the zoo."""
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
    yield
    zoo.client.delete_items(collection="lions")
