-- Kinds of roles besides the owner of the schema: clients, who submit, control and search,
-- workers, and indexers, who have tables kept in step. They may call the functions named here,
-- which run with the owner's rights and a fixed search path, and read what is named here; no
-- table is theirs to write. What no function lets them do they can't do. Setting up is the
-- owner's: models, label sets, indexes, roles.

CREATE FUNCTION pgclip._functions_of(p_access text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['serves', 'try_out', '_decision', '_lacking_grants', '_lacking_elsewhere',
                 '_owner', '_functions_of', '_readable_by', '_segment_table', '_rows_in',
                 '_rows_reckoned', '_count_rows']
        || CASE p_access
           WHEN 'client' THEN ARRAY[
        'submit_image', 'submit_text', 'submit_batch', 'merge_batch', 'open_staging',
        'submit_staged', 'delete',
        'update_metadata', 'rename', 'drop_collection', 'note_files', 'prune_files', 'files_below',
        'delete_items', 'delete_duplicates', 'retry', 'cancel', 'list_items', 'count_items',
        'content_of', 'waiting',
        'ticket_queues', '_live_model', '_is_blank', '_query_data', 'request_embedding',
        'is_embedded', 'raise_unanswered', 'embed', '_model_asked', 'is_mapped',
        'query_embedding', 'item_embedding',
        'as_vector', '_as_real', 'weigh', 'search', 'search_image', 'search_vector', 'similar',
        'hybrid', 'prompts', 'question_prompts', 'embed_many', 'similarity', 'classify', 'answer',
        'captions', 'thumbnails_of', 'content_sizes',
        'duplicates_of', 'duplicate_groups', 'labels_of', 'failure_of', 'vectors_of', 'heal',
        'healable',
        'search_rows', 'missing_rows', '_missing_page', '_key_columns', '_key_of', '_key_values',
        '_from', '_key_expression', '_base_type', '_table_searched', '_rows_statement',
        'judge', 'judge_many', 'request_evaluation', 'label_result', 'evaluate',
        '_await_label_task', 'label_templates', 'background_words',
        '_promises_in_force', '_head_version', 'review', 'leave_unsure', 'decisions',
        'decision_changes']
           WHEN 'indexer' THEN ARRAY[
        'index_table', 'unindex_table', '_check_table', '_parse_columns', '_define_table',
        '_grant_reading', '_leave_table', '_set_triggers', '_drop_triggers', '_triggers_of',
        '_lacking_triggers', '_by_row', '_columns_of', '_key_columns', '_key_of',
        '_base_type']
           WHEN 'worker' THEN ARRAY[
        'register_model', '_ticket_queue', 'sign_on', 'heartbeat', 'sign_off', 'claim', 'release',
        'known_embeddings', 'keep_label_vector', 'open_results', 'store', 'notify_settled',
        'sweep', 'wake_jobs', 'walk_models', 'index_words_anew', 'collect_contents',
        'expire_queries', 'add_up_tallies', 'backlog', 'retired_queues',
        'query_waits', 'take_queries', 'answer_query', 'refuse_query', 'unindexed',
        'close_segment', 'next_build', 'build_segment', 'announce_segments',
        'exchange_segments', 'drop_retired', 'measure_recall', 'labels_due',
        'store_labels', 'follow_tables', 'take_label_task', 'label_examples', 'keep_teaching',
        'end_label_task', 'open_scores', 'decide_items', 'example_groups',
        '_head_version', 'prepare_model', 'map_due', 'map_pairs', 'map_queries', 'keep_map',
        'judge_map', 'thumbnails_due', 'open_thumbnails', 'keep_thumbnails', 'next_thumbnails'] END
$$;

CREATE FUNCTION pgclip._readable_by(p_access text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['schema_version', 'definition', 'access', 'installation', 'items', 'labels',
                 'collections', 'queue', 'delayed', 'workers', 'models', 'segments',
                 'calibrations', 'recall', 'tables', 'relabelings', 'model_maps',
                 'failures']
        || CASE p_access
           WHEN 'client' THEN ARRAY['item', 'label_set', 'label', 'embedding_set', 'query_vector',
                                    'worker', 'query_request (model_id, kind, hash, error)',
                                    'missing', 'indexed_table', 'table_item',
                                    'judgements', 'promises', 'decisions',
                                    'thumbnails']
           WHEN 'indexer' THEN ARRAY['indexed_table']
           WHEN 'worker' THEN ARRAY['model', 'segment', 'job', 'content', 'label_epoch',
                                    'label_set', 'label', 'label_vector', 'label_head',
                                    'label_teaching', 'promise', 'model_walk'] END
$$;

-- Who owns all of this.
CREATE FUNCTION pgclip._owner() RETURNS oid
LANGUAGE sql STABLE AS $$
    SELECT relowner FROM pg_class WHERE oid = 'pgclip.installation'::regclass
$$;

-- What the owner, a client or a worker lacks, as the statements that bring it, for the owner to
-- run; and what everybody may do that only they should. Roles that are recorded and gone are passed
-- over.
CREATE FUNCTION pgclip._lacking_grants() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH role AS (
        SELECT r.oid, r.rolname, a.access
        FROM pgclip.access a JOIN pg_roles r ON r.rolname = a.role
    ), owner AS (
        SELECT oid, rolname FROM pg_roles WHERE oid = pgclip._owner()
    ), routine AS (
        SELECT oid, proname, oid::regprocedure AS signature,
               coalesce(proacl, acldefault('f', proowner)) AS acl
        FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace
    )
    SELECT format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', signature) FROM routine
    WHERE EXISTS (SELECT FROM aclexplode(acl) WHERE grantee = 0)
    UNION ALL
    SELECT format('GRANT USAGE ON SCHEMA pgclip TO %I', rolname) FROM role
    WHERE NOT has_schema_privilege(oid, 'pgclip', 'USAGE')
    UNION ALL
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, r.rolname)
    FROM role r CROSS JOIN owner o CROSS JOIN pg_extension e
    JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector' AND NOT has_schema_privilege(r.oid, n.oid, 'USAGE')
      AND has_schema_privilege(o.oid, n.oid, 'USAGE WITH GRANT OPTION')
    UNION ALL
    SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', p.signature, r.rolname)
    FROM role r JOIN routine p ON p.proname = ANY(pgclip._functions_of(r.access))
    WHERE NOT EXISTS (SELECT FROM aclexplode(p.acl) WHERE grantee = r.oid)
    UNION ALL
    SELECT format('GRANT SELECT%s ON %s TO %I', ' (' || string_agg(c.name, ', ') || ')', t.name,
                  r.rolname)
    FROM role r CROSS JOIN unnest(pgclip._readable_by(r.access)) what
    CROSS JOIN LATERAL (SELECT 'pgclip.' || split_part(what, ' ', 1)) t(name)
    LEFT JOIN LATERAL regexp_split_to_table(substring(what FROM '[(](.*)[)]'), ', ') c(name) ON true
    WHERE CASE WHEN c.name IS NULL THEN NOT has_table_privilege(r.oid, t.name, 'SELECT')
               ELSE NOT has_column_privilege(r.oid, t.name, c.name, 'SELECT') END
    GROUP BY t.name, r.rolname
    UNION ALL
    SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', p.signature, o.rolname)
    FROM owner o CROSS JOIN routine p WHERE NOT has_function_privilege(o.oid, p.oid, 'EXECUTE')
    UNION ALL
    SELECT format('GRANT ALL ON SCHEMA pgclip TO %I', o.rolname) FROM owner o
    WHERE NOT (has_schema_privilege(o.oid, 'pgclip', 'USAGE')
               AND has_schema_privilege(o.oid, 'pgclip', 'CREATE'))
    UNION ALL
    SELECT format('GRANT ALL ON %s %s TO %I',
                  CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass,
                  o.rolname)
    FROM owner o CROSS JOIN pg_class c
    WHERE c.relnamespace = 'pgclip'::regnamespace
      AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(o.oid, c.oid, 'USAGE')
                                      OR NOT has_sequence_privilege(o.oid, c.oid, 'UPDATE')
                                      OR NOT has_sequence_privilege(o.oid, c.oid, 'SELECT')
               WHEN c.relkind IN ('r', 'v') THEN EXISTS (
                   SELECT FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p(name)
                   WHERE NOT has_table_privilege(o.oid, c.oid, p.name))
               ELSE false END
$$;

-- What they lack besides, as the statements that bring it: for whoever owns the database and the
-- extension's schema.
CREATE FUNCTION pgclip._lacking_elsewhere() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), r.rolname)
    FROM pgclip.access a JOIN pg_roles r ON r.rolname = a.role
    WHERE NOT has_database_privilege(r.oid, current_database(), 'CONNECT')
    UNION ALL
    SELECT format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), o.rolname)
    FROM pg_roles o WHERE o.oid = pgclip._owner()
      AND NOT has_database_privilege(o.oid, current_database(), 'TEMPORARY')
    UNION ALL
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, o.rolname)
    FROM pg_roles o CROSS JOIN pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE o.oid = pgclip._owner() AND e.extname = 'vector'
      AND NOT has_schema_privilege(o.oid, n.oid, 'USAGE')
