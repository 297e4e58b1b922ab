"""Calls that mean something else than they say are refused at once, in a line that helps."""

import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import encoded, noise
from support.shelf import Shelf

from pgclip import Client, InvalidItem

Call = Callable[[Client], object]
PICTURE = encoded(noise(1, 20, 30), "PNG")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # Pictures.
        (lambda c: c.search(image="cat.jpg"), "'cat.jpg' is a str. Pass a pathlib.Path"),
        (lambda c: c.embed(image="cat.jpg"), "'cat.jpg' is a str. Pass a pathlib.Path"),
        (lambda c: c.forget_queries(image="cat.jpg"), "'cat.jpg' is a str. Pass a pathlib.Path"),
        (lambda c: c.search(image=5), "an image is bytes.* not int"),
        (lambda c: c.search(image=np.zeros((2, 2))), "an image is bytes.* not ndarray"),
        (lambda c: c.search([("cat", 1.0), (5, 1.0)]), "a query is a str, not int"),
        (lambda c: c.submit_image("data:image/png;base64," + "A" * 5_000_000), "is a data: URL"),
        (lambda c: c.submit_image("A" * 5_000_000), "is a string but not a URL"),
        (lambda c: c.submit_image(np.zeros((2, 2))), "an image is bytes.* not ndarray"),
        (lambda c: c.submit_image(io.StringIO("x")), "opened for binary reading"),
        (lambda c: c.submit_image(Image.new("RGB", (0, 0))), "Pillow can't encode it"),
        # What is asked.
        (lambda c: c.search(PICTURE), "not bytes; a picture goes as image="),
        (lambda c: c.search(Path("cat.jpg")), "not PosixPath; a picture goes as image="),
        (lambda c: c.search(io.BytesIO(PICTURE)), "not BytesIO; a picture goes as image="),
        (lambda c: c.search(Image.new("L", (2, 2))), "not Image; a picture goes as image="),
        (lambda c: c.hybrid(PICTURE), "not bytes; a picture goes as image="),
        (lambda c: c.hybrid(["cat"]), "a query is a str, not list"),
        (lambda c: c.embed(5), "a query is a str, not int"),
        (lambda c: c.embed(), "embed one of"),
        (lambda c: c.search("a", image=PICTURE), "search for one of"),
        (lambda c: c.search(like=5), "the key is a str, not int"),
        (lambda c: c.search("a", kind="picture"), "kind is 'image' or 'text', not 'picture'"),
        (lambda c: c.search("a", kind=["image"]), "kind is 'image' or 'text'"),
        (lambda c: c.hybrid("a", kind="picture"), "kind is 'image' or 'text', not 'picture'"),
        (lambda c: c.search_vector([1.0], query_kind="words"), "query_kind is 'image' or 'text'"),
        (lambda c: c.search("a", k="10"), "k must be from 1 to 10000, not '10'"),
        (lambda c: c.search("a", collection=5), "the collection is a str, not int"),
        (lambda c: c.search("a", min_score="high"), "min_score is a number, not 'high'"),
        (lambda c: c.search("a", min_relevance=[1]), "min_relevance is a number"),
        (lambda c: c.search("a", recall="all"), "recall is a number"),
        (lambda c: c.search("a", exact="yes"), "exact is True or False, not 'yes'"),
        (lambda c: c.search("a", after="cat-1"), "after is the last hit of a page, not str"),
        (lambda c: c.search("a", timeout="long"), "timeout is a number of seconds, not 'long'"),
        (lambda c: c.search("a", timeout=None), "timeout is a number of seconds, not None"),
        (lambda c: c.hybrid("a", depth="deep"), "depth is a whole number"),
        (lambda c: c.search("a", filter="price < 3"), "the filter is a mapping, not str"),
        (lambda c: c.search("a", filter={"a": {1}}), "the filter is not JSON"),
        (lambda c: c.search_vector("abc"), "a vector is a sequence of numbers"),
        (lambda c: c.duplicates_of(5), "the key is a str, not int"),
        (lambda c: c.duplicates_of("a", min_score="x"), "min_score is a number"),
        (lambda c: c.duplicate_groups(kind="photos"), "kind is 'image' or 'text'"),
        (lambda c: c.set_calibration("words", "image", midpoint=0, slope=1), "query_kind is"),
        (lambda c: c.set_calibration("text", "image", midpoint="x", slope=1), "midpoint is a numb"),
        (lambda c: c.calibrate(sample="all"), "sample is a whole number"),
        (lambda c: c.configure_text_search(fields="title"), "fields is a list"),
        (lambda c: c.search("a", min_score=10**400), "min_score is a number"),
        (lambda c: c.search_vector([10**400] * 8), "a vector is a sequence of numbers"),
        (lambda c: c.search_vector("12345678"), "a vector is a sequence of numbers"),
        (lambda c: c.search([("a", 10**400)]), "a weight is a number"),
        (lambda c: c.search(image=Path("a\0b")), "query image"),
        (lambda c: c.configure_text_search(language=5), "the language is a str, not int"),
        (lambda c: c.configure_text_search(language="a\0"), "NUL"),
        # Many items.
        (lambda c: c.submit_many({"text": "a cat"}), "of mappings such as .*, not dict"),
        (lambda c: c.submit_many("a cat"), "of mappings such as .*, not str"),
        (lambda c: c.submit_many(5), "of mappings such as .*, not int"),
        (lambda c: c.items(kind="picture"), "kind is 'image' or 'text', not 'picture'"),
        (lambda c: c.items(state="lost"), "state is 'queued' or .*, not 'lost'"),
        (lambda c: c.items(keys="a"), "keys is a list of keys, not 'a'"),
        (lambda c: c.items(metadata="a"), "the metadata is a mapping, not str"),
        (lambda c: c.items(reason=5), "the reason is a str, not int"),
        (lambda c: c.count(kind="picture"), "kind is 'image' or 'text'"),
        (lambda c: c.count(state="lost"), "state is 'queued' or"),
        (lambda c: c.retry(kind="picture"), "kind is 'image' or 'text'"),
        (lambda c: c.cancel(collection=5), "the collection is a str, not int"),
        (lambda c: c.delete_items(state="lost"), "state is 'queued' or"),
        (lambda c: c.missing(limit="all"), "limit is a whole number"),
        (lambda c: c.submit_text("a", metadata={"at": datetime.now()}), "goes as text: value.isof"),
        (lambda c: c.submit_text("a", keep_source="no"), "keep_source is True or False"),
        (lambda c: c.submit_text("a", priority=True), "the priority is from 0"),
        (lambda c: c.define_label_set("s", "cat"), "labels is a list of texts, not 'cat'"),
        (lambda c: c.define_label_set("s", ["a\0"]), "NUL"),
        (lambda c: c.define_label_set(5, ["a"]), "the label set is a str, not int"),
        (lambda c: c.define_label_set("s", ["\ud800"]), "not valid Unicode"),
        (lambda c: c.drop_label_set("a\0"), "NUL"),
        (lambda c: c.define_label_set("s", ["cat"], templates="a {}"), "templates are named"),
    ],
)
def test_wrong_kinds_are_refused_in_a_line(client: Client, call: Call, message: str) -> None:
    with pytest.raises(InvalidItem, match=message) as refused:
        call(client)
    told = str(refused.value)
    assert len(told) < 400
    assert "\n" not in told


