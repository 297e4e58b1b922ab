-- Listing items, and doing something to many of them. All take the same filter, in which NULL
-- stands for any: metadata matches items whose own contain it. "limit" keeps transactions short;
-- call again until nothing is left.

CREATE FUNCTION pgclip.list_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, state text DEFAULT NULL,
    reason text DEFAULT NULL, metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL,
    after bigint DEFAULT 0, "limit" int DEFAULT 1000
) RETURNS SETOF pgclip.items
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF state NOT IN ('queued', 'leased', 'done', 'failed') THEN
        RAISE EXCEPTION 'a state is queued, leased, done or failed, not %', state
            USING ERRCODE = 'PC001';
    END IF;
    -- Only the conditions that are there, so that each is planned for what it is.
    RETURN QUERY EXECUTE 'SELECT i.* FROM pgclip.items i WHERE i.id > $1'
        || CASE WHEN collection IS NOT NULL THEN ' AND i.collection = $2' ELSE '' END
        || CASE WHEN kind IS NOT NULL THEN ' AND i.kind = $3' ELSE '' END
        || CASE WHEN state IS NOT NULL THEN ' AND i.state = $4' ELSE '' END
        || CASE WHEN state = 'failed' OR reason IS NOT NULL  -- there are few of them
                THEN ' AND i.id IN (SELECT item_id FROM pgclip.failure)' ELSE '' END
        || CASE WHEN state = 'leased'
                THEN ' AND i.id IN (SELECT item_id FROM pgclip.job WHERE lease IS NOT NULL)'
                ELSE '' END
        || CASE WHEN reason IS NOT NULL THEN ' AND i.reason = $5' ELSE '' END
        || CASE WHEN metadata IS NOT NULL THEN ' AND i.metadata @> $6' ELSE '' END
        || CASE WHEN keys IS NOT NULL THEN ' AND i.key = ANY($7)' ELSE '' END
        || ' ORDER BY i.id LIMIT $8'
    USING after, collection, kind, state, reason, metadata, keys, "limit";
END $$;

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

-- Queues failed items again. Returns how many.
CREATE FUNCTION pgclip.retry(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, reason text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL, "limit" int DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_items bigint[];
    v_count bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(pgclip._models_lock());
    v_items := ARRAY(SELECT id FROM pgclip.list_items(
        collection, kind, 'failed', reason, metadata, keys, "limit" => "limit"));
    PERFORM FROM pgclip.item WHERE id = ANY(v_items) ORDER BY id FOR NO KEY UPDATE;
    WITH forgiven AS (
        DELETE FROM pgclip.failure f USING pgclip.item i, pgclip.model m
        WHERE i.id = ANY(v_items) AND f.item_id = i.id AND f.generation = i.generation
          AND m.id = f.model_id AND m.state <> 'retired'
        RETURNING i.id, m.id AS model_id, i.generation, i.kind, i.content_hash
    ), queued AS (
        INSERT INTO pgclip.job (item_id, model_id, generation, kind, content_hash, rank)
        SELECT id, model_id, generation, f.kind, content_hash, clock_timestamp()
        FROM forgiven f ORDER BY id
        ON CONFLICT (item_id, model_id) DO NOTHING
    )
    SELECT count(DISTINCT id) INTO v_count FROM forgiven;
    RETURN v_count;
END $$;

-- Cancels what waits in the queue: those items end as failed, with the reason "cancelled", and
-- vectors that they had stay. What a worker is at is not cancelled. Returns how many items.
CREATE FUNCTION pgclip.cancel(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, metadata jsonb DEFAULT NULL,
    keys text[] DEFAULT NULL, "limit" int DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_items bigint[];
    v_count bigint;
BEGIN
    v_items := ARRAY(SELECT id FROM pgclip.list_items(
        collection, kind, 'queued', NULL, metadata, keys, "limit" => "limit"));
    PERFORM FROM pgclip.item WHERE id = ANY(v_items) ORDER BY id FOR NO KEY UPDATE;
    WITH free AS (
        SELECT id FROM pgclip.job WHERE item_id = ANY(v_items) AND lease IS NULL
        ORDER BY id FOR UPDATE SKIP LOCKED
    ), ended AS (
        DELETE FROM pgclip.job j USING free WHERE j.id = free.id
        RETURNING j.item_id, j.model_id, j.generation
    ), told AS (
        INSERT INTO pgclip.failure (item_id, model_id, generation, reason, message)
        SELECT item_id, model_id, generation, 'cancelled',
               'it was cancelled while it waited; retry or submit it to have it encoded'
        FROM ended
        ON CONFLICT (item_id, model_id) DO UPDATE SET generation = excluded.generation,
            reason = excluded.reason, message = excluded.message, failed_at = now()
    )
    SELECT count(DISTINCT item_id) INTO v_count FROM ended;
    RETURN v_count;
END $$;

-- Deletes the items that match, with all that belongs to them. At least one condition is needed.
-- Returns how many.
CREATE FUNCTION pgclip.delete_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, state text DEFAULT NULL,
    reason text DEFAULT NULL, metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL,
    "limit" int DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(collection, kind::text, state, reason, metadata::text, keys::text) IS NULL THEN
        RAISE EXCEPTION 'name at least one condition, such as the collection, for items to delete'
            USING ERRCODE = 'PC001';
    END IF;
    RETURN pgclip._delete_items(ARRAY(SELECT id FROM pgclip.list_items(
        collection, kind, state, reason, metadata, keys, "limit" => "limit")));
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

-- Jobs that wait, counted up to p_most.
CREATE FUNCTION pgclip.waiting(p_most int) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM (SELECT FROM pgclip.job WHERE lease IS NULL LIMIT p_most) counted
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
