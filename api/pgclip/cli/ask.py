"""`pgclip ask`: about one thing."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import print_json, print_table
from pgclip.client import Client
from pgclip.items import Choice


def ask(
    key: Annotated[
        str | None, typer.Argument(help="Of the item that is asked about; left out with --image.")
    ] = None,
    words: Annotated[
        list[str] | None, typer.Argument(help="What it may be: one phrase, or several.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Ask about this file instead.")] = None,
    question: Annotated[
        str | None, typer.Option(help="The words are answers to it, one of which may fit.")
    ] = None,
    template: Annotated[
        str, typer.Option(help="For several words, with {} where each goes: 'a photo of {}'.")
    ] = "{}",
    collection: Annotated[str, typer.Option("--collection", "-c", help="Of the item.")] = "default",
    captions: Annotated[
        str, typer.Option(help="Without words: the collection whose texts may describe it.")
    ] = "captions",
    k: Annotated[int, typer.Option("-k", help="How many of these.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a worker.")] = 30.0,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Ask about one thing: how well a phrase fits, which of several does, what could be said.

    Examples: pgclip ask cat-1 "a cat on a sofa"; pgclip ask cat-1 "a cat" "a dog";
    pgclip ask cat-1 --question "what is the weather?" "it is sunny" "it rains"; pgclip ask cat-1
    """
    phrases = list(words or ())
    if image is not None and key is not None:  # it is the first of the words then
        phrases, key = [key, *phrases], None
    if image is None and key is None:
        raise typer.BadParameter("ask about one of: an item's key, --image FILE")
    about: dict[str, Any] = {"image": image, "timeout": timeout}
    with client_for(database_url, redis_url) as client:
        if question is not None:
            choices = client.answer(key, question, phrases, collection=collection, **about)
            _print_choices(choices, as_json)
        elif not phrases:
            _print_captions(client, key, captions, collection, k, about, as_json)
        elif len(phrases) == 1:
            found = client.similarity(key, phrases[0], collection=collection, **about)
            if as_json:
                print_json(found)
            else:
                shown = "" if found.relevance is None else f", relevance {found.relevance:.2f}"
                typer.echo(f"{found.score:.3f}{shown}")
        else:
            choices = client.classify(
                key, phrases, template=template, collection=collection, **about
            )
            _print_choices(choices, as_json)


def _print_choices(choices: list[Choice], as_json: bool) -> None:
    if as_json:
        print_json(choices)
        return
    print_table(
        ("probability", ""),
        ((f"{each.probability:.3f}", each.name or "(none of these)") for each in choices),
    )


def _print_captions(
    client: Client, key: str | None, bank: str, collection: str, k: int, about: dict[str, Any],
    as_json: bool,
) -> None:  # fmt: skip
    hits = client.captions(key, collection=bank, of_collection=collection, k=k, **about)
    if as_json:
        print_json(hits)
    elif hits:
        print_table(("score", ""), ((f"{h.score:.3f}", h.snippet or h.key) for h in hits))
    else:
        typer.echo(f"no text of collection {bank} has a vector yet", err=True)
