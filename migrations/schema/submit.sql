-- Submitting: the only code that writes items and queues their jobs.
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
    priority     smallint,
    keep_source  boolean
);

-- What a file goes by that is submitted by its URL without a key: its path, decoded and composed
-- (NFC), so that it is found by however it is spelled. If that is not UTF-8, the URL.
CREATE FUNCTION pgclip._file_key(p_source text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_path text := regexp_replace(substr(p_source, length('file://') + 1), '[?#].*$', '');
BEGIN
    IF strpos(v_path, '%') > 0 THEN
        v_path := convert_from((
            SELECT string_agg(CASE WHEN part[1] ~ '^%[[:xdigit:]]{2}$'
                                   THEN decode(substr(part[1], 2), 'hex')
                                   ELSE convert_to(part[1], 'UTF8') END, ''::bytea ORDER BY nth)
            FROM regexp_matches(v_path, '%[[:xdigit:]]{2}|[^%]+|%', 'g')
                 WITH ORDINALITY m(part, nth)), 'UTF8');
    END IF;
    RETURN normalize(v_path, NFC);
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN p_source;
END $$;

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

-- Whether a text shows nothing: spaces, controls, and what Unicode ignores by default.
CREATE FUNCTION pgclip._is_blank(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_text !~ (
        E'[^\\x01-\\x20\\x7f-\\xa0\\xad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5'
        || E'\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000'
        || E'\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\\U0001bca0-\\U0001bca3'
        || E'\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]')
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
        WHEN p_kind = 'text' AND pgclip._is_blank(convert_from(p_data, 'UTF8'))
            THEN 'the text is blank'
    END
$$;

-- The same of metadata that are merged with those of an item.
CREATE FUNCTION pgclip._merge_problem(p_collection text, p_key text, p_metadata jsonb) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT 'the metadata must be at most 65536 bytes of JSON, with those that the item has'
    FROM pgclip.item i JOIN pgclip.collection c ON c.id = i.collection_id
    WHERE c.name = p_collection AND i.key = p_key
      AND octet_length((i.metadata || p_metadata)::text) > 65536
$$;

-- Submits a picture: its bytes, or a source that workers can read. A key left out is made from
-- the content or is the source. Bytes that are not kept (keep_source) are dropped once they are
-- encoded: the item can then be found, but not encoded again by another model. Raises PC001 if
-- something given is not acceptable.
CREATE FUNCTION pgclip.submit_image(
    key text DEFAULT NULL, image bytea DEFAULT NULL, source text DEFAULT NULL,
    collection text DEFAULT 'default', metadata jsonb DEFAULT '{}', priority int DEFAULT 0,
    keep_source boolean DEFAULT true,
    OUT item_id bigint, OUT item_key text, OUT generation int
) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM pgclip._submit('image', key, image, source, collection, metadata, priority,
                                 keep_source)
$$;

-- Submits a text. Otherwise like submit_image.
CREATE FUNCTION pgclip.submit_text(
    body text, key text DEFAULT NULL,
    collection text DEFAULT 'default', metadata jsonb DEFAULT '{}', priority int DEFAULT 0,
    keep_source boolean DEFAULT true,
    OUT item_id bigint, OUT item_key text, OUT generation int
) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM pgclip._submit('text', key, convert_to(body, 'UTF8'), NULL, collection,
                                 metadata, priority, keep_source)
$$;

CREATE FUNCTION pgclip._submit(
    p_kind pgclip.kind, p_key text, p_data bytea, p_source text,
    p_collection text, p_metadata jsonb, p_priority int, p_keep_source boolean,
    OUT item_id bigint, OUT key text, OUT generation int
) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    v_hash    bytea;
    v_problem text := pgclip._content_problem(p_kind, p_data);
BEGIN
    IF v_problem IS NULL THEN
        IF p_data IS NOT NULL THEN
            v_hash := pgclip._keep_content(p_kind, p_data, sha256(p_data));
        END IF;
        SELECT a.item_id, a.key, a.generation, a.error INTO item_id, key, generation, v_problem
        FROM pgclip._accept(ARRAY[(p_collection, p_key, p_kind, v_hash, p_source, p_metadata,
                                   p_priority, coalesce(p_keep_source, true))
                                   ::pgclip.submission]) a;
    END IF;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', v_problem USING ERRCODE = 'PC001';
    END IF;
END $$;

-- Accepted means committed, and committed means on disk, whatever session this is: a pooled one may
-- have synchronous_commit off. For the rest of the transaction; a stricter setting stays.
CREATE FUNCTION pgclip._commit_durably() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Accepts submissions: upserts the items and queues what has to be encoded. Invalid ones are
-- reported in "error" and leave no trace. Of several with one key the last one counts.
--
-- A source is read again whenever it is submitted again, since only the worker can see whether
-- it has changed; if it has not, nothing is encoded. A failed item is tried again.
CREATE FUNCTION pgclip._accept(subs pgclip.submission[])
RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE sql AS 'SELECT * FROM pgclip._accept_merging(subs, NULL)';

-- The same, where of some the metadata are merged with those that the item has. Apart, so that no
-- function by which others submit changes its signature: one that is dropped while somebody is in
-- it fails them. By indexes, and item by item (OFFSET 0), whatever the planner knows: a plan that
-- was made when tables were small would read all of them for one submission once they are large.
CREATE FUNCTION pgclip._accept_merging(subs pgclip.submission[], p_merge boolean[])
RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_merges boolean := coalesce(true = ANY(p_merge), false);
    v_all    boolean := v_merges AND array_position(p_merge, false) IS NULL
                        AND array_position(p_merge, NULL) IS NULL;
BEGIN
    PERFORM pgclip._commit_durably();
    PERFORM pgclip._know_models();
    PERFORM pg_advisory_xact_lock_shared(731199451);  -- no collection is dropped meanwhile
    INSERT INTO pgclip.collection (name)
    SELECT DISTINCT s.collection FROM unnest(subs) s
    WHERE pgclip._problem(s) IS NULL
      AND NOT EXISTS (SELECT FROM pgclip.collection c WHERE c.name = s.collection)
    ORDER BY s.collection
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    WITH given AS (
        SELECT s.*, k.item_key, p_merge[s.place] AS merge, coalesce(
                   pgclip._problem((s.collection, s.key, s.kind, s.content_hash, s.source,
                                    s.metadata, s.priority, s.keep_source)::pgclip.submission),
                   CASE WHEN p_merge[s.place] THEN pgclip._merge_problem(
                       s.collection, k.item_key, s.metadata) END) AS problem
        FROM unnest(subs) WITH ORDINALITY
             AS s(collection, key, kind, content_hash, source, metadata, priority,
                  keep_source, place)
        -- Most paths need no decoding, and so no subtransaction each.
        CROSS JOIN LATERAL (SELECT coalesce(s.key,
            CASE WHEN s.source ~ '^file:///[^%?#]*$' THEN normalize(substr(s.source, 8))
                 WHEN s.source LIKE 'file:///%' THEN pgclip._file_key(s.source) END,
            s.source, 'sha256:' || encode(s.content_hash, 'hex'))) k(item_key)
    ), valid AS MATERIALIZED (
        SELECT DISTINCT ON (c.id, g.item_key) c.id AS collection_id, g.*
        FROM given g JOIN pgclip.collection c ON c.name = g.collection
        WHERE g.problem IS NULL
        ORDER BY c.id, g.item_key, g.place DESC
    ), accepted AS (
        INSERT INTO pgclip.item AS old
               (collection_id, key, kind, content_hash, source, metadata, keep_source)
        SELECT v.collection_id, v.item_key, v.kind, v.content_hash, v.source, v.metadata,
               v.keep_source
        FROM valid v ORDER BY v.collection_id, v.item_key
        ON CONFLICT (collection_id, key) DO UPDATE SET
            kind = excluded.kind, content_hash = excluded.content_hash,
            source = excluded.source,
            metadata = CASE WHEN v_all OR v_merges AND (
                SELECT v.merge FROM valid v
                WHERE v.collection_id = old.collection_id AND v.item_key = old.key)
                THEN old.metadata || excluded.metadata ELSE excluded.metadata END,
            keep_source = excluded.keep_source, updated_at = now(),
            generation = old.generation + (
                excluded.source IS NOT NULL OR
                (old.kind, old.content_hash) IS DISTINCT FROM (excluded.kind, excluded.content_hash)
            )::int
        RETURNING id, collection_id, key, kind, content_hash, generation
    ), forgiven AS (
        DELETE FROM pgclip.failure f WHERE f.item_id = ANY(ARRAY(SELECT id FROM accepted))
    ), queued AS (
        INSERT INTO pgclip.job AS old
               (item_id, model_id, generation, kind, content_hash, rank)
        SELECT a.id, m.id, a.generation, a.kind, a.content_hash,
               clock_timestamp() + v.priority * interval '30 s'
        FROM accepted a
        JOIN valid v ON v.collection_id = a.collection_id AND v.item_key = a.key
        CROSS JOIN pgclip.model m
        WHERE m.state <> 'retired' AND m.dimension IS NOT NULL AND NOT m.is_unattended
          AND NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = a.id
                          AND e.model_id = m.id AND e.generation = a.generation OFFSET 0)
        ORDER BY a.id, m.id
        ON CONFLICT (item_id, model_id) DO UPDATE SET
            generation = excluded.generation, kind = excluded.kind,
            content_hash = excluded.content_hash, rank = excluded.rank,
            group_limit = NULL, strikes = 0, worker_id = NULL, lease = NULL, not_before = NULL,
            delayed_since = NULL, tries = 0, reason = NULL, message = NULL
            WHERE old.generation <> excluded.generation
    )
    SELECT g.place::int, a.id, g.item_key, a.generation, g.problem
    FROM given g
    LEFT JOIN pgclip.collection c ON c.name = g.collection
    LEFT JOIN accepted a
           ON g.problem IS NULL AND a.collection_id = c.id AND a.key = g.item_key
    ORDER BY g.place;
END $$;

-- Bulk, in one call: one element of each array for an item, with either its content (a text's in
-- UTF-8) or its source. For callers that are in a transaction of their own, since an invalid item
-- is reported and does not raise. What is no JSON, or no UTF-8, does.
CREATE FUNCTION pgclip.submit_batch(
    kinds text[], keys text[], contents bytea[], sources text[], collections text[],
    metadata text[], priorities int[], keep_source boolean[]
) RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgclip._submit_batch(kinds, keys, contents, sources, collections,
                                                    metadata, priorities, keep_source, false);
END $$;

-- The same, but fields of the metadata that an item has, and that are not given, stay.
CREATE FUNCTION pgclip.merge_batch(
    kinds text[], keys text[], contents bytea[], sources text[], collections text[],
    metadata text[], priorities int[], keep_source boolean[]
) RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgclip._submit_batch(kinds, keys, contents, sources, collections,
                                                    metadata, priorities, keep_source, true);
END $$;

CREATE FUNCTION pgclip._submit_batch(
    p_kinds text[], p_keys text[], p_contents bytea[], p_sources text[], p_collections text[],
    p_metadata text[], p_priorities int[], p_keep_source boolean[], p_merge boolean
) RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgclip.open_staging();
    INSERT INTO pg_temp.staged_submission (place, collection, key, kind, data, source, metadata,
                                           priority, keep_source, merge)
    SELECT s.place, s.collection, s.key, s.kind::pgclip.kind, s.data, s.source,
           s.metadata::jsonb, s.priority, s.keep_source, p_merge
    FROM unnest(p_kinds, p_keys, p_contents, p_sources, p_collections, p_metadata, p_priorities,
                p_keep_source) WITH ORDINALITY
         AS s(kind, key, data, source, collection, metadata, priority, keep_source, place);
    RETURN QUERY SELECT * FROM pgclip.submit_staged();
END $$;

-- Bulk, first step: a temporary table to COPY submissions into. "place" numbers them. A content's
-- hash is computed once: of 100 kB it takes 0.4 ms.
CREATE FUNCTION pgclip.open_staging() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgclip._is_staged('staged_submission') AND NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('pg_temp.staged_submission') AND attname = 'merge') THEN
        DROP TABLE pg_temp.staged_submission;  -- of a version before, in a session that goes on
    END IF;
    IF NOT pgclip._is_staged('staged_submission') THEN
        CREATE TEMPORARY TABLE staged_submission (
            place       int NOT NULL,
            collection  text,
            key         text,
            kind        pgclip.kind NOT NULL,
            data        bytea,
            source      text,
            metadata    jsonb,
            priority    smallint,
            keep_source boolean,
            merge       boolean,
            hash        bytea GENERATED ALWAYS AS (sha256(data)) STORED
        ) ON COMMIT DELETE ROWS;
    END IF;
    PERFORM pgclip._let_caller_insert('staged_submission');
