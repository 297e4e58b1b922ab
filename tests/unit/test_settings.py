from pathlib import Path

import pytest

from pgclip.errors import ConfigurationError
from pgclip.settings import Settings


def test_arguments_come_before_the_environment_and_that_before_defaults() -> None:
    environ = {"PGCLIP_BATCH_SIZE": "8", "PGCLIP_MODEL": "from-environment"}
    settings = Settings.load(environ, model="from-argument", device=None)
    assert settings.model == "from-argument"
    assert settings.batch_size == 8
    assert settings.device == "auto"


def test_types_are_read() -> None:
    environ = {"PGCLIP_ROOTS": "/a:/b c", "PGCLIP_FAST_DECODE": "off", "PGCLIP_LEASE": "60"}
    settings = Settings.load(environ)
    assert settings.roots == (Path("/a"), Path("/b c"))
    assert settings.fast_decode is False
    assert settings.lease == 60.0


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PGCLIP_BATCH_SIZE", "many", "PGCLIP_BATCH_SIZE='many' can't be read"),
        ("PGCLIP_FAST_DECODE", "perhaps", "PGCLIP_FAST_DECODE"),
        ("PGCLIP_HEARTBEAT", "-1", "must be positive"),
        ("PGCLIP_PRECISION", "int4", "not a precision"),
        ("PGCLIP_LEASE", "4", "three heartbeats"),
    ],
)
def test_what_makes_no_sense_is_refused(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.load({variable: value})


def test_unknown_and_missing_settings() -> None:
    with pytest.raises(ConfigurationError, match="unknown setting: colour"):
        Settings.load({}, colour="red")
    with pytest.raises(ConfigurationError, match="PGCLIP_DATABASE_URL is not set"):
        Settings.load({}).required("database_url")
