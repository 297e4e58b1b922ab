-- Asking for a query's vector, faster than before: requests and answers are cheap to make again, so
-- nobody waits for the disk to have them.

-- Asks for a query's vector and waits until it is there. CALL it outside a transaction: others
-- must see the request. Raises PC004 if no worker answers in time or the query can't be encoded.
CREATE OR REPLACE PROCEDURE pgclip.embed(
    query text DEFAULT NULL, image bytea DEFAULT NULL, timeout interval DEFAULT '10 s'
) LANGUAGE plpgsql AS $$
DECLARE
    v_model  smallint := pgclip._live_model();
    v_kind   pgclip.kind := CASE WHEN image IS NULL THEN 'text' ELSE 'image' END;
    v_hash   bytea;
    v_begin  timestamptz := clock_timestamp();
    v_waited double precision := 0;
    v_error  text;
BEGIN
    IF pgclip.request_embedding(query, image) THEN
        RETURN;
    END IF;
    v_hash := sha256(pgclip._query_data(query, image));
    PERFORM set_config('synchronous_commit', 'off', true);
    COMMIT;
    WHILE v_waited < extract(epoch FROM timeout) LOOP
        -- A twentieth of the wait so far, so that it gets that much longer at most.
        PERFORM pg_sleep(greatest(0.001, least(v_waited / 20, 0.02)));
        IF EXISTS (SELECT FROM pgclip.query_vector q WHERE q.model_id = v_model
                   AND q.kind = v_kind AND q.hash = v_hash) THEN
            RETURN;
        END IF;
        SELECT r.error INTO v_error FROM pgclip.query_request r
        WHERE r.model_id = v_model AND r.kind = v_kind AND r.hash = v_hash;
        IF v_error IS NOT NULL THEN
            RAISE EXCEPTION 'the query could not be encoded: %', v_error USING ERRCODE = 'PC004';
        END IF;
        v_waited := extract(epoch FROM clock_timestamp() - v_begin);
        COMMIT;  -- a new snapshot, whatever the isolation level
    END LOOP;
    IF EXISTS (SELECT FROM pgclip.worker w
               WHERE w.model_id = v_model AND w.expires_at > clock_timestamp()) THEN
        RAISE EXCEPTION 'no worker encoded the query within %', timeout USING ERRCODE = 'PC004',
            HINT = 'Workers are alive but busy or stuck; see pgclip.workers and their logs.';
    END IF;
    RAISE EXCEPTION 'no worker is alive to encode the query (waited %)', timeout
        USING ERRCODE = 'PC004', HINT = 'Start one: pgclip worker';
END $$;

-- For workers: takes up to p_limit requests that nobody is working on. One taken 2 s ago and
-- still not answered is taken again: its worker may be dead.
CREATE OR REPLACE FUNCTION pgclip.take_queries(p_model smallint, p_limit int)
RETURNS TABLE (kind pgclip.kind, hash bytea, data bytea)
LANGUAGE sql AS $$
    SELECT set_config('synchronous_commit', 'off', true);
    UPDATE pgclip.query_request r SET taken_at = clock_timestamp()
    FROM (SELECT model_id, kind, hash FROM pgclip.query_request
          WHERE model_id = p_model AND error IS NULL
            AND (taken_at IS NULL OR taken_at < clock_timestamp() - interval '2 s')
          ORDER BY requested_at LIMIT p_limit FOR UPDATE SKIP LOCKED) free
    WHERE (r.model_id, r.kind, r.hash) = (free.model_id, free.kind, free.hash)
    RETURNING r.kind, r.hash, r.data
$$;

CREATE OR REPLACE FUNCTION pgclip.answer_query(
    p_model smallint, p_kind pgclip.kind, p_hash bytea, p_embedding real[]
) RETURNS void
LANGUAGE sql AS $$
    SELECT set_config('synchronous_commit', 'off', true);
    INSERT INTO pgclip.query_vector (model_id, kind, hash, embedding)
    VALUES (p_model, p_kind, p_hash, p_embedding::@vector@.halfvec)
    ON CONFLICT DO NOTHING;
    DELETE FROM pgclip.query_request
    WHERE model_id = p_model AND kind = p_kind AND hash = p_hash;
$$;
