-- The life of a segment: closed when it is full, copied and given an index, exchanged, dropped.

-- Since when the hot segment has taken vectors: for seconds in a burst, in quiet times for longer.
CREATE FUNCTION pgclip._hot_for(p_model smallint) RETURNS interval
LANGUAGE sql STABLE AS $$
    SELECT clock_timestamp() - created_at FROM pgclip.segment
    WHERE model_id = p_model AND state = 'hot'
$$;

-- Makes another segment the hot one if the present one has p_rows or more; in quiet times (a minute
-- without another), a quarter of that. Also if its table has grown for twice as many, though most
-- of them are dead: a search reads it whole. Returns whether it did. Waits for stores under way,
-- and makes others wait meanwhile; a lock_timeout bounds it.
CREATE FUNCTION pgclip.close_segment(p_model smallint, p_rows bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
--   one of which p_worn (a share) is deleted, alone; and in quiet times one whose index was built
--   in haste, if it fits.
-- Not more together than an index of which fits into p_memory (bytes), unless there are p_most:
-- the rest would be built several times slower. A vector takes its halves and about 720 bytes, as
-- measured with pgvector 0.8.5 and its m of 16.
CREATE FUNCTION pgclip.next_build(
    p_model smallint, p_most int, p_worn double precision, p_patience bigint, p_memory bigint
) RETURNS int[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
              WHERE model_id = p_model AND state = 'sealed'
                AND (pg_stat_get_tuples_deleted(to_regclass(
                         pgclip._segment_table(p_model, number))) > rows * p_worn
                     OR rows <= v_fits AND NOT pgclip._is_thorough(p_model, number)
                        AND pgclip._hot_for(p_model) > '1 min')
              ORDER BY number LIMIT 1) END;
END $$;

-- Copies segments into new ones, one for each kind, and builds their indexes. Nobody waits for it:
-- what is deleted meanwhile is deleted from the sources, and from the copies later. Returns their
-- numbers; NULL if the sources are not there to be copied any more, because another process has
-- done so. A transaction that ends early leaves nothing behind.
CREATE FUNCTION pgclip.build_segment(
    p_model smallint, p_sources int[], p_memory text, p_workers int
) RETURNS int[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
    PERFORM set_config('work_mem', p_memory, true);  -- what is copied is sorted
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
    v_table    text := pgclip._segment_table(p_model, p_number);
    v_points   text := v_table || '_points';
    v_large    int[] := pgclip._large(p_model, p_sources, p_kind);
    v_sources  text := format('(SELECT *, pgclip._domain(collection_id, %L) AS domain FROM %s s '
                              'WHERE kind = %L)',
                              v_large, pgclip._union_of(p_model, p_sources), p_kind);
    v_thorough boolean := pgclip._hot_for(p_model) > '1 min';
    v_own      int[] := '{}';
    v_rows     bigint;
    v_has      record;
BEGIN
    PERFORM pgclip._create_segment_table(p_model, p_number);
    PERFORM pgclip._find_clusters(v_points, v_sources);
    -- In a random order: what comes one after the other, such as a burst of a camera, is alike, and
    -- an index that meets it so is torn. What is looked at together lies together.
    EXECUTE format('INSERT INTO %s (id, item_id, collection_id, kind, embedding, twins, cluster,
                                    leads)
                    SELECT s.id, s.item_id, s.collection_id, s.kind, s.embedding,
                           CASE WHEN s.equal > 1 THEN s.first END,
                           CASE WHEN s.id = s.first THEN p.cluster END,
                           s.id = s.first AND s.id = coalesce(p.cluster, s.id)
                    FROM (SELECT *, min(id) OVER same AS first, count(*) OVER same AS equal
                          FROM %s s WINDOW same AS (PARTITION BY domain, embedding)) s
                    JOIN %s p ON p.id = s.first
                    ORDER BY hashint8(coalesce(p.cluster, p.id)), coalesce(p.cluster, p.id)',
                   v_table, v_sources, v_points);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    EXECUTE format('DROP TABLE %s', v_points);
    PERFORM pgclip._index_vectors(v_table, v_thorough, 'leads');
    -- A search within a collection whose vectors are far from what is asked for would look at most
    -- of the others first. One that nearly all belong to would double the index.
    IF v_thorough THEN
        EXECUTE format('SELECT coalesce(array_agg(collection_id), %L) FROM (
                            SELECT collection_id FROM %s WHERE collection_id = ANY($1)
                            GROUP BY collection_id HAVING 3 * count(*) < 2 * $2) own',
                       '{}', v_table) INTO v_own USING v_large, v_rows;
        FOR i IN 1 .. cardinality(v_own) LOOP
            PERFORM pgclip._index_vectors(
                v_table, true, format('leads AND collection_id = %s', v_own[i]));
        END LOOP;
    END IF;
    EXECUTE format('CREATE INDEX ON %s (twins, item_id) WHERE twins IS NOT NULL', v_table);
    EXECUTE format('CREATE INDEX ON %s (cluster) WHERE cluster IS NOT NULL', v_table);
    EXECUTE format('CREATE INDEX ON %s (collection_id)', v_table);
    EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE twins IS NOT NULL) AS twins,
                           EXISTS (SELECT FROM %1$s WHERE cluster IS NOT NULL) AS clusters',
                   v_table) INTO v_has;
    EXECUTE format('ANALYZE %s (item_id, collection_id, kind, twins, cluster, leads)', v_table);
    INSERT INTO pgclip.segment
           (model_id, number, state, kind, rows, sources, has_twins, has_clusters, large, own_index)
    VALUES (p_model, p_number, 'copied', p_kind, v_rows, p_sources, v_has.twins, v_has.clusters,
            v_large, v_own);
