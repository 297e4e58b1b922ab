-- Listing items, and doing something to many of them. All take the same filter, in which NULL
-- stands for any: metadata matches items whose own contain it. "limit" keeps transactions short:
-- call again with "after" as the last_id that came back, until that is NULL.

-- Items that match, by id. p_ids, if given: only among these.
CREATE FUNCTION pgclip._matching(
    p_collection text, p_kind pgclip.kind, p_state text, p_reason text, p_metadata jsonb,
    p_keys text[], p_after bigint, p_limit int, p_ids bigint[] DEFAULT NULL
) RETURNS SETOF pgclip.items
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_state NOT IN ('queued', 'leased', 'done', 'failed') THEN
        RAISE EXCEPTION 'a state is queued, leased, done or failed, not %', p_state
            USING ERRCODE = 'PC001';
    END IF;
    -- Only the conditions that are there, so that each is planned for what it is.
    RETURN QUERY EXECUTE 'SELECT i.* FROM pgclip.items i WHERE i.id > $1'
        || CASE WHEN p_collection IS NOT NULL THEN ' AND i.collection = $2' ELSE '' END
        || CASE WHEN p_kind IS NOT NULL THEN ' AND i.kind = $3' ELSE '' END
        || CASE WHEN p_state IS NOT NULL THEN ' AND i.state = $4' ELSE '' END
        || CASE WHEN p_state = 'failed' OR p_reason IS NOT NULL  -- there are few of them
                THEN ' AND i.id IN (SELECT item_id FROM pgclip.failure)' ELSE '' END
        || CASE WHEN p_state = 'leased'
                THEN ' AND i.id IN (SELECT item_id FROM pgclip.job WHERE lease IS NOT NULL)'
                ELSE '' END
        || CASE WHEN p_reason IS NOT NULL THEN ' AND i.reason = $5' ELSE '' END
        || CASE WHEN p_metadata IS NOT NULL THEN ' AND i.metadata @> $6' ELSE '' END
        || CASE WHEN p_keys IS NOT NULL THEN ' AND i.key = ANY($7)' ELSE '' END
        || CASE WHEN p_ids IS NOT NULL THEN ' AND i.id = ANY($9)' ELSE '' END
        || ' ORDER BY i.id LIMIT $8'
    USING p_after, p_collection, p_kind, p_state, p_reason, p_metadata, p_keys, p_limit, p_ids;
END $$;

CREATE FUNCTION pgclip.list_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, state text DEFAULT NULL,
    reason text DEFAULT NULL, metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL,
    after bigint DEFAULT 0, "limit" int DEFAULT 1000
) RETURNS SETOF pgclip.items
LANGUAGE sql STABLE AS $$
    SELECT * FROM pgclip._matching(collection, kind, state, reason, metadata, keys, after, "limit")
$$;

-- Locks items, in the order in which submissions do.
CREATE FUNCTION pgclip._lock_items(p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM pgclip.item WHERE id = ANY(p_items)
    ORDER BY collection_id, key FOR NO KEY UPDATE;
END $$;

-- The last of a page of ids; NULL if it is not full, and so the last page.
CREATE FUNCTION pgclip._last_of(p_page bigint[], p_limit int) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN cardinality(p_page) = p_limit THEN p_page[p_limit] END
$$;

-- How many items of each state match.
CREATE FUNCTION pgclip.count_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, metadata jsonb DEFAULT NULL
) RETURNS TABLE (state text, items bigint)
LANGUAGE sql STABLE AS $$
    SELECT s.state, count(i.id)
    FROM unnest(ARRAY['queued', 'leased', 'done', 'failed']) s(state)
    LEFT JOIN pgclip.items i ON i.state = s.state
          AND (count_items.collection IS NULL OR i.collection = count_items.collection)
          AND (count_items.kind IS NULL OR i.kind = count_items.kind)
          AND (count_items.metadata IS NULL OR i.metadata @> count_items.metadata)
    GROUP BY s.state
$$;

-- Queues failed items again. What has changed until they are locked is looked at again.
CREATE FUNCTION pgclip.retry(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, reason text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL, after bigint DEFAULT 0,
    "limit" int DEFAULT NULL, OUT affected bigint, OUT last_id bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_page bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(pgclip._models_lock());
    v_page := ARRAY(SELECT DISTINCT f.item_id FROM pgclip.failure f
                    WHERE f.item_id > after ORDER BY f.item_id LIMIT "limit");
    last_id := pgclip._last_of(v_page, "limit");
    PERFORM pgclip._lock_items(ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, NULL, NULL, metadata, keys, after, NULL, v_page) i));
    v_page := ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, NULL, NULL, metadata, keys, after, NULL, v_page) i);
    WITH forgiven AS (
        DELETE FROM pgclip.failure f USING pgclip.item i, pgclip.model m
        WHERE i.id = ANY(v_page) AND f.item_id = i.id AND f.generation = i.generation
          AND m.id = f.model_id AND m.state <> 'retired'
          AND (retry.reason IS NULL OR f.reason = retry.reason)
        RETURNING i.id, m.id AS model_id, i.generation, i.kind, i.content_hash
    ), queued AS (
        -- As bulk work, behind what is submitted now.
        INSERT INTO pgclip.job (item_id, model_id, generation, kind, content_hash, rank)
        SELECT f.id, f.model_id, f.generation, f.kind, f.content_hash,
               clock_timestamp() + interval '30 s'
        FROM forgiven f ORDER BY f.id
        ON CONFLICT (item_id, model_id) DO NOTHING
    )
    SELECT count(DISTINCT id) INTO affected FROM forgiven;
