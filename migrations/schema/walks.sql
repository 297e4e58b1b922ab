-- Going through all items for a model that has come or goes, page by page beside everything else.
--
-- A transaction that is open when a model comes may not know of it, and submit an item without a
-- job for it; one that is open when a model goes may still queue a job. Nobody waits for them: a
-- walk goes on to its end, and once more from the beginning when such transactions have ended.

-- To be called before models are read by one who writes what belongs to them: from here on a walk
-- reckons with this transaction. Raises 40001 if its snapshot is from before a change of models.
CREATE FUNCTION pgclip._know_models() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_me     xid8 := pg_current_xact_id();
    v_change xid8;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        SELECT last_value::text::xid8 INTO v_change FROM pgclip.model_change;
        IF v_change < v_me AND NOT pg_visible_in_snapshot(v_change, pg_current_snapshot())
           AND pg_xact_status(v_change) = 'committed' THEN
            RAISE EXCEPTION 'models have changed since this transaction took its snapshot'
                USING ERRCODE = '40001', HINT = 'Begin the transaction anew.';
        END IF;
    END IF;
END $$;

CREATE FUNCTION pgclip._begin_walk(p_model smallint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgclip.model_walk (model_id) VALUES (p_model)
    ON CONFLICT (model_id) DO UPDATE SET after_item = 0, known_from = NULL, is_last = false;
    PERFORM setval('pgclip.model_change', pg_current_xact_id()::text::bigint);
END $$;

-- Items of a page that a model has yet to see to: without a current vector, a failure or a job.
CREATE FUNCTION pgclip._lacking(p_models smallint[], p_items bigint[])
RETURNS TABLE (item_id bigint, model_id smallint)
LANGUAGE sql STABLE AS $$
    SELECT i.id, m.id FROM pgclip.item i CROSS JOIN unnest(p_models) m(id)
    WHERE i.id = ANY(p_items)
      AND NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = i.id
                      AND e.model_id = m.id AND e.generation = i.generation)
      AND NOT EXISTS (SELECT FROM pgclip.failure f WHERE f.item_id = i.id
                      AND f.model_id = m.id AND f.generation = i.generation)
      AND NOT EXISTS (SELECT FROM pgclip.job j WHERE j.item_id = i.id
                      AND j.model_id = m.id AND j.generation = i.generation)
$$;

-- Jobs for what is lacking, this long behind what is submitted now. Items that a transaction has
-- locked are passed over. Returns how many jobs.
CREATE FUNCTION pgclip._enqueue_lacking(
    p_models smallint[], p_items bigint[], p_behind interval
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
BEGIN
    WITH held AS MATERIALIZED (
        SELECT i.id, l.model_id, i.generation, i.kind, i.content_hash
        FROM pgclip._lacking(p_models, p_items) l JOIN pgclip.item i ON i.id = l.item_id
        ORDER BY i.id FOR NO KEY UPDATE OF i SKIP LOCKED
    )
    INSERT INTO pgclip.job AS old (item_id, model_id, generation, kind, content_hash, rank)
    SELECT id, model_id, generation, kind, content_hash, now() + p_behind FROM held
    ON CONFLICT (item_id, model_id) DO UPDATE SET
        generation = excluded.generation, kind = excluded.kind,
        content_hash = excluded.content_hash, rank = excluded.rank,
        group_limit = NULL, strikes = 0, worker_id = NULL, lease = NULL
        WHERE old.generation <> excluded.generation;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Deletes jobs, and lets go of bytes that were kept for them alone.
CREATE FUNCTION pgclip._forget_jobs(p_jobs bigint[]) RETURNS void
LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM pgclip.job WHERE id = ANY(p_jobs) RETURNING item_id)
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT DISTINCT i.kind, i.content_hash FROM gone g JOIN pgclip.item i ON i.id = g.item_id
    WHERE NOT i.keep_source AND i.content_hash IS NOT NULL
$$;

