"""Searching from the command line, and what belongs to it: duplicates, calibration, segments."""

import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from PIL import Image
from support.commands import Run, in_terminal, interruptible, pgclip, pgclip_process, urls
from support.databases import run_sql
from support.places import ROOT
from support.processes import Live, WorkerFactory, eventually

from pgclip import Client, ItemFailed, Like
from pgclip.cli.output import shown_age, shown_bytes, shown_snippet

PICTURES = ROOT / "demo" / "pictures"
SHOP = ("-c", "shop-cli")


@pytest.fixture
def idle(client: Client) -> Run:
    """Runs a command against a database that no worker serves."""
    return lambda *arguments, **rest: pgclip(*arguments, **urls(client), **rest)


@pytest.fixture
def run(live: Live) -> Run:
    """Runs a command against pictures of instruments and a penguin, and some texts."""
    items: list[dict[str, Any]] = [
        {"key": "guitar", "image": PICTURES / "guitar.jpg", "metadata": {"price": 30}},
        {"key": "violin", "image": PICTURES / "violin.jpg", "metadata": {"price": 90}},
        {"key": "penguin", "image": PICTURES / "penguin.jpg", "metadata": {"size": {"width": 9}}},
        {"key": "note", "text": "Tuesday:\nlessons for the bassoon " + "and more " * 20},
        {"key": "same", "text": "a red car"},
        {"key": "same too", "text": "a red car"},
    ]
    batch = live.client.submit_many({"collection": "shop-cli", **item} for item in items)
    batch.wait(timeout=60)
    assert batch.counts()["done"] == len(items)
    return lambda *arguments, **rest: pgclip(*arguments, **urls(live.client), **rest)


@pytest.fixture
def uncalibrated(live: Live) -> Iterator[None]:
    """Nothing is calibrated, and what is calibrated meanwhile is forgotten again."""
    run_sql(live.database_url, "DELETE FROM pgclip.calibration")
    yield
    run_sql(live.database_url, "DELETE FROM pgclip.calibration")


def test_in_a_terminal_a_hit_is_a_line_that_fits(live: Live) -> None:
    keys = [f"/srv/pictures of a long way/{'deep/' * 20}{n} holidays.jpg" for n in range(3)]
    live.client.submit_many(
        {"key": key, "image": PICTURES / "guitar.jpg", "collection": "narrow",
         "metadata": {"name": key.rsplit("/")[-1], "camera": "of some make " * 9}}
        for key in [*keys, "short"]
    ).wait(60)  # fmt: skip
    arguments = ("search", "a", "guitar", "-c", "narrow", "--no-preview")
    for columns in (40, 60, 80, 200):
        told = in_terminal(*arguments, columns=columns, **urls(live.client))
        lines = [line.rstrip() for line in told.splitlines()]
        assert len(lines) == 5
        assert max(map(len, lines)) <= columns
        shown = "\n".join(lines)
        assert "short" in shown
        assert columns < 60 or all(f"{n} holidays.jpg" in shown for n in range(3))
        assert "name=" not in shown.replace("name=sh", "")
    piped = pgclip(*arguments, **urls(live.client)).stdout
    assert all(key in piped for key in keys)


def hits(run: Run, *arguments: str | Path) -> dict[str, dict[str, Any]]:
    """What a search finds, by key, best first."""
    told = run("search", *arguments, *SHOP, "--json")
    assert (told.returncode, told.stderr) == (0, "")
    return {hit["key"]: hit for hit in json.loads(told.stdout)}


