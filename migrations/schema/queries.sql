-- Query vectors: asked for here, answered by any worker of the live model. Requests and answers are
-- cheap to make again, so nobody waits for the disk to have them.

-- The bytes that stand for a query, and so its hash.
CREATE FUNCTION pgclip._query_data(p_text text, p_image bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF (p_text IS NULL) = (p_image IS NULL) THEN
        RAISE EXCEPTION 'a query is either a text or an image' USING ERRCODE = 'PC001';
    END IF;
    IF pgclip._is_blank(p_text) OR octet_length(p_image) = 0 THEN
        RAISE EXCEPTION 'the query is blank' USING ERRCODE = 'PC001';
    END IF;
    IF octet_length(p_text) > 8192 OR octet_length(p_image) > 67108864 THEN
        RAISE EXCEPTION 'the query is too large: a text may have 8 KiB, an image 64 MiB'
            USING ERRCODE = 'PC001';
    END IF;
    RETURN coalesce(convert_to(p_text, 'UTF8'), p_image);
END $$;

-- Asks the workers for a query's vector without waiting, by the live model or the one that is
-- named. True: it is there already.
CREATE FUNCTION pgclip.request_embedding(
    query text DEFAULT NULL, image bytea DEFAULT NULL, model text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint := pgclip._model_asked(model);
    v_data  bytea := pgclip._query_data(query, image);
    v_kind  pgclip.kind := CASE WHEN image IS NULL THEN 'text' ELSE 'image' END;
BEGIN
    IF EXISTS (SELECT FROM pgclip.query_vector q WHERE q.model_id = v_model
               AND q.kind = v_kind AND q.hash = sha256(v_data)) THEN
        RETURN true;
    END IF;
    INSERT INTO pgclip.query_request AS old (model_id, kind, hash, data)
    VALUES (v_model, v_kind, sha256(v_data), v_data)
    ON CONFLICT (model_id, kind, hash) DO UPDATE SET requested_at = clock_timestamp(),
        error = NULL, taken_at = CASE WHEN old.error IS NULL THEN old.taken_at END;
    PERFORM pg_notify('pgclip_query', v_model::text);
    RETURN false;
END $$;

-- Whether a query that was asked for has its vector; "hash" is SHA-256 of its bytes (a text's are
-- its UTF-8). NULL: nobody asks for it any more, such as of a model that was replaced meanwhile; it
-- has to be asked for again. Raises PC004 if it can't be encoded. A statement by itself, so that
-- whoever waits holds no session meanwhile.
CREATE FUNCTION pgclip.is_embedded(
    kind pgclip.kind, hash bytea, model text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint := pgclip._model_asked(model);
    v_error text;
BEGIN
    IF EXISTS (SELECT FROM pgclip.query_vector q WHERE q.model_id = v_model
               AND q.kind = is_embedded.kind AND q.hash = is_embedded.hash) THEN
        RETURN true;
    END IF;
    SELECT r.error INTO v_error FROM pgclip.query_request r
    WHERE r.model_id = v_model AND r.kind = is_embedded.kind AND r.hash = is_embedded.hash;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_error IS NOT NULL THEN
        RAISE EXCEPTION 'the query could not be encoded: %', v_error USING ERRCODE = 'PC004';
    END IF;
    RETURN false;
END $$;

-- Raises PC004: nobody has encoded a query within this time, and why.
CREATE FUNCTION pgclip.raise_unanswered(waited interval, model text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pgclip.worker w WHERE w.model_id = pgclip._model_asked(model)
               AND w.expires_at > clock_timestamp()) THEN
        RAISE EXCEPTION 'no worker encoded the query within %', waited USING ERRCODE = 'PC004',
            HINT = 'Workers are alive but busy or stuck; see pgclip.workers and their logs.';
    END IF;
    RAISE EXCEPTION 'no worker%is alive to encode the query (waited %)',
        coalesce(' of model ' || model || ' ', ' '), waited
        USING ERRCODE = 'PC004', HINT = 'Start one: pgclip worker';
END $$;

-- Asks for a query's vector and waits until it is there. CALL it outside a transaction: others
-- must see the request. It holds its session while it waits; behind a pooler, request_embedding
-- and looks with is_embedded do not. Raises PC004 if no worker answers in time or the query can't
-- be encoded.
CREATE PROCEDURE pgclip.embed(
    query text DEFAULT NULL, image bytea DEFAULT NULL, timeout interval DEFAULT '10 s',
    model text DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    v_kind   pgclip.kind := CASE WHEN image IS NULL THEN 'text' ELSE 'image' END;
    v_hash   bytea := sha256(pgclip._query_data(query, image));
    v_begin  timestamptz := clock_timestamp();
    v_waited double precision := 0;
    v_found  boolean;
BEGIN
    IF pgclip.request_embedding(query, image, model) THEN
        RETURN;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    COMMIT;
    WHILE v_waited < extract(epoch FROM timeout) LOOP
        -- A twentieth of the wait so far, so that it gets that much longer at most.
        PERFORM pg_sleep(greatest(0.001, least(v_waited / 20, 0.02)));
        v_found := pgclip.is_embedded(v_kind, v_hash, model);
        IF v_found IS NULL THEN
            v_found := pgclip.request_embedding(query, image, model);
        END IF;
        IF v_found THEN
            RETURN;
        END IF;
        v_waited := extract(epoch FROM clock_timestamp() - v_begin);
        COMMIT;  -- a new snapshot, whatever the isolation level
    END LOOP;
    PERFORM pgclip.raise_unanswered(timeout, model);
END $$;

-- For workers: whether a request waits, or was taken 2 s ago and not answered.
CREATE FUNCTION pgclip.query_waits(p_model smallint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pgclip.query_request
                   WHERE model_id = p_model AND error IS NULL
                     AND (taken_at IS NULL OR taken_at < clock_timestamp() - interval '2 s'))
$$;

-- For workers: takes up to p_limit requests that nobody is working on. One taken 2 s ago and
-- still not answered is taken again: its worker may be dead.
CREATE FUNCTION pgclip.take_queries(p_model smallint, p_limit int)
RETURNS TABLE (kind pgclip.kind, hash bytea, data bytea)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('synchronous_commit', 'off', true);
    UPDATE pgclip.query_request r SET taken_at = clock_timestamp()
    FROM (SELECT model_id, kind, hash FROM pgclip.query_request
          WHERE model_id = p_model AND error IS NULL
            AND (taken_at IS NULL OR taken_at < clock_timestamp() - interval '2 s')
          ORDER BY requested_at LIMIT p_limit FOR UPDATE SKIP LOCKED) free
    WHERE (r.model_id, r.kind, r.hash) = (free.model_id, free.kind, free.hash)
    RETURNING r.kind, r.hash, r.data
$$;

-- For workers. p_keep: whether what was asked is kept besides its vector.
CREATE FUNCTION pgclip.answer_query(
    p_model smallint, p_kind pgclip.kind, p_hash bytea, p_embedding real[],
    p_keep boolean DEFAULT false
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('synchronous_commit', 'off', true);
    INSERT INTO pgclip.query_vector (model_id, kind, hash, embedding)
    VALUES (p_model, p_kind, p_hash, p_embedding::@vector@.halfvec)
    ON CONFLICT DO NOTHING;
    WITH answered AS (
        DELETE FROM pgclip.query_request
        WHERE model_id = p_model AND kind = p_kind AND hash = p_hash RETURNING data
    )
    INSERT INTO pgclip.kept_query (kind, hash, data)
    SELECT p_kind, p_hash, data FROM answered
    -- Others are asked what is kept, too, which nobody asks again by that.
    WHERE p_keep AND EXISTS (SELECT FROM pgclip.model WHERE id = p_model AND state = 'live')
    ON CONFLICT (kind, hash) DO UPDATE SET asked_at = excluded.asked_at;
$$;

CREATE FUNCTION pgclip.refuse_query(
    p_model smallint, p_kind pgclip.kind, p_hash bytea, p_error text
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE pgclip.query_request SET error = p_error
    WHERE model_id = p_model AND kind = p_kind AND hash = p_hash
$$;

-- For the steward: forgets requests nobody waits for, the oldest vectors beyond p_vectors, and what
-- was asked beyond the latest p_kept or more than p_days ago.
CREATE FUNCTION pgclip.expire_queries(
    p_vectors int, p_kept int DEFAULT 0, p_days int DEFAULT 30
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM pgclip.query_request WHERE requested_at < clock_timestamp() - interval '2 min';
    DELETE FROM pgclip.query_vector WHERE created_at <= (
        SELECT created_at FROM pgclip.query_vector
        ORDER BY created_at DESC OFFSET p_vectors LIMIT 1);
    DELETE FROM pgclip.kept_query
    WHERE asked_at < clock_timestamp() - p_days * interval '1 day' OR asked_at <= (
        SELECT asked_at FROM pgclip.kept_query ORDER BY asked_at DESC OFFSET p_kept LIMIT 1);
$$;

-- Forgets what was asked: vectors and, where they were kept, texts and pictures; returns how many
-- vectors. What is being encoded at this moment is not among them.
CREATE FUNCTION pgclip.forget_queries(query text DEFAULT NULL, image bytea DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    v_hash  bytea := sha256(coalesce(convert_to(query, 'UTF8'), image));
    v_count bigint;
BEGIN
    DELETE FROM pgclip.kept_query q WHERE v_hash IS NULL OR q.hash = v_hash;
    DELETE FROM pgclip.query_request q WHERE v_hash IS NULL OR q.hash = v_hash;
    DELETE FROM pgclip.query_vector q WHERE v_hash IS NULL OR q.hash = v_hash;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
