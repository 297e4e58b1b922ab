-- Models: registered by the first worker that brings one, added and promoted by people.

-- Whoever registers, adds, promotes or drops a model does so alone; nobody else waits for it. The
-- number is arbitrary.
CREATE FUNCTION pgclip._lock_models() RETURNS void
LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(7311994461)';

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

-- For the steward: where nobody looks for tickets any more. For an hour, in which what a worker had
-- taken, which ended at once, is given back.
CREATE FUNCTION pgclip.retired_queues() RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(queue ORDER BY queue), '{}')
    FROM (SELECT pgclip._ticket_queue(id) AS queue FROM pgclip.model WHERE state = 'retired'
          UNION ALL
          SELECT queue FROM pgclip.former_queue
          WHERE dropped_at > clock_timestamp() - interval '1 hour') q
$$;

-- "lacking": items that have neither its vectors nor a failure, about.
CREATE VIEW pgclip.models AS
SELECT c.name, c.state, c.dimension, c.fingerprint, c.created_at, c.items, c.jobs, c.failures,
       greatest(0, (SELECT count(*) FROM pgclip.item) - c.items - c.failures) AS lacking
FROM (SELECT m.name, CASE WHEN m.state = 'retired' AND w.model_id IS NOT NULL THEN 'dropping'
                          ELSE m.state::text END AS state,
             m.dimension, m.fingerprint, m.created_at,
             (SELECT count(*) FROM pgclip.embedding_set e WHERE e.model_id = m.id) AS items,
             (SELECT count(*) FROM pgclip.job j WHERE j.model_id = m.id) AS jobs,
             (SELECT count(*) FROM pgclip.failure f WHERE f.model_id = m.id) AS failures
      FROM pgclip.model m LEFT JOIN pgclip.model_walk w ON w.model_id = m.id) c;

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
    v_live  text;
    v_parts text;
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE name = p_name;
    IF v_model.dimension IS NULL THEN
        PERFORM pgclip._lock_models();
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
        INSERT INTO pgclip.model (name, state) VALUES (p_name, 'live') RETURNING * INTO v_model;
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
        PERFORM pgclip._begin_walk(v_model.id);
        -- The first of what is there at once, rather than with the steward's next look.
        PERFORM pgclip._enqueue_lacking(ARRAY[v_model.id], ARRAY(
            SELECT id FROM pgclip.item ORDER BY id LIMIT 1000), '30 s');
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

-- Adds a model beside the live one, or as the first. It takes work from when a worker has brought
-- it: what is submitted from then on, and in pages behind that all items that are there. Search
-- stays on the live one. Raises PC006 if there is one of that name.
CREATE FUNCTION pgclip.add_model(p_name text) RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    v_id    smallint;
    v_state text;
BEGIN
    PERFORM pgclip._lock_models();
    SELECT state INTO v_state FROM pgclip.models WHERE name = p_name;
    IF FOUND THEN
        RAISE EXCEPTION 'model % is there already: it is %', p_name, v_state
            USING ERRCODE = 'PC006', HINT = CASE v_state
                WHEN 'filling' THEN 'Start workers with PGCLIP_MODEL set to it.'
                WHEN 'dropping' THEN 'Add it once it is gone; see pgclip.models.'
                WHEN 'retired' THEN 'To have it anew: SELECT pgclip.drop_model(…) first.'
                ELSE 'Workers with PGCLIP_MODEL set to it do its work.' END;
    END IF;
    INSERT INTO pgclip.model (name, state) VALUES (p_name,
        CASE WHEN EXISTS (SELECT FROM pgclip.model WHERE state = 'live') THEN 'filling'
             ELSE 'live' END::pgclip.model_state) RETURNING id INTO v_id;
    RETURN v_id;
END $$;

-- A model by its name. Raises PC006 if there is none, or if it is not in one of these states.
CREATE FUNCTION pgclip._model_that_is(p_name text, p_states text[]) RETURNS pgclip.model
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
    v_state text := (SELECT state FROM pgclip.models WHERE name = p_name);
BEGIN
    IF v_state IS NULL OR v_state <> ALL(p_states) THEN
        RAISE EXCEPTION 'model % is %, not %', p_name, coalesce(v_state, 'not there'),
            array_to_string(p_states, ' or ') USING ERRCODE = 'PC006',
            HINT = 'SELECT name, state FROM pgclip.models tells what there is.';
    END IF;
    SELECT * INTO v_model FROM pgclip.model WHERE name = p_name;
    RETURN v_model;
END $$;

-- Makes a filled model the one that is searched, and retires the one before. Work that waits for
-- that one is forgotten later.
CREATE FUNCTION pgclip.promote_model(p_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
    v_open  bigint;
BEGIN
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{filling}');
    IF v_model.dimension IS NULL THEN
        RAISE EXCEPTION 'no worker has brought model % yet', p_name USING ERRCODE = 'PC006',
            HINT = 'Start one with PGCLIP_MODEL set to it; if that is no model, take it back: '
                   || format('SELECT pgclip.cancel_model(%L);', p_name);
    END IF;
    SELECT count(*) INTO v_open FROM pgclip.job WHERE model_id = v_model.id;
    IF v_open > 0 OR EXISTS (SELECT FROM pgclip.model_walk WHERE model_id = v_model.id) THEN
        RAISE EXCEPTION 'model % is not filled yet: % items lack its vectors', p_name,
            greatest(v_open, (SELECT lacking FROM pgclip.models WHERE name = p_name))
            USING ERRCODE = 'PC006',
            HINT = 'Wait until its workers have finished; items that fail do not count.';
    END IF;
    UPDATE pgclip.model SET state = 'retired' WHERE state = 'live';
    UPDATE pgclip.model SET state = 'live' WHERE id = v_model.id;
END $$;

-- Takes a model back that was added: one that is being filled, or that no worker has brought. What
-- it has is dropped page by page while everything runs, and then the model; workers of it end.
CREATE FUNCTION pgclip.cancel_model(p_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{filling,live}');
    IF v_model.state = 'live' AND v_model.dimension IS NOT NULL THEN
        RAISE EXCEPTION 'model % is live', p_name USING ERRCODE = 'PC006',
            HINT = 'Promote another one first.';
    END IF;
    PERFORM pgclip._begin_drop(v_model.id);
END $$;

-- Drops a retired model with its vectors, labels and all it has, page by page while everything
-- runs.
CREATE FUNCTION pgclip.drop_model(p_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{retired}');
    PERFORM pgclip._begin_drop(v_model.id);
END $$;

CREATE FUNCTION pgclip._begin_drop(p_model smallint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.model SET state = 'retired' WHERE id = p_model;
    DELETE FROM pgclip.worker WHERE model_id = p_model;  -- their next heartbeat tells them
    PERFORM pgclip._begin_walk(p_model);
END $$;
