-- What was submitted inline. Bytes may be dropped once they are encoded: the content's row stays,
-- since items refer to it, with its hash and without its data. They stay while any item wants them
-- kept, while a job needs them, and while an item has failed, so that it can be tried again.

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

-- When an item's bytes may have become dispensable, the steward is told to look.
CREATE FUNCTION pgclip._release_unkept_content() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgclip.content_release (kind, hash) VALUES (NEW.kind, NEW.content_hash);
    RETURN NULL;
END $$;

-- A new item has a job, whose store tells; one that is submitted again may have none.
CREATE TRIGGER item_unkept AFTER UPDATE OF keep_source ON pgclip.item FOR EACH ROW
    WHEN (NOT NEW.keep_source AND NEW.content_hash IS NOT NULL)
    EXECUTE FUNCTION pgclip._release_unkept_content();

CREATE FUNCTION pgclip._release_encoded_contents() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT DISTINCT i.kind, i.content_hash FROM encoded e CROSS JOIN LATERAL (
        SELECT kind, content_hash, keep_source FROM pgclip.item WHERE id = e.item_id OFFSET 0) i
    WHERE NOT i.keep_source AND i.content_hash IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER embedding_set_added AFTER INSERT ON pgclip.embedding_set
    REFERENCING NEW TABLE AS encoded
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._release_encoded_contents();

CREATE TRIGGER embedding_set_replaced AFTER UPDATE ON pgclip.embedding_set
    REFERENCING NEW TABLE AS encoded
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._release_encoded_contents();

-- Deletes released contents that no item refers to, and the data of those that no item needs any
-- longer, a few at a time. One that a submission is just taking up again is locked by it: its turn
-- comes later. Once we hold a content no item can take it up, so the second look is final; that
-- needs a new snapshot for it. Returns how many releases it has worked off.
CREATE FUNCTION pgclip.collect_contents(p_limit int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_kinds  pgclip.kind[];
    v_hashes bytea[];
    v_free   bytea[];
    v_later  bigint;
    v_held   bytea[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'contents can be collected in READ COMMITTED only';
    END IF;
    WITH released AS (
        DELETE FROM pgclip.content_release WHERE ctid IN (
            SELECT ctid FROM pgclip.content_release LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING kind, hash
    )
    SELECT array_agg(kind), array_agg(hash) INTO v_kinds, v_hashes
    FROM (SELECT DISTINCT kind, hash FROM released) r;
    v_free := ARRAY(
        SELECT c.kind::text::bytea || c.hash FROM pgclip.content c
        JOIN unnest(v_kinds, v_hashes) r(kind, hash) ON r.kind = c.kind AND r.hash = c.hash
        FOR UPDATE OF c SKIP LOCKED);
    DELETE FROM pgclip.content c USING unnest(v_kinds, v_hashes) r(kind, hash)
    WHERE r.kind = c.kind AND r.hash = c.hash
      AND c.kind::text::bytea || c.hash = ANY(v_free)
      AND NOT EXISTS (SELECT FROM pgclip.item i
                      WHERE i.kind = c.kind AND i.content_hash = c.hash);
    UPDATE pgclip.content c SET data = NULL FROM unnest(v_kinds, v_hashes) r(kind, hash)
    WHERE r.kind = c.kind AND r.hash = c.hash AND c.data IS NOT NULL
      AND c.kind::text::bytea || c.hash = ANY(v_free)
      AND NOT EXISTS (SELECT FROM pgclip.item i WHERE i.kind = c.kind AND i.content_hash = c.hash
                      AND (i.keep_source OR pgclip._is_unfinished(i.id, i.generation)));
    v_held := pgclip._collect_thumbnails(ARRAY(
        SELECT hash FROM unnest(v_kinds, v_hashes) r(kind, hash) WHERE kind = 'image'));
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT c.kind, c.hash FROM pgclip.content c
    JOIN unnest(v_kinds, v_hashes) r(kind, hash) ON r.kind = c.kind AND r.hash = c.hash
    WHERE c.kind::text::bytea || c.hash <> ALL(v_free)
    UNION SELECT 'image', hash FROM unnest(v_held) hash;
    GET DIAGNOSTICS v_later = ROW_COUNT;
    RETURN coalesce(cardinality(v_hashes), 0) - v_later;
END $$;

-- Deletes contents and thumbnails at once that no item has; what is just being taken up stays. In
-- a transaction that looks at an old snapshot they are left to the steward.
CREATE FUNCTION pgclip._erase_contents(p_kinds pgclip.kind[], p_hashes bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_free bytea[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    v_free := ARRAY(
        SELECT c.kind::text::bytea || c.hash FROM pgclip.content c
        JOIN unnest(p_kinds, p_hashes) r(kind, hash) ON r.kind = c.kind AND r.hash = c.hash
        ORDER BY c.kind, c.hash FOR UPDATE OF c SKIP LOCKED);
    WITH gone AS (
        DELETE FROM pgclip.content c USING unnest(p_kinds, p_hashes) r(kind, hash)
        WHERE r.kind = c.kind AND r.hash = c.hash AND c.kind::text::bytea || c.hash = ANY(v_free)
          AND NOT EXISTS (SELECT FROM pgclip.item i
                          WHERE i.kind = c.kind AND i.content_hash = c.hash)
        RETURNING c.kind, c.hash
    )
    DELETE FROM pgclip.content_release r USING gone g WHERE r.kind = g.kind AND r.hash = g.hash;
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT 'image', hash FROM unnest(pgclip._collect_thumbnails(ARRAY(
        SELECT hash FROM unnest(p_kinds, p_hashes) r(kind, hash) WHERE kind = 'image'))) hash;
END $$;

-- Whether an item's bytes are needed for its embeddings: it is not done by the live model or one
-- that is being filled, or has a job or a failure of a model in use.
CREATE FUNCTION pgclip._is_unfinished(p_item bigint, p_generation int) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pgclip.job j WHERE j.item_id = p_item)
        OR EXISTS (SELECT FROM pgclip.failure f JOIN pgclip.model m ON m.id = f.model_id
                   WHERE f.item_id = p_item AND m.state <> 'retired')
        OR NOT EXISTS (SELECT FROM pgclip.model WHERE state = 'live')
        OR EXISTS (SELECT FROM pgclip.model m WHERE m.state <> 'retired' AND NOT m.is_unattended
                   AND NOT EXISTS (SELECT FROM pgclip.embedding_set e
                                   WHERE e.item_id = p_item AND e.generation = p_generation
                                     AND e.model_id = m.id))
$$;
