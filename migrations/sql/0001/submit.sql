-- Submitting and deleting: the only code that writes items and queues jobs.
--
-- Locks are always taken in the order item, job, ledger, content; and a store under way holds
-- its job while it writes, so a replacement or a deletion waits for that one batch and no more.

CREATE TYPE pgclip.submission AS (
    collection   text,
    key          text,
    kind         pgclip.kind,
    content_hash bytea,
    source       text,
    metadata     jsonb,
    priority     smallint
);

-- What is wrong with a submission, for a person; NULL if nothing is.
CREATE FUNCTION pgclip._problem(s pgclip.submission) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN s.collection IS NULL OR octet_length(s.collection) NOT BETWEEN 1 AND 200
            THEN 'the collection''s name must have 1 to 200 bytes'
        WHEN octet_length(s.key) NOT BETWEEN 1 AND 1024
            THEN 'the key must have 1 to 1024 bytes'
        WHEN s.key IS NULL AND octet_length(s.source) > 1024
            THEN 'a source of more than 1024 bytes can''t be the key; give one'
        WHEN s.source !~ '^[A-Za-z][A-Za-z0-9+.-]*://.' OR octet_length(s.source) > 4096
            THEN 'the source must be a URL such as file:///pictures/cat.jpg, of at most 4096 bytes'
        WHEN jsonb_typeof(s.metadata) IS DISTINCT FROM 'object'
            THEN 'the metadata must be a JSON object'
        WHEN octet_length(s.metadata::text) > 65536
            THEN 'the metadata must be at most 65536 bytes of JSON'
        WHEN s.priority IS NULL OR s.priority NOT BETWEEN 0 AND 9
            THEN 'the priority must be from 0 (first) to 9'
        WHEN (s.content_hash IS NULL) = (s.source IS NULL)
            THEN 'exactly one of content and source must be given'
    END
$$;

-- What is wrong with a content, for a person; NULL if nothing is.
CREATE FUNCTION pgclip._content_problem(p_kind pgclip.kind, p_data bytea) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN octet_length(p_data) = 0 THEN format('the %s is empty', p_kind)
        WHEN p_kind = 'image' AND octet_length(p_data) > 67108864
            THEN 'the image has more than 64 MiB; submit it as a source'
        WHEN p_kind = 'text' AND octet_length(p_data) > 262144
            THEN 'the text has more than 256 KiB; submit it in parts'
        WHEN p_kind = 'text' AND btrim(convert_from(p_data, 'UTF8'), E' \t\r\n') = ''
            THEN 'the text is empty'
    END
$$;

