-- What a server that others use needs of our tables.

-- All locks first, so that nobody waits for us while we wait.
LOCK TABLE pgclip.text_search, pgclip.content_release;

-- Updates and deletions of a published table fail without a replica identity. Tables of segments
-- that come later have a primary key from the start (schema/segments.sql).
ALTER TABLE pgclip.content_release REPLICA IDENTITY FULL;
DO $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT format('pgclip.embedding_%s_%s', model_id, number)::regclass FROM pgclip.segment
    LOOP
        EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY USING INDEX %I', v_table, (
            SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indrelid = v_table AND i.indisunique));
    END LOOP;
END $$;

-- A column of type regconfig stops pg_upgrade for the whole cluster. Names come qualified.
SET LOCAL search_path = pg_catalog;
ALTER TABLE pgclip.text_search
    ALTER COLUMN language DROP DEFAULT,
    ALTER COLUMN language TYPE text,
    ALTER COLUMN language SET DEFAULT 'pg_catalog.english';