-- What a model has of these items goes, but for rows that a transaction has locked. Returns whether
-- all is gone.
CREATE FUNCTION pgclip._forget(p_model smallint, p_items bigint[]) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgclip._forget_jobs(ARRAY(
        SELECT id FROM pgclip.job WHERE item_id = ANY(p_items) AND model_id = p_model
        ORDER BY id FOR UPDATE SKIP LOCKED));
    DELETE FROM pgclip.embedding_set WHERE model_id = p_model AND item_id IN (
        SELECT item_id FROM pgclip.embedding_set
        WHERE item_id = ANY(p_items) AND model_id = p_model
        ORDER BY item_id FOR UPDATE SKIP LOCKED);
    DELETE FROM pgclip.failure WHERE item_id = ANY(p_items) AND model_id = p_model;
    INSERT INTO pgclip.content_release (kind, hash)  -- of bytes that waited for it alone
    SELECT DISTINCT i.kind, i.content_hash FROM pgclip.item i
    JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash
    WHERE i.id = ANY(p_items) AND NOT i.keep_source AND o.data IS NOT NULL;
    RETURN NOT EXISTS (SELECT FROM pgclip.job
                       WHERE item_id = ANY(p_items) AND model_id = p_model)
       AND NOT EXISTS (SELECT FROM pgclip.embedding_set
                       WHERE item_id = ANY(p_items) AND model_id = p_model);
END $$;

-- The end of a walk. Of a model that goes: a segment, if any is left; else what is left, and the
-- model, if that is to go. Returns whether there is more.
CREATE FUNCTION pgclip._end_walk(p_model smallint, p_state pgclip.model_state) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_with_model boolean;
BEGIN
    IF p_state = 'retired' THEN
        PERFORM pgclip._forget_map(p_model);
        UPDATE pgclip.segment SET state = 'retired', retired_at = '-infinity'
        WHERE model_id = p_model AND state <> 'retired';
        IF EXISTS (SELECT FROM pgclip.segment WHERE model_id = p_model) THEN
            RETURN pgclip.drop_retired(p_model, '0') IS NOT NULL;
        END IF;
        DELETE FROM pgclip.label_vector WHERE model_id = p_model;
        DELETE FROM pgclip.label_head WHERE model_id = p_model;
        DELETE FROM pgclip.label_teaching WHERE model_id = p_model;
        DELETE FROM pgclip.label_task WHERE model_id = p_model;
        DELETE FROM pgclip.campaign WHERE model_id = p_model;
        DELETE FROM pgclip.query_request WHERE model_id = p_model;
        DELETE FROM pgclip.query_vector WHERE model_id = p_model;
        DELETE FROM pgclip.calibration WHERE model_id = p_model;
        DELETE FROM pgclip.direction WHERE model_id = p_model;
        DELETE FROM pgclip.relabeling WHERE model_id = p_model;
    END IF;
    DELETE FROM pgclip.model_walk WHERE model_id = p_model RETURNING with_model INTO v_with_model;
    IF p_state = 'retired' AND v_with_model THEN
        DELETE FROM pgclip.former_queue WHERE dropped_at < clock_timestamp() - interval '1 hour';
        INSERT INTO pgclip.former_queue (queue) VALUES (pgclip._ticket_queue(p_model));
        DELETE FROM pgclip.model WHERE id = p_model;
    END IF;
    RETURN false;
END $$;

-- How many jobs may be queued for a model now, at most p_page: none while it is paused or p_most of
-- it wait, and no more than its pace allows, of which ten seconds are made up for.
CREATE FUNCTION pgclip._allowed(p_model smallint, p_page int, p_most int) RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN m.is_paused OR pgclip._waits(p_model, p_most) = p_most THEN 0
                WHEN m.pace IS NULL THEN p_page
                ELSE greatest(0, least(p_page, floor(least(
                    greatest(10 * m.pace, 1),
                    m.pace * extract(epoch FROM clock_timestamp() - w.paced_to))))) END::int
    FROM pgclip.model m LEFT JOIN pgclip.model_walk w ON w.model_id = m.id WHERE m.id = p_model
$$;

