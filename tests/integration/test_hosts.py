"""A URL of several hosts: the one that answers is used."""

from urllib.parse import urlsplit, urlunsplit

from support.processes import free_port

from pgclip import Client
from pgclip.local import LocalServices


def test_the_host_that_answers_is_used(database_url: str, services: LocalServices) -> None:
    parts = urlsplit(database_url)
    login, _, host = parts.netloc.rpartition("@")
    several = f"{login}@127.0.0.1:{free_port()},{host}"
    url = urlunsplit(parts._replace(netloc=several, query="target_session_attrs=read-write"))
    with Client(database_url=url, redis_url=services.redis_url) as client:
        assert client.submit_text("hello", key="a").status().state == "queued"
