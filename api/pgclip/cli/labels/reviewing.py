"""`pgclip labels review`: one thing after the other, judged by a key."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import click
import typer

from pgclip.cli.errors import reported
from pgclip.cli.hits import can_preview, preview_of
from pgclip.cli.labels.app import Name, app
from pgclip.cli.labels.promising import next_step
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for, one_of
from pgclip.cli.output import out, print_json, shown_key, shown_snippet
from pgclip.client import Client
from pgclip.errors import NotFound, PgclipError
from pgclip.items import ItemInfo
from pgclip.labelling.promising import Draw

_ANSWERS = {"y": True, "n": False}
_HELP = "[y]es  [n]o  [u]nsure  [b]ack  [q]uit"


@app.command()
@reported
def review(
    name: Name,
    label: Annotated[str | None, typer.Argument(help="The label. Default: all.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 20,
    by: Annotated[str | None, typer.Option(help="Who judges. Default: the role.")] = None,
    purpose: Annotated[
        str | None,
        typer.Option("--for", metavar="promise|learn", help="What for. Default: both."),
    ] = None,
    preview: Annotated[
        bool | None,
        typer.Option(help="Small pictures. Default: in terminals with true colour."),
    ] = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Judge what promises rest on and labels learn from: yes, no or unsure, by one key."""
    wanted = None if purpose is None else one_of(purpose, "--for", "promise", "learn")
    with client_for(database_url, redis_url) as client:
        draws = client.review(name, n, label=label, by=by, purpose=wanted)
        if as_json:
            print_json(draws)
            return
        if not draws:
            typer.echo("There is nothing to review: all is judged, or others have it before them.")
            return
        judged = _Sitting(client, name, by, preview).judge(draws)
        typer.echo(f"{judged} of {len(draws)} judged")
        for promise in client.promises(name):
            typer.echo(f"{promise.label}, {promise.what}: {next_step(promise)}")


class _Sitting:
    """A person who judges draws, one after the other; what is left goes to others."""

    def __init__(
        self, client: Client, label_set: str, by: str | None, preview: bool | None
    ) -> None:
        self._client = client
        self._set = label_set
        self._by = by
        self._preview = can_preview() if preview is None else preview

    def judge(self, draws: list[Draw]) -> int:
        """How many were judged."""
        typer.echo(_HELP)
        place, judged = 0, set[int]()
        with _keys() as key:
            while place < len(draws):
                answer = self._asked(key, draws[place], f"{place + 1}/{len(draws)}")
                if answer == "q":
                    break
                if answer == "b":
                    place = max(0, place - 1)
                    continue
                if self._say(draws[place], answer):
                    judged.add(place)
                place += 1
        return len(judged)

    def _asked(self, key: Callable[[], str], draw: Draw, where: str) -> str:
        """One of y, n, u, b, q; the end of what is typed quits."""
        self._show(draw)
        while True:
            typer.echo(f"{where}  {draw.label}? ", nl=False)
            try:
                typed = key()
            except (EOFError, KeyboardInterrupt):
                typed = ""
            answer = typed.strip().lower()[:1] if typed else "q"
            typer.echo(answer)
            if answer and answer in "ynubq":
                return answer
            typer.echo(_HELP)

    def _show(self, draw: Draw) -> None:
        found = list(self._client.items(collection=draw.collection, keys=[draw.key]))
        if not found:
            return  # it has been deleted meanwhile, which judging it says
        if draw.kind == "text":
            typer.echo(f"\n{_text_of(self._client, found[0])}")
            return
        typer.echo(f"\n{shown_key(draw.key)}")
        if self._preview:
            out.print(preview_of(found[0], self._client))

    def _say(self, draw: Draw, answer: str) -> bool:
        """Whether it could be noted."""
        where = (self._set, draw.label, draw.key)
        seen: dict[str, Any] = {
            "by": self._by,
            "collection": draw.collection,
            "content_hash": draw.content_hash,
        }
        try:
            if answer == "u":
                self._client.leave_unsure(*where, **seen)
            else:
                self._client.judge(*where, _ANSWERS[answer], **seen)
        except PgclipError as error:
            typer.echo(f"not noted: {error}", err=True)
            return False
        return True


def _text_of(client: Client, item: ItemInfo) -> str:
    try:
        text = client.content(item.key, collection=item.collection).decode("utf-8", "replace")
    except NotFound:
        return shown_key(item.key)
    return shown_snippet(text, 400)


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Gives what is pressed, also what was while nobody looked; of what is no terminal, lines."""
    if not sys.stdin.isatty():
        yield sys.stdin.readline
        return
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield click.getchar
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield lambda: os.read(terminal, 1).decode(errors="ignore")
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
