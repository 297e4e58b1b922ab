"""Remarks of visitors: a table of the application's, kept in step, and found by what they say."""

import os
from datetime import datetime
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from sqlalchemy import Engine, Text, create_engine, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgclip import AsyncClient, Client

SEARCH_SECONDS = 5.0
router = APIRouter(prefix="/remarks")


class Base(DeclarativeBase):
    """Of the models here."""


class Remark(Base):
    """A line by somebody."""

    __tablename__ = "remark"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


@cache
def engine() -> Engine:
    """The application's own connections."""
    return create_engine(os.environ["PGCLIP_DATABASE_URL"], pool_pre_ping=True)


def prepare(client: Client) -> None:
    """Makes the table, and has it kept in step: in an application of yours, a migration's work.

    Several processes may start at once: the lock lets one after the other do so.
    """
    with Session(engine()) as session:
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext('remark'))"))
        Base.metadata.create_all(session.connection())
        if not any(table.collection == "remark" for table in client.tables()):
            client.index_table(Remark, text="body", connection=session)
        session.commit()


@router.post("", status_code=201)
def add(body: Annotated[str, Body(embed=True, min_length=1, max_length=4000)]) -> dict[str, int]:
    """Keeps a remark. That it is found some moments later is nobody's work here."""
    with Session(engine()) as session:
        remark = Remark(body=body)
        session.add(remark)
        session.commit()
        return {"id": remark.id}


@router.get("")
def find(request: Request, q: Annotated[str, Query(max_length=1024)]) -> list[dict[str, object]]:
    """The remarks that say something like a text, best first."""
    pgclip: AsyncClient = request.state.pgclip
    with Session(engine()) as session:
        hits = pgclip.client.search_rows(Remark, q, session=session, timeout=SEARCH_SECONDS)
        return [{"id": hit.row.id, "body": hit.row.body, "score": hit.score} for hit in hits]
