-- Where vectors live. New ones go to the hot segment, a table without an index for searching, which
-- is compared whole. When it is full another one becomes hot; the full one is copied into tables
-- with an HNSW index, and small ones are copied together into larger ones (building.sql). What has
-- an index has vectors of one kind: a text is nearer to texts than to pictures, so a search for
-- pictures in an index of both would meet texts only.
--
-- A segment is a table of its own, pgclip.embedding_<model>_<number>, and pgclip.segment says which
-- of them are in force. So segments are exchanged by an UPDATE: who reads sees, as of one
-- snapshot, either the old ones or the new one; nothing is attached, detached or locked against
-- readers. Who writes holds a lock shared that the exchange takes alone (_hold_segments).

CREATE FUNCTION pgclip._segment_table(p_model smallint, p_number int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 'pgclip.embedding_' || p_model || '_' || p_number
$$;

-- Vectors are stored inline (PLAIN): they are read several times faster so. No foreign key to
-- items: the ledger keeps the two in step.
--
-- Equal points tear a graph apart, and so do throngs of nearly equal ones. So of those in a segment
-- with an index one leads and is in the index. Equal vectors are twins and have a number in common,
-- "twins"; one of them stands for all. Those that stand for themselves or their twins and are
-- nearly equal are a cluster of at most 32, and have "cluster" in common; one of it leads.
CREATE FUNCTION pgclip._create_segment_table(p_model smallint, p_number int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_dimension int := (SELECT dimension FROM pgclip.model WHERE id = p_model);
BEGIN
    EXECUTE format($ddl$
        CREATE TABLE %1$s (
            id            bigint PRIMARY KEY DEFAULT nextval('pgclip.vector_id'),
            item_id       bigint NOT NULL,
            collection_id int NOT NULL,
            kind          pgclip.kind NOT NULL,
            embedding     @vector@.halfvec(%2$s) NOT NULL,
            twins         bigint,
            cluster       bigint,
            leads         boolean NOT NULL DEFAULT true,
            CONSTRAINT unit_norm CHECK (abs(@vector@.l2_norm(embedding) - 1) < 0.005)
        )
    $ddl$, pgclip._segment_table(p_model, p_number), v_dimension);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE PLAIN',
                   pgclip._segment_table(p_model, p_number));
END $$;

-- Holds a model's segments in place until the end of the transaction: whoever deletes vectors, or
-- adds some, does so where they will be. A transaction that reads an old snapshot would not see
-- an exchange since then; it fails to lock the rows, and may be tried again (40001).
CREATE FUNCTION pgclip._hold_segments(p_model smallint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(731199447, p_model);
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM FROM pgclip.segment WHERE model_id = p_model FOR SHARE;
    END IF;
END $$;

-- Segments of a model, as FROM takes them: "(SELECT … UNION ALL SELECT …)".
CREATE FUNCTION pgclip._union_of(p_model smallint, p_numbers int[]) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT '(' || string_agg('SELECT id, item_id, collection_id, kind, embedding, twins, cluster, '
                             'leads FROM '
                             || pgclip._segment_table(p_model, n), ' UNION ALL ') || ')'
    FROM unnest(p_numbers) n
$$;

-- All vectors of a model, or those of a kind. As of the caller's snapshot, as what is read from
-- them will be.
CREATE FUNCTION pgclip._vectors(p_model smallint, p_kind pgclip.kind DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_kind IS NULL THEN every
                ELSE format('(SELECT * FROM %s a WHERE kind = %L)', every, p_kind) END
    FROM (SELECT pgclip._union_of(p_model, array_agg(number ORDER BY number)) AS every
          FROM pgclip.segment
          WHERE model_id = p_model AND state IN ('hot', 'closed', 'sealed')
            AND (p_kind IS NULL OR kind IS NULL OR kind = p_kind)) s
$$;

-- What searches through indexes read, of a kind or of both: the points, what is nearly equal to
-- them, and twins of both. Conditions stand outside of the union, or its parts are not merged.
--
-- is_within: of one collection alone. Where it is large, it has an index of its own, and else its
-- vectors are compared: behind OFFSET 0, or the index of all would be read for them. Not if it is
-- large in a segment that has no such index; then it is for the search to pass over the others.
CREATE FUNCTION pgclip._points(
    p_model smallint, p_kind pgclip.kind, p_collection int,
    OUT points text, OUT followers text, OUT others text, OUT is_within boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_columns text := 'id, item_id, collection_id, kind, embedding, twins, cluster, leads';
    v_nothing text := '(SELECT item_id, 0 AS collection_id, NULL::pgclip.kind AS kind, '
                      'NULL::@vector@.halfvec AS embedding, NULL::bigint AS twins, '
                      'NULL::bigint AS cluster, false AS leads FROM pgclip.item WHERE false)';
    v_of_kind text := CASE WHEN p_kind IS NULL THEN '' ELSE format(' AND kind = %L', p_kind) END;
    v_wanted  pgclip.segment[] := ARRAY(
        SELECT s FROM pgclip.segment s
        WHERE model_id = p_model AND state IN ('hot', 'closed', 'sealed')
          AND (p_kind IS NULL OR kind IS NULL OR kind = p_kind) ORDER BY number);
    v_parts   record;
BEGIN
    is_within := p_collection IS NOT NULL AND NOT EXISTS (
        SELECT FROM unnest(v_wanted) s WHERE s.state = 'sealed'
          AND (s.large IS NULL
               OR p_collection = ANY(s.large) AND p_collection <> ALL(s.own_index)));
    SELECT string_agg(CASE
               WHEN is_within AND s.state = 'sealed' AND p_collection <> ALL(s.large) THEN format(
                   '(SELECT id, item_id, collection_id, kind, embedding, NULL::bigint AS twins, '
                   'NULL::bigint AS cluster, true AS leads FROM %s WHERE collection_id = %s '
                   'OFFSET 0)', t.name, p_collection)
               ELSE format('SELECT %s FROM %s', v_columns, t.name) END, ' UNION ALL ') AS every,
           array_agg(s.number) FILTER (WHERE s.has_clusters) AS with_clusters,
           array_agg(s.number) FILTER (WHERE s.has_twins) AS with_twins
    INTO v_parts
    FROM unnest(v_wanted) s
    CROSS JOIN LATERAL (SELECT pgclip._segment_table(p_model, s.number) AS name) t;
    points := format('(SELECT * FROM (%s) a WHERE leads%s%s)', v_parts.every, v_of_kind,
                     CASE WHEN is_within THEN ' AND collection_id = ' || p_collection END);
    followers := format('(SELECT * FROM %s a WHERE cluster IS NOT NULL AND NOT leads%s)',
        coalesce(pgclip._union_of(p_model, v_parts.with_clusters), v_nothing), v_of_kind);
    others := format('(SELECT * FROM %s a WHERE twins IS NOT NULL AND cluster IS NULL '
                     'AND NOT leads%s)',
        coalesce(pgclip._union_of(p_model, v_parts.with_twins), v_nothing), v_of_kind);
END $$;

-- Where the one that led a cluster is gone, or the one that stood for its twins, another leads; all
-- of them may be going at the same moment. p_column: twins or cluster.
CREATE FUNCTION pgclip._lead_anew(p_table text, p_column text, p_numbers bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_count  bigint;
BEGIN
    FOREACH v_number IN ARRAY coalesce(p_numbers, '{}') LOOP
        LOOP
            EXECUTE format('UPDATE %1$s SET leads = true WHERE id = (
                SELECT id FROM %1$s WHERE %2$I = $1 ORDER BY item_id LIMIT 1)', p_table, p_column)
            USING v_number;
            GET DIAGNOSTICS v_count = ROW_COUNT;
            EXIT WHEN v_count > 0;
            EXECUTE format('SELECT count(*) FROM %s WHERE %I = $1', p_table, p_column)
            INTO v_count USING v_number;
            EXIT WHEN v_count = 0;
        END LOOP;
    END LOOP;
END $$;

CREATE FUNCTION pgclip._delete_vectors(p_model smallint, p_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_number   int;
    v_table    text;
    v_twins    bigint[];
    v_clusters bigint[];
BEGIN
    PERFORM pgclip._hold_segments(p_model);
    FOR v_number IN
        SELECT number FROM pgclip.segment
        WHERE model_id = p_model AND state IN ('hot', 'closed', 'sealed', 'copied', 'built')
        ORDER BY number
    LOOP
        v_table := pgclip._segment_table(p_model, v_number);
        EXECUTE format('WITH gone AS (DELETE FROM %s WHERE id = ANY($1)
                                      RETURNING twins, cluster, leads)
                        SELECT array_agg(twins) FILTER (WHERE twins IS NOT NULL
                                                        AND (leads OR cluster IS NOT NULL)),
                               array_agg(cluster) FILTER (WHERE leads AND cluster IS NOT NULL)
                        FROM gone', v_table) INTO v_twins, v_clusters USING p_ids;
        PERFORM pgclip._lead_anew(v_table, 'twins', v_twins);
        PERFORM pgclip._lead_anew(v_table, 'cluster', v_clusters);
    END LOOP;
    PERFORM pgclip._delete_retired_vectors(p_model, p_ids);
END $$;

-- Those of segments that were replaced, and are still read by who has an older snapshot. One that
-- is being dropped at this moment takes its vectors along.
CREATE FUNCTION pgclip._delete_retired_vectors(p_model smallint, p_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_number int;
BEGIN
    FOR v_number IN
        SELECT number FROM pgclip.segment WHERE model_id = p_model AND state = 'retired'
        ORDER BY number FOR KEY SHARE SKIP LOCKED
    LOOP
        EXECUTE format('DELETE FROM %s WHERE id = ANY($1)',
                       pgclip._segment_table(p_model, v_number)) USING p_ids;
    END LOOP;
END $$;

-- Vectors that fit into a table of this size; rows that are dead count as well.
CREATE FUNCTION pgclip._rows_in(p_model smallint, p_number int) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- A row: its header, three columns and an enum, the vector's header and halves; aligned to 8;
    -- and its pointer in the page. Numbers of clusters and twins come to a tenth of it at most.
    SELECT pg_relation_size(to_regclass(pgclip._segment_table(p_model, p_number)))
           / current_setting('block_size')::int
           * ((current_setting('block_size')::int - 24)
              / ((24 + 24 + 8 + 2 * m.dimension + 7) / 8 * 8 + 4))
    FROM pgclip.model m WHERE m.id = p_model
$$;

-- How many vectors have no index yet, about.
CREATE FUNCTION pgclip.unindexed(p_model smallint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(pgclip._rows_in(p_model, number)), 0)::bigint FROM pgclip.segment
    WHERE model_id = p_model AND state IN ('hot', 'closed')
$$;

CREATE VIEW pgclip.segments AS
SELECT m.name AS model, s.number, s.state, s.kind,
       coalesce(s.rows, pgclip._rows_in(s.model_id, s.number)) AS vectors,
       pg_table_size(t.oid) AS table_bytes,
       pg_indexes_size(t.oid) AS index_bytes, s.created_at, s.retired_at
FROM pgclip.segment s JOIN pgclip.model m ON m.id = s.model_id
CROSS JOIN LATERAL (SELECT to_regclass(pgclip._segment_table(s.model_id, s.number)) AS oid) t;