class TestSearch:
    def test_filters(self, run: Run) -> None:
        assert set(hits(run, "a guitar", "--filter", '{"price": {"ge": 30}}')) == {
            *("guitar", "violin"),
        }
        wide = '{"$or": [{"size.width": 9}, {"$key": {"starts_with": "vio"}}]}'
        assert set(hits(run, "--like", "guitar", "--filter", wide)) == {"penguin", "violin"}
        wrong = run("search", "a guitar", "--filter", '{"price": {"above": 30}}')
        assert wrong.returncode == 1
        assert 'unknown operator "above" of "price"' in wrong.stderr
        assert "is not a JSON object" in run("search", "a", "--filter", "[1]").stderr

    def test_what_was_replaced_and_failed_is_said(self, run: Run, live: Live) -> None:
        """The old picture is found; that a newer one could not be read stands beside it."""
        about = {"key": "replaced", "collection": "replaced-cli"}
        live.client.submit_image(PICTURES / "penguin.jpg", **about).wait(timeout=60)
        (before,) = live.client.search("a penguin", collection="replaced-cli")
        assert before.failed is None
        with pytest.raises(ItemFailed):
            live.client.submit_image(b"no picture", **about).wait(timeout=60)
        for hit in (
            live.client.search("a penguin", collection="replaced-cli")[0],
            live.client.hybrid("a penguin", collection="replaced-cli")[0],
        ):
            assert (hit.failed, hit.key) == ("not_an_image", "replaced")
            assert hit.score == before.score
        told = run("search", "a penguin", "-c", "replaced-cli").stdout
        assert "failed since" in told
        assert "not_an_image" in told
        assert "failed since" not in run("search", "a guitar", *SHOP).stdout
        live.client.submit_image(PICTURES / "guitar.jpg", **about).wait(timeout=60)
        assert live.client.search("a guitar", collection="replaced-cli")[0].failed is None

    def test_the_least_score_and_all_compared(self, run: Run) -> None:
        every = hits(run, "a guitar")
        assert next(iter(every)) == "guitar"
        least = every["violin"]["score"]
        some = hits(run, "a guitar", "--min-score", str(least - 1e-4))
        assert list(some) == [key for key in every if every[key]["score"] >= least]
        assert list(hits(run, "a guitar", "--exact")) == list(every)
        nothing = run("search", "a guitar", *SHOP, "--min-score", "0.99")
        assert (nothing.returncode, nothing.stdout) == (0, "")
        assert nothing.stderr == "nothing found\n"

    @pytest.mark.usefixtures("uncalibrated")
    def test_relevance(self, run: Run, live: Live) -> None:
        images = ("a guitar", "--kind", "image")
        score = hits(run, *images)["guitar"]["score"]
        live.client.set_calibration("text", "image", midpoint=score - 0.01, slope=200)
        assert hits(run, *images)["guitar"]["relevance"] == pytest.approx(0.88, abs=0.01)
        assert list(hits(run, *images, "--min-relevance", "0.5")) == ["guitar"]
        header, first, *_ = run("search", *images, *SHOP).stdout.splitlines()
        assert header.split()[:3] == ["score", "relevance", "key"]
        assert first.split()[1:3] == ["0.88", "guitar"]

    @pytest.mark.usefixtures("uncalibrated")
    def test_no_relevance_without_a_calibration(self, run: Run) -> None:
        images = ("a guitar", "--kind", "image")
        missing = run("search", *images, "--min-relevance", "0.5")
        assert missing.returncode == 1
        assert "there is no calibration from text to image" in missing.stderr
        assert hits(run, *images)["guitar"]["relevance"] is None
        assert "relevance" not in run("search", *images, *SHOP).stdout

    def test_several_queries_with_weights(self, run: Run, live: Live) -> None:
        alone = hits(run, "an instrument")
        away = hits(run, "an instrument", "--with", "a guitar=-0.5")
        assert away["guitar"]["score"] < alone["guitar"]["score"] - 0.1
        picture = f"image:{PICTURES / 'penguin.jpg'}=2"
        assert next(iter(hits(run, "an instrument", "--with", picture))) == "penguin"
        mixed = hits(run, "an instrument", "--with", picture, "--with", "like:violin=-1.5")
        found = live.client.search(
            [
                ("an instrument", 1),
                (PICTURES / "penguin.jpg", 2),
                (Like("violin", "shop-cli"), -1.5),
            ],
            collection="shop-cli",
        )
        assert {key: hit["score"] for key, hit in mixed.items()} == pytest.approx(
            {hit.key: hit.score for hit in found}
        )
        assert list(mixed) == [hit.key for hit in found]
        nearest = hits(run, "--image", PICTURES / "guitar.jpg", "--with", "like:penguin=1.5")
        assert list(nearest)[:2] == ["penguin", "guitar"]
        assert next(iter(hits(run, "--like", "guitar", "--with", "2 = 1 + 1=0"))) == "guitar"

    def test_words_and_vectors(self, run: Run) -> None:
        found = hits(run, "bassoon", "--hybrid")
        assert found["note"]["text_rank"] == 1
        assert found["guitar"]["text_rank"] is None
        assert found["note"]["fused"] > found["guitar"]["fused"] > 0
        lines = run("search", "bassoon", "--hybrid", *SHOP, "-k", "200").stdout.splitlines()
        assert " fused  by vectors  by words  key " in lines[0]
        assert "  1  note  " in next(line for line in lines if "Tuesday" in line)
        assert hits(run, "bassoon", "--hybrid", "--filter", '{"price": 90}').keys() == {"violin"}

    def test_texts_show_how_they_begin(self, run: Run, live: Live, tmp_path: Path) -> None:
        told = run("search", "--like", "same", *SHOP, "--kind", "text")
        header, *lines = told.stdout.splitlines()
        assert header.split()[-4:] == ["key", "text", "labels", "metadata"]
        shown = next(line for line in lines if "note" in line)
        assert "note      Tuesday: lessons for the bassoon and more" in shown
        assert "and more a…  " in shown
        assert " text " not in run("search", "a", *SHOP, "--kind", "image").stdout.splitlines()[0]
        opener = tmp_path / "open"
        opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "shown"}\n')
        opener.chmod(0o755)
        weighed = ("bassoon", "--with", "a=0.1", *SHOP, "--open")
        given = {**urls(live.client), "BROWSER": str(opener)}
        assert pgclip_process("search", *weighed, **given).returncode == 0
        page = Path((tmp_path / "shown").read_text().strip().removeprefix("file://"))
        html = page.read_text()
        page.unlink()
        assert "<blockquote>a red car</blockquote>" in html
        assert "<h1>bassoon a=0.1</h1>" in html

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--with", "people"),
            ("--with", "people=much"),
            ("--with", "people=nan"),
            ("--with", "=1"),
            ("--hybrid", "--exact"),
            ("--hybrid", "--min-score", "0"),
            ("--hybrid", "--with", "people=1"),
            ("--hybrid", "--min-relevance", "0.5"),
        ],
    )
    def test_usage(self, idle: Run, arguments: tuple[str, ...]) -> None:
        told = idle("search", "a beach", *arguments)
        assert (told.returncode, told.stdout) == (2, "")
        assert arguments[0] in told.stderr

    def test_usage_without_words(self, idle: Run) -> None:
        assert idle("search", "--like", "a", "--hybrid").returncode == 2

    def test_what_can_not_be_searched_for(self, run: Run) -> None:
        opposite = run("search", "a guitar", "--with", "a guitar=-1")
        assert opposite.returncode == 1
        assert "the weights cancel each other out" in opposite.stderr
        assert run("search", "a guitar", "--with", "image:/none.jpg=1").returncode == 1
        missing = run("search", "a guitar", "--with", "like:nothing=1", *SHOP)
        assert "there is no item nothing in collection shop-cli" in missing.stderr