END $$;

-- Of how many each vector's neighbours are chosen. With pgvector's default a graph is built five
-- times faster, and loses what lies apart or in a throng: as long as new vectors come, else not.
CREATE FUNCTION pgclip._ef_construction(p_thorough boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 'ef_construction=' || CASE WHEN p_thorough THEN 800 ELSE 64 END
$$;

CREATE FUNCTION pgclip._index_vectors(p_table text, p_thorough boolean, p_where text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX ON %s USING hnsw (embedding @vector@.halfvec_ip_ops)
                    WITH (m = 16, %s) WHERE %s', p_table, pgclip._ef_construction(p_thorough),
                   p_where);
END $$;

-- Whether a segment's index has the parameters of one that is built at leisure.
CREATE FUNCTION pgclip._is_thorough(p_model smallint, p_number int) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
        WHERE x.indrelid = to_regclass(pgclip._segment_table(p_model, p_number))
          AND c.reloptions @> ARRAY['m=16', pgclip._ef_construction(true)])
$$;

-- Collections too large for all of their vectors to be compared: those of 8,000, which takes some
-- milliseconds.
CREATE FUNCTION pgclip._large(p_model smallint, p_numbers int[], p_kind pgclip.kind) RETURNS int[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_large int[];
BEGIN
    EXECUTE format('SELECT ARRAY(SELECT collection_id FROM %s s WHERE kind = $1
                                 GROUP BY collection_id HAVING count(*) >= 8000 ORDER BY 1)',
                   pgclip._union_of(p_model, p_numbers)) INTO v_large USING p_kind;
    RETURN v_large;
END $$;

-- Within which vectors stand for each other: a large collection, or all others (0).
CREATE FUNCTION pgclip._domain(p_collection int, p_large int[]) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_collection = ANY(p_large) THEN p_collection ELSE 0 END
$$;

