"""`pgclip labels judge|teach|evaluate|import|export`: labels by people's word, checked by it."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pgclip.cli.errors import reported
from pgclip.cli.labels.app import Name, app
from pgclip.cli.options import AsJson, Collection, DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import print_json, print_table
from pgclip.errors import InvalidItem, NotFound
from pgclip.items import Judgement

Truth = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="A field of the metadata. Default: what was judged."),
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for a worker.")]
_WORST = 20  # labels and confusions that a table shows
_CURVE = ("coverage", "precision", "recall")


@app.command()
@reported
def judge(
    name: Name,
    label: Annotated[str, typer.Argument(help="The label.")],
    key: Annotated[str, typer.Argument(help="The item's key.")],
    value: Annotated[bool | None, typer.Option("--yes/--no", help="Whether it is right.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so. Default: the role.")] = None,
    collection: Annotated[str, typer.Option("--collection", "-c")] = "default",
    take_back: Annotated[bool, typer.Option("--take-back", help="Say neither.")] = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Say whether a label is right for an item: --yes, --no or --take-back."""
    if (value is None) != take_back:
        raise typer.BadParameter("one of --yes, --no and --take-back is needed")
    with client_for(database_url, redis_url) as client:
        client.judge(name, label, key, value, by=by, collection=collection)
    typer.echo("noted" if value is not None else "taken back")


@app.command()
@reported
def teach(
    name: Name,
    truth: Truth = None,
    collection: Collection = None,
    timeout: Timeout = 300.0,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Learn a set's labels from what was judged, or from a field of the metadata."""
    with client_for(database_url, redis_url) as client:
        report = client.teach(name, truth=truth, collection=collection, timeout=timeout)
    if as_json:
        print_json(report)
        return
    typer.echo(
        f"{report['examples']} examples; right of those held out: {report['by_prompts']:.1%} by "
        f"prompts alone, {report['by_heads']:.1%} now. Items are labelled anew."
    )
    if report["disagreed"]:
        typer.echo(f"{report['disagreed']} judgements don't count: people disagree")


@app.command()
@reported
def evaluate(
    name: Name,
    truth: Truth = None,
    collection: Collection = None,
    groups: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Also for each value of this field.")
    ] = None,
    timeout: Timeout = 300.0,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show how often a set's labels are right, by what was judged or a field of the metadata."""
    with client_for(database_url, redis_url) as client:
        report = client.evaluate(
            name, truth=truth, collection=collection, groups=groups, timeout=timeout
        )
    if as_json:
        print_json(report)
        return
    _print_evaluation(report)


def _print_evaluation(report: dict[str, Any]) -> None:
    """The measures; then labels, thresholds and confusions, a table each."""
    typer.echo(f"{report['examples']} examples, {report['held_out']} judged by heads held out")
    if report["left_out"]:
        typer.echo(f"{report['left_out']} left out: they taught the labels, with what is gone now")
    print_table(
        ("measure", "share", "95 of 100", "of"),
        (
            (words, *_shown(report[measure]))
            for measure, words in (
                ("accuracy", "right"),
                ("precision", "of labels given, right"),
                ("recall", "of labels right, given"),
                ("coverage", "items with a label"),
                ("none", "items of no label, with one"),
            )
        ),
    )
    if report["calibration_error"] is not None:
        typer.echo(f"calibration error {report['calibration_error']:.3f}")
    _print_labels(report["labels"])
    if report.get("groups"):
        typer.echo("")
        print_table(
            ("group", "examples", "right", "95 of 100", "precision", "recall"),
            (
                (one["group"], one["examples"], *_shown(one["accuracy"])[:2],
                 _percent(one["precision"]["share"]), _percent(one["recall"]["share"]))
                for one in report["groups"]
            ),
        )  # fmt: skip
    typer.echo("")
    print_table(
        ("threshold", "items with a label", "precision", "recall"),
        (
            (f"{one['threshold']:.2f}", *(_percent(one[name]) for name in _CURVE))
            for one in report["thresholds"][1::4]
        ),
    )
    if report.get("confusion"):
        typer.echo("")
        print_table(
            ("is", "said", "times"),
            (
                (one["is"] or "none", one["said"] or "none", one["count"])
                for one in report["confusion"][:_WORST]
            ),
        )


def _print_labels(found: list[dict[str, Any]]) -> None:
    """The least precise ones; those that were never given last."""
    labels = sorted(
        found, key=lambda one: 2 if one["precision"]["share"] is None else one["precision"]["share"]
    )
    typer.echo("")
    print_table(
        ("label", "right", "given", "precision", "95 of 100", "", "recall", "95 of 100", ""),
        (
            (one["label"], one["right"], one["given"], *_shown(one["precision"]),
             *_shown(one["recall"]))
            for one in labels[:_WORST]
        ),
    )  # fmt: skip
    if len(labels) > _WORST:
        typer.echo(f"The {_WORST} least precise of {len(labels)} labels; --json has all.")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _shown(share: dict[str, Any]) -> tuple[str, str, str]:
    if share["share"] is None:
        return "–", "", "0"
    return (
        _percent(share["share"]),
        f"{share['low']:.1%} to {share['high']:.1%}",
        str(share["of"]),
    )


@app.command("export")
@reported
def export_judgements(
    name: Annotated[str | None, typer.Argument(help="The set's name. Default: all.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of JSON lines.")] = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Write judgements to standard output, a line each."""
    with client_for(database_url, redis_url) as client:
        if name is not None and name not in {one.name for one in client.label_sets()}:
            raise NotFound(f"there is no label set {name!r}")
        found = client.judgements(name)
    names = [field.name for field in fields(Judgement)]
    writer = csv.DictWriter(sys.stdout, names)
    if as_csv:
        writer.writeheader()
    for one in found:
        row = {**asdict(one), "judged_at": one.judged_at.isoformat()}
        if as_csv:
            writer.writerow(row)
        else:
            sys.stdout.write(f"{json.dumps(row, ensure_ascii=False)}\n")


@app.command("import")
@reported
def import_judgements(
    file: Annotated[
        Path, typer.Argument(help="As export writes it: JSON lines, or CSV if it is called so.")
    ],
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Read judgements from a file; each counts for itself. Exits with 1 if any was refused."""
    rows = list(_rows(file))
    with client_for(database_url, redis_url) as client:
        refused = client.judge_many(rows)
    for place, why in refused:
        typer.echo(f"{file}, judgement {place}: {why}", err=True)
    typer.echo(f"{len(rows) - len(refused)} of {len(rows)} judgements are noted")
    if refused:
        raise typer.Exit(1)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Raises InvalidItem."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                for row in csv.DictReader(lines):
                    yield {name: value for name, value in row.items() if name and value}
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InvalidItem(f"{file}, line {number} is no object")
                    yield row
    except OSError as error:
        raise InvalidItem(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidItem(f"{file} is neither CSV nor JSON lines: {error}") from error