END $$;

-- Cancels what waits in the queue: those items end as failed, with the reason "cancelled", and
-- vectors that they had stay. What a worker is at is not cancelled, and before the first worker
-- has brought a model there are no jobs to cancel.
CREATE FUNCTION pgclip.cancel(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, metadata jsonb DEFAULT NULL,
    keys text[] DEFAULT NULL, after bigint DEFAULT 0, "limit" int DEFAULT NULL,
    OUT affected bigint, OUT last_id bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_page bigint[];
BEGIN
    v_page := ARRAY(SELECT DISTINCT j.item_id FROM pgclip.job j
                    WHERE j.lease IS NULL AND j.item_id > after
                    ORDER BY j.item_id LIMIT "limit");
    last_id := pgclip._last_of(v_page, "limit");
    PERFORM pgclip._lock_items(ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, NULL, NULL, metadata, keys, after, NULL, v_page) i));
    v_page := ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, NULL, NULL, metadata, keys, after, NULL, v_page) i);
    WITH free AS (
        SELECT j.id FROM pgclip.job j WHERE j.item_id = ANY(v_page) AND j.lease IS NULL
        ORDER BY j.id FOR UPDATE SKIP LOCKED
    ), ended AS (
        DELETE FROM pgclip.job j USING free WHERE j.id = free.id
        RETURNING j.item_id, j.model_id, j.generation
    ), told AS (
        INSERT INTO pgclip.failure (item_id, model_id, generation, reason, message)
        SELECT e.item_id, e.model_id, e.generation, 'cancelled',
               'it was cancelled while it waited; retry or submit it to have it encoded'
        FROM ended e
        ON CONFLICT (item_id, model_id) DO UPDATE SET generation = excluded.generation,
            reason = excluded.reason, message = excluded.message, failed_at = now()
    )
    SELECT count(DISTINCT item_id) INTO affected FROM ended;
END $$;

-- Deletes items with all that belongs to them. Returns how many there were.
CREATE OR REPLACE FUNCTION pgclip._delete_items(p_items bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
    v_old   record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(pgclip._models_lock());
    PERFORM pgclip._lock_items(p_items);
    DELETE FROM pgclip.job WHERE item_id = ANY(p_items);  -- waits for a store under way
    FOR v_old IN
        SELECT e.model_id, array_agg(v.id) AS ids
        FROM pgclip.embedding_set e CROSS JOIN unnest(e.vector_ids) v(id)
        WHERE e.item_id = ANY(p_items) GROUP BY e.model_id
    LOOP
        EXECUTE format('DELETE FROM pgclip.embedding_%s WHERE id = ANY($1)', v_old.model_id)
        USING v_old.ids;
    END LOOP;
    DELETE FROM pgclip.item WHERE id = ANY(p_items);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Deletes the items that match, with all that belongs to them. At least one condition is needed;
-- empty metadata are none. One that a submission has just changed is looked at again.
CREATE FUNCTION pgclip.delete_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, state text DEFAULT NULL,
    reason text DEFAULT NULL, metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL,
    after bigint DEFAULT 0, "limit" int DEFAULT NULL, OUT affected bigint, OUT last_id bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_page bigint[];
BEGIN
    IF coalesce(collection, kind::text, state, reason, nullif(metadata, '{}')::text, keys::text)
       IS NULL THEN
        RAISE EXCEPTION 'name at least one condition, such as the collection, for items to delete'
            USING ERRCODE = 'PC001';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(pgclip._models_lock());
    v_page := ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, state, reason, metadata, keys, after, "limit") i);
    last_id := pgclip._last_of(v_page, "limit");
    PERFORM pgclip._lock_items(v_page);
    affected := pgclip._delete_items(ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, state, reason, metadata, keys, after, NULL, v_page) i));
END $$;

-- The bytes that were submitted inline and kept. Raises PC002 if there are none.
CREATE FUNCTION pgclip.content_of(key text, collection text DEFAULT 'default') RETURNS bytea
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_data bytea;
BEGIN
    SELECT o.data INTO v_data FROM pgclip.item i
    JOIN pgclip.collection c ON c.id = i.collection_id
    JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash
    WHERE c.name = content_of.collection AND i.key = content_of.key;
    IF v_data IS NULL THEN
        RAISE EXCEPTION 'no bytes are kept of item % in collection %', key, collection
            USING ERRCODE = 'PC002', HINT = 'It is not there, it was submitted as a reference, or '
                'with keep_source => false.';
    END IF;
    RETURN v_data;
END $$;

-- Jobs of the live model that wait, counted up to p_most. What fills another one is no backlog.
CREATE FUNCTION pgclip.waiting(p_most int) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM (
        SELECT FROM pgclip.job
        WHERE lease IS NULL AND model_id = (SELECT id FROM pgclip.model WHERE state = 'live')
        LIMIT p_most) counted
$$;

-- Tells whoever waits that items have ended. Workers call it after the store's commit and not
-- within, since a notification takes a lock on the whole server until its commit is on disk.
CREATE FUNCTION pgclip.notify_settled(p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- A payload has less than 8000 bytes, an id at most 19.
    FOR i IN 1 .. cardinality(p_items) BY 350 LOOP
        PERFORM pg_notify('pgclip_settled', array_to_string(p_items[i : i + 349], ' '));
    END LOOP;
END $$;