$$;

CREATE FUNCTION pgclip._grant_what_is_lacking() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN SELECT * FROM pgclip._lacking_grants() LOOP
        EXECUTE v_statement;
    END LOOP;
END $$;

-- Lets a role that is there do what a client or a worker does, now and after an upgrade; an indexer
-- may have tables kept in step besides, and is trusted with it: pgclip's owner reads them. For the
-- owner of the schema. Warns of what it can't grant itself.
CREATE FUNCTION pgclip.grant_access(role name, access text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_lacking text;
BEGIN
    IF access IS NULL OR access NOT IN ('client', 'worker', 'indexer') THEN
        RAISE EXCEPTION 'access is client, worker or indexer, not %', access
            USING ERRCODE = 'PC001';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = grant_access.role) THEN
        RAISE EXCEPTION 'there is no role %', role USING ERRCODE = 'PC002';
    END IF;
    INSERT INTO pgclip.access VALUES (grant_access.role, grant_access.access)
    ON CONFLICT DO NOTHING;
    PERFORM pgclip._grant_what_is_lacking();
    FOR v_lacking IN SELECT * FROM pgclip._lacking_elsewhere() LOOP
        RAISE WARNING 'this is lacking: %', v_lacking
            USING HINT = 'Whoever owns the database or the schema of the extension can grant it.';
    END LOOP;
END $$;

-- Takes all of that back.
CREATE FUNCTION pgclip.revoke_access(role name) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.access a WHERE a.role = revoke_access.role;
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
