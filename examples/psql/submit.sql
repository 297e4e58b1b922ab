-- Submits texts and pictures from psql, in one transaction with a table of one's own.
--
--   psql "$PGCLIP_DATABASE_URL" -v ON_ERROR_STOP=1 -v picture=cat.jpg -f submit.sql
--
-- The picture is read here, on the side of psql, and sent as bytes. Workers find the jobs by
-- themselves within about a second of the commit.

\if :{?picture}
\else
    \warn 'Name a picture: -v picture=cat.jpg'
    -- psql has no exit with a status of its own; ON_ERROR_STOP makes one of this.
    DO $$ BEGIN RAISE 'no picture was named'; END $$;
\endif

-- A file as a psql variable: in base64, which keeps every byte. A path may hold any character.
\set content `base64 < :'picture'`
\set key `basename :'picture'`

CREATE TABLE IF NOT EXISTS note (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author  text NOT NULL,
    body    text NOT NULL UNIQUE
);

BEGIN;

-- The note and its submission are there together or not at all.
WITH added AS (
    INSERT INTO note (author, body) VALUES
        ('ann', 'a penguin on the ice'),
        ('bob', 'a slice of pizza for dinner'),
        ('eve', 'she plays the violin')
    ON CONFLICT (body) DO UPDATE SET author = excluded.author
    RETURNING id, author, body
)
SELECT item_key, item_id
FROM added, pgclip.submit_text(
    body, key => 'note-' || id, collection => 'psql', metadata => jsonb_build_object('note', id));

SELECT item_key, item_id
FROM pgclip.submit_image(
    key => :'key', image => decode(:'content', 'base64'), collection => 'psql',
    metadata => jsonb_build_object('file', :'picture'));

COMMIT;
