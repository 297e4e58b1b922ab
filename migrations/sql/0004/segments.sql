-- Where vectors live. New ones go to the hot segment, a table without an index for searching, which
-- is compared whole. When it is full another one becomes hot; the full one is copied into tables
-- with an HNSW index, and small ones are copied together into larger ones. What has an index has
-- vectors of one kind: a text is nearer to texts than to pictures, so a search for pictures in an
-- index of both would meet texts only.
--
-- A segment is a table of its own, pgclip.embedding_<model>_<number>, and pgclip.segment says which
-- of them are in force. So segments are exchanged by an UPDATE: who reads sees, as of one
-- snapshot, either the old ones or the new one; nothing is attached, detached or locked against
-- readers. Who writes holds a lock shared that the exchange takes alone (_hold_segments).

ALTER TABLE pgclip.segment DROP CONSTRAINT segment_state_check;
ALTER TABLE pgclip.segment
    -- hot: takes new vectors. closed: takes none, has no index yet. sealed: has its index. copied:
    -- a copy of "sources". built: one from which deletions are made as well, about to take their
    -- place. retired: replaced; dropped a while later.
    ADD CHECK (state IN ('hot', 'closed', 'sealed', 'copied', 'built', 'retired')),
    ADD COLUMN kind pgclip.kind,  -- of what has an index; NULL: both
    ADD COLUMN rows bigint,  -- when its index was built
    ADD COLUMN sources int[],
    ADD COLUMN retired_at timestamptz;
CREATE UNIQUE INDEX segment_built ON pgclip.segment (model_id, kind)
    WHERE state IN ('copied', 'built');

-- Tables that were partitions stand by themselves.
DO $$
DECLARE
    v_model smallint;