-- Queues at most p_allowed of what a page lacks, and notes it for the pace. Returns the items of
-- the page that have been seen to: up to the first that was not allowed.
CREATE FUNCTION pgclip._fill(
    p_model smallint, p_items bigint[], p_allowed int, p_behind interval
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    v_lacking bigint[] := ARRAY(SELECT item_id FROM pgclip._lacking(ARRAY[p_model], p_items)
                                ORDER BY item_id LIMIT p_allowed + 1);
    v_queued  bigint;
BEGIN
    v_queued := pgclip._enqueue_lacking(ARRAY[p_model], v_lacking[:p_allowed], p_behind);
    UPDATE pgclip.model_walk w SET paced_to = v_queued / m.pace * interval '1 s'
        + greatest(w.paced_to, clock_timestamp() - greatest(10, 1 / m.pace) * interval '1 s')
    FROM pgclip.model m WHERE m.id = p_model AND w.model_id = p_model AND m.pace IS NOT NULL;
    RETURN ARRAY(SELECT id FROM unnest(p_items) id
                 WHERE v_lacking[p_allowed + 1] IS NULL OR id < v_lacking[p_allowed + 1]
                 ORDER BY id);
END $$;

-- One step of a walk, of at most p_page items. Returns whether there is more to do now.
CREATE FUNCTION pgclip._walk(p_walk pgclip.model_walk, p_page int, p_most int) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_model smallint := p_walk.model_id;
    v_state pgclip.model_state := (SELECT state FROM pgclip.model WHERE id = v_model);
    v_me    xid8 := pg_current_xact_id();
    v_items bigint[] := ARRAY(SELECT id FROM pgclip.item WHERE id > p_walk.after_item
                              ORDER BY id LIMIT p_page);
    v_known boolean;
    v_clean boolean := true;
    v_most  int := pgclip._allowed(v_model, p_page, p_most);
BEGIN
    -- In the future: of the database that this one is a copy of.
    IF p_walk.known_from IS NULL OR p_walk.known_from > v_me THEN
        p_walk.known_from := v_me;
    END IF;
    v_known := pg_snapshot_xmin(pg_current_snapshot()) >= p_walk.known_from;
    IF p_walk.after_item = 0 THEN
        p_walk.is_last := v_known;
    END IF;
    IF v_items = '{}' AND p_walk.is_last THEN
        RETURN pgclip._end_walk(v_model, v_state);
    ELSIF v_items = '{}' THEN
        p_walk.after_item := CASE WHEN v_known THEN 0 ELSE p_walk.after_item END;
    ELSIF v_state = 'retired' THEN
        v_clean := pgclip._forget(v_model, v_items);
    ELSIF v_most = 0 OR EXISTS (SELECT FROM pgclip.model_sample s
                                WHERE s.model_id = v_model AND s.drawn_at IS NULL) THEN
        v_items := '{}';
    ELSE
        v_items := pgclip._fill(v_model, v_items, v_most, '1 day');
        v_clean := NOT EXISTS (SELECT FROM pgclip._lacking(ARRAY[v_model], v_items));
    END IF;
    UPDATE pgclip.model_walk SET known_from = p_walk.known_from,
        after_item = coalesce(v_items[cardinality(v_items)], p_walk.after_item),
        is_last = p_walk.is_last AND v_clean
    WHERE model_id = v_model;
    RETURN v_items <> '{}';
END $$;

-- For the steward: a step of at most p_page items for each model that has come or goes, and for
-- work that waits for models which take none any more. A model is given no more jobs while p_most
-- of it wait. Returns whether there is more to do now.
CREATE FUNCTION pgclip.walk_models(p_page int, p_most int) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_walk pgclip.model_walk;
    v_jobs bigint[];
    v_more boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'models are walked for in READ COMMITTED only';
    END IF;
    PERFORM pgclip._see_to_standbys();
    v_jobs := ARRAY(SELECT j.id FROM pgclip.model m JOIN pgclip.job j ON j.model_id = m.id
                    WHERE (m.state = 'retired' OR m.is_unattended) AND j.lease IS NULL
                    LIMIT p_page FOR UPDATE OF j SKIP LOCKED);
    PERFORM pgclip._forget_jobs(v_jobs);
    v_more := pgclip._draw_samples(p_page, p_most) OR cardinality(v_jobs) = p_page;
    FOR v_walk IN SELECT * FROM pgclip.model_walk ORDER BY model_id FOR UPDATE SKIP LOCKED LOOP
        v_more := pgclip._walk(v_walk, p_page, p_most) OR v_more;
    END LOOP;
    RETURN v_more;
END $$;
