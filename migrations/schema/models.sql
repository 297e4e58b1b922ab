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
    PERFORM pgclip._attend(v_model.id);
    IF v_model.dimension IS NULL THEN
        UPDATE pgclip.model SET dimension = p_dimension, logit_scale = p_logit_scale,
               fingerprint = p_fingerprint WHERE id = v_model.id;
        PERFORM pgclip._create_segment_table(v_model.id, 1);
        INSERT INTO pgclip.segment (model_id, number, state) VALUES (v_model.id, 1, 'hot');
        PERFORM pgclip._begin_map(v_model.id);
        PERFORM pgclip._begin_walk(v_model.id);
        -- The first of what is there at once, rather than with the steward's next look.
        IF EXISTS (SELECT FROM pgclip.model_sample WHERE model_id = v_model.id) THEN
            PERFORM pgclip._draw_samples(1000, 100000);
        ELSE
            PERFORM pgclip._enqueue_lacking(ARRAY[v_model.id], ARRAY(
                SELECT id FROM pgclip.item ORDER BY id LIMIT 1000), '30 s');
        END IF;
    ELSIF v_model.fingerprint -> 'fatal' <> p_fingerprint -> 'fatal' THEN
        SELECT string_agg(format('%s (recorded %s, this worker %s)', key, recorded.value,
                                 ours.value), '; ' ORDER BY key) INTO v_parts
        FROM jsonb_each(v_model.fingerprint -> 'fatal') recorded
        FULL JOIN jsonb_each(p_fingerprint -> 'fatal') ours USING (key)
        WHERE recorded.value IS DISTINCT FROM ours.value;
        RAISE EXCEPTION 'this worker''s model % is not the one whose vectors are stored: %',
            p_name, v_parts USING ERRCODE = 'PC006',
            HINT = 'Use the same weights and preprocessing settings as before, or add the model '
                   'under a new name: PGCLIP_MODEL_NAME for the worker, and '
                   'SELECT pgclip.add_model(…) or pgclip models add with that name.';
    END IF;
    RETURN v_model.id;
END $$;

-- Adds a model beside the live one, or as the first. It takes work from when a worker has brought
-- it: what is submitted from then on, and in pages behind that all items that are there, no more
-- than "pace" a second if that is given. Search stays on the live one. map_sample contents of each
-- kind are encoded first: a map of the live model's vectors is learnt from them, and answers for
-- what is not filled yet where it finds map_bound of the ten nearest; 0 for no map. Raises PC006 if
-- there is one of that name, and PC001.
CREATE FUNCTION pgclip.add_model(
    p_name text, pace real DEFAULT NULL, map_sample int DEFAULT 20000, map_bound real DEFAULT 0.9
) RETURNS smallint
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    v_id    smallint;
    v_state text;
BEGIN
    PERFORM pgclip._check_pace(pace);
    IF map_sample IS NULL OR map_sample NOT BETWEEN 0 AND 1000000
       OR (map_bound > 0 AND map_bound <= 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'map_sample is from 0 to 1000000, map_bound more than 0 and at most 1'
            USING ERRCODE = 'PC001';
    END IF;
    PERFORM pgclip._lock_models();
    SELECT state INTO v_state FROM pgclip.models WHERE name = p_name;
    IF FOUND THEN
        RAISE EXCEPTION 'model % is there already: it is %', p_name, v_state
            USING ERRCODE = 'PC006', HINT = CASE v_state
                WHEN 'filling' THEN 'Start workers with PGCLIP_MODEL set to it.'
                WHEN 'standby' THEN 'SELECT pgclip.rollback_model(); goes back to it.'
                WHEN 'dropping' THEN 'Add it once it is gone; see pgclip.models.'
                WHEN 'retired' THEN 'To have it anew: SELECT pgclip.drop_model(…) first.'
                ELSE 'Workers with PGCLIP_MODEL set to it do its work.' END;
    END IF;
    INSERT INTO pgclip.model (name, state, last_item, pace, map_sample, map_bound)
    VALUES (p_name, CASE WHEN EXISTS (SELECT FROM pgclip.model WHERE state = 'live') THEN 'filling'
                         ELSE 'live' END::pgclip.model_state,
            coalesce((SELECT max(id) FROM pgclip.item), 0), pace, map_sample, map_bound)
    RETURNING id INTO v_id;
    RETURN v_id;
END $$;

CREATE FUNCTION pgclip._check_pace(p_pace real) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (p_pace > 0 AND p_pace < 'Infinity') THEN
        RAISE EXCEPTION 'a pace is items a second, more than 0, not %', p_pace
            USING ERRCODE = 'PC001';
    END IF;
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
