-- Bulk submission that computes a content's hash once: of 100 kB it takes 0.4 ms, and was computed
-- wherever it was needed, five times.

CREATE OR REPLACE FUNCTION pgclip.open_staging() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- One that a session made before the column was there.
    IF to_regclass('pg_temp.staged_submission') IS NOT NULL AND NOT EXISTS (
           SELECT FROM pg_attribute
           WHERE attrelid = to_regclass('pg_temp.staged_submission') AND attname = 'hash') THEN
        DROP TABLE pg_temp.staged_submission;
    END IF;
    IF to_regclass('pg_temp.staged_submission') IS NULL THEN
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
            hash        bytea GENERATED ALWAYS AS (sha256(data)) STORED
        ) ON COMMIT DELETE ROWS;
    END IF;
END $$;

-- Keeps a content, whose hash this is, and holds on to it until the end of the transaction. The
-- second look is for the case that the steward is just deleting the same content as one nobody
-- refers to. Data that were dropped come back.
CREATE FUNCTION pgclip._keep_content(
    p_kind pgclip.kind, p_data bytea, p_hash bytea
) RETURNS bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_dropped boolean;
BEGIN
    LOOP
        SELECT data IS NULL INTO v_dropped FROM pgclip.content
        WHERE kind = p_kind AND hash = p_hash FOR KEY SHARE;
        IF FOUND THEN
            IF v_dropped THEN
                UPDATE pgclip.content SET data = p_data
                WHERE kind = p_kind AND hash = p_hash AND data IS NULL;
            END IF;
            EXIT;
        END IF;
        INSERT INTO pgclip.content (kind, hash, size, data)
        VALUES (p_kind, p_hash, octet_length(p_data), p_data)
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN p_hash;
END $$;

CREATE OR REPLACE FUNCTION pgclip._keep_content(p_kind pgclip.kind, p_data bytea) RETURNS bytea
LANGUAGE sql AS $$
    SELECT pgclip._keep_content(p_kind, p_data, sha256(p_data))
$$;

-- Bulk, second step: accepts what was staged, item by item; an invalid one has an error.
-- Planned for the number of items at hand: a generic plan expects ten, and joins by nested loops.
CREATE OR REPLACE FUNCTION pgclip.submit_staged()
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
    SELECT DISTINCT s.kind, s.hash FROM pg_temp.staged_submission s
    WHERE s.data IS NOT NULL AND pgclip._content_problem(s.kind, s.data) IS NULL
      AND NOT EXISTS (SELECT FROM pgclip.item i
                      WHERE i.kind = s.kind AND i.content_hash = s.hash);
    DELETE FROM pg_temp.staged_submission;
END $$;
