-- Jobs that wait for a time; what `pgclip index` found; indexes themselves say how they were built.

-- All locks first, in the order in which a query takes them: views that will change, which a first
-- installation does not have yet, and then what they read.
DO $$
DECLARE
    v_view regclass;
BEGIN
    FOR v_view IN
        SELECT to_regclass('pgclip.' || name)
        FROM unnest(ARRAY['collections', 'items', 'missing', 'queue', 'segments']) name
        WHERE to_regclass('pgclip.' || name) IS NOT NULL
    LOOP
        EXECUTE format('LOCK TABLE %s', v_view);
    END LOOP;
END $$;
LOCK TABLE pgclip.item, pgclip.job, pgclip.segment;
ALTER TABLE pgclip.segment DROP COLUMN thorough;

-- Items that are files of a host, put there by `pgclip index`: only those may it take away.
CREATE TABLE pgclip.indexed_file (
    item_id bigint REFERENCES pgclip.item ON DELETE CASCADE,
    host    text,
    path    text COLLATE "C" NOT NULL,
    PRIMARY KEY (item_id, host)
);
CREATE INDEX indexed_file_path ON pgclip.indexed_file (host, path);

-- A job whose source could not be had is tried again later, and is in no claim's way until then.
-- Since when that is so, how often it was tried, and why it was not had the last time.
ALTER TABLE pgclip.job
    ADD COLUMN not_before timestamptz,
    ADD COLUMN delayed_since timestamptz,
    ADD COLUMN tries smallint NOT NULL DEFAULT 0,
    ADD COLUMN reason text,
    ADD COLUMN message text;
DROP INDEX pgclip.job_queue;
CREATE INDEX job_queue ON pgclip.job (model_id, rank, id)
    WHERE lease IS NULL AND not_before IS NULL;
CREATE INDEX job_delayed ON pgclip.job (not_before) WHERE not_before IS NOT NULL;

-- From which item on words are indexed anew, which are now read from texts in another way; no row
-- if from none.
CREATE TABLE pgclip.words_anew (from_item bigint PRIMARY KEY);
INSERT INTO pgclip.words_anew SELECT 0 WHERE EXISTS (SELECT FROM pgclip.item);