END $$;

-- Bulk, second step: accepts what was staged, item by item; an invalid one has an error.
-- Planned for the number of items at hand: a generic plan expects ten, and joins by nested loops.
CREATE FUNCTION pgclip.submit_staged()
RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_content record;
    v_subs    pgclip.submission[];
    v_places  int[];
    v_merge   boolean[];
BEGIN
    PERFORM pgclip._is_staged('staged_submission');
    -- One after the other in the order of their hashes, so that no two bulks wait for each other.
    FOR v_content IN
        SELECT DISTINCT ON (s.kind, s.hash) s.kind, s.data, s.hash
        FROM pg_temp.staged_submission s
        WHERE s.data IS NOT NULL AND pgclip._content_problem(s.kind, s.data) IS NULL
        ORDER BY s.kind, s.hash
    LOOP
        PERFORM pgclip._keep_content(v_content.kind, v_content.data, v_content.hash);
    END LOOP;

    SELECT array_agg((s.collection, s.key, s.kind, s.hash, s.source,
                      coalesce(s.metadata, '{}'), coalesce(s.priority, 1),
                      coalesce(s.keep_source, true))::pgclip.submission
                     ORDER BY s.place),
           array_agg(s.place ORDER BY s.place), array_agg(s.merge ORDER BY s.place)
    INTO v_subs, v_places, v_merge
    FROM pg_temp.staged_submission s
    WHERE pgclip._content_problem(s.kind, s.data) IS NULL;

    RETURN QUERY
    SELECT v_places[a.place], a.item_id, a.key, a.generation, a.error
    FROM pgclip._accept_merging(v_subs, v_merge) a
    UNION ALL
    SELECT s.place, NULL, s.key, NULL, pgclip._content_problem(s.kind, s.data)
    FROM pg_temp.staged_submission s
    WHERE pgclip._content_problem(s.kind, s.data) IS NOT NULL;
    -- Kept for a submission that was refused or came twice: nobody may refer to it.
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT DISTINCT s.kind, s.hash FROM pg_temp.staged_submission s
    WHERE s.data IS NOT NULL AND pgclip._content_problem(s.kind, s.data) IS NULL
      AND NOT EXISTS (SELECT FROM pgclip.item i
                      WHERE i.kind = s.kind AND i.content_hash = s.hash);
    DELETE FROM pg_temp.staged_submission;
END $$;
