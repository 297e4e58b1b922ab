-- Doing something to many items. All take the same filter, in which NULL stands for any: metadata
-- matches items whose own contain it. "limit" keeps transactions short: call again with "after" as
-- the last_id that came back, until that is NULL.

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

-- Queues failed items again. What has changed until they are locked is looked at again.
CREATE FUNCTION pgclip.retry(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, reason text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL, after bigint DEFAULT 0,
    "limit" int DEFAULT NULL, OUT affected bigint, OUT last_id bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_page bigint[];
BEGIN
    PERFORM pgclip._commit_durably();
    PERFORM pgclip._know_models();
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
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_page bigint[];
BEGIN
    PERFORM pgclip._commit_durably();
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

-- Deletes an item. Returns whether it existed.
CREATE FUNCTION pgclip.delete(key text, collection text DEFAULT 'default') RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._delete_items(ARRAY(
        SELECT i.id FROM pgclip.item i JOIN pgclip.collection c ON c.id = i.collection_id
        WHERE c.name = delete.collection AND i.key = delete.key)) > 0
$$;

-- Deletes the items that match, with all that belongs to them. At least one condition is needed;
-- empty metadata are none. One that a submission has just changed is looked at again.
CREATE FUNCTION pgclip.delete_items(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, state text DEFAULT NULL,
    reason text DEFAULT NULL, metadata jsonb DEFAULT NULL, keys text[] DEFAULT NULL,
    after bigint DEFAULT 0, "limit" int DEFAULT NULL, OUT affected bigint, OUT last_id bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_page bigint[];
BEGIN
    IF coalesce(collection, kind::text, state, reason, nullif(metadata, '{}')::text, keys::text)
       IS NULL THEN
        RAISE EXCEPTION 'name at least one condition, such as the collection, for items to delete'
            USING ERRCODE = 'PC001';
    END IF;
    v_page := ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, state, reason, metadata, keys, after, "limit") i);
    last_id := pgclip._last_of(v_page, "limit");
    PERFORM pgclip._lock_items(v_page);
    affected := pgclip._delete_items(ARRAY(SELECT i.id FROM pgclip._matching(
        collection, kind, state, reason, metadata, keys, after, NULL, v_page) i));
END $$;

-- Deletes `others` if one of `kept` is still there; of all that are named only what has not changed
-- since, by updated_at: [{"collection", "key", "updated_at"}]. Returns those that were deleted.
CREATE FUNCTION pgclip.delete_duplicates(kept jsonb, others jsonb)
RETURNS TABLE (collection text, key text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_doomed bigint[];
BEGIN
    PERFORM pgclip._lock_items(ARRAY(SELECT id FROM pgclip._unchanged(kept || others, false)));
    IF NOT EXISTS (SELECT FROM pgclip._unchanged(kept, true)) THEN
        RETURN;
    END IF;
    v_doomed := ARRAY(SELECT id FROM pgclip._unchanged(others, true)
                      EXCEPT SELECT id FROM pgclip._unchanged(kept, false));
    RETURN QUERY
        SELECT c.name, i.key FROM pgclip.item i JOIN pgclip.collection c ON c.id = i.collection_id
        WHERE i.id = ANY(v_doomed);
    PERFORM pgclip._delete_items(v_doomed);
END $$;

-- Items that are named and still there, or are there as they were.
CREATE FUNCTION pgclip._unchanged(p_items jsonb, p_as_they_were boolean)
RETURNS TABLE (id bigint)
LANGUAGE sql STABLE AS $$
    SELECT i.id
    FROM jsonb_to_recordset(p_items) n(collection text, key text, updated_at timestamptz)
    JOIN pgclip.collection c ON c.name = n.collection
    JOIN pgclip.item i ON i.collection_id = c.id AND i.key = n.key
    WHERE i.updated_at = n.updated_at OR NOT p_as_they_were
$$;

-- Deletes items with all that belongs to them: after the commit no SQL shows any of it. Returns how
-- many there were.
CREATE FUNCTION pgclip._delete_items(p_items bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count    bigint;
    v_old      record;
    v_contents record;
BEGIN
    PERFORM pgclip._commit_durably();
    PERFORM pgclip._lock_items(p_items);
    DELETE FROM pgclip.job WHERE item_id = ANY(p_items);  -- waits for a store under way
    FOR v_old IN
        SELECT e.model_id, array_agg(v.id) AS ids
        FROM pgclip.embedding_set e CROSS JOIN unnest(e.vector_ids) v(id)
        WHERE e.item_id = ANY(p_items) GROUP BY e.model_id
    LOOP
        PERFORM pgclip._delete_vectors(v_old.model_id, v_old.ids);
    END LOOP;
    SELECT array_agg(kind) AS kinds, array_agg(content_hash) AS hashes INTO v_contents
    FROM (SELECT i.kind, i.content_hash FROM pgclip.item i
          WHERE i.id = ANY(p_items) AND i.content_hash IS NOT NULL
          UNION SELECT e.kind, e.content_hash FROM pgclip.embedding_set e
                WHERE e.item_id = ANY(p_items)) c;
    -- Before their items, which tell the collection they are counted in.
    DELETE FROM pgclip.embedding_set WHERE item_id = ANY(p_items);
    DELETE FROM pgclip.failure WHERE item_id = ANY(p_items);
    DELETE FROM pgclip.item WHERE id = ANY(p_items);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    PERFORM pgclip._erase_contents(v_contents.kinds, v_contents.hashes);
    RETURN v_count;
END $$;

-- Drops a collection in which no item is left, and with it its name. Raises PC001 if there are
-- some, or if submissions under way hold it up; PC002 if there is no such collection.
CREATE FUNCTION pgclip.drop_collection(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    v_id int;
BEGIN
    PERFORM pgclip._commit_durably();
    PERFORM pg_advisory_xact_lock(731199451);
    SELECT c.id INTO v_id FROM pgclip.collection c WHERE c.name = drop_collection.name;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'there is no collection named %', name USING ERRCODE = 'PC002';
    END IF;
    IF EXISTS (SELECT FROM pgclip.item i WHERE i.collection_id = v_id) THEN
        RAISE EXCEPTION 'collection % has items', name USING ERRCODE = 'PC001',
            HINT = 'Delete them first: pgclip.delete_items.';
    END IF;
    DELETE FROM pgclip.collection c WHERE c.id = v_id;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'submissions under way hold collection %', name USING ERRCODE = 'PC001',
        HINT = 'Try again once they have ended.';
END $$;