def test_a_file_at_its_end_is_read_from_its_beginning(client: Client) -> None:
    written = io.BytesIO()
    noise(1, 20, 30).save(written, "PNG")
    assert written.tell() > 0
    client.submit_image(written, key="written")
    assert client.content("written") == written.getvalue()
    half = io.BytesIO(b"header" + PICTURE)
    half.seek(6)
    client.submit_image(half, key="rest")
    assert client.content("rest") == PICTURE
    with pytest.raises(InvalidItem, match="is empty"):
        client.submit_image(io.BytesIO(), key="nothing")


class Reader:
    """What can be read and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, _: int) -> bytes:
        return self._data


def test_what_can_only_be_read_is_read(client: Client) -> None:
    client.submit_image(Reader(PICTURE), key="read")  # type: ignore[arg-type]
    assert client.content("read") == PICTURE
    with pytest.raises(InvalidItem, match="is empty"):
        client.submit_image(Reader(b""), key="nothing")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "PA", "La"])
def test_of_a_tiff_on_its_side_the_pixels_are_its_own(client: Client, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    of_file = "CMYK" if mode == "CMYK" else "RGB"
    noise(5, 100, 300).convert(of_file).save(file, "TIFF", compression="tiff_lzw", exif=exif)
    image = Image.open(file)
    if mode in ("PA", "La"):
        alpha = image.convert("P" if mode == "PA" else "L").convert("PA" if mode == "PA" else "LA")
        image = alpha if mode == "PA" else alpha.convert("La")
    client.submit_image(image, key=mode)
    kept = Image.open(io.BytesIO(client.content(mode)))
    assert kept.size == image.size
    np.testing.assert_array_equal(
        np.asarray(kept.convert("L")),
        np.asarray(
            image.convert("RGBA" if mode == "PA" else "LA" if mode == "La" else of_file).convert(
                "L"
            )
        ),
    )
    assert kept.getexif().get(0x0112, 1) == 1  # it has been turned


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
def test_pillow_images_are_taken_as_they_are(client: Client, mode: str) -> None:
    whole = noise(3, 21, 13)
    image = whole.convert("I").convert(mode) if mode in ("F", "I;16") else whole.convert(mode)
    client.submit_image(image, key=mode)
    kept = Image.open(io.BytesIO(client.content(mode)))
    as_seen = image if mode != "HSV" else image.convert("RGB")
    np.testing.assert_array_equal(np.asarray(kept.convert(as_seen.mode)), np.asarray(as_seen))


def test_of_a_pillow_image_the_side_that_is_up_is_kept(client: Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.open(io.BytesIO(encoded(noise(4, 20, 30), "JPEG", exif=exif)))
    client.submit_many([{"image": photo, "key": "photo"}])
    assert Image.open(io.BytesIO(client.content("photo"))).getexif()[0x0112] == 6


def test_numbers_of_numpy_are_metadata(client: Client) -> None:
    client.submit_text("a cat", key="k", metadata={"n": np.int64(3), "x": np.float32(0.5)})
    assert client.get("k").metadata == {"n": 3, "x": 0.5}
    with pytest.raises(InvalidItem, match="not JSON"):
        client.submit_text("a cat", key="k", metadata={"n": np.zeros(3)})


def test_count_takes_what_items_takes(client: Client, shelf: Shelf) -> None:
    for n in range(3):
        client.submit_text(f"text {n}", key=f"k{n}", metadata={"n": n})
    assert client.count(state="queued") == {"queued": 3}
    assert client.count(keys=["k1", "k2"], metadata={"n": 1})["queued"] == 1
    assert client.count(reason="cancelled")["failed"] == 0
    client.cancel(keys=["k1"])
    assert client.count(reason="cancelled") == {"queued": 0, "leased": 0, "done": 0, "failed": 1}


@pytest.mark.parametrize("kind", ["a", "b", "c"])
def test_filters_take_dates(kind: str) -> None:
    from pgclip.arguments import filter_json

    at = {"a": datetime(2026, 1, 2, 3, tzinfo=UTC), "b": date(2026, 1, 2), "c": np.float32(0.5)}
    text = {"a": '"2026-01-02T03:00:00+00:00"', "b": '"2026-01-02"', "c": "0.5"}
    told = filter_json({"$created_at": {"gt": at[kind]}})
    assert told is not None
    assert re.sub(r"\s", "", told) == f'{{"$created_at":{{"gt":{text[kind]}}}}}'