class TestDuplicates:
    @pytest.fixture
    def copied(self, run: Run, live: Live) -> Run:
        """The same, with a copy of a picture that was cut at its edges."""
        copy, picture = BytesIO(), Image.open(PICTURES / "guitar.jpg")
        width, height = picture.size
        picture.crop((5, 5, width - 5, height - 5)).save(copy, "PNG")
        live.client.submit_image(copy.getvalue(), key="copy", collection="shop-cli").wait(60)
        return run

    def test_groups(self, copied: Run) -> None:
        told = copied("duplicates", *SHOP, "--json")
        assert (told.returncode, told.stderr) == (0, "")
        groups = json.loads(told.stdout)
        found = {frozenset(item["key"] for item in group): group for group in groups}
        assert found.keys() == {frozenset({"same", "same too"}), frozenset({"guitar", "copy"})}
        assert {item["tier"] for item in found[frozenset({"same", "same too"})]} == {"identical"}
        assert {item["tier"] for item in found[frozenset({"guitar", "copy"})]} == {"near"}

        header, *lines = copied("duplicates", *SHOP, "--kind", "image").stdout.splitlines()
        assert header.split() == ["group", "tier", "score", "kind", "collection", "key"]
        assert [line.split()[0] for line in lines] == ["1", "1"]
        assert {line.split()[-1] for line in lines} == {"guitar", "copy"}
        strict = copied("duplicates", *SHOP, "--kind", "image", "--min-score", "0.9999")
        assert (strict.returncode, strict.stdout) == (0, "")
        assert strict.stderr == "no duplicates found\n"

    def test_of_one(self, copied: Run) -> None:
        (found,) = json.loads(copied("duplicates", "guitar", *SHOP, "--json").stdout)
        assert (found["key"], found["tier"]) == ("copy", "near")
        assert found["score"] > 0.97
        told = copied("duplicates", "guitar", *SHOP, "--near", "0.9999")
        assert told.stdout.splitlines()[1].split()[0] == "similar"
        lonely = copied("duplicates", "penguin", *SHOP)
        assert (lonely.returncode, lonely.stderr) == (0, "no duplicates found\n")

    def test_usage_and_failure(self, run: Run) -> None:
        assert run("duplicates", "guitar", "--kind", "image").returncode == 2
        assert run("duplicates", "--kind", "film").returncode == 2
        missing = run("duplicates", "nothing at all")
        assert missing.returncode == 1
        assert "there is no item nothing at all in collection default" in missing.stderr
        assert run("duplicates", *SHOP, "--min-score", "2").returncode == 1
        assert run("duplicates", *SHOP, "--near", "0.5").returncode == 1