-- Makes a table of the distinct vectors of each domain, under the first id that has them, and says
-- which are nearly equal: by locality-sensitive hashing (Charikar, STOC 2002) with sixteen signs of
-- the centred vector, other ones in each round. Those that share them are looked at in heaps of 32,
-- and who is near the first of its heap is in its cluster. Two that are nearly equal may stay
-- apart, which costs a point more. Until a round finds few.
--
-- Near is a cosine of 0.95 where vectors are spread out. Where all are alike, or all of a heap, it
-- is what is far nearer than they are to each other: 1 less the cosine is a quarter of the heap's
-- mean, or of 0.05 if the heap is too small to tell. Else who leads would say nothing of who
-- follows, and followers would not be found.
CREATE FUNCTION pgclip._find_clusters(p_table text, p_sources text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_mean  @vector@.halfvec;
    v_near  double precision;
    v_all   bigint;
    v_found bigint;
BEGIN
    EXECUTE format('SELECT @vector@.avg(embedding) FROM %s s', p_sources) INTO v_mean;
    v_near := least(0.05, 0.08 * (1 - @vector@.l2_norm(v_mean) ^ 2));
    EXECUTE format('CREATE UNLOGGED TABLE %1$s AS
                    SELECT DISTINCT ON (domain, embedding) id, domain, embedding,
                           @vector@.binary_quantize(embedding OPERATOR(@vector@.-) %3$L) AS signs,
                           NULL::bigint AS cluster
                    FROM %2$s s ORDER BY domain, embedding, id', p_table, p_sources, v_mean);
    GET DIAGNOSTICS v_all = ROW_COUNT;
    FOR v_round IN 0 .. 7 LOOP
        EXECUTE format($q$
            WITH heaped AS (
                SELECT id, domain, embedding, substring(signs FROM $1 FOR 16) AS signs,
                       (row_number() OVER (PARTITION BY domain, substring(signs FROM $1 FOR 16)
                                           ORDER BY hashint8(id)) - 1) / 32 AS heap
                FROM %1$s WHERE cluster IS NULL
            ), compared AS (
                SELECT id, domain, signs, heap, first_value(id) OVER w AS first,
                       1 + (first_value(embedding) OVER w OPERATOR(@vector@.<#>) embedding) AS away
                FROM heaped
                WINDOW w AS (PARTITION BY domain, signs, heap ORDER BY hashint8(id))
            ), alike AS (
                SELECT id, first, count(*) OVER (PARTITION BY first) AS size FROM (
                    SELECT *, count(*) OVER w - 1 AS others, sum(away) OVER w AS together
                    FROM compared WINDOW w AS (PARTITION BY domain, signs, heap)) c
                WHERE id = first OR others < 7 AND away <= $2 / 4
                   OR others >= 7 AND away <= least($2, together / others / 4)
            )
            UPDATE %1$s p SET cluster = a.first FROM alike a WHERE p.id = a.id AND a.size > 1
        $q$, p_table) USING 16 * v_round + 1, v_near;
        GET DIAGNOSTICS v_found = ROW_COUNT;
        EXIT WHEN 100 * v_found < v_all;
    END LOOP;
END $$;

-- From here on deletions are made from the copies as well. It waits for those under way, and others
-- wait for it, for a moment; a lock_timeout bounds that. Returns whether there were any copies.
CREATE FUNCTION pgclip.announce_segments(p_model smallint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_segment  record;
    v_table    text;
    v_orphaned record;
    v_built    int[];
    v_sources  int[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'segments can be exchanged in READ COMMITTED only';
    END IF;
    FOR v_segment IN SELECT number, sources FROM pgclip.segment
                     WHERE model_id = p_model AND state = 'built' ORDER BY number LOOP
        v_table := pgclip._segment_table(p_model, v_segment.number);
        EXECUTE format('DELETE FROM %s n WHERE NOT EXISTS (SELECT FROM %s s WHERE s.id = n.id)',
                       v_table, pgclip._union_of(p_model, v_segment.sources));
        EXECUTE format('SELECT ARRAY(SELECT twins FROM %1$s WHERE twins IS NOT NULL GROUP BY twins
                                     HAVING NOT bool_or(leads OR cluster IS NOT NULL)) AS twins,
                               ARRAY(SELECT cluster FROM %1$s WHERE cluster IS NOT NULL
                                     GROUP BY cluster HAVING NOT bool_or(leads)) AS clusters',
                       v_table) INTO v_orphaned;
        PERFORM pgclip._lead_anew(v_table, 'twins', v_orphaned.twins);
        PERFORM pgclip._lead_anew(v_table, 'cluster', v_orphaned.clusters);
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_number int;
BEGIN
    FOR v_number IN
        SELECT number FROM pgclip.segment
        WHERE model_id = p_model AND state = 'retired' AND retired_at < clock_timestamp() - p_grace
        ORDER BY number
    LOOP
        BEGIN
            DELETE FROM pgclip.segment WHERE model_id = p_model AND number = v_number;
            EXECUTE format('DROP TABLE %s', pgclip._segment_table(p_model, v_number));
            RETURN v_number;
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- the next one
        END;
    END LOOP;
    RETURN NULL;
END $$;
