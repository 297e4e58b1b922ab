"""Whom fetchers ask, and whom they leave alone."""

import pytest

from pgclip_workers.pictures import hosts
from pgclip_workers.pictures.hosts import Hosts
from pgclip_workers.pictures.refused import Refused

OK = object()


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hosts, "time", clock)
    return clock


def wanted(*urls: str) -> list[tuple[int, str]]:
    return list(enumerate(urls))


def away(seconds: float = 0.0) -> Refused:
    return Refused("fetch_failed", "no answer", seconds)


def test_a_host_that_is_not_known_is_tried_with_a_few_and_each_has_its_turn(clock: Clock) -> None:
    asked = wanted(*["http://a.org/1"] * 9, "http://b.org/1", "http://c.org/1")
    now, later = Hosts(4).next_round(asked)
    assert [url for _, url in now].count("http://a.org/1") == 2
    assert len(now) == 4
    assert len(later) == 7
    assert sorted(now + later) == asked


def test_a_host_that_answers_is_asked_for_all_at_once(clock: Clock) -> None:
    known = Hosts(2)
    known.heard([("http://a.org/1", OK), ("http://a.org/2", away())])
    asked = wanted(*["http://a.org/x"] * 9)
    assert known.next_round(asked) == (asked, [])
    clock.now += 61
    assert len(known.next_round(asked)[0]) == 2


def test_a_host_that_does_not_is_left_alone_ever_longer(clock: Clock) -> None:
    known = Hosts(2)
    asked = wanted("http://a.org/1", "http://b.org/1", "https://a.org/1")
    for rest in (5, 10, 20, 40, 80, 160, 300, 300):
        known.heard([("http://a.org/1", away())])
        answers, left = known.turn_away(asked)
        assert list(answers) == [0]
        assert answers[0].retry_after == rest
        assert "a.org did not answer" in answers[0].message
        assert left == asked[1:]
        clock.now += rest
        assert known.turn_away(asked) == ({}, asked)
    known.heard([("http://a.org/1", OK)])
    known.heard([("http://a.org/1", away())])
    assert known.turn_away(asked)[0][0].retry_after == 5


def test_what_a_site_asks_for_is_heard(clock: Clock) -> None:
    known = Hosts(2)
    known.heard([("http://a.org/1", away(120)), ("http://a.org/2", away())])
    assert known.turn_away(wanted("http://a.org/3"))[0][0].retry_after == 120
    clock.now += 120
    known.heard([("http://a.org/1", away(7200))])  # for the others a few minutes
    assert known.turn_away(wanted("http://a.org/3"))[0][0].retry_after == 300


def test_what_is_for_good_says_nothing_against_a_host(clock: Clock) -> None:
    known = Hosts(2)
    known.heard([("http://a.org/1", Refused("missing_file", "404"))])
    assert known.turn_away(wanted("http://a.org/2")) == ({}, wanted("http://a.org/2"))


def test_who_has_not_been_heard_of_is_forgotten(clock: Clock) -> None:
    known = Hosts(2)
    for n in range(100):
        known.heard([(f"http://{n}.org/1", OK if n % 2 else away())])
    clock.now += 1000
    known.heard([("http://a.org/1", OK)])
    assert list(known._hosts) == ["http://a.org"]


def test_names_with_passwords_are_not_told(clock: Clock) -> None:
    known = Hosts(2)
    known.heard([("http://me:secret@a.org/1", away())])
    answers, _ = known.turn_away(wanted("http://you:other@a.org/2", "http://[broken"))
    assert "secret" not in answers[0].message
    assert "other" not in answers[0].message
    assert list(answers) == [0]