BEGIN
    FOR v_model IN SELECT id FROM pgclip.model WHERE dimension IS NOT NULL LOOP
        EXECUTE format('ALTER TABLE pgclip.embedding_%1$s
                        DETACH PARTITION pgclip.embedding_%1$s_1', v_model);
        EXECUTE format('DROP TABLE pgclip.embedding_%s', v_model);
        EXECUTE format('ALTER TABLE pgclip.embedding_%s_1 DROP COLUMN segment', v_model);
        EXECUTE format('ALTER TABLE pgclip.embedding_%s_1 RENAME CONSTRAINT %I TO unit_norm', v_model,
            (SELECT conname FROM pg_constraint WHERE contype = 'c'
             AND conrelid = format('pgclip.embedding_%s_1', v_model)::regclass));
    END LOOP;
END $$;

CREATE FUNCTION pgclip._segment_table(p_model smallint, p_number int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 'pgclip.embedding_' || p_model || '_' || p_number
$$;

-- Vectors are stored inline (PLAIN): they are read several times faster so. No foreign key to
-- items: the ledger keeps the two in step.
CREATE FUNCTION pgclip._create_segment_table(p_model smallint, p_number int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_dimension int := (SELECT dimension FROM pgclip.model WHERE id = p_model);
BEGIN
    EXECUTE format($ddl$
        CREATE TABLE %1$s (
            id            bigint NOT NULL DEFAULT nextval('pgclip.vector_id'),
            item_id       bigint NOT NULL,
            collection_id int NOT NULL,
            kind          pgclip.kind NOT NULL,
            embedding     @vector@.halfvec(%2$s) NOT NULL,
            CONSTRAINT unit_norm CHECK (abs(@vector@.l2_norm(embedding) - 1) < 0.005)
        )
    $ddl$, pgclip._segment_table(p_model, p_number), v_dimension);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE PLAIN',
                   pgclip._segment_table(p_model, p_number));
    EXECUTE format('CREATE UNIQUE INDEX ON %s (id)', pgclip._segment_table(p_model, p_number));
END $$;

CREATE OR REPLACE FUNCTION pgclip._create_embedding_table(p_model smallint, p_dimension int)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgclip._create_segment_table(p_model, 1);
    INSERT INTO pgclip.segment (model_id, number, state) VALUES (p_model, 1, 'hot');
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
    SELECT '(' || string_agg('SELECT id, item_id, collection_id, kind, embedding FROM '
                             || pgclip._segment_table(p_model, n), ' UNION ALL ') || ')'
    FROM unnest(p_numbers) n
$$;

-- All vectors of a model, or those of a kind. As of the caller's snapshot, as what is read from them
-- will be.
CREATE FUNCTION pgclip._vectors(p_model smallint, p_kind pgclip.kind DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_kind IS NULL THEN every
                ELSE format('(SELECT * FROM %s a WHERE kind = %L)', every, p_kind) END
    FROM (SELECT pgclip._union_of(p_model, array_agg(number ORDER BY number)) AS every
          FROM pgclip.segment
          WHERE model_id = p_model AND state IN ('hot', 'closed', 'sealed')
            AND (p_kind IS NULL OR kind IS NULL OR kind = p_kind)) s
$$;

CREATE FUNCTION pgclip._delete_vectors(p_model smallint, p_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_number int;
BEGIN
    PERFORM pgclip._hold_segments(p_model);
    FOR v_number IN
        SELECT number FROM pgclip.segment
        WHERE model_id = p_model AND state IN ('hot', 'closed', 'sealed', 'built') ORDER BY number
    LOOP
        EXECUTE format('DELETE FROM %s WHERE id = ANY($1)',
                       pgclip._segment_table(p_model, v_number)) USING p_ids;
    END LOOP;
END $$;

-- Vectors that fit into a table of this size; rows that are dead count as well.
CREATE FUNCTION pgclip._rows_in(p_model smallint, p_number int) RETURNS bigint
LANGUAGE sql STABLE AS $$
    -- A row: its header, three columns and an enum, the vector's header and halves; aligned to 8;
    -- and its pointer in the page.
    SELECT pg_relation_size(to_regclass(pgclip._segment_table(p_model, p_number)))
           / current_setting('block_size')::int
           * ((current_setting('block_size')::int - 24)
              / ((24 + 24 + 8 + 2 * m.dimension + 7) / 8 * 8 + 4))
    FROM pgclip.model m WHERE m.id = p_model
$$;

-- How many vectors have no index yet, about.
CREATE FUNCTION pgclip.unindexed(p_model smallint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(pgclip._rows_in(p_model, number)), 0)::bigint FROM pgclip.segment
    WHERE model_id = p_model AND state IN ('hot', 'closed')
$$;

-- Since when the hot segment has taken vectors: for seconds in a burst, in quiet times for longer.
CREATE FUNCTION pgclip._hot_for(p_model smallint) RETURNS interval
LANGUAGE sql STABLE AS $$
    SELECT clock_timestamp() - created_at FROM pgclip.segment
    WHERE model_id = p_model AND state = 'hot'
$$;

-- Makes another segment the hot one if the present one has p_rows or more; in quiet times (a minute
-- without another), a quarter of that. Also if its table has grown for twice as many, though most of
-- them are dead: a search reads it whole. Returns whether it did. Waits for stores under way, and makes others wait
-- meanwhile; a lock_timeout bounds it.
CREATE FUNCTION pgclip.close_segment(p_model smallint, p_rows bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_full  bigint := CASE WHEN pgclip._hot_for(p_model) > '1 min' THEN (p_rows + 3) / 4
                           ELSE p_rows END;
    v_hot   int;
    v_next  int;
    v_count bigint;
BEGIN
    SELECT number INTO v_hot FROM pgclip.segment WHERE model_id = p_model AND state = 'hot';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT $1) counted',
                   pgclip._segment_table(p_model, v_hot)) INTO v_count USING v_full;
    IF v_count = 0 OR v_count < v_full AND pgclip._rows_in(p_model, v_hot) < 2 * p_rows THEN
        RETURN false;
    END IF;
    v_next := (SELECT max(number) + 1 FROM pgclip.segment WHERE model_id = p_model);
    PERFORM pgclip._create_segment_table(p_model, v_next);
    PERFORM pg_advisory_xact_lock(731199447, p_model);
    UPDATE pgclip.segment SET state = 'closed' WHERE model_id = p_model AND number = v_hot;
    INSERT INTO pgclip.segment (model_id, number, state) VALUES (p_model, v_next, 'hot');
    RETURN true;
END $$;

-- The smallest sealed segments of a kind that are worth copying together: each has at most p_factor
-- times what those before it have together, and all of them at most p_fits rows.
CREATE FUNCTION pgclip._alike(
    p_model smallint, p_kind pgclip.kind, p_factor int, p_fits bigint
) RETURNS int[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_segment record;
    v_alike   int[] := '{}';
    v_sum     bigint := 0;
BEGIN
    FOR v_segment IN SELECT number, rows FROM pgclip.segment
                     WHERE model_id = p_model AND state = 'sealed' AND kind = p_kind
                     ORDER BY rows, number LOOP
        EXIT WHEN v_alike <> '{}' AND (v_segment.rows > p_factor * v_sum
                                       OR v_segment.rows + v_sum > p_fits);
        v_alike := v_alike || v_segment.number;
        v_sum := v_sum + v_segment.rows;
    END LOOP;
    RETURN v_alike;
END $$;

-- Which segments to copy into a new one next; NULL if none, or if one that was built waits for
-- its sources' place. NULL in a burst, too: while segments are closed within seconds and fewer
-- than p_patience vectors have no index, storing has the processors to itself. In this order:
--   if there are p_most sealed ones, the smallest of a kind together;
--   those that are closed;
--   four or more sealed ones of a kind and of like size (a factor of 2), so that a vector is copied
--   about log4(n / rows) times; in quiet times two or more (a factor of 4): a search costs what
--   it costs once for each segment;
--   one of which p_worn (a share) is deleted, alone.
-- Not more together than an index of which fits into p_memory (bytes), unless there are p_most:
-- the rest would be built several times slower. A vector takes its halves and about 720 bytes, as
-- measured with pgvector 0.8.5 and its default m of 16.
CREATE FUNCTION pgclip.next_build(
    p_model smallint, p_most int, p_worn double precision, p_patience bigint, p_memory bigint
) RETURNS int[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_fits     bigint := (SELECT p_memory / (2 * dimension + 720) FROM pgclip.model
                          WHERE id = p_model);
    v_sealed   bigint := (SELECT count(*) FROM pgclip.segment
                          WHERE model_id = p_model AND state = 'sealed');
    v_closed   int[] := ARRAY(SELECT number FROM pgclip.segment
                              WHERE model_id = p_model AND state = 'closed' ORDER BY number);
    v_alike    int[];
    v_quiet    int[];
    v_smallest int[];
BEGIN
    IF EXISTS (SELECT FROM pgclip.segment
               WHERE model_id = p_model AND state IN ('copied', 'built'))
       OR pgclip._hot_for(p_model) < '10 s' AND pgclip.unindexed(p_model) < p_patience THEN
        RETURN NULL;
    END IF;
    SELECT a.segments INTO v_alike
    FROM unnest(enum_range(NULL::pgclip.kind)) k(kind)
    CROSS JOIN LATERAL (SELECT pgclip._alike(p_model, k.kind, 2, v_fits) AS segments) a
    ORDER BY cardinality(a.segments) DESC LIMIT 1;
    SELECT a.segments INTO v_quiet
    FROM unnest(enum_range(NULL::pgclip.kind)) k(kind)
    CROSS JOIN LATERAL (SELECT pgclip._alike(p_model, k.kind, 4, v_fits) AS segments) a
    WHERE pgclip._hot_for(p_model) > '1 min'
    ORDER BY cardinality(a.segments) DESC LIMIT 1;
    SELECT (array_agg(number ORDER BY rows, number))[:2] INTO v_smallest
    FROM pgclip.segment WHERE model_id = p_model AND state = 'sealed'
    GROUP BY kind HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT 1;
    RETURN CASE
        WHEN v_sealed >= p_most AND v_smallest IS NOT NULL
            THEN CASE WHEN cardinality(v_alike) > 1 THEN v_alike ELSE v_smallest END
        WHEN v_closed <> '{}' THEN v_closed
        WHEN cardinality(v_alike) >= 4 THEN v_alike
        WHEN cardinality(v_quiet) >= 2 THEN v_quiet
        ELSE (SELECT ARRAY[number] FROM pgclip.segment
              WHERE model_id = p_model AND state = 'sealed' AND pg_stat_get_tuples_deleted(
                  to_regclass(pgclip._segment_table(p_model, number))) > rows * p_worn
              ORDER BY number LIMIT 1) END;
END $$;

-- Copies segments into new ones, one for each kind, and builds their indexes. Nobody waits for it:
-- what is deleted meanwhile is deleted from the sources, and from the copies later. Returns their
-- numbers; NULL if the sources are not there to be copied any more, because another process has
-- done so. A transaction that ends early leaves nothing behind.
CREATE FUNCTION pgclip.build_segment(
    p_model smallint, p_sources int[], p_memory text, p_workers int
) RETURNS int[]
LANGUAGE plpgsql AS $$
DECLARE
    v_kind  pgclip.kind;
    v_kinds pgclip.kind[];
    v_next  int;
    v_built int[] := '{}';
BEGIN
    IF EXISTS (SELECT FROM unnest(p_sources) n WHERE n NOT IN (
                   SELECT number FROM pgclip.segment
                   WHERE model_id = p_model AND state IN ('closed', 'sealed')))
       OR EXISTS (SELECT FROM pgclip.segment
                  WHERE model_id = p_model AND state IN ('copied', 'built')) THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('maintenance_work_mem', p_memory, true);
    PERFORM set_config('max_parallel_maintenance_workers', p_workers::text, true);
    v_next := (SELECT max(number) FROM pgclip.segment WHERE model_id = p_model);
    EXECUTE format('SELECT coalesce(array_agg(DISTINCT kind ORDER BY kind), %L) FROM %s s',
                   '{image}', pgclip._union_of(p_model, p_sources)) INTO v_kinds;
    FOREACH v_kind IN ARRAY v_kinds LOOP
        v_next := v_next + 1;
        PERFORM pgclip._build_one(p_model, p_sources, v_kind, v_next);
        v_built := v_built || v_next;
    END LOOP;
    RETURN v_built;
END $$;

CREATE FUNCTION pgclip._build_one(
    p_model smallint, p_sources int[], p_kind pgclip.kind, p_number int
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table text := pgclip._segment_table(p_model, p_number);
    v_rows  bigint;
BEGIN
    PERFORM pgclip._create_segment_table(p_model, p_number);
    EXECUTE format('INSERT INTO %s (id, item_id, collection_id, kind, embedding)
                    SELECT id, item_id, collection_id, kind, embedding FROM %s s WHERE kind = $1',
                   v_table, pgclip._union_of(p_model, p_sources)) USING p_kind;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    EXECUTE format('CREATE INDEX ON %s USING hnsw (embedding @vector@.halfvec_ip_ops)', v_table);
    EXECUTE format('ANALYZE %s (item_id, collection_id, kind)', v_table);
    INSERT INTO pgclip.segment (model_id, number, state, kind, rows, sources)
    VALUES (p_model, p_number, 'copied', p_kind, v_rows, p_sources);
END $$;

-- From here on deletions are made from the copies as well. It waits for those under way, and others
-- wait for it, for a moment; a lock_timeout bounds that. Returns whether there were any copies.
CREATE FUNCTION pgclip.announce_segments(p_model smallint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_sources int[];
BEGIN
    SELECT sources INTO v_sources FROM pgclip.segment
    WHERE model_id = p_model AND state = 'copied' LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(731199447, p_model);
    UPDATE pgclip.segment SET state = 'built' WHERE model_id = p_model AND state = 'copied';
    -- So that an older snapshot, which does not see the copies, can't hold the sources any more.
    UPDATE pgclip.segment SET state = state WHERE model_id = p_model AND number = ANY(v_sources);
    RETURN true;
END $$;

-- Puts built segments in the place of their sources; returns their numbers, or NULL if there are
-- none. What was deleted before they were announced is deleted from them first, which nobody waits
-- for; what is deleted now is deleted from both. Then those who write wait for a moment, those who
-- read do not; a lock_timeout bounds how long it waits for a writer.
CREATE FUNCTION pgclip.exchange_segments(p_model smallint) RETURNS int[]
LANGUAGE plpgsql AS $$
DECLARE
    v_segment record;
    v_built   int[];
    v_sources int[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'segments can be exchanged in READ COMMITTED only';
    END IF;
    FOR v_segment IN SELECT number, sources FROM pgclip.segment
                     WHERE model_id = p_model AND state = 'built' ORDER BY number LOOP
        EXECUTE format('DELETE FROM %s n WHERE NOT EXISTS (SELECT FROM %s s WHERE s.id = n.id)',
                       pgclip._segment_table(p_model, v_segment.number),
                       pgclip._union_of(p_model, v_segment.sources));
        v_built := v_built || v_segment.number;
        v_sources := v_segment.sources;
    END LOOP;
    IF v_built IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(731199447, p_model);
        UPDATE pgclip.segment SET state = 'retired', retired_at = clock_timestamp()
        WHERE model_id = p_model AND number = ANY(v_sources);
        UPDATE pgclip.segment SET state = 'sealed', sources = NULL
        WHERE model_id = p_model AND number = ANY(v_built);
    END IF;
    RETURN v_built;
END $$;

-- Drops a segment that was replaced p_grace ago; returns its number, or NULL if there is none that
-- can be had: a backup that is reading a table keeps that one, and a lock_timeout bounds the wait.
-- Who has read an older snapshot for longer than p_grace is told to begin anew (PC008).
CREATE FUNCTION pgclip.drop_retired(p_model smallint, p_grace interval) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_number int;
BEGIN
    FOR v_number IN
        SELECT number FROM pgclip.segment
        WHERE model_id = p_model AND state = 'retired' AND retired_at < clock_timestamp() - p_grace
        ORDER BY number
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %s', pgclip._segment_table(p_model, v_number));
            DELETE FROM pgclip.segment WHERE model_id = p_model AND number = v_number;
            RETURN v_number;
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- the next one
        END;
    END LOOP;
    RETURN NULL;
END $$;

CREATE VIEW pgclip.segments AS
SELECT m.name AS model, s.number, s.state, s.kind,
       coalesce(s.rows, pgclip._rows_in(s.model_id, s.number)) AS vectors,
       pg_table_size(t.oid) AS table_bytes,
       pg_indexes_size(t.oid) AS index_bytes, s.created_at, s.retired_at
FROM pgclip.segment s JOIN pgclip.model m ON m.id = s.model_id
CROSS JOIN LATERAL (SELECT to_regclass(pgclip._segment_table(s.model_id, s.number)) AS oid) t;
