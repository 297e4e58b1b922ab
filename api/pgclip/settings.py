"""Every setting, read in one place: a keyword argument, else PGCLIP_<NAME>, else the default."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pgclip.errors import ConfigurationError

# At most one "@": another, or a "/" before it, is a password's that was not percent-encoded, and
# libraries would repeat parts of it in their errors.
_HOST = r"(\[[^]@]*\]|[^@:/?#,]*)(:\d*)?"
_SERVICE_URL = re.compile(rf"[\w+.-]+://([^@/?#]*@)?{_HOST}(,{_HOST})*([/?#][^@]*)?")
# Parts of a query that may be seen: whom TLS trusts.
_SEEN = ("sslmode=", "sslrootcert=", "ssl_cert_reqs=", "ssl_ca_certs=")


# In the place of a model's name: whichever is live.
LIVE = "live"


def _setting(default: Any, description: str, read: Any = str, secret: bool = False) -> Any:
    metadata = {"description": description, "read": read}
    return field(default=default, repr=not secret, metadata=metadata)


# What of Pillow's may be opened, and the modules that do it. Only the first seven are by default:
# decoders of rare formats have crashed and hidden decompression bombs.
FORMATS = {
    "JPEG": "Jpeg", "PNG": "Png", "WEBP": "WebP", "GIF": "Gif", "AVIF": "Avif", "BMP": "Bmp",
    "TIFF": "Tiff", "JPEG2000": "Jpeg2K", "PPM": "Ppm", "TGA": "Tga", "PSD": "Psd", "ICO": "Ico",
}  # fmt: skip


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().upper() for part in text.split(",") if part.strip())
    if not set(names) or set(names) - set(FORMATS):
        raise ValueError(f"formats are {', '.join(FORMATS)}")
    return names


def _boolean(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True}
    values |= {"0": False, "false": False, "no": False, "off": False}
    return values[text.lower()]


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(Path(part).expanduser() for part in text.split(os.pathsep) if part)


def _prefixes(text: str) -> tuple[str, ...]:
    prefixes = tuple(part.strip() for part in text.split(",") if part.strip())
    for prefix in prefixes:  # a slash that is forgotten must not allow every host
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://([^/]|$)", prefix):
            raise ValueError(f"{prefix!r} does not begin like https://host or s3://bucket")
    return prefixes


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a client or a worker. Times are seconds, sizes are bytes."""

    database_url: str = _setting(
        "", "Postgres, postgresql://user:password@host:port/database", secret=True
    )
    direct_url: str = _setting(
        "",
        "Postgres past a pooler, for building indexes and for notifications",
        secret=True,
    )
    redis_url: str = _setting(
        "",
        "Redis or Valkey, redis://host:port/0, or sentinel://host:port,…/0?master=…; for tickets",
        secret=True,
    )

    redis_prefix: str = _setting("pgclip", "what all keys in Redis begin with, before a colon")

    connect_timeout: float = _setting(5.0, "connecting to Postgres or Redis", float)
    pool_size: int = _setting(10, "connections that a client keeps at most", int)
    statement_timeout: float = _setting(60.0, "one statement of a client; 0: no limit", float)
    keep_source: bool = _setting(True, "keep submitted bytes once they are encoded", _boolean)
    max_queued: int = _setting(0, "jobs that may wait before a client refuses; 0: no limit", int)
    queue_wait: float = _setting(0.0, "how long a submission waits for room in the queue", float)
    data_dir: str = _setting("~/.local/share/pgclip", "where pgclip up keeps embedded services")

    model: str = _setting(
        "openai/clip-vit-base-patch32",
        "hub id, folder, a name such as ViT-L/14, or live: what the database searches with",
    )
    model_name: str = _setting("", "the model's name in the database; default: id or folder name")
    device: str = _setting("auto", "cuda, cuda:1, mps, cpu, or auto")
    precision: str = _setting("auto", "float32, bfloat16, float16, or auto")
    batch_size: int = _setting(
        0, "pictures in a batch, 4 texts for each; 0: 256 on CUDA, else 64", int
    )
    decoders: int = _setting(0, "decoding processes; 0: one for each processor", int)
    fetchers: int = _setting(8, "processes that fetch and decode pictures from URLs", int)
    fast_decode: bool = _setting(True, "decode and resize quicker, where that suffices", _boolean)
    roots: tuple[Path, ...] = _setting((), "folders file:// may name, colon-separated", _folders)
    urls: tuple[str, ...] = _setting((), "URL prefixes workers fetch, with commas", _prefixes)
    fetch_retry_for: float = _setting(3600.0, "until a URL that can't be had fails", float)
    private_urls: bool = _setting(False, "let those URLs lead to private addresses", _boolean)
    max_image_bytes: int = _setting(64 * 2**20, "largest picture file", int)
    max_image_pixels: int = _setting(100_000_000, "pixels to decode of a picture at most", int)
    formats: tuple[str, ...] = _setting(
        tuple(FORMATS)[:7],
        "formats of pictures, with commas", _formats,
    )  # fmt: skip
    thumbnails: int = _setting(
        256, "longest side of the small pictures that are kept for pages, at most 512; 0: none", int
    )
    thumbnails_unkept: bool = _setting(
        False, "keep them of pictures whose bytes are not kept, too", _boolean
    )
    decode_timeout: float = _setting(30.0, "one picture's reading and decoding", float)
    decoder_memory: int = _setting(2 * 2**30, "address space of a decoding process", int)
    encode_timeout: float = _setting(300.0, "one forward pass; beyond it the worker exits", float)
    heartbeat: float = _setting(3.0, "between two heartbeats of a worker", float)
    lease: float = _setting(20.0, "without a heartbeat, until a worker's jobs run elsewhere", float)
    idle_poll: float = _setting(1.0, "between two looks of an idle worker for work", float)
    steward_interval: float = _setting(5.0, "between two passes of the steward", float)
    strikes: int = _setting(6, "deaths of a worker that an item alone in it may cause", int)
    query_cache: int = _setting(100_000, "query vectors kept", int)
    keep_queries: int = _setting(0, "texts and pictures of queries kept, the latest; 0: none", int)
    keep_queries_days: int = _setting(30, "days for which they are kept", int)
    recall: float = _setting(0.99, "share of the ten nearest that searches find on average", float)
    segment_rows: int = _setting(20_000, "vectors without an index before one is built", int)
    max_segments: int = _setting(8, "segments with an index that a model has at most", int)
    max_unindexed: int = _setting(
        200_000, "vectors without an index beyond which storing waits", int
    )
    build_memory: int = _setting(2**30, "memory of Postgres for building an index", int)
    build_workers: int = _setting(0, "parallel workers of Postgres for building an index", int)
    metrics_port: int = _setting(0, "port of a worker's Prometheus endpoint; 0: none", int)
    metrics_host: str = _setting("127.0.0.1", "address of a worker's Prometheus endpoint")
    log_format: str = _setting("text", "a worker's log: text or json")
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    log_file: str = _setting(
        "", "a file for a worker's log, which then says warnings alone elsewhere"
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> "Settings":
        """Settings from keyword arguments (None: not given) and PGCLIP_* variables.

        Raises ConfigurationError for an unknown name or a value that can't be read.
        """
        known = {f.name: f for f in fields(cls)}
        if unknown := set(given) - set(known):
            raise ConfigurationError(f"unknown setting: {', '.join(sorted(unknown))}")
        values = {name: value for name, value in given.items() if value is not None}
        for name, setting in known.items():
            variable = f"PGCLIP_{name.upper()}"
            if name not in values and environ.get(variable):
                try:
                    values[name] = setting.metadata["read"](environ[variable])
                except (ValueError, KeyError) as error:
                    raise ConfigurationError(
                        f"{variable}={masked(environ[variable])!r} can't be read: {error}"
                    ) from error
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        for name in ("database_url", "direct_url", "redis_url"):
            value = getattr(self, name)
            if value and not _SERVICE_URL.fullmatch(value):
                raise ConfigurationError(
                    f"PGCLIP_{name.upper()} is not a URL. Special characters of a user or password "
                    "are percent-encoded, / as %2F and @ as %40; so is an @ of an option"
                )
        if not re.fullmatch(r"[\w.-]{1,100}", self.redis_prefix):
            raise ConfigurationError(
                f"PGCLIP_REDIS_PREFIX is up to 100 letters, digits, _, . and -, not "
                f"{self.redis_prefix!r:.200}"
            )
        for name in ("connect_timeout", "heartbeat", "lease", "idle_poll", "steward_interval",
                     "decode_timeout", "encode_timeout", "pool_size", "max_image_bytes",
                     "max_image_pixels", "decoder_memory", "fetchers", "strikes", "segment_rows",
                     "max_unindexed"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"PGCLIP_{name.upper()} must be positive")
        for name in ("batch_size", "decoders", "query_cache", "statement_timeout", "max_queued",
                     "queue_wait", "fetch_retry_for", "metrics_port", "build_workers",
                     "keep_queries", "keep_queries_days"):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigurationError(f"PGCLIP_{name.upper()} must not be negative")
        if not 0 <= self.thumbnails <= 512:
            raise ConfigurationError("PGCLIP_THUMBNAILS must be from 0 to 512 pixels; 0: none")
        if not 0 < self.recall < 1:
            raise ConfigurationError("PGCLIP_RECALL must be between 0 and 1, such as 0.99")
        if self.max_segments < 2:
            raise ConfigurationError("PGCLIP_MAX_SEGMENTS must be at least 2")
        if self.max_unindexed < 2 * self.segment_rows:
            raise ConfigurationError(
                f"PGCLIP_MAX_UNINDEXED ({self.max_unindexed}) must be at least twice "
                f"PGCLIP_SEGMENT_ROWS ({self.segment_rows}), so that there is something to build"
            )
        if self.build_memory < 2**20:
            raise ConfigurationError("PGCLIP_BUILD_MEMORY must be at least 1048576 bytes")
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigurationError(f"PGCLIP_PRECISION: {self.precision!r} is not a precision")
        if self.log_format not in ("text", "json"):
            raise ConfigurationError(f"PGCLIP_LOG_FORMAT: {self.log_format!r} is not text or json")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ConfigurationError(f"PGCLIP_LOG_LEVEL: {self.log_level!r} is not a level")
        if self.lease < 3 * self.heartbeat:
            raise ConfigurationError(
                f"PGCLIP_LEASE ({self.lease} s) must be at least three heartbeats "
                f"(PGCLIP_HEARTBEAT, {self.heartbeat} s), or a hiccup costs a worker its work"
            )

    def redis_key(self, name: str) -> str:
        """A key of ours in Redis, which others may use too."""
        return f"{self.redis_prefix}:{name}"

    @property
    def unpooled_url(self) -> str:
        """Where a session may be held for long: direct_url, or without it database_url."""
        return self.direct_url or self.required("database_url")

    def required(self, name: str) -> str:
        """A URL that must be there. Raises ConfigurationError."""
        value: str = getattr(self, name)
        if not value:
            raise ConfigurationError(
                f"PGCLIP_{name.upper()} is not set (or pass {name}=…): "
                f"{next(f for f in fields(self) if f.name == name).metadata['description']}"
            )
        return value


def masked(url: str) -> str:
    """A URL for people's eyes: no password, and no signature or token. Other text stays."""
    if "://" not in url:
        return url
    url = re.sub(r"(https?)?://([^/?#]*)@", _without_password, url)
    # A password that was not percent-encoded may have a slash in it.
    url = re.sub(r"(://[^/@:]*:)(?!\d*(?:[/?#]|$))(?:[^/]+|.+)@", r"\1***@", url)
    place, mark, query = url.partition("?")
    seen = (part if part.startswith(_SEEN) else "***" for part in query.split("&"))
    return place + mark + "&".join(seen if mark else ())


def _without_password(login: re.Match[str]) -> str:
    """Of a web address without its name too, which may be a token."""
    web, (name, colon, _) = login[1] or "", login[2].partition(":")
    if "@" in name or (web and not colon):
        name = "***"
    return f"{web}://{name}{colon and ':***'}@"
