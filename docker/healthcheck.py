"""Is the worker of this container alive? Asked of the database, which decides who does the work.

A worker is alive if its heartbeat arrives; a process that merely runs may be frozen, stuck or cut
off. Exit status: 0 alive, 1 not alive, 2 can't tell, since Postgres can't be reached.

`healthcheck.py --restart` asks another question, should this worker be restarted: an outage of
Postgres is no reason, because workers wait it out with their model loaded.
"""

import os
import re
import socket
import sys

import psycopg2

ALIVE = "SELECT EXISTS (SELECT FROM pgclip.workers WHERE host = %s AND alive)"


def main() -> int:
    """Returns the exit status."""
    # SQLAlchemy's spellings, such as postgresql+psycopg2://, are welcome everywhere else.
    url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", os.environ["PGCLIP_DATABASE_URL"])
    try:
        connection = psycopg2.connect(
            url, connect_timeout=5, application_name="pgclip health check"
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(ALIVE, (socket.gethostname(),))
            (alive,) = cursor.fetchone() or (False,)
        connection.close()
    except psycopg2.OperationalError as error:
        print(f"Postgres can't be reached: {error}".strip(), file=sys.stderr)
        return 0 if "--restart" in sys.argv else 2
    except psycopg2.Error as error:
        print(f"the database can't answer: {error}".strip(), file=sys.stderr)
        return 1
    if not alive:
        print(f"no worker on {socket.gethostname()} has a heartbeat", file=sys.stderr)
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main())
