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

-- How many items of a collection are in which state; of collection 0 all. What has neither a job
-- nor a failure is done, as far as there are vectors.
CREATE VIEW pgclip._states AS
SELECT c.collection_id, c.items, c.images, c.texts,
       c.items - c.leased - c.failed - c.done AS queued, c.leased, c.done, c.failed, c.changed_at
FROM (SELECT t.collection_id, t.items, t.images, t.texts, coalesce(l.leased, 0) AS leased,
             least(t.embedded, t.items - t.jobs - t.failed) AS done, t.failed, t.changed_at
      FROM (SELECT t.collection_id,
                   coalesce(sum(rows) FILTER (WHERE what = 'item'), 0)::bigint AS items,
                   coalesce(sum(rows) FILTER (WHERE detail = 'image' AND what = 'item'), 0)::bigint
                       AS images,
                   coalesce(sum(rows) FILTER (WHERE detail = 'text' AND what = 'item'), 0)::bigint
                       AS texts,
                   coalesce(sum(rows) FILTER (WHERE what = 'job'), 0)::bigint AS jobs,
                   coalesce(sum(rows) FILTER (WHERE what = 'failure'), 0)::bigint AS failed,
                   coalesce(sum(rows) FILTER (WHERE what = 'embedding_set'), 0)::bigint AS embedded,
                   max(changed_at) AS changed_at
            FROM pgclip._tallies t
            WHERE t.what = 'item' OR t.model_id = (SELECT id FROM pgclip.model WHERE state = 'live')
            GROUP BY t.collection_id) t
      LEFT JOIN (SELECT b.collection_id, count(*) AS leased
                 FROM pgclip.job j JOIN pgclip.model m ON m.id = j.model_id AND m.state = 'live'
                 JOIN pgclip.item i ON i.id = j.item_id
                 CROSS JOIN LATERAL (VALUES (i.collection_id), (0)) b(collection_id)
                 WHERE j.lease IS NOT NULL GROUP BY 1) l USING (collection_id)) c;

-- By a full join, which is never a nested loop: how many sums there are nobody can tell before, and
-- a loop over a thousand collections compares a million times.
CREATE VIEW pgclip.collections AS
SELECT c.name, coalesce(s.items, 0) AS items, coalesce(s.images, 0) AS images,
       coalesce(s.texts, 0) AS texts, coalesce(s.queued, 0) AS queued,
       coalesce(s.leased, 0) AS leased, coalesce(s.done, 0) AS done,
       coalesce(s.failed, 0) AS failed, s.changed_at AS updated_at
FROM pgclip.collection c FULL JOIN pgclip._states s ON s.collection_id = c.id
WHERE coalesce(c.id, 0) <> 0;

CREATE FUNCTION pgclip._check_state(p_state text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_state NOT IN ('queued', 'leased', 'done', 'failed') THEN
        RAISE EXCEPTION 'a state is queued, leased, done or failed, not %', p_state
            USING ERRCODE = 'PC001';
    END IF;
END $$;

-- Items that match, by id. p_ids, if given: only among these. p_filter: as searches have it.
CREATE FUNCTION pgclip._matching(
    p_collection text, p_kind pgclip.kind, p_state text, p_reason text, p_metadata jsonb,
    p_keys text[], p_after bigint, p_limit int, p_ids bigint[] DEFAULT NULL,
    p_filter jsonb DEFAULT NULL
) RETURNS SETOF pgclip.items
LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pgclip._check_state(p_state);
    -- Only the conditions that are there, so that each is planned for what it is.
    RETURN QUERY EXECUTE 'SELECT v.* FROM pgclip.items v WHERE v.id > $1'
        || CASE WHEN p_collection IS NOT NULL THEN ' AND v.collection = $2' ELSE '' END
        || CASE WHEN p_kind IS NOT NULL THEN ' AND v.kind = $3' ELSE '' END
        || CASE WHEN p_state IS NOT NULL THEN ' AND v.state = $4' ELSE '' END
        || CASE WHEN p_state = 'failed' OR p_reason IS NOT NULL  -- there are few of them
                THEN ' AND v.id IN (SELECT item_id FROM pgclip.failure)' ELSE '' END
        || CASE WHEN p_state = 'leased'
                THEN ' AND v.id IN (SELECT item_id FROM pgclip.job WHERE lease IS NOT NULL)'
                ELSE '' END
        || CASE WHEN p_reason IS NOT NULL THEN ' AND v.reason = $5' ELSE '' END
        || CASE WHEN p_metadata IS NOT NULL THEN ' AND v.metadata @> $6' ELSE '' END
        || CASE WHEN p_keys IS NOT NULL THEN ' AND v.key = ANY($7)' ELSE '' END
        || CASE WHEN p_ids IS NOT NULL THEN ' AND v.id = ANY($9)' ELSE '' END
        || CASE WHEN coalesce(p_filter, '{}') <> '{}'
                THEN format(' AND v.id IN (SELECT i.id FROM pgclip.item i WHERE %s)',
                            pgclip._condition(p_filter, pgclip._live_model(), false))
                ELSE '' END
        || ' ORDER BY v.id LIMIT $8'
    USING p_after, p_collection, p_kind, p_state, p_reason, p_metadata, p_keys, p_limit, p_ids;
END $$;

CREATE FUNCTION pgclip.list_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, state text DEFAULT NULL,
    reason text DEFAULT NULL, metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL,
    after bigint DEFAULT 0, "limit" int DEFAULT 1000, filter jsonb DEFAULT NULL
) RETURNS SETOF pgclip.items
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM pgclip._matching(collection, kind, state, reason, metadata, keys, after, "limit",
                                   p_filter => filter)