-- Accepts submissions: upserts the items and queues what has to be encoded. Invalid ones are
-- reported in "error" and leave no trace. Of several with one key the last one counts.
--
-- A source is read again whenever it is submitted again, since only the worker can see whether
-- it has changed; if it has not, nothing is encoded. A failed item is tried again.
CREATE FUNCTION pgclip._accept(subs pgclip.submission[])
RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock_shared(pgclip._models_lock());
    INSERT INTO pgclip.collection (name)
    SELECT DISTINCT s.collection FROM unnest(subs) s
    WHERE pgclip._problem(s) IS NULL
      AND NOT EXISTS (SELECT FROM pgclip.collection c WHERE c.name = s.collection)
    ORDER BY s.collection
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    WITH given AS (
        SELECT s.*, pgclip._problem((s.collection, s.key, s.kind, s.content_hash, s.source,
                                     s.metadata, s.priority)::pgclip.submission) AS problem,
               coalesce(s.key, s.source, 'sha256:' || encode(s.content_hash, 'hex')) AS item_key
        FROM unnest(subs) WITH ORDINALITY
             AS s(collection, key, kind, content_hash, source, metadata, priority, place)
    ), valid AS MATERIALIZED (
        SELECT DISTINCT ON (c.id, g.item_key) c.id AS collection_id, g.*
        FROM given g JOIN pgclip.collection c ON c.name = g.collection
        WHERE g.problem IS NULL
        ORDER BY c.id, g.item_key, g.place DESC
    ), accepted AS (
        INSERT INTO pgclip.item AS old
               (collection_id, key, kind, content_hash, source, metadata)
        SELECT v.collection_id, v.item_key, v.kind, v.content_hash, v.source, v.metadata
        FROM valid v ORDER BY v.collection_id, v.item_key
        ON CONFLICT (collection_id, key) DO UPDATE SET
            kind = excluded.kind, content_hash = excluded.content_hash,
            source = excluded.source, metadata = excluded.metadata, updated_at = now(),
            generation = old.generation + (
                excluded.source IS NOT NULL OR
                (old.kind, old.content_hash) IS DISTINCT FROM (excluded.kind, excluded.content_hash)
            )::int
        RETURNING id, collection_id, key, kind, content_hash, generation
    ), forgiven AS (
        DELETE FROM pgclip.failure f USING accepted a WHERE f.item_id = a.id
    ), queued AS (
        INSERT INTO pgclip.job AS old
               (item_id, model_id, generation, kind, content_hash, rank)
        SELECT a.id, m.id, a.generation, a.kind, a.content_hash,
               clock_timestamp() + v.priority * interval '30 s'
        FROM accepted a
        JOIN valid v ON v.collection_id = a.collection_id AND v.item_key = a.key
        CROSS JOIN pgclip.model m
        WHERE m.state <> 'retired'
          AND NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = a.id
                          AND e.model_id = m.id AND e.generation = a.generation)
        ORDER BY a.id, m.id
        ON CONFLICT (item_id, model_id) DO UPDATE SET
            generation = excluded.generation, kind = excluded.kind,
            content_hash = excluded.content_hash, rank = excluded.rank,
            group_limit = NULL, strikes = 0, worker_id = NULL, lease = NULL
            WHERE old.generation <> excluded.generation
    )
    SELECT g.place::int, a.id, g.item_key, a.generation, g.problem
    FROM given g
    LEFT JOIN pgclip.collection c ON c.name = g.collection
    LEFT JOIN accepted a
           ON g.problem IS NULL AND a.collection_id = c.id AND a.key = g.item_key
    ORDER BY g.place;
END $$;

-- Keeps a content and holds on to it until the end of the transaction. The second look is for
-- the case that the steward is just deleting the same content as one nobody refers to.
CREATE FUNCTION pgclip._keep_content(p_kind pgclip.kind, p_data bytea) RETURNS bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_hash bytea := sha256(p_data);
BEGIN
    LOOP
        PERFORM FROM pgclip.content WHERE kind = p_kind AND hash = v_hash FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO pgclip.content (kind, hash, size, data)
        VALUES (p_kind, v_hash, octet_length(p_data), p_data)
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN v_hash;
END $$;

CREATE FUNCTION pgclip._submit(
    p_kind pgclip.kind, p_key text, p_data bytea, p_source text,
    p_collection text, p_metadata jsonb, p_priority int,
    OUT item_id bigint, OUT key text, OUT generation int
) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    v_hash    bytea;
    v_problem text := pgclip._content_problem(p_kind, p_data);
BEGIN
    IF v_problem IS NULL THEN
        IF p_data IS NOT NULL THEN
            v_hash := pgclip._keep_content(p_kind, p_data);
        END IF;
        SELECT a.item_id, a.key, a.generation, a.error INTO item_id, key, generation, v_problem
        FROM pgclip._accept(ARRAY[(p_collection, p_key, p_kind, v_hash, p_source, p_metadata,
                                   p_priority)::pgclip.submission]) a;
    END IF;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', v_problem USING ERRCODE = 'PC001';
    END IF;
END $$;

-- Submits a picture: its bytes, or a source that workers can read. A key left out is made from
-- the content or is the source. Raises PC001 if something given is not acceptable.
CREATE FUNCTION pgclip.submit_image(
    key text DEFAULT NULL, image bytea DEFAULT NULL, source text DEFAULT NULL,
    collection text DEFAULT 'default', metadata jsonb DEFAULT '{}', priority int DEFAULT 0,
    OUT item_id bigint, OUT item_key text, OUT generation int
) LANGUAGE sql AS $$
    SELECT * FROM pgclip._submit('image', key, image, source, collection, metadata, priority)
$$;

-- Submits a text. Otherwise like submit_image.
CREATE FUNCTION pgclip.submit_text(
    body text, key text DEFAULT NULL,
    collection text DEFAULT 'default', metadata jsonb DEFAULT '{}', priority int DEFAULT 0,
    OUT item_id bigint, OUT item_key text, OUT generation int
) LANGUAGE sql AS $$
    SELECT * FROM pgclip._submit('text', key, convert_to(body, 'UTF8'), NULL, collection,
                                 metadata, priority)
