-- Small pictures of pictures, by content.

-- The tables that get triggers.
LOCK TABLE pgclip.item, pgclip.embedding_set;

-- Made by workers where a picture is decoded; it goes with the last item that has its content.
CREATE TABLE pgclip.thumbnail (
    hash      bytea PRIMARY KEY,  -- SHA-256 of the picture
    width     smallint,
    height    smallint,
    data      bytea,              -- a JPEG; NULL: none could be made
    of_unkept boolean NOT NULL,   -- it stays while only items have it whose bytes are not kept
    CHECK (num_nulls(width, height, data) IN (0, 3))
);
ALTER TABLE pgclip.thumbnail ALTER data SET STORAGE EXTERNAL;  -- a JPEG can't be compressed
CREATE INDEX thumbnail_none ON pgclip.thumbnail (hash) WHERE data IS NULL;

-- Going through all items for those that lack one.
CREATE TABLE pgclip.thumbnail_walk (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    after_item bigint NOT NULL DEFAULT 0,
    is_clean   boolean NOT NULL DEFAULT true,  -- none was lacking since it began, or began anew
    rounds     int NOT NULL DEFAULT 0,         -- that have ended
    not_before timestamptz NOT NULL DEFAULT '-infinity'
);
