-- Looks that cost the same at any size; claims that do, too.

-- All locks first: views that will change, and the tables that get triggers.
DO $$
DECLARE
    v_view regclass;
BEGIN
    FOR v_view IN
        SELECT to_regclass('pgclip.' || name)
        FROM unnest(ARRAY['collections', 'models', 'queue']) name
        WHERE to_regclass('pgclip.' || name) IS NOT NULL
    LOOP
        EXECUTE format('LOCK TABLE %s', v_view);
    END LOOP;
END $$;
LOCK TABLE pgclip.item, pgclip.job, pgclip.failure, pgclip.embedding_set;

-- By hash: one that sorts can be read from end to end, which the planner takes for as cheap as a
-- look while it believes that little is leased.
DROP INDEX pgclip.job_leased_content;
CREATE INDEX job_leased_content ON pgclip.job USING hash (content_hash) WHERE lease IS NOT NULL;

-- How many rows there are of what counts, in each collection and (collection 0) in all. What has
-- changed since is in tally_change.
CREATE TABLE pgclip.tally (
    what          text NOT NULL,      -- item, job, failure, embedding_set
    model_id      smallint NOT NULL,  -- 0: of items
    collection_id int NOT NULL,
    -- Of items the kind, of failures the reason, of ledger entries the kind and the label epoch.
    detail        text NOT NULL,
    rows          bigint NOT NULL,
    changed_at    timestamptz,        -- an item, the last time
    PRIMARY KEY (what, model_id, collection_id, detail)
);
CREATE INDEX tally_empty ON pgclip.tally ((true)) WHERE rows = 0;

-- Differences, one for each statement: no row that every submission would wait for. The steward
-- adds them up. Collection -1: of which nobody could tell any more.
CREATE TABLE pgclip.tally_change (
    what          text NOT NULL,
    model_id      smallint NOT NULL,
    collection_id int NOT NULL,
    detail        text NOT NULL,
    rows          bigint NOT NULL,
    changed_at    timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_threshold = -1);
ALTER TABLE pgclip.tally_change REPLICA IDENTITY FULL;  -- it is deleted from

-- Since when tallies are right. NULL: rows are counted one by one until the steward has.
CREATE TABLE pgclip.tallied (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    since    timestamptz
);
INSERT INTO pgclip.tallied DEFAULT VALUES;