$$;

-- Bulk, first step: a temporary table to COPY submissions into. "place" numbers them.
CREATE FUNCTION pgclip.open_staging() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('pg_temp.staged_submission') IS NULL THEN
        CREATE TEMPORARY TABLE staged_submission (
            place      int NOT NULL,
            collection text,
            key        text,
            kind       pgclip.kind NOT NULL,
            data       bytea,
            source     text,
            metadata   jsonb,
            priority   smallint
        ) ON COMMIT DELETE ROWS;
    END IF;
END $$;

-- Bulk, second step: accepts what was staged, item by item; an invalid one has an error.
-- Planned for the number of items at hand: a generic plan expects ten, and joins by nested loops.
CREATE FUNCTION pgclip.submit_staged()
RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_content record;
    v_subs    pgclip.submission[];
    v_places  int[];
BEGIN
    -- One after the other in the order of their hashes, so that no two bulks wait for each other.
    FOR v_content IN
        SELECT DISTINCT ON (s.kind, sha256(s.data)) s.kind, s.data
        FROM pg_temp.staged_submission s
        WHERE s.data IS NOT NULL AND pgclip._content_problem(s.kind, s.data) IS NULL
        ORDER BY s.kind, sha256(s.data)
    LOOP
        PERFORM pgclip._keep_content(v_content.kind, v_content.data);
    END LOOP;

    SELECT array_agg((s.collection, s.key, s.kind, sha256(s.data), s.source,
                      coalesce(s.metadata, '{}'), coalesce(s.priority, 1))::pgclip.submission
                     ORDER BY s.place),
           array_agg(s.place ORDER BY s.place)
    INTO v_subs, v_places
    FROM pg_temp.staged_submission s
    WHERE pgclip._content_problem(s.kind, s.data) IS NULL;

    RETURN QUERY
    SELECT v_places[a.place], a.item_id, a.key, a.generation, a.error
    FROM pgclip._accept(v_subs) a
    UNION ALL
    SELECT s.place, NULL, s.key, NULL, pgclip._content_problem(s.kind, s.data)
    FROM pg_temp.staged_submission s
    WHERE pgclip._content_problem(s.kind, s.data) IS NOT NULL;
    -- Kept for a submission that was refused or came twice: nobody may refer to it.
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT DISTINCT s.kind, sha256(s.data) FROM pg_temp.staged_submission s
    WHERE s.data IS NOT NULL AND pgclip._content_problem(s.kind, s.data) IS NULL
      AND NOT EXISTS (SELECT FROM pgclip.item i
                      WHERE i.kind = s.kind AND i.content_hash = sha256(s.data));
    DELETE FROM pg_temp.staged_submission;
END $$;

-- What an item refers to no longer may be collected.
CREATE FUNCTION pgclip._release_content() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgclip.content_release (kind, hash) VALUES (OLD.kind, OLD.content_hash);
    RETURN NULL;
END $$;
CREATE TRIGGER item_replaced AFTER UPDATE OF kind, content_hash ON pgclip.item FOR EACH ROW
    WHEN (OLD.content_hash IS NOT NULL
          AND (OLD.kind, OLD.content_hash) IS DISTINCT FROM (NEW.kind, NEW.content_hash))
    EXECUTE FUNCTION pgclip._release_content();
CREATE TRIGGER item_deleted AFTER DELETE ON pgclip.item FOR EACH ROW
    WHEN (OLD.content_hash IS NOT NULL) EXECUTE FUNCTION pgclip._release_content();

-- Deletes items with all that belongs to them. Returns how many there were.
CREATE FUNCTION pgclip._delete_items(p_items bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
    v_old   record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(pgclip._models_lock());
    PERFORM FROM pgclip.item WHERE id = ANY(p_items) ORDER BY id FOR NO KEY UPDATE;
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

-- Deletes an item. Returns whether it existed.
CREATE FUNCTION pgclip.delete(key text, collection text DEFAULT 'default') RETURNS boolean
LANGUAGE sql AS $$
    SELECT pgclip._delete_items(ARRAY(
        SELECT i.id FROM pgclip.item i JOIN pgclip.collection c ON c.id = i.collection_id
        WHERE c.name = delete.collection AND i.key = delete.key)) > 0
$$;
