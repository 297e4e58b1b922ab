"""The current definitions of what can be replaced: functions, views, triggers, types of answers.

They stand in migrations/schema, one file a noun, each definition once, as statements that create.
What holds data (tables, their columns, indexes and types) is made by the numbered migrations.
"""

import re
from dataclasses import dataclass
from hashlib import md5

from pgclip.schema.places import migrations

# In the order in which they are read and laid: a view or a type comes before what returns it.
FILES = (
    "version",
    "access",
    "tallies",
    "models",
    "walks",
    "submit",
    "metadata",
    "thumbnails",
    "contents",
    "items",
    "control",
    "queue",
    "store",
    "segments",
    "building",
    "changing",
    "maps",
    "label_words",
    "bounds",
    "promises",
    "campaigns",
    "scores",
    "decisions",
    "changes",
    "labels",
    "relabeling",
    "missing",
    "tables",
    "table_triggers",
    "rows",
    "missing_rows",
    "queries",
    "vectors",
    "calibration",
    "judging",
    "reviewing",
    "teaching",
    "filter",
    "nearest",
    "recall",
    "search",
    "comparing",
    "text",
    "hybrid",
    "asking",
    "search_rows",
    "duplicates",
    "trial",
)
# Stands in the files for the schema that holds the vector extension.
_VECTOR = "@vector@"
_COMMENTS = re.compile(r"(?:\s+|--[^\n]*\n)*")
_CREATES = re.compile(r"CREATE (FUNCTION|PROCEDURE|VIEW|TRIGGER|TYPE) (?:pgclip\.)?(\w+)")
# What a statement ends at is a semicolon outside of these.
_TOKENS = re.compile(
    r"--[^\n]*\n|(?P<quote>\$\w*\$).*?(?P=quote)|'(?:[^']|'')*'|\"[^\"]*\"|(?P<end>;)|.", re.DOTALL
)


@dataclass(frozen=True)
class Definition:
    """One statement that creates a function, view, trigger or type.

    `name` has its kind, as in "function search": it names one object of the schema, since no two
    functions share a name. Procedures count as functions.
    """

    name: str
    statement: str

    @property
    def source(self) -> str:
        """A hash of the statement."""
        return md5(self.statement.encode(), usedforsecurity=False).hexdigest()

    @property
    def replacing(self) -> str:
        """The statement as one that replaces what is there; a type can't be replaced."""
        if self.name.startswith("type "):
            return self.statement
        return self.statement.replace("CREATE ", "CREATE OR REPLACE ", 1)


def definitions(vector_schema: str) -> list[Definition]:
    """All definitions, in their order. `vector_schema`: of the vector extension, quoted."""
    folder = migrations() / "schema"
    return [
        definition
        for name in FILES
        for definition in parse((folder / f"{name}.sql").read_text("utf-8"), vector_schema)
    ]


def parse(text: str, vector_schema: str) -> list[Definition]:
    """The definitions in a file's text. Raises ValueError at any other statement."""
    found = []
    for statement in statements(text):
        match = _CREATES.match(statement)
        if match is None:
            raise ValueError(f"not a definition: {statement[:80]}")
        kind = match[1].lower().replace("procedure", "function")
        found.append(Definition(f"{kind} {match[2]}", statement.replace(_VECTOR, vector_schema)))
    return found


def statements(text: str) -> list[str]:
    """The statements of an SQL text, without the comments before them and the final semicolon."""
    found = []
    begin = _COMMENTS.match(text).end()  # type: ignore[union-attr]
    for token in _TOKENS.finditer(text, begin):
        if token["end"]:
            found.append(text[begin : token.start()])
            begin = _COMMENTS.match(text, token.end()).end()  # type: ignore[union-attr]
    if begin < len(text):
        raise ValueError(f"a statement does not end: {text[begin : begin + 80]}")
    return found
