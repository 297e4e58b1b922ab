-- Models: registered by the first worker that brings one, added and promoted by people.

-- Submissions and deletions hold this lock shared, a new model takes it alone: so no item can
-- miss a job for a model that appears while the item is being submitted. The number is arbitrary.
CREATE FUNCTION pgclip._models_lock() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 7311994461::bigint';

-- The Celery queue that carries a model's tickets.
CREATE FUNCTION pgclip._ticket_queue(p_model smallint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'pgclip.' || left(id::text, 8) || '.' || p_model FROM pgclip.installation
$$;

-- Where tickets for new work go: one queue for each model that takes work.
CREATE FUNCTION pgclip.ticket_queues() RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(pgclip._ticket_queue(id) ORDER BY id), '{}')
    FROM pgclip.model WHERE state <> 'retired'
$$;

CREATE VIEW pgclip.models AS
SELECT m.name, m.state, m.dimension, m.fingerprint, m.created_at,
       (SELECT count(*) FROM pgclip.embedding_set e WHERE e.model_id = m.id) AS items,
       (SELECT count(*) FROM pgclip.job j WHERE j.model_id = m.id) AS jobs,
       (SELECT count(*) FROM pgclip.failure f WHERE f.model_id = m.id) AS failures
FROM pgclip.model m;

CREATE FUNCTION pgclip._live_model() RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint;
BEGIN
    SELECT id INTO v_model FROM pgclip.model WHERE state = 'live' AND dimension IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no model has been registered yet' USING ERRCODE = 'PC005',
            HINT = 'Start a worker (pgclip worker): it registers its model.';
    END IF;
    RETURN v_model;
END $$;

-- What a worker says when it starts. Returns the model's id.
-- The fingerprint's "fatal" part must equal the recorded one: vectors would not mix otherwise.
CREATE FUNCTION pgclip.register_model(
    p_name text, p_dimension int, p_logit_scale real, p_fingerprint jsonb
) RETURNS smallint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model pgclip.model;
    v_id    smallint;
    v_live  text;
    v_parts text;
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE name = p_name;
    IF v_model.dimension IS NULL THEN
        PERFORM pg_advisory_xact_lock(pgclip._models_lock());
        SELECT * INTO v_model FROM pgclip.model WHERE name = p_name;
    END IF;
    IF v_model.id IS NULL THEN
        SELECT name INTO v_live FROM pgclip.model WHERE state = 'live';
        IF FOUND THEN
            RAISE EXCEPTION 'this database holds vectors of model %, not of %', v_live, p_name
                USING ERRCODE = 'PC006', HINT = format('Start the worker with PGCLIP_MODEL set to '
                    'the former, or add the new one beside it: SELECT pgclip.add_model(%L);',
                    p_name);
        END IF;
        v_id := pgclip._insert_model(p_name, 'live');
        SELECT * INTO v_model FROM pgclip.model WHERE id = v_id;
    END IF;
    IF v_model.state = 'retired' THEN
        RAISE EXCEPTION 'model % is retired', p_name USING ERRCODE = 'PC006',
            HINT = 'Start the worker with the live model; SELECT name FROM pgclip.model '
                   'WHERE state = ''live'' tells which.';
    END IF;
    IF v_model.dimension IS NULL THEN
        UPDATE pgclip.model SET dimension = p_dimension, logit_scale = p_logit_scale,
               fingerprint = p_fingerprint WHERE id = v_model.id;
        PERFORM pgclip._create_segment_table(v_model.id, 1);
        INSERT INTO pgclip.segment (model_id, number, state) VALUES (v_model.id, 1, 'hot');
    ELSIF v_model.fingerprint -> 'fatal' <> p_fingerprint -> 'fatal' THEN
        SELECT string_agg(format('%s (recorded %s, this worker %s)', key, recorded.value,
                                 ours.value), '; ' ORDER BY key) INTO v_parts
        FROM jsonb_each(v_model.fingerprint -> 'fatal') recorded
        FULL JOIN jsonb_each(p_fingerprint -> 'fatal') ours USING (key)
        WHERE recorded.value IS DISTINCT FROM ours.value;
        RAISE EXCEPTION 'this worker''s model % is not the one whose vectors are stored: %',
            p_name, v_parts USING ERRCODE = 'PC006',
            HINT = 'Use the same weights and preprocessing settings as before, or add the model '
                   'under a new name (PGCLIP_MODEL_NAME) with pgclip.add_model.';
    END IF;
    RETURN v_model.id;
END $$;

CREATE FUNCTION pgclip._insert_model(p_name text, p_state pgclip.model_state)
RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    v_model smallint;
BEGIN
    INSERT INTO pgclip.model (name, state) VALUES (p_name, p_state) RETURNING id INTO v_model;
    PERFORM pgclip.enqueue_missing(v_model);
    RETURN v_model;
END $$;

-- Jobs for every item that has neither a current embedding, nor a failure, nor a job.
-- Returns how many. Also the way to heal what is missing for whatever reason.
CREATE FUNCTION pgclip.enqueue_missing(p_model smallint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
BEGIN
    -- No submission meanwhile: it would be overwritten by what this statement saw before it.
    PERFORM pg_advisory_xact_lock(pgclip._models_lock());
    INSERT INTO pgclip.job (item_id, model_id, generation, kind, content_hash, rank)
    SELECT i.id, p_model, i.generation, i.kind, i.content_hash, now() + interval '30 s'
    FROM pgclip.item i
    WHERE NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = i.id
                      AND e.model_id = p_model AND e.generation = i.generation)
      AND NOT EXISTS (SELECT FROM pgclip.failure f WHERE f.item_id = i.id
                      AND f.model_id = p_model AND f.generation = i.generation)
    ORDER BY i.id
    ON CONFLICT (item_id, model_id) DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Adds a model beside the live one: every item gets a job for it, search stays on the live one.
CREATE FUNCTION pgclip.add_model(p_name text) RETURNS smallint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(pgclip._models_lock());
    RETURN pgclip._insert_model(p_name,
        CASE WHEN EXISTS (SELECT FROM pgclip.model WHERE state = 'live') THEN 'filling'
             ELSE 'live' END::pgclip.model_state);
END $$;

-- Makes a filled model the one that is searched, and retires the one before.
CREATE FUNCTION pgclip.promote_model(p_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
    v_open  bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(pgclip._models_lock());
    SELECT * INTO v_model FROM pgclip.model WHERE name = p_name;
    IF v_model.state IS DISTINCT FROM 'filling' OR v_model.dimension IS NULL THEN
        RAISE EXCEPTION 'model % is not being filled', p_name USING ERRCODE = 'PC006',
            HINT = 'Add it with pgclip.add_model and start a worker with it first.';
    END IF;
    SELECT count(*) INTO v_open FROM pgclip.job WHERE model_id = v_model.id;
    IF v_open > 0 THEN
        RAISE EXCEPTION 'model % has % jobs to do yet', p_name, v_open USING ERRCODE = 'PC006',
            HINT = 'Wait until its workers have finished; items that fail do not count.';
    END IF;
    DELETE FROM pgclip.job j USING pgclip.model m WHERE m.id = j.model_id AND m.state = 'live';
    UPDATE pgclip.model SET state = 'retired' WHERE state = 'live';
    UPDATE pgclip.model SET state = 'live' WHERE id = v_model.id;
END $$;