@pytest.mark.usefixtures("uncalibrated")
def test_calibrate(run: Run, idle: Run, live: Live) -> None:
    pictures = sorted(PICTURES.iterdir())[:40]
    live.client.submit_many(
        {"image": path, "key": path.name, "collection": "measured"} for path in pictures
    ).wait(timeout=60)
    told = run("calibrate", "--sample", "60")
    assert (told.returncode, told.stderr) == (0, "")
    header, *lines = told.stdout.splitlines()
    columns = ["from", "to", "midpoint", "slope", "mean", "deviation", "model"]
    assert header.split() == columns
    of_images = next(line.split() for line in lines if line.startswith("image  image"))
    middle, slope, mean, deviation = map(float, of_images[2:6])
    assert middle == pytest.approx(mean + 3.5 * deviation, abs=0.005)
    assert slope == pytest.approx(2 / deviation, rel=0.05)

    scales = json.loads(run("calibrate", "--json").stdout)
    assert {"model", "query_kind", "item_kind", "midpoint", "slope", "mean"} <= set(scales[0])
    wrong = run("calibrate", "--sample", "5")
    assert wrong.returncode == 1
    assert "sample must be from 30 to 2000" in wrong.stderr
    assert "no model has been registered yet" in idle("calibrate").stderr


class TestSegments:
    @pytest.fixture
    def quiet(self, client: Client, database_url: str, start_worker: WorkerFactory) -> Run:
        """Runs a command against a database whose worker leaves the segments to others."""
        start_worker(database_url, PGCLIP_STEWARD_INTERVAL="3600")
        client.submit_many({"text": f"text {n}", "key": f"t{n}"} for n in range(25)).wait(60)
        return lambda *arguments, **rest: pgclip(*arguments, **urls(client), **rest)

    def test_shows_and_builds_them(self, quiet: Run) -> None:
        header, line = quiet("segments").stdout.splitlines()
        assert header.split() == [
            *("model", "number", "state", "kind", "vectors", "table", "indexes"),
            "age",
        ]
        assert line.split()[:3] == ["planted", "1", "hot"]
        assert "0 sealed segments, about" in quiet("status").stdout
        before = quiet("search", "--like", "t7", "--json").stdout

        unneeded = json.loads(quiet("segments", "--build", "--json").stdout)
        assert [segment["state"] for segment in unneeded] == ["hot"]
        told = quiet("segments", "--build", PGCLIP_SEGMENT_ROWS="10")
        assert (told.returncode, told.stderr) == (0, "")
        rows = [line.split() for line in told.stdout.splitlines()[1:]]
        assert [row[2] for row in rows] == ["retired", "hot", "sealed"]
        assert rows[2][:5] == ["planted", "3", "sealed", "text", "25"]
        assert rows[2][6] == "KiB"

        assert "1 sealed segment, about 0 vectors without an index" in quiet("status").stdout
        (model,) = json.loads(quiet("status", "--json").stdout)["models"]
        assert (model["sealed_segments"], model["unindexed_vectors"]) == (1, 0)
        assert quiet("search", "--like", "t7", "--json").stdout == before

    def test_a_model_without_segments_and_none(self, idle: Run, client: Client) -> None:
        assert idle("segments", "--build", "--json").stdout == "[]\n"
        run_sql(client.settings.database_url, "SELECT pgclip.add_model('new')")
        assert idle("segments", "--build").returncode == 0
        assert "0 sealed segments, about 0 vectors" in idle("status").stdout

    def test_too_few_to_calibrate(self, quiet: Run, client: Client) -> None:
        told = quiet("calibrate")
        assert (told.returncode, told.stdout) == (0, "")
        assert told.stderr == "too few items: nothing was measured\n"
        client.set_calibration("text", "image", midpoint=0.3, slope=20)
        line = quiet("calibrate").stdout.splitlines()[1]
        assert line.split() == ["text", "image", "0.300", "20.0", "planted"]

    def test_building_waits_while_a_worker_is_at_it(self, quiet: Run, client: Client) -> None:
        url = client.settings.database_url
        other = psycopg2.connect(url)
        other.cursor().execute("SELECT pg_advisory_xact_lock(731199448, 1)")
        process = interruptible("segments", "--build", **urls(client), PGCLIP_SEGMENT_ROWS="10")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        other.commit()
        other.close()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        assert b"sealed" in out

    def test_building_can_be_interrupted(self, quiet: Run, client: Client) -> None:
        url = client.settings.database_url
        run_sql(
            url,
            """CREATE OR REPLACE FUNCTION pgclip.next_build(
                   p_model smallint, p_most int, p_worn double precision, p_patience bigint,
                   p_memory bigint
               ) RETURNS int[]
               LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END'""",
        )
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        process = interruptible("segments", "--build", **urls(client))
        eventually(lambda: run_sql(url, sleeping) == [(1,)])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (130, b"")
        assert run_sql(url, sleeping) == [(0,)]


def test_sizes_ages_and_beginnings() -> None:
    sizes = [shown_bytes(size) for size in (0, 1023, 2048, 5 * 2**20, 3 * 2**50)]
    assert sizes == ["0 B", "1023 B", "2.0 KiB", "5.0 MiB", "3072.0 TiB"]
    now = datetime.now(UTC)
    ages = [shown_age(now - timedelta(seconds=n)) for n in (0.2, 119, 121, 7300, 172_900)]
    assert ages == ["0 s", "119 s", "2 min", "2 h", "2 d"]
    assert shown_snippet(None) == ""
    assert shown_snippet("a\n b", 3) == "a b"
    assert shown_snippet("abcdef", 3) == "ab…"
