-- What clients and workers may call and read now.

CREATE OR REPLACE FUNCTION pgclip._functions_of(p_access text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_access
    WHEN 'client' THEN ARRAY[
        'submit_image', 'submit_text', 'submit_batch', 'open_staging', 'submit_staged', 'delete',
        'delete_items', 'retry', 'cancel', 'list_items', 'count_items', 'content_of', 'waiting',
        'ticket_queues', '_live_model', '_query_data', 'request_embedding', 'embed',
        'query_embedding', 'item_embedding', 'as_vector', '_as_real', 'weigh', 'search',
        'search_image', 'search_vector', 'similar', 'hybrid', 'duplicates_of', 'duplicate_groups',
        'labels_of', 'vectors_of', '_segment_table', '_rows_in', 'heal']
    WHEN 'worker' THEN ARRAY[
        'register_model', '_ticket_queue', 'sign_on', 'heartbeat', 'sign_off', 'claim', 'release',
        'known_embeddings', 'keep_label_vector', 'open_results', 'store', 'notify_settled',
        'sweep', 'collect_contents', 'expire_queries', 'backlog', 'take_queries', 'answer_query',
        'refuse_query', 'unindexed', 'close_segment', 'next_build', 'build_segment',
        'announce_segments', 'exchange_segments', 'drop_retired', '_segment_table', '_rows_in',
        'next_relabeling', 'store_labels']
    END
$$;

CREATE OR REPLACE FUNCTION pgclip._readable_by(p_access text) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['schema_version', 'items', 'labels', 'collections', 'queue', 'workers', 'models',
                 'segments', 'calibrations']
        || CASE p_access
           WHEN 'client' THEN ARRAY['item', 'label_set', 'label', 'embedding_set', 'query_vector',
                                    'worker', 'query_request (model_id, kind, hash, error)',
                                    'missing']
           WHEN 'worker' THEN ARRAY['model', 'segment', 'job', 'content', 'label_epoch',
                                    'label_set', 'label', 'label_vector'] END
$$;

DO $$
DECLARE
    v_function regprocedure;
    v_role     record;
BEGIN
    FOR v_function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace
        AND proname IN ('heartbeat', 'store', 'heal', 'next_relabeling', 'store_labels')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp',
                       v_function);
    END LOOP;
    REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA pgclip FROM PUBLIC;
    -- Roles that were granted access before have what is new, too.
    FOR v_role IN
        SELECT pg_get_userbyid(a.grantee) AS name,
               CASE p.proname WHEN 'claim' THEN 'worker' ELSE 'client' END AS access
        FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
        WHERE p.pronamespace = 'pgclip'::regnamespace AND p.proname IN ('claim', 'submit_batch')
          AND a.grantee NOT IN (0, p.proowner)
    LOOP
        PERFORM pgclip.grant_access(v_role.name, v_role.access);
    END LOOP;
END $$;
