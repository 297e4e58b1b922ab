-- Looking at items. An item's state is never stored: the job, the ledger and the failure tell it.

-- For people. "kept" says whether the item can be encoded again by another model. Functions return
-- rows of it: one that somebody is in while a column is added fails, so new ones are elsewhere.
CREATE VIEW pgclip.items AS
SELECT i.id, c.name AS collection, i.key, i.kind,
       CASE WHEN j.lease IS NOT NULL THEN 'leased'
            WHEN j.id IS NOT NULL THEN 'queued'
            WHEN f.item_id IS NOT NULL THEN 'failed'
            WHEN e.generation = i.generation THEN 'done'
            ELSE 'queued' END AS state,
       coalesce(f.reason, j.reason) AS reason, coalesce(f.message, j.message) AS error,
       i.source, i.metadata, i.generation,
       i.created_at, i.updated_at, e.stored_at,
       i.source IS NOT NULL OR o.data IS NOT NULL AS kept,
       coalesce(i.content_hash, e.content_hash) AS content_hash
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
LEFT JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash
LEFT JOIN pgclip.model m ON m.state = 'live'
LEFT JOIN pgclip.job j ON j.item_id = i.id AND j.model_id = m.id
LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = m.id
LEFT JOIN pgclip.failure f ON f.item_id = i.id AND f.model_id = m.id
                          AND f.generation = i.generation AND j.id IS NULL;

-- Those of which the source could not be had and that wait to be tried again: since when, how often
-- that was so, why, and when it is their turn.
CREATE VIEW pgclip.delayed AS
SELECT j.item_id, c.name AS collection, i.key, i.source, j.reason, j.message AS error, j.tries,
       j.delayed_since AS since, j.not_before AS retry_at
FROM pgclip.job j
JOIN pgclip.model m ON m.id = j.model_id AND m.state = 'live'
JOIN pgclip.item i ON i.id = j.item_id
JOIN pgclip.collection c ON c.id = i.collection_id
WHERE j.not_before IS NOT NULL;

CREATE VIEW pgclip.collections AS
SELECT c.name, count(i.id) AS items,
       count(*) FILTER (WHERE i.kind = 'image') AS images,
       count(*) FILTER (WHERE i.kind = 'text') AS texts,
       count(*) FILTER (WHERE i.state = 'queued') AS queued,
       count(*) FILTER (WHERE i.state = 'leased') AS leased,
       count(*) FILTER (WHERE i.state = 'done') AS done,
       count(*) FILTER (WHERE i.state = 'failed') AS failed,
       max(i.updated_at) AS updated_at
FROM pgclip.collection c LEFT JOIN pgclip.items i ON i.collection = c.name
GROUP BY c.name;

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
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM pgclip._matching(collection, kind, state, reason, metadata, keys, after, "limit")
$$;

-- How many items of each state match, or of one state.
CREATE FUNCTION pgclip.count_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, metadata jsonb DEFAULT NULL,
    state text DEFAULT NULL, reason text DEFAULT NULL, keys text[] DEFAULT NULL
) RETURNS TABLE (state text, items bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.state, count(i.id)
    FROM unnest(ARRAY['queued', 'leased', 'done', 'failed']) s(state)
    LEFT JOIN pgclip.items i ON i.state = s.state
          AND (count_items.collection IS NULL OR i.collection = count_items.collection)
          AND (count_items.kind IS NULL OR i.kind = count_items.kind)
          AND (count_items.metadata IS NULL OR i.metadata @> count_items.metadata)
          AND (count_items.reason IS NULL OR i.reason = count_items.reason)
          AND (count_items.keys IS NULL OR i.key = ANY(count_items.keys))
    WHERE count_items.state IS NULL OR s.state = count_items.state
    GROUP BY s.state
$$;

-- The bytes that were submitted inline and kept. Raises PC002 if there are none.
CREATE FUNCTION pgclip.content_of(key text, collection text DEFAULT 'default') RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
