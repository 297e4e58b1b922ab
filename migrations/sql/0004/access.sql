-- Two kinds of roles besides the owner of the schema: clients, who submit, control and search, and
-- workers. They may call the functions named here, which run with the owner's rights and a fixed
-- search path, and read what is named here; no table is theirs to write. What no function lets
-- them do they can't do. Setting up is the owner's: models, label sets, indexes, roles.

CREATE FUNCTION pgclip._functions_of(p_access text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_access
    WHEN 'client' THEN ARRAY[
        'submit_image', 'submit_text', 'submit_batch', 'open_staging', 'submit_staged', 'delete',
        'delete_items', 'retry', 'cancel', 'list_items', 'count_items', 'content_of', 'waiting',
        'ticket_queues', '_live_model', '_query_data', 'request_embedding', 'embed',
        'query_embedding', 'item_embedding', 'as_vector', '_as_real', 'weigh', 'search',
        'search_image', 'search_vector', 'similar', 'hybrid', 'duplicates_of', 'duplicate_groups',
        'labels_of', 'vectors_of', '_segment_table', '_rows_in']
    WHEN 'worker' THEN ARRAY[
        'register_model', '_ticket_queue', 'sign_on', 'heartbeat', 'sign_off', 'claim', 'release',
        'known_embeddings', 'keep_label_vector', 'open_results', 'store', 'notify_settled',
        'sweep', 'collect_contents', 'expire_queries', 'backlog', 'take_queries', 'answer_query',
        'refuse_query', 'unindexed', 'close_segment', 'next_build', 'build_segment',
        'announce_segments', 'exchange_segments', 'drop_retired', '_segment_table', '_rows_in']
    END
$$;

CREATE FUNCTION pgclip._readable_by(p_access text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['schema_version', 'items', 'labels', 'collections', 'queue', 'workers', 'models',
                 'segments', 'calibrations']
        || CASE p_access
           WHEN 'client' THEN ARRAY['item', 'label_set', 'label', 'embedding_set', 'query_vector',
                                    'worker', 'query_request (model_id, kind, hash, error)']
           WHEN 'worker' THEN ARRAY['model', 'segment', 'job', 'content', 'label_epoch',
                                    'label_set', 'label', 'label_vector'] END
$$;

-- Lets a role that is there do what a client or a worker does. For the owner of the schema.
CREATE FUNCTION pgclip.grant_access(role name, access text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_statement text;
BEGIN
    IF access IS NULL OR access NOT IN ('client', 'worker') THEN
        RAISE EXCEPTION 'access is client or worker, not %', access USING ERRCODE = 'PC001';
    END IF;
    FOR v_statement IN
        SELECT format('GRANT USAGE ON SCHEMA pgclip TO %I', role)
        UNION ALL
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', p.oid::regprocedure, role)
        FROM pg_proc p WHERE p.pronamespace = 'pgclip'::regnamespace
                         AND p.proname = ANY(pgclip._functions_of(access))
        UNION ALL
        SELECT format('GRANT SELECT %s ON pgclip.%I TO %I',
                      substring(r FROM '\(.*\)'), split_part(r, ' ', 1), role)
        FROM unnest(pgclip._readable_by(access)) r
    LOOP
        EXECUTE v_statement;
    END LOOP;
END $$;

-- Takes all of that back.
CREATE FUNCTION pgclip.revoke_access(role name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA pgclip FROM %I', role);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA pgclip FROM %I', role);
    EXECUTE format('REVOKE ALL ON SCHEMA pgclip FROM %I', role);
END $$;

-- Whoever called, seen from a function that runs as the owner.
CREATE FUNCTION pgclip._caller() RETURNS name
LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('role'), 'none')::name, session_user)
$$;

-- Whether a temporary table of ours is there. One that the caller has put in its place might run
-- code of the caller's with the owner's rights.
CREATE FUNCTION pgclip._is_staged(p_name text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_ours boolean := (SELECT relowner = current_user::regrole AND relkind = 'r' FROM pg_class
                       WHERE oid = to_regclass('pg_temp.' || p_name));
BEGIN
    IF NOT v_ours THEN
        RAISE EXCEPTION 'the temporary table % is not one that pgclip made', p_name
            USING ERRCODE = 'PC001', HINT = 'Drop it, or take a new connection.';
    END IF;
    RETURN coalesce(v_ours, false);
END $$;

CREATE FUNCTION pgclip._let_caller_insert(p_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF pgclip._caller() <> current_user THEN
        EXECUTE format('GRANT INSERT ON pg_temp.%I TO %I', p_name, pgclip._caller());
    END IF;
END $$;

ALTER FUNCTION pgclip.open_staging() RENAME TO _open_staging;
CREATE FUNCTION pgclip.open_staging() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgclip._is_staged('staged_submission');
    PERFORM pgclip._open_staging();
    PERFORM pgclip._let_caller_insert('staged_submission');
END $$;

ALTER FUNCTION pgclip.submit_staged() RENAME TO _submit_staged;
CREATE FUNCTION pgclip.submit_staged()
RETURNS TABLE (place int, item_id bigint, key text, generation int, error text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgclip._is_staged('staged_submission');
    RETURN QUERY SELECT * FROM pgclip._submit_staged();
END $$;

ALTER FUNCTION pgclip.open_results() RENAME TO _open_results;
CREATE FUNCTION pgclip.open_results() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (pgclip._is_staged('staged_vector') AND pgclip._is_staged('staged_label')) THEN
        PERFORM pgclip._open_results();
        PERFORM pgclip._let_caller_insert('staged_vector');
        PERFORM pgclip._let_caller_insert('staged_label');
    END IF;
END $$;

-- Keeps a label's vector, unless there is one of a later version of its set.
CREATE FUNCTION pgclip.keep_label_vector(
    p_label int, p_model smallint, p_version int, p_embedding real[]
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO pgclip.label_vector (label_id, model_id, version, embedding)
    SELECT id, p_model, p_version, p_embedding FROM pgclip.label WHERE id = p_label FOR KEY SHARE
    ON CONFLICT (label_id, model_id) DO UPDATE SET version = excluded.version,
        embedding = excluded.embedding WHERE label_vector.version < excluded.version
$$;

-- A later migration does the same for what it adds or replaces. embed commits, and so runs with
-- its caller's rights; the others that are left out touch no table.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace AND proname = ANY(
            pgclip._functions_of('client') || pgclip._functions_of('worker'))
            AND proname NOT IN ('embed', '_query_data', 'as_vector', '_as_real', 'weigh',
                                '_segment_table')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp',
                       v_function);
    END LOOP;
END $$;
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA pgclip FROM PUBLIC;
