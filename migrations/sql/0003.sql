-- Models that come and go while everything runs; equal and nearly equal vectors as one point of an
-- index.

LOCK TABLE pgclip.segment;
DO $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN  -- all locks first
        SELECT format('pgclip.embedding_%s_%s', model_id, number)::regclass FROM pgclip.segment
    LOOP
        EXECUTE format('LOCK TABLE %s', v_table);
    END LOOP;
    FOR v_table IN
        SELECT format('pgclip.embedding_%s_%s', model_id, number)::regclass FROM pgclip.segment
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN twins bigint, ADD COLUMN cluster bigint,
                                       ADD COLUMN leads boolean NOT NULL DEFAULT true', v_table);
    END LOOP;
END $$;

-- Whether points of its index stand for equal vectors, whether for nearly equal ones, and whether
-- it was built at leisure. The collections that are large in it, and those that have an index of
-- their own there; NULL: not known of one from before.
ALTER TABLE pgclip.segment
    ADD COLUMN large int[],
    ADD COLUMN own_index int[],
    ADD COLUMN has_twins boolean NOT NULL DEFAULT false,
    ADD COLUMN has_clusters boolean NOT NULL DEFAULT false,
    ADD COLUMN thorough boolean NOT NULL DEFAULT false;

-- Models whose items are gone through, page by page: for one that takes work they get jobs, of one
-- that is retired they lose all they have (schema/walks.sql).
CREATE TABLE pgclip.model_walk (
    model_id   smallint PRIMARY KEY REFERENCES pgclip.model,
    after_item bigint NOT NULL DEFAULT 0,
    -- Transactions from this one on know what has become of the model. NULL: not looked at yet.
    known_from xid8,
    -- Whether all others had ended when this walk began: what it has passed stays as it is.
    is_last    boolean NOT NULL DEFAULT false
);

-- How much of an index a search looks at, by what asks and what is looked for, and how much of the
-- nearest is found so (schema/recall.sql). Arrays of three: among all items, a tenth, a hundredth.
CREATE TABLE pgclip.direction (
    model_id    smallint NOT NULL REFERENCES pgclip.model,
    query_kind  pgclip.kind NOT NULL,
    kind        pgclip.kind NOT NULL,
    effort      int NOT NULL,
    efforts     int[] NOT NULL,   -- what was tried on one half of the queries
    recalls     real[] NOT NULL,  -- and what each found; empty: there was nothing to ask with
    queries     int[] NOT NULL,   -- of the other half, by share
    recall      real[] NOT NULL,
    met_nothing real[] NOT NULL,
    asked       int NOT NULL,     -- of all queries, those that somebody has asked
    promise     real NOT NULL,
    segments    int[] NOT NULL,   -- that had an index
    looked_at   timestamptz NOT NULL,
    seconds     real NOT NULL,
    PRIMARY KEY (model_id, query_kind, kind)
);

-- What people have asked, if workers are told to keep it: the bytes of a text or a picture.
CREATE TABLE pgclip.kept_query (
    kind     pgclip.kind NOT NULL,
    hash     bytea NOT NULL,
    data     bytea NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, hash)
);
CREATE INDEX kept_query_age ON pgclip.kept_query (asked_at);

-- Where tickets of a model went that is gone. Some may still come: those that a worker had taken
-- and gives back, or that somebody was about to publish.
CREATE TABLE pgclip.former_queue (
    queue      text PRIMARY KEY,
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The transaction that last brought a model: read past snapshots, which a sequence is.
CREATE SEQUENCE pgclip.model_change MINVALUE 0;