$$;

-- How many bytes of items are kept, of those of which any are; without reading them.
CREATE FUNCTION pgclip.content_sizes(items bigint[]) RETURNS TABLE (item_id bigint, bytes int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.id, o.size
    FROM unnest(items) n(id)
    CROSS JOIN LATERAL (SELECT * FROM pgclip.item WHERE id = n.id OFFSET 0) i
    CROSS JOIN LATERAL (SELECT * FROM pgclip.content
                        WHERE kind = i.kind AND hash = i.content_hash OFFSET 0) o
    WHERE o.data IS NOT NULL
$$;

-- How many items are in each state, or in one, of a collection or of all.
CREATE FUNCTION pgclip._count_states(p_collection text, p_state text)
RETURNS TABLE (state text, items bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_collection int := 0;
BEGIN
    IF p_collection IS NOT NULL THEN
        v_collection := (SELECT c.id FROM pgclip.collection c WHERE c.name = p_collection);
    END IF;
    RETURN QUERY
    SELECT v.state, coalesce(v.items, 0)
    FROM (VALUES (NULL)) one LEFT JOIN pgclip._states s ON s.collection_id = v_collection
    CROSS JOIN LATERAL (VALUES ('queued', s.queued), ('leased', s.leased), ('done', s.done),
                               ('failed', s.failed)) v(state, items)
    WHERE p_state IS NULL OR v.state = p_state;
END $$;

-- The same of items that match. A body of its own, which is planned only if it is run: all that
-- there is to know of an item takes longer to plan than most answers to find.
CREATE FUNCTION pgclip._count_matching(
    p_collection text, p_kind pgclip.kind, p_metadata jsonb, p_state text, p_reason text,
    p_keys text[]
) RETURNS TABLE (state text, items bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    SELECT s.state, count(i.id)
    FROM unnest(ARRAY['queued', 'leased', 'done', 'failed']) s(state)
    LEFT JOIN pgclip.items i ON i.state = s.state
          AND (p_collection IS NULL OR i.collection = p_collection)
          AND (p_kind IS NULL OR i.kind = p_kind)
          AND (p_metadata IS NULL OR i.metadata @> p_metadata)
          AND (p_reason IS NULL OR i.reason = p_reason)
          AND (p_keys IS NULL OR i.key = ANY(p_keys))
    WHERE p_state IS NULL OR s.state = p_state
    GROUP BY s.state;
END $$;

-- How many items of each state match, or of one state. Without other conditions than the collection
-- that is known; else they are counted.
CREATE FUNCTION pgclip.count_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, metadata jsonb DEFAULT NULL,
    state text DEFAULT NULL, reason text DEFAULT NULL, keys text[] DEFAULT NULL
) RETURNS TABLE (state text, items bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._check_state(count_items.state);
    SELECT c.state, c.items FROM pgclip._count_states(count_items.collection, count_items.state) c
    WHERE coalesce(count_items.kind::text, count_items.reason) IS NULL
      AND count_items.metadata IS NULL AND count_items.keys IS NULL
    UNION ALL
    SELECT m.state, m.items
    FROM pgclip._count_matching(
        count_items.collection, count_items.kind, count_items.metadata, count_items.state,
        count_items.reason, count_items.keys) m
    WHERE coalesce(count_items.kind::text, count_items.reason) IS NOT NULL
       OR count_items.metadata IS NOT NULL OR count_items.keys IS NOT NULL
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
