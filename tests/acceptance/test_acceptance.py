"""The whole path with a real worker and the demo model: the right picture, the right label."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest
import torch
from PIL import Image
from support.databases import assert_ledger_is_true, run_sql
from support.pictures import encoded
from support.places import DEMO_MODEL, ROOT
from support.processes import Live
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from pgclip import Batch, ItemFailed, QueryFailed

PICTURES = ROOT / "demo" / "pictures"
DESCRIBED: dict[str, dict[str, str]] = json.loads((PICTURES / "pictures.json").read_text())
# Things that differ well from all others, by their bare names.
THINGS = ["guitar", "penguin", "airplane", "banana", "umbrella", "rabbit", "bicycle", "sunflower"]
LABELS = {
    "banana": "fruit",
    "penguin": "bird",
    "airplane": "aircraft",
    "guitar": "musical instrument",
}


def picture(name: str) -> Path:
    return next(PICTURES.glob(f"{name}.*"))


@pytest.fixture(scope="module")
def indexed(live: Live) -> Batch:
    """All shipped pictures as references, and a few texts, in collection shipped."""
    pictures: list[dict[str, Any]] = [
        {"image": PICTURES / name, "key": name, "collection": "shipped", "metadata": about}
        for name, about in DESCRIBED.items()
    ]
    texts = [{"text": f"a {n}", "key": f"text-{n}", "collection": "shipped"} for n in THINGS]
    batch = live.client.submit_many([*pictures, *texts])
    batch.wait(timeout=120)
    return batch


def test_everything_is_indexed_and_labelled(live: Live, indexed: Batch) -> None:
    total = len(DESCRIBED) + len(THINGS)
    assert indexed.counts() == {"queued": 0, "leased": 0, "done": total, "failed": 0}
    item = live.client.get(picture("banana").name, collection="shipped")
    assert item.state == "done"
    assert item.metadata == DESCRIBED[picture("banana").name]
    assert item.source == picture("banana").as_uri()
    assert item.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(item.vectors, axis=1), 1, atol=1e-6)
    for label in item.labels:
        assert 0.1 <= label.score <= 1
    assert_ledger_is_true(live.database_url)


@pytest.mark.parametrize("thing", THINGS)
def test_a_text_finds_its_picture_first(live: Live, indexed: Batch, thing: str) -> None:
    hits = live.client.search(thing, k=5, collection="shipped", kind="image")
    assert hits[0].key == picture(thing).name
    assert hits[0].metadata == DESCRIBED[hits[0].key]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {hit.kind for hit in hits} == {"image"}


def test_nearly_every_shipped_picture_is_found_by_its_name(live: Live, indexed: Batch) -> None:
    missed = []
    for name, about in DESCRIBED.items():
        (hit,) = live.client.search(about["name"], k=1, collection="shipped", kind="image")
        if hit.key != name:
            missed.append(name)
    assert len(missed) <= 0.1 * len(DESCRIBED), missed


@pytest.mark.parametrize("thing", THINGS)
def test_a_picture_finds_its_text_first(live: Live, indexed: Batch, thing: str) -> None:
    hits = live.client.search(image=picture(thing), k=3, collection="shipped", kind="text")
    assert hits[0].key == f"text-{thing}"


@pytest.mark.parametrize("thing", LABELS)
def test_the_right_label_wins(live: Live, indexed: Batch, thing: str) -> None:
    labels = live.client.get(picture(thing).name, collection="shipped").labels
    general = [label for label in labels if label.set == "general"]
    assert general[0].name == LABELS[thing]
    filtered = run_sql(
        live.database_url,
        "SELECT score FROM pgclip.labels WHERE collection = 'shipped' "
        "AND key = %s AND label = %s AND current",
        picture(thing).name,
        LABELS[thing],
    )
    assert [row[0] for row in filtered] == [pytest.approx(general[0].score)]


def test_a_picture_finds_itself_and_its_likes(live: Live, indexed: Batch) -> None:
    banana = picture("banana")
    hits = live.client.search(image=banana.read_bytes(), k=3, collection="shipped")
    assert hits[0].key == banana.name
    assert hits[0].score == pytest.approx(1, abs=2e-3)
    alike = live.client.search(like=banana.name, collection="shipped", k=3)
    assert banana.name not in {hit.key for hit in alike}
    turned = encoded(Image.open(banana).convert("RGB").resize((150, 150)).rotate(10), "JPEG")
    again = live.client.search(image=turned, k=1, collection="shipped", kind="image")
    assert again[0].key == banana.name


def test_psql_gives_the_same_answers(live: Live, indexed: Batch) -> None:
    run_sql(live.database_url, "CALL pgclip.embed('a red apple')")
    rows = run_sql(
        live.database_url,
        "SELECT key, score FROM pgclip.search('a red apple', k => 7, collection => 'shipped')",
    )
    hits = live.client.search("a red apple", k=7, collection="shipped")
    assert rows == [(hit.key, pytest.approx(hit.score)) for hit in hits]
    rows = run_sql(
        live.database_url,
        "SELECT key FROM pgclip.similar(%s, 4, of_collection => 'shipped')",
        picture("banana").name,
    )
    assert len(rows) == 4


def test_call_embed_inside_a_transaction_is_refused(live: Live) -> None:
    connection = psycopg2.connect(live.database_url)
    with connection, connection.cursor() as cursor, pytest.raises(psycopg2.Error) as caught:
        cursor.execute("CALL pgclip.embed('never asked before')")
    assert caught.value.pgcode == "2D000"  # invalid transaction termination
    connection.close()


def test_vectors_are_transformers_own(live: Live, indexed: Batch) -> None:
    """The stored vectors against CLIPModel and CLIPProcessor in float32, for the same pictures."""
    model = AutoModel.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    processor = AutoImageProcessor.from_pretrained(DEMO_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    names = [picture(thing).name for thing in THINGS]
    images = [Image.open(io.BytesIO((PICTURES / name).read_bytes())) for name in names]
    with torch.inference_mode():
        pixels = processor([image.convert("RGB") for image in images], return_tensors="pt")
        tokens = tokenizer([f"a {thing}" for thing in THINGS], return_tensors="pt", padding=True)
        reference = torch.nn.functional.normalize(
            torch.cat(
                [
                    model.get_image_features(**pixels).pooler_output,
                    model.get_text_features(
                        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                    ).pooler_output,
                ]
            ),
            dim=-1,
        ).numpy()
    keys = [*names, *(f"text-{thing}" for thing in THINGS)]
    stored = np.concatenate([live.client.get(key, collection="shipped").vectors for key in keys])
    assert (stored * reference).sum(axis=1).min() >= 0.999


def test_bad_references_and_bytes_name_the_item(live: Live) -> None:
    shutil.copy(picture("banana"), live.folder / "banana.jpg")
    cases: dict[str, Any] = {
        "missing_file": live.folder / "missing.jpg",
        "forbidden_path": Path("/etc/hostname"),
        "forbidden_url": "gopher://example.org/cat.jpg",
        "not_an_image": b"this is no picture",
        "unreadable_image": picture("banana").read_bytes()[:500],
    }
    items = [
        {"image": image, "key": reason, "collection": "bad"} for reason, image in cases.items()
    ]
    good = {"image": live.folder / "banana.jpg", "key": "good", "collection": "bad"}
    batch = live.client.submit_many([*items, good])
    with pytest.raises(ItemFailed, match="5 of 6 items failed"):
        batch.wait(timeout=60)
    assert {failure.key: failure.reason for failure in batch.failures()} == {r: r for r in cases}
    assert live.client.get("good", collection="bad").state == "done"
    for reason in cases:
        item = live.client.get(reason, collection="bad")
        assert (item.state, item.reason) == ("failed", reason)
        assert item.error
        assert item.vectors.shape == (0, 0)


def test_a_query_picture_that_is_none(live: Live) -> None:
    with pytest.raises(QueryFailed, match="could not be encoded: this is no picture"):
        live.client.search(image=b"no picture")


def test_a_long_text_is_not_cut(live: Live) -> None:
    long = "nothing to see here and more of the same " * 30 + "a penguin"
    live.client.submit_text(long, key="long", collection="long").wait(timeout=60)
    assert len(live.client.get("long", collection="long").vectors) > 2
    hits = live.client.search("a penguin", collection="long")
    assert [hit.key for hit in hits] == ["long"]  # several vectors, one hit


def test_many_keys_with_one_content(live: Live) -> None:
    data = picture("guitar").read_bytes()
    batch = live.client.submit_many(
        {"image": data, "key": f"copy-{n}", "collection": "copies"} for n in range(200)
    )
    batch.wait(timeout=60)
    hits = live.client.search("a guitar", collection="copies", k=300)
    assert len({hit.key for hit in hits}) == 200
    assert_ledger_is_true(live.database_url)
