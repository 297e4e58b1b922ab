"""Asking about one thing, and about each of many, through the demo's worker."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.checkpoints import WORDS
from support.commands import Run, pgclip, urls
from support.databases import run_sql
from support.families import make_family
from support.pictures import encoded, noise
from support.processes import REAL, Live, WorkerFactory
from support.zoo import Sql, keys, picture

from pgclip import AsyncClient, Client, InvalidItem, Like, NotFound

ANIMALS = {"collection": "animals"}


@pytest.fixture
def client(zoo: Live) -> Client:
    return zoo.client


def vector(client: Client, key: str, collection: str = "animals") -> Any:
    mean = client.get(key, collection=collection).vectors.mean(axis=0)
    return mean / np.linalg.norm(mean)


class TestSimilarity:
    def test_any_two(self, client: Client) -> None:
        cat = client.similarity("cat", "a cat", **ANIMALS).score
        assert cat > client.similarity("cat", "a violin", **ANIMALS).score
        assert cat == pytest.approx(
            client.similarity(image=picture("cat"), other="a cat").score, abs=0.01
        )
        assert cat == pytest.approx(
            client.similarity(query="a cat", other=Like("cat", "animals")).score, abs=1e-3
        )
        lion, tiger = vector(client, "lion"), vector(client, "tiger")
        assert client.similarity("lion", Like("tiger", "animals"), **ANIMALS).score == (
            pytest.approx(float(lion @ tiger), abs=2e-3)
        )
        assert client.similarity("cat", picture("cat"), **ANIMALS).score > 0.99
        assert client.similarity(query="a cat", other="a cat").score == pytest.approx(1, abs=1e-3)

    def test_it_is_what_a_search_says(self, client: Client) -> None:
        client.calibrate()
        hit = client.search("a cat", k=1, **ANIMALS)[0]
        found = client.similarity(hit.key, "a cat", **ANIMALS)
        assert found.score == pytest.approx(hit.score, abs=1e-3)
        assert found.relevance == pytest.approx(hit.relevance, abs=0.01)
        run_sql(client.settings.database_url, "DELETE FROM pgclip.calibration")
        assert client.similarity(hit.key, "a cat", **ANIMALS).relevance is None


class TestClassify:
    LABELS = ("a cat", "a snake", "a violin", "a heart")

    def test_one(self, client: Client, in_sql: Sql) -> None:
        choices = client.classify("cat", self.LABELS, template="a picture of {}", **ANIMALS)
        assert choices[0].name == "a cat"
        assert sum(choice.probability for choice in choices) == pytest.approx(1, abs=1e-3)
        assert client.classify(image=picture("violin"), labels=self.LABELS)[0].name == "a violin"
        assert client.classify(query="a red heart", labels=self.LABELS)[0].name == "a heart"
        in_sql("CALL pgclip.embed_many(pgclip.prompts(%s, 'a picture of {}'))", [*self.LABELS])
        (row,) = in_sql(
            "SELECT * FROM pgclip.classify('cat', %s, 'a picture of {}', collection => 'animals')",
            [*self.LABELS],
        )
        assert (row.key, row.collection, row.label) == ("cat", "animals", "a cat")
        assert dict(zip(self.LABELS, row.probabilities, strict=True)) == {
            choice.name: pytest.approx(choice.probability) for choice in choices
        }

    def test_each_of_many(self, client: Client, in_sql: Sql) -> None:
        legged = {"filter": {"legs": {"ge": 4}}, **ANIMALS}
        found = {each.key: each for each in client.classify_items(self.LABELS, **legged)}
        assert {item.key for item in client.items(**ANIMALS) if item.metadata["legs"] >= 4} == (
            set(found)
        )
        assert found["cat"].label == "a cat"
        assert found["cat"].probability == max(found["cat"].probabilities.values())
        alone = client.classify("cat", self.LABELS, **ANIMALS)
        assert found["cat"].probabilities == {
            choice.name: pytest.approx(choice.probability, abs=1e-4) for choice in alone
        }
        everything = list(client.classify_items(self.LABELS))
        done = sum(client.count().values())
        assert len(everything) == done
        in_pages = in_sql(
            'SELECT item_id FROM pgclip.classify(labels => %s, after => %s, "limit" => 5)',
            [*self.LABELS], everything[9].item_id,
        )  # fmt: skip
        assert [row.item_id for row in in_pages] == [each.item_id for each in everything[10:15]]

    def test_an_item_of_many_windows_counts_once(self, client: Client) -> None:
        (each,) = client.classify_items(["a penguin", "nothing"], collection="long")
        alone = client.classify("long", ["a penguin", "nothing"], collection="long")
        assert each.probabilities == {
            choice.name: pytest.approx(choice.probability, abs=1e-3) for choice in alone
        }


class TestAnswer:
    def test_the_best_comes_first_and_none_is_possible(self, client: Client) -> None:
        choices = client.answer(
            "cat", "what is it?", ["a cat", "a guitar", "an airplane"], **ANIMALS
        )
        assert {choice.name for choice in choices} == {"a cat", "a guitar", "an airplane", None}
        named = [choice.name for choice in choices if choice.name]
        assert named[0] == "a cat"
        assert sum(choice.probability for choice in choices) == pytest.approx(1, abs=1e-3)
        probabilities = [choice.probability for choice in choices]
        assert probabilities == sorted(probabilities, reverse=True)
        wrong = client.answer("cat", "a cat", ["and a guitar", "and an airplane"], **ANIMALS)
        assert wrong[0].name is None

    def test_in_sql(self, client: Client, in_sql: Sql) -> None:
        choices = client.answer("cat", "what is it?", ["a cat", "a guitar"], **ANIMALS)
        rows = in_sql(
            "SELECT * FROM pgclip.answer('cat', 'what is it?', ARRAY['a cat', 'a guitar'],"
            " collection => 'animals')"
        )
        assert [(row.answer, row.probability) for row in rows] == [
            (choice.name, pytest.approx(choice.probability)) for choice in choices
        ]


class TestCaptions:
    @pytest.fixture
    def bank(self, client: Client, tmp_path: Path) -> Run:
        file = tmp_path / "captions.txt"
        file.write_text("a cat\n\n  a violin  \na snake\na red heart\n")
        told = pgclip("index", "--lines", file, "-c", "bank", **urls(client))
        assert "4 found" in told.stdout, told.stderr
        return lambda *arguments: pgclip(*arguments, **urls(client))

    def test_the_nearest_of_a_file(self, client: Client, bank: Run, in_sql: Sql) -> None:
        hits = client.captions("cat", collection="bank", of_collection="animals", k=2)
        assert next(hit.snippet for hit in hits) == "a cat"
        assert len(hits) == 2
        by_picture = client.captions(image=picture("violin"), collection="bank", k=1)
        assert by_picture[0].snippet == "a violin"
        rows = in_sql("SELECT * FROM pgclip.captions('cat', 'bank', of_collection => 'animals')")
        assert keys(rows)[:2] == keys(hits)
        assert len(rows) == 3

    def test_on_the_command_line(self, bank: Run) -> None:
        asked = ("ask", "cat", "-c", "animals")
        assert "a cat" in bank(*asked, "--captions", "bank").stdout.splitlines()[1]
        assert 0 < float(bank(*asked, "a cat").stdout) < 1
        told = bank(*asked, "a cat", "a violin", "--template", "a picture of {}")
        assert "a cat" in told.stdout.splitlines()[1]
        told = bank(*asked, "--question", "what is it?", "a cat", "a violin", "--json")
        choices = json.loads(told.stdout)
        assert {choice["name"] for choice in choices} == {"a cat", "a violin", None}
        told = bank("ask", "--image", picture("violin"), "a cat", "a violin")
        assert "a violin" in told.stdout.splitlines()[1]
        assert bank("ask").returncode == 2
        told = bank("ask", "nix", "a cat")
        assert (told.returncode, "there is no item nix" in told.stderr) == (1, True)
        assert "no text of collection nix" in bank(*asked, "--captions", "nix").stderr or (
            "no collection named nix" in bank(*asked, "--captions", "nix").stderr
        )


def test_awaited(client: Client) -> None:
    async def story() -> None:
        settings = client.settings
        async with AsyncClient(
            database_url=settings.database_url, redis_url=settings.redis_url
        ) as asking:
            assert (await asking.classify("cat", ["a cat", "a drum"], **ANIMALS))[0].name == "a cat"
            found = [each async for each in asking.classify_items(["a cat", "a drum"], **ANIMALS)]
            assert len(found) == len(list(client.items(**ANIMALS)))
            assert (await asking.similarity("cat", "a cat", **ANIMALS)).score > 0
            assert await asking.answer("cat", "what?", ["a cat"], **ANIMALS)
            assert not await asking.captions("cat", collection="things", of_collection="animals")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.similarity("cat"), InvalidItem, "a query is a str, not NoneType"),
        (lambda c: c.similarity(other="a cat"), InvalidItem, "ask about one of: an item's key"),
        (lambda c: c.similarity("nix", "a cat"), NotFound, "no item nix"),
        (lambda c: c.similarity("cat", 5), InvalidItem, "a query is a str, not int"),
        (lambda c: c.classify("cat", "a cat"), InvalidItem, "labels is a list of texts"),
        (lambda c: c.classify("cat", []), InvalidItem, "1 to 1000 texts"),
        (lambda c: c.classify("cat", ["a", "\u3000"]), InvalidItem, "not blank"),
        (
            lambda c: c.classify("cat", [f"a {n}" for n in range(1001)]),
            InvalidItem,
            "1 to 1000 texts",
        ),
        (lambda c: c.classify("cat", ["a"], template="a photo"), InvalidItem, "a template has {}"),
        (lambda c: c.classify("nix", ["a"]), NotFound, "no item nix"),
        (lambda c: c.classify(image="cat.jpg", labels=["a"]), InvalidItem, "pathlib.Path"),
        (lambda c: c.classify_items(["a"], collection="nix"), NotFound, "no collection"),
        (lambda c: c.classify_items(["a"], kind="picture"), InvalidItem, "kind is 'image'"),
        (lambda c: c.answer("cat", "", ["a"]), InvalidItem, "the question is blank"),
        (lambda c: c.answer("cat", "what?", []), InvalidItem, "1 to 1000 texts"),
        (lambda c: c.captions("cat", k="x"), InvalidItem, "k is a whole number"),
        (lambda c: c.captions("nix"), NotFound, "no item nix"),
    ],
)
def test_what_makes_no_sense(
    client: Client, call: Callable[[Client], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(call(client))


def test_labels_of_a_generator_and_labels_that_come_twice(client: Client) -> None:
    found = list(client.classify_items((each for each in ("a cat", "a cat", "a drum")), **ANIMALS))
    assert all(list(each.probabilities) == ["a cat", "a drum"] for each in found)
    assert all(sum(each.probabilities.values()) == pytest.approx(1, abs=1e-3) for each in found)
    one = client.classify("cat", (each for each in ("a cat", "a drum")), **ANIMALS)
    assert len(one) == 2


def test_probabilities_as_small_as_they_may_be(client: Client, in_sql: Sql) -> None:
    (row,) = in_sql("SELECT pgclip._probabilities('{1,-0.05}', 100, NULL) AS sharp,"
                    " pgclip._probabilities('{1,-1}', 117.3, -12) AS apart")  # fmt: skip
    assert (row.sharp, row.apart) == ([1, 0], [1, 0])


def test_nobody_waits_for_another_who_asks_for_the_same(client: Client) -> None:
    labels = [f"a thing of kind {n}" for n in range(40)]
    with ThreadPoolExecutor(2) as both:
        for n in range(8):
            words = [f"{label} {n}" for label in labels]
            asked = [both.submit(client.classify, "cat", order, **ANIMALS)
                     for order in (words, words[::-1])]  # fmt: skip
            one, other = (each.result() for each in asked)
            assert {choice.name: choice.probability for choice in one} == {
                choice.name: choice.probability for choice in other
            }


def test_everything_is_classified_only_if_that_is_said(in_sql: Sql, client: Client) -> None:
    import psycopg2

    client.classify("cat", ["a cat"], **ANIMALS)
    with pytest.raises(psycopg2.Error, match="what is classified is") as refused:
        in_sql("SELECT * FROM pgclip.classify(NULL, '{a cat}')")
    assert refused.value.pgcode == "PC001"


def test_words_that_nobody_encoded_are_named(in_sql: Sql) -> None:
    import psycopg2

    with pytest.raises(psycopg2.Error, match='no vector yet of "never asked') as refused:
        in_sql("SELECT * FROM pgclip.classify('cat', '{never asked before}')")
    assert refused.value.pgcode == "PC003"
    assert "pgclip.embed_many" in str(refused.value)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_probabilities_are_the_references(
    family: str, client_of_its_own: Client, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    """A softmax over CLIP's logits, a sigmoid of each of SigLIP's."""
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = make_family(family, tmp_path / family)
    client = client_of_its_own
    start_worker(client.settings.database_url, REAL, PGCLIP_MODEL=str(folder),
                 PGCLIP_PRECISION="float32", PGCLIP_FAST_DECODE="off")  # fmt: skip
    pictures = [noise(n, 40, 40) for n in range(3)]
    labels = sorted(set(WORDS.split()))[:6]
    client.submit_many(
        {"image": encoded(each, "PNG"), "key": f"k{n}"} for n, each in enumerate(pictures)
    ).wait(60)
    inputs = {
        **AutoImageProcessor.from_pretrained(folder, backend="pil")(
            [Image.open(encoded_file(each)) for each in pictures], return_tensors="pt"
        ),
        **AutoTokenizer.from_pretrained(folder)(
            [f"a photo of {label}" for label in labels], return_tensors="pt",
            **({"padding": "max_length", "max_length": 64} if family == "siglip"
               else {"padding": True}),
        ),
    }  # fmt: skip
    with torch.inference_mode():
        logits = AutoModel.from_pretrained(folder).eval()(**inputs).logits_per_image
    theirs = (logits.sigmoid() if family == "siglip" else logits.softmax(-1)).numpy()
    found = list(client.classify_items(labels, template="a photo of {}"))
    ours = np.array([[each.probabilities[label] for label in labels] for each in found])
    np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=1e-6)
    one = client.classify("k0", labels, template="a photo of {}")
    assert {choice.name: choice.probability for choice in one} == found[0].probabilities


@pytest.fixture
def client_of_its_own(database_url: str, services: Any) -> Any:
    with Client(database_url=database_url, redis_url=services.redis_url) as client:
        yield client


def encoded_file(image: Image.Image) -> Any:
    import io

    return io.BytesIO(encoded(image, "PNG"))
