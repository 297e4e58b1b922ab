"""Filters against an oracle: what they find is what a plain reading of them says."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from support.planted_items import (
    MISSING,
    at,
    in_autocommit,
    nested,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
# Their order is the same in every collation.
STRINGS = ["a", "b", "c", "d'e", "f\\g", "h%i", "k $1 l", "m $$ n", "x", "ж", "10"]
FIELDS = ["p", "q", "r.s", "r.t.u", "it's", "odd \\ % field"]
LABELS = ["one", "two", "it's three"]


@dataclass(frozen=True)
class Item:
    """An item as the oracle sees it."""

    id: int
    key: str
    source: str | None
    metadata: dict[str, Any]
    created_at: datetime
    labels: dict[str, float]


def same(a: Any, b: Any) -> bool:
    """Equality of JSON: 1 is 1.0 but not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return (type(a) is type(b) or (is_number(a) and is_number(b))) and bool(a == b)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def holds(a: Any, b: Any) -> bool:
    """Containment in Postgres' sense."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(key in a and holds(a[key], b[key]) for key in b)
    if isinstance(a, list) and isinstance(b, list):
        return all(any(holds(x, y) for x in a) for y in b)
    return not isinstance(b, list | dict) and same(a, b)


def compares(operator: str, a: Any, b: Any) -> bool:
    return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[operator]


def of_value(value: Any, operator: str, given: Any) -> bool:
    """Whether a value of the metadata, or MISSING, is what an operator asks for."""
    if operator == "exists":
        return (value is not MISSING) == given
    if operator in ("ne", "not_in"):
        return not of_value(value, {"ne": "eq", "not_in": "in"}[operator], given)
    if value is MISSING:
        return False
    if operator == "eq":
        return same(value, given)
    if operator == "in":
        return any(same(value, one) for one in given)
    if operator == "contains":
        return isinstance(value, list) and holds(
            value, given if isinstance(given, list) else [given]
        )
    if is_number(given):
        return is_number(value) and compares(operator, value, given)
    return isinstance(value, str) and compares(operator, value, given)


def of_text(value: str | None, operator: str, given: Any) -> bool:
    if operator in ("ne", "not_in"):
        return not of_text(value, {"ne": "eq", "not_in": "in"}[operator], given)
    if value is None:
        return False
    if operator == "starts_with":
        return value.startswith(given)
    return value == given if operator == "eq" else value in given


def of_time(value: datetime, operator: str, given: str) -> bool:
    return compares(operator, value, datetime.fromisoformat(given))


def matches(item: Item, filter: dict[str, Any]) -> bool:
    return all(member_matches(item, field, value) for field, value in filter.items())


def member_matches(item: Item, field: str, value: Any) -> bool:
    if field == "$not":
        return not matches(item, value)
    if field in ("$and", "$or"):
        return (all if field == "$and" else any)(matches(item, one) for one in value)
    if field == "$label":
        wanted = value if isinstance(value, dict) else {"name": value}
        score = item.labels.get(wanted["name"])
        return score is not None and score >= wanted.get("min_score", 0)
    operators = value if isinstance(value, dict) else {"eq": value}
    for operator, given in operators.items():
        if field == "$created_at":
            fits = of_time(item.created_at, operator, given)
        elif field in ("$key", "$source"):
            fits = of_text(item.key if field == "$key" else item.source, operator, given)
        else:
            fits = of_value(at(item.metadata, field), operator, given)
        if not fits:
            return False
    return True


def random_scalar(chance: random.Random) -> Any:
    return chance.choice([
        None, True, False, chance.randint(-3, 5), chance.randint(-3, 5), chance.randint(-6, 10) / 2,
        chance.choice(STRINGS), chance.choice(STRINGS),
    ])  # fmt: skip


def random_value(chance: random.Random, depth: int = 2) -> Any:
    kind = chance.random()
    if depth and kind < 0.2:
        return [random_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    if depth and kind < 0.3:
        names = chance.sample(["s", "t", "u", "it's"], chance.randint(0, 2))
        return {name: random_value(chance, depth - 1) for name in names}
    return random_scalar(chance)


def merged(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    out = dict(a)
    for key, value in b.items():
        old = out.get(key)
        out[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return out


def random_metadata(chance: random.Random) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for field in FIELDS:
        if chance.random() < 0.7:
            metadata = merged(metadata, nested(field, random_value(chance)))
    return metadata


def random_operator(chance: random.Random) -> tuple[str, Any]:
    operator = chance.choice(
        ["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "exists"]
    )
    if operator in ("lt", "le", "gt", "ge"):
        return operator, chance.choice([chance.randint(-3, 5), 1.5, chance.choice(STRINGS)])
    if operator in ("in", "not_in"):
        return operator, [random_value(chance) for _ in range(chance.randint(1, 5))]
    if operator == "exists":
        return operator, chance.random() < 0.5
    return operator, random_value(chance)


def random_member(chance: random.Random, depth: int) -> tuple[str, Any]:
    kind = chance.random()
    if depth and kind < 0.3:
        name = chance.choice(["$and", "$or", "$not"])
        if name == "$not":
            return name, random_filter(chance, depth - 1)
        return name, [random_filter(chance, depth - 1) for _ in range(chance.randint(1, 3))]
    if kind < 0.4:
        operator = chance.choice(["eq", "ne", "in", "not_in", "starts_with"])
        text = chance.choice(STRINGS)
        given = [text, chance.choice(STRINGS)] if operator in ("in", "not_in") else text
        if chance.random() < 0.5:
            return "$key", {operator: given}
        files = (
            [f"file:///{one}" for one in given] if isinstance(given, list) else f"file:///{given}"
        )
        return "$source", {operator: files}
    if kind < 0.5:
        name = chance.choice(LABELS)
        scored = {"name": name, "set": "mine", "min_score": chance.randint(0, 8) / 8}
        return "$label", chance.choice([name, scored])
    if kind < 0.6:
        when = NOW - timedelta(days=chance.randint(0, 100), hours=chance.choice([0, 1]))
        return "$created_at", {chance.choice(["lt", "le", "gt", "ge"]): when.isoformat()}
    field = chance.choice(FIELDS)
    if chance.random() < 0.3:
        return field, random_scalar(chance)
    return field, dict(random_operator(chance) for _ in range(chance.choice([1, 1, 1, 2])))


def random_filter(chance: random.Random, depth: int = 3) -> dict[str, Any]:
    return dict(random_member(chance, depth) for _ in range(chance.choice([1, 1, 2, 3])))


@pytest.fixture(scope="module")
def stock(new_database: Callable[[], str]) -> Iterator[tuple[Any, list[Item]]]:
    """Two hundred items with random metadata, times, sources and labels."""
    connection = psycopg2.connect(new_database())
    sql = in_autocommit(connection)
    chance = random.Random(7)
    sql("SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    sql("SELECT pgclip.define_label_set('mine', %s)", LABELS)
    items = []
    for n in range(200):
        key = f"{chance.choice(STRINGS)}{n if n >= len(STRINGS) else ''}"
        key = STRINGS[n] if n < len(STRINGS) else key
        source = f"file:///{chance.choice(STRINGS)}" if chance.random() < 0.5 else None
        data = None if source else key.encode()
        metadata = random_metadata(chance)
        ((item,),) = sql(
            "SELECT item_id FROM pgclip.submit_image(%s, %s, %s, metadata => %s)",
            key, data, source, json.dumps(metadata),
        )  # fmt: skip
        created = NOW - timedelta(days=chance.randint(0, 100))
        sql("UPDATE pgclip.item SET created_at = %s WHERE id = %s", created, item)
        labels = {name: chance.randint(0, 8) / 8 for name in LABELS if chance.random() < 0.4}
        sql(
            "INSERT INTO pgclip.item_label (item_id, model_id, label_id, version, score)"
            " SELECT %s, 1, l.id, 1, s.score FROM unnest(%s::text[], %s::real[]) s(name, score)"
            " JOIN pgclip.label l USING (name) JOIN pgclip.label_set t ON t.id = l.set_id"
            " WHERE t.name = 'mine'",
            item, list(labels), list(labels.values()),
        )  # fmt: skip
        items.append(Item(item, key, source, metadata, created, labels))
    for field in ("p", "r.s"):
        sql("SELECT pgclip.index_metadata(%s)", field)
    yield connection, items
    connection.close()


@pytest.mark.parametrize("seed", range(20))
def test_random_filters_agree_with_the_oracle(stock: tuple[Any, list[Item]], seed: int) -> None:
    connection, items = stock
    chance = random.Random(seed)
    telling = 0
    with connection.cursor() as cursor:
        for number in range(60):
            filter = random_filter(chance)
            expected = {item.id for item in items if matches(item, filter)}
            telling += 0 < len(expected) < len(items)
            for each in (False, True):
                given = (json.dumps(filter), each)
                cursor.execute("SELECT pgclip._condition(%s, 1::smallint, %s)", given)
                ((condition,),) = cursor.fetchall()
                # With and without the indexes.
                cursor.execute(f"SET enable_seqscan = {'off' if number % 2 else 'on'}")
                cursor.execute(f"SELECT i.id FROM pgclip.item i WHERE {condition}")
                assert {item for (item,) in cursor.fetchall()} == expected, (filter, each)
    assert telling > 10
