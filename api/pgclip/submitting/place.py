"""The Redis that PGCLIP_REDIS_URL names: one server, or the master that sentinels know of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

_SENTINEL_PORT = 26379
CLUSTER = (
    "this Redis is a cluster, which tickets can't use: they are moved between keys that it keeps "
    "on different machines. Give PGCLIP_REDIS_URL of a single server, or of sentinels"
)


@dataclass(frozen=True)
class Sentinels:
    """sentinel://user:password@host:port,host:port/0?master=name

    The login is the server's; sentinel_username and sentinel_password, as options, are those of the
    sentinels themselves.
    """

    hosts: list[tuple[str, int]]
    master: str
    database: int
    login: dict[str, str]
    own: dict[str, str]

    @classmethod
    def parse(cls, url: str) -> "Sentinels | None":
        """None for a URL of a server. Raises ConfigurationError if something is missing."""
        parts = urlsplit(url)
        if parts.scheme != "sentinel":
            return None
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if not options.get("master"):
            raise ConfigurationError(
                "PGCLIP_REDIS_URL of sentinels names the master they know: sentinel://…/0?master=NAME"
            )
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        given = {"username": unquote(user), "password": unquote(password)}
        own = {name: options.get(f"sentinel_{name}", "") for name in given}
        try:
            return cls(
                [(host, int(port or _SENTINEL_PORT))
                 for host, _, port in (each.partition(":") for each in hosts.split(","))],
                options["master"],
                int(parts.path.strip("/") or 0),
                {name: value for name, value in given.items() if value},
                {name: value for name, value in own.items() if value},
            )  # fmt: skip
        except ValueError as error:
            raise ConfigurationError(f"PGCLIP_REDIS_URL can't be read: {error}") from None


def connect(settings: Settings) -> "Redis":
    """A connection for what is asked of Redis directly: flags, lengths of queues."""
    from redis import Redis
    from redis.sentinel import Sentinel

    url = settings.required("redis_url")
    limits = {
        "socket_timeout": settings.connect_timeout,
        "socket_connect_timeout": settings.connect_timeout,
    }
    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return Redis.from_url(url, **limits)
    watched: Any = Sentinel  # which has no types
    known = watched(sentinels.hosts, sentinel_kwargs={**sentinels.own, **limits}, **limits)
    master: Redis = known.master_for(
        sentinels.master, db=sentinels.database, **sentinels.login, **limits
    )
    return master


def celery_address(settings: Settings) -> tuple[str, dict[str, Any]]:
    """The broker's URL as Celery takes it, and options for its transport."""
    url = settings.required("redis_url")
    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return _verifying(url), {}
    login = urlsplit(url).netloc.rpartition("@")[0]
    each = (
        f"sentinel://{login and f'{login}@'}{host}:{port}/{sentinels.database}"
        for host, port in sentinels.hosts
    )
    return ";".join(each), {"master_name": sentinels.master, "sentinel_kwargs": sentinels.own}


def _verifying(url: str) -> str:
    """The URL as Celery needs it: without ssl_cert_reqs it would trust any server, unlike redis."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def refuse_cluster(settings: Settings) -> None:
    """Raises ConfigurationError if this Redis is a cluster. One that does not answer is none."""
    from redis import RedisError

    try:
        with connect(settings) as redis:
            about: Any = redis.info("cluster")
    except (RedisError, OSError):
        return
    if about.get("cluster_enabled"):
        raise ConfigurationError(CLUSTER)
