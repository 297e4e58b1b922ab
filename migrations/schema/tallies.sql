-- How many items, jobs, failures and ledger entries there are, without counting them: statements
-- note what they add or take away, the steward adds that up, and a look adds the rest.

-- What there is, row by row.
CREATE VIEW pgclip._rows_there AS
SELECT 'item' AS what, 0::smallint AS model_id, i.collection_id, i.kind::text AS detail,
       count(*) AS rows, max(i.updated_at) AS changed_at
FROM pgclip.item i GROUP BY i.collection_id, i.kind
UNION ALL
SELECT 'job', j.model_id, i.collection_id, '', count(*), NULL
FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id GROUP BY j.model_id, i.collection_id
UNION ALL
SELECT 'failure', f.model_id, i.collection_id, f.reason, count(*), NULL
FROM pgclip.failure f JOIN pgclip.item i ON i.id = f.item_id
GROUP BY f.model_id, i.collection_id, f.reason
UNION ALL
SELECT 'embedding_set', e.model_id, i.collection_id, e.kind || ' ' || e.label_epoch, count(*), NULL
FROM pgclip.embedding_set e JOIN pgclip.item i ON i.id = e.item_id
GROUP BY e.model_id, i.collection_id, e.kind, e.label_epoch;

-- The same of one kind of rows. A body of its own, which is planned only if it is run: most looks
-- find tallies, and would take longer to plan what counts than to find them.
CREATE FUNCTION pgclip._count_rows(p_what text)
RETURNS TABLE (model_id smallint, collection_id int, detail text, rows bigint,
               changed_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    SELECT r.model_id, r.collection_id, r.detail, r.rows, r.changed_at
    FROM pgclip._rows_there r WHERE r.what = p_what;
END $$;

-- The same from the tallies, as soon as there are some; several rows may add up to one. With
-- collection 0 of all, which the rows of collections are not.
CREATE VIEW pgclip._tallies AS
SELECT t.what, t.model_id, t.collection_id, t.detail, t.rows, t.changed_at
FROM pgclip.tally t WHERE (SELECT since FROM pgclip.tallied) IS NOT NULL
UNION ALL
SELECT c.what, c.model_id, b.collection_id, c.detail, c.rows, c.changed_at
FROM pgclip.tally_change c CROSS JOIN LATERAL (VALUES (c.collection_id), (0)) b(collection_id)
WHERE (SELECT since FROM pgclip.tallied) IS NOT NULL
UNION ALL
SELECT k.what, r.model_id, b.collection_id, r.detail, r.rows, r.changed_at
FROM (VALUES ('item'), ('job'), ('failure'), ('embedding_set')) k(what)
CROSS JOIN LATERAL pgclip._count_rows(k.what) r
CROSS JOIN LATERAL (VALUES (r.collection_id), (0)) b(collection_id)
WHERE (SELECT since FROM pgclip.tallied) IS NULL;

CREATE FUNCTION pgclip._tally_items() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO pgclip.tally_change
        SELECT 'item', 0, collection_id, kind, count(*), max(updated_at)
        FROM came GROUP BY collection_id, kind;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO pgclip.tally_change
        SELECT 'item', 0, collection_id, kind, -count(*), now()
        FROM went GROUP BY collection_id, kind;
    ELSIF EXISTS (SELECT FROM came) THEN  -- a submission always asks whether it replaces
        INSERT INTO pgclip.tally_change
        SELECT 'item', 0, collection_id, kind, sum(rows), max(updated_at)
        FROM (SELECT collection_id, kind, 1 AS rows, updated_at FROM came
              UNION ALL SELECT collection_id, kind, -1, updated_at FROM went) c
        GROUP BY collection_id, kind;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER items_came AFTER INSERT ON pgclip.item REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_items();
CREATE TRIGGER items_went AFTER DELETE ON pgclip.item REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_items();
CREATE TRIGGER items_replaced AFTER UPDATE ON pgclip.item
    REFERENCING OLD TABLE AS went NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_items();

-- Of what belongs to items. An item that is gone with it has been deleted past pgclip. One look by
-- id for each row, however small the table was when the statement was planned.
CREATE FUNCTION pgclip._tally_jobs() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO pgclip.tally_change
        SELECT 'job', j.model_id, i.collection_id, '', count(*), NULL
        FROM came j CROSS JOIN LATERAL (
            SELECT collection_id FROM pgclip.item WHERE id = j.item_id OFFSET 0) i
        GROUP BY j.model_id, i.collection_id;
    ELSE
        INSERT INTO pgclip.tally_change
        SELECT 'job', j.model_id, coalesce(i.collection_id, -1), '', -count(*), NULL
        FROM went j LEFT JOIN LATERAL (
            SELECT collection_id FROM pgclip.item WHERE id = j.item_id OFFSET 0) i ON true
        GROUP BY j.model_id, i.collection_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_came AFTER INSERT ON pgclip.job REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_jobs();
CREATE TRIGGER jobs_went AFTER DELETE ON pgclip.job REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_jobs();

CREATE FUNCTION pgclip._tally_failures() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO pgclip.tally_change
        SELECT 'failure', f.model_id, i.collection_id, f.reason, count(*), NULL
        FROM came f CROSS JOIN LATERAL (
            SELECT collection_id FROM pgclip.item WHERE id = f.item_id OFFSET 0) i
        GROUP BY f.model_id, i.collection_id, f.reason;
    END IF;
    IF TG_OP = 'INSERT' THEN
        NULL;
    ELSIF EXISTS (SELECT FROM went) THEN  -- a submission always asks whether it has failed
        INSERT INTO pgclip.tally_change
        SELECT 'failure', f.model_id, coalesce(i.collection_id, -1), f.reason, -count(*), NULL
        FROM went f LEFT JOIN LATERAL (
            SELECT collection_id FROM pgclip.item WHERE id = f.item_id OFFSET 0) i ON true
        GROUP BY f.model_id, i.collection_id, f.reason;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER failures_came AFTER INSERT ON pgclip.failure REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_failures();
CREATE TRIGGER failures_went AFTER DELETE ON pgclip.failure REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_failures();
CREATE TRIGGER failures_replaced AFTER UPDATE ON pgclip.failure
    REFERENCING OLD TABLE AS went NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_failures();

CREATE FUNCTION pgclip._tally_ledger() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO pgclip.tally_change
        SELECT 'embedding_set', e.model_id, i.collection_id, e.kind || ' ' || e.label_epoch,
               count(*), NULL
        FROM came e CROSS JOIN LATERAL (
            SELECT collection_id FROM pgclip.item WHERE id = e.item_id OFFSET 0) i
        GROUP BY e.model_id, i.collection_id, e.kind, e.label_epoch;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO pgclip.tally_change
        SELECT 'embedding_set', e.model_id, coalesce(i.collection_id, -1),
               e.kind || ' ' || e.label_epoch, -count(*), NULL
        FROM went e LEFT JOIN LATERAL (
            SELECT collection_id FROM pgclip.item WHERE id = e.item_id OFFSET 0) i ON true
        GROUP BY e.model_id, i.collection_id, e.kind, e.label_epoch;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER ledger_came AFTER INSERT ON pgclip.embedding_set REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_ledger();
CREATE TRIGGER ledger_went AFTER DELETE ON pgclip.embedding_set REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_ledger();
CREATE TRIGGER ledger_replaced AFTER UPDATE ON pgclip.embedding_set
    REFERENCING OLD TABLE AS went NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_ledger();

-- Emptied by somebody who passes over pgclip: a statement that has no rows to note.
CREATE FUNCTION pgclip._tally_anew() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.tallied SET since = NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER items_emptied AFTER TRUNCATE ON pgclip.item
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_anew();
CREATE TRIGGER jobs_emptied AFTER TRUNCATE ON pgclip.job
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_anew();
CREATE TRIGGER failures_emptied AFTER TRUNCATE ON pgclip.failure
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_anew();
CREATE TRIGGER ledger_emptied AFTER TRUNCATE ON pgclip.embedding_set
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._tally_anew();

-- For the steward: adds up at most so many changes; or counts what is there, if that was never done
-- or nobody can tell any more. Returns whether there is more.
CREATE FUNCTION pgclip.add_up_tallies(p_most int) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_rows bigint;
    v_lost boolean;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF (SELECT since FROM pgclip.tallied) IS NULL THEN
        PERFORM pgclip._count_tallies();
        RETURN true;
    END IF;
    WITH taken AS (
        DELETE FROM pgclip.tally_change
        WHERE ctid = ANY(ARRAY(SELECT ctid FROM pgclip.tally_change LIMIT p_most)) RETURNING *
    ), added AS (
        INSERT INTO pgclip.tally AS old
        SELECT t.what, t.model_id, b.collection_id, t.detail, sum(t.rows), max(t.changed_at)
        FROM taken t CROSS JOIN LATERAL (VALUES (t.collection_id), (0)) b(collection_id)
        GROUP BY t.what, t.model_id, b.collection_id, t.detail
        ON CONFLICT (what, model_id, collection_id, detail) DO UPDATE SET
            rows = old.rows + excluded.rows,
            changed_at = greatest(old.changed_at, excluded.changed_at)
        RETURNING collection_id
    )
    SELECT (SELECT count(*) FROM taken), EXISTS (SELECT FROM added WHERE collection_id = -1)
    INTO v_rows, v_lost;
    DELETE FROM pgclip.tally WHERE rows = 0 AND what <> 'item';
    IF v_lost THEN
        UPDATE pgclip.tallied SET since = NULL;
    END IF;
    RETURN v_lost OR v_rows = p_most;
END $$;

-- In one statement, and so as of one moment: changes that are noted by then are in what is counted,
-- and are added later, so they are taken off first. That something was lost is found again by that.
CREATE FUNCTION pgclip._count_tallies() RETURNS void
LANGUAGE sql AS $$
    INSERT INTO pgclip.tally
    SELECT c.what, c.model_id, b.collection_id, c.detail, sum(c.rows), max(c.changed_at)
    FROM (SELECT * FROM pgclip._rows_there
          UNION ALL SELECT what, model_id, collection_id, detail, -rows, NULL
                    FROM pgclip.tally_change
          UNION ALL SELECT what, model_id, collection_id, detail, 0, NULL
                    FROM pgclip.tally WHERE collection_id <> 0) c
    CROSS JOIN LATERAL (VALUES (c.collection_id), (0)) b(collection_id)
    GROUP BY c.what, c.model_id, b.collection_id, c.detail
    ON CONFLICT (what, model_id, collection_id, detail) DO UPDATE SET
        rows = excluded.rows, changed_at = excluded.changed_at;
    DELETE FROM pgclip.tally WHERE collection_id = -1 OR rows = 0 AND what <> 'item';
    UPDATE pgclip.tallied SET since = clock_timestamp();
$$;
