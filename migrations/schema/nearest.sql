-- The items nearest to a vector, in all segments: through their indexes or exactly, narrowed by
-- filters, page by page.

-- Items near a query, each with the distance of its best vector. found: how many vectors were
-- looked at, the last of them farthest away.
CREATE TYPE pgclip.nearest AS (
    items     bigint[],
    kinds     pgclip.kind[],
    distances double precision[],
    found     bigint,
    farthest  double precision
);

-- How a distance becomes a score: base - distance / norm. base is 0, but for mapped queries
-- (maps.sql).
CREATE TYPE pgclip.gauge AS (norm double precision, base double precision);

-- For functions that read segments: the snapshot's may be dropped.
CREATE FUNCTION pgclip._raise_exchanged() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'segments have been exchanged since this transaction took its snapshot'
        USING ERRCODE = 'PC008', HINT = 'End the transaction and search in a new one.';
END $$;

-- Sets how an HNSW index is scanned, and returns how it was before, to be put back. Not settings of
-- a function: one that has them can be created only where the extension's library is loaded, so a
-- restore would leave it out.
CREATE FUNCTION pgclip._set_scan(p_values text[]) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    v_names  text[] := ARRAY['hnsw.iterative_scan', 'hnsw.ef_search', 'hnsw.max_scan_tuples',
                             'hnsw.scan_mem_multiplier'];
    v_before text[];
BEGIN
    FOR i IN 1 .. cardinality(v_names) LOOP
        v_before[i] := current_setting(v_names[i], true);
        PERFORM set_config(v_names[i], p_values[i], true);
    END LOOP;
    RETURN v_before;
END $$;

-- The p_limit nearest points, of which those count that pass the check, a condition on n. Segments
-- are read in the order of the distance, as far as is needed (iterative scan); nothing else may be
-- sorted by, or no index is used. The check comes after the limit: pushed into the scan it would
-- hide how much has been looked at, and an index that gives out returns what it happens to have.
-- Sequential scans are off for what has an index; the hot segment has none.
--
-- A point leads those that are nearly equal to it, which are compared one by one, and stands, as
-- they do, for all vectors that are equal: of the items that have those the first p_limit count;
-- on a page that begins among them (p_after_…), those that come after.
CREATE FUNCTION pgclip._nearest_by_index(
    p_from record, p_check text, p_query @vector@.halfvec, p_limit int, p_effort int,
    p_gauge pgclip.gauge, p_after_score real, p_after_item bigint
) RETURNS pgclip.nearest
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_before text[] := pgclip._set_scan(
        ARRAY['relaxed_order', p_effort::text, '20000', '4']);
    v_near   pgclip.nearest;
BEGIN
    EXECUTE format($q$
        WITH near AS MATERIALIZED (
            SELECT e.item_id, e.collection_id, e.kind, e.twins, e.cluster,
                   e.embedding OPERATOR(@vector@.<#>) $1 AS distance
            FROM %1$s e ORDER BY e.embedding OPERATOR(@vector@.<#>) $1 LIMIT $2
        ), point AS MATERIALIZED (
            SELECT item_id, collection_id, kind, twins, distance FROM near
            UNION ALL
            SELECT f.item_id, f.collection_id, f.kind, f.twins,
                   f.embedding OPERATOR(@vector@.<#>) $1
            FROM near l
            CROSS JOIN LATERAL (SELECT * FROM %2$s f WHERE f.cluster = l.cluster LIMIT 32) f
        ), found AS (
            SELECT n.item_id, n.kind, n.distance FROM point n WHERE %4$s
            UNION ALL
            SELECT o.item_id, o.kind, l.distance FROM point l
            CROSS JOIN LATERAL (
                SELECT DISTINCT ON (n.item_id) n.item_id, n.kind FROM %3$s n
                WHERE n.twins = l.twins AND (%4$s)
                  AND ($4 IS NULL OR pgclip._score(l.distance, $3) <> $4 OR n.item_id > $5)
                ORDER BY n.item_id LIMIT $2) o
            WHERE l.twins IS NOT NULL
        ), item AS (
            SELECT item_id, kind, min(distance) AS distance FROM found GROUP BY item_id, kind
        )
        SELECT array_agg(item_id), array_agg(kind), array_agg(distance),
               (SELECT count(*) FROM near), (SELECT max(distance) FROM near)
        FROM item
    $q$, p_from.points, p_from.followers, p_from.others, p_check)
    INTO v_near USING p_query, p_limit, p_gauge, p_after_score, p_after_item;
    PERFORM pgclip._set_scan(v_before);
    RETURN v_near;
EXCEPTION WHEN undefined_table THEN
    PERFORM pgclip._raise_exchanged();
END $$;

-- The p_limit nearest vectors of those that the condition lets through, by comparing all of
-- them; $3 are p_ids.
CREATE FUNCTION pgclip._nearest_exactly(
    p_vectors text, p_where text, p_query @vector@.halfvec, p_limit int, p_ids bigint[] DEFAULT NULL
) RETURNS pgclip.nearest
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    v_near pgclip.nearest;
BEGIN
    EXECUTE format($q$
        WITH near AS MATERIALIZED (
            SELECT e.item_id, e.kind, e.embedding OPERATOR(@vector@.<#>) $1 AS distance
            FROM %s e WHERE %s
            ORDER BY (e.embedding OPERATOR(@vector@.<#>) $1) + 0 LIMIT $2
        ), item AS (
            SELECT item_id, kind, min(distance) AS distance FROM near GROUP BY item_id, kind
        )
        SELECT array_agg(item_id), array_agg(kind), array_agg(distance),
               (SELECT count(*) FROM near), (SELECT max(distance) FROM near)
        FROM item
    $q$, p_vectors, p_where) INTO v_near USING p_query, p_limit, p_ids;
    RETURN v_near;
EXCEPTION WHEN undefined_table THEN
    PERFORM pgclip._raise_exchanged();
END $$;

-- What narrows a search, in the forms in which it is used.
CREATE TYPE pgclip.narrowing AS (
    kind       pgclip.kind,  -- the only one wanted; NULL: both
    collection int,          -- likewise
    of_items   text,         -- on pgclip.item i, for all items at once, both of them included
    of_near    text,         -- on n, vectors of both that are near; NULL: nothing else narrows
    of_all     text,         -- on e, all vectors; NULL: the vectors alone don't tell
    few        bigint[]      -- the vectors that match, if indexes say that few do; else NULL
);

-- The vectors of the items that match, if there are at most p_most such items; else NULL. It reads
-- indexes only.
CREATE FUNCTION pgclip._few_that_match(p_model smallint, p_of_items text, p_most int)
RETURNS bigint[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_items bigint[];
BEGIN
    EXECUTE format('SELECT ARRAY(SELECT i.id FROM pgclip.item i WHERE %s LIMIT %s)',
                   p_of_items, p_most + 1) INTO v_items;
    IF cardinality(v_items) <= p_most THEN
        RETURN ARRAY(SELECT v.id FROM pgclip.embedding_set s CROSS JOIN unnest(s.vector_ids) v(id)
                     WHERE s.item_id = ANY(v_items) AND s.model_id = p_model ORDER BY v.id);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION pgclip._narrowing(
    p_model smallint, p_collection text, p_kind pgclip.kind, p_filter jsonb, p_without bigint
) RETURNS pgclip.narrowing
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_collection int;
    v_filter     jsonb := coalesce(p_filter, '{}');
    v_items      text[] := '{true}';
    v_near       text[] := '{}';
    v_where      pgclip.narrowing;
BEGIN
    IF p_collection IS NOT NULL THEN
        SELECT id INTO v_collection FROM pgclip.collection WHERE name = p_collection;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no collection named %', p_collection USING ERRCODE = 'PC002',
                HINT = 'SELECT name FROM pgclip.collections; one is there once an item is in it.';
        END IF;
        v_items := v_items || format('i.collection_id = %s', v_collection);
    END IF;
    IF p_kind IS NOT NULL THEN
        v_items := v_items || format('i.kind = %L', p_kind);
    END IF;
    IF p_without IS NOT NULL THEN
        v_items := v_items || format('i.id <> %s', p_without);
        v_near := v_near || format('n.item_id <> %s', p_without);
    END IF;
    IF v_filter <> '{}' THEN
        v_items := v_items || pgclip._condition(v_filter, p_model, false);
        v_near := v_near || format('(SELECT %s FROM pgclip.item i WHERE i.id = n.item_id)',
                                   pgclip._condition(v_filter, p_model, true));
    END IF;
    v_where.kind := p_kind;
    v_where.collection := v_collection;
    v_where.of_items := array_to_string(v_items, ' AND ');
    v_where.of_near := nullif(array_to_string(v_near, ' AND '), '');
    IF v_filter = '{}' THEN
        v_where.of_all := nullif(concat_ws(' AND ', 'e.collection_id = ' || v_collection,
                                           'e.item_id <> ' || p_without), '');
    ELSIF p_collection IS NOT NULL OR pgclip._is_indexed(v_filter) THEN
        v_where.few := pgclip._few_that_match(p_model, v_where.of_items, 2000);
    END IF;
    RETURN v_where;
END $$;

-- The cosine. Half precision would let it be 1.0002 of two equal vectors.
CREATE FUNCTION pgclip._score(p_distance double precision, p_gauge pgclip.gauge) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_distance IS NOT NULL THEN greatest(-1, least(
               1, (p_gauge).base - p_distance / (p_gauge).norm)) END::real
$$;

CREATE FUNCTION pgclip._gauge_of(p_query @vector@.halfvec) RETURNS pgclip.gauge
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ROW(@vector@.l2_norm(p_query), 0)::pgclip.gauge
$$;

-- The k best of what is near, in order. A page begins after a hit: the same score and a higher id,
-- or a lower score. Of those that are as far as the farthest, some may not have been looked at.
CREATE FUNCTION pgclip._page(
    p_near pgclip.nearest, p_gauge pgclip.gauge, p_k int, p_all boolean, p_least real[],
    p_after_score real, p_after_item bigint, OUT items bigint[], OUT scores real[]
) LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(p.item_id ORDER BY p.score DESC, p.item_id),
           array_agg(p.score ORDER BY p.score DESC, p.item_id)
    FROM (
        SELECT item_id, score FROM (
            SELECT n.item_id, n.kind, pgclip._score(n.distance, p_gauge) AS score
            FROM unnest((p_near).items, (p_near).kinds, (p_near).distances)
                 n(item_id, kind, distance)) scored
        WHERE score >= p_least[CASE kind WHEN 'image' THEN 1 ELSE 2 END]
          AND (p_all OR score > pgclip._score((p_near).farthest, p_gauge))
          AND (p_after_score IS NULL OR score < p_after_score
               OR score = p_after_score AND item_id > p_after_item)
        ORDER BY score DESC, item_id LIMIT p_k) p
$$;

-- The k best items: through the index, looking at more until there are k; or exactly, if no effort
-- is given, if few items match, or once 8,000 vectors have been looked at in vain. p_least: the
-- lowest score wanted of images, and of texts.
CREATE FUNCTION pgclip._best(
    p_model smallint, p_query @vector@.halfvec, p_k int, p_narrowing pgclip.narrowing,
    p_least real[], p_effort int, p_after_score real, p_after_item bigint,
    p_gauge pgclip.gauge DEFAULT NULL, OUT items bigint[], OUT scores real[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_vectors text := pgclip._vectors(p_model, p_narrowing.kind);
    v_from    record := pgclip._points(p_model, p_narrowing.kind, p_narrowing.collection);
    v_check   text := coalesce(nullif(concat_ws(' AND ', p_narrowing.of_near,
        CASE WHEN NOT v_from.is_within THEN 'n.collection_id = ' || p_narrowing.collection END),
        ''), 'true');
    v_gauge   pgclip.gauge := coalesce(p_gauge, pgclip._gauge_of(p_query));
    v_exact   boolean := p_effort IS NULL OR p_narrowing.few IS NOT NULL OR NOT EXISTS (
                  SELECT FROM pgclip.segment WHERE model_id = p_model AND state = 'sealed');
    -- Who asks within a collection often asks for what others have, which is far from all of it.
    v_effort  int := CASE WHEN p_narrowing.collection IS NULL THEN p_effort
                          ELSE greatest(640, p_effort) END;
    -- Some items may have several vectors, and what leads may be farther than what follows it.
    v_limit   int := 2 * p_k + 20 + coalesce(v_effort, 0) / 5;
    v_where   text := 'true';
    v_near    pgclip.nearest;
    v_all     boolean;
BEGIN
    IF v_check <> 'true' THEN
        v_limit := 3 * v_limit;
    END IF;
    IF p_narrowing.of_near IS NOT NULL OR p_narrowing.collection IS NOT NULL THEN
        v_where := CASE
            WHEN p_narrowing.few IS NOT NULL THEN 'e.id = ANY($3)'
            WHEN p_narrowing.of_all IS NOT NULL THEN p_narrowing.of_all
            ELSE format('e.item_id IN (SELECT i.id FROM pgclip.item i WHERE %s)',
                        p_narrowing.of_items) END;
    END IF;
    IF v_exact THEN  -- a thousand cost as much as ten
        v_limit := greatest(v_limit, 1000);
    END IF;
    LOOP
        v_near := CASE WHEN v_exact
            THEN pgclip._nearest_exactly(v_vectors, v_where, p_query, v_limit, p_narrowing.few)
            ELSE pgclip._nearest_by_index(
                v_from, v_check, p_query, v_limit, v_effort, v_gauge, p_after_score,
                p_after_item) END;
        v_all := v_exact AND v_near.found < v_limit;
        SELECT * INTO items, scores FROM pgclip._page(
            v_near, v_gauge, p_k, v_all, p_least, p_after_score, p_after_item);
        EXIT WHEN v_all OR items[p_k] IS NOT NULL
               OR pgclip._score(v_near.farthest, v_gauge) < least(p_least[1], p_least[2]);
        -- As many more as the share of those that count lets expect.
        v_exact := v_exact OR v_near.found < v_limit OR v_limit >= 8000;
        v_limit := CASE WHEN v_exact THEN 4 * v_limit ELSE least(8000, greatest(4 * v_limit,
            v_limit / greatest(1, coalesce(cardinality(items), 0)) * p_k * 3 / 2)) END;
    END LOOP;
END $$;

-- The k best items through indexes, each kind with the effort that it needs: first of the kind that
-- asks, whose scores are higher as a rule; then of the other what is as good as the last of these.
-- One scan where both need the same.
CREATE FUNCTION pgclip._best_of_kinds(
    p_model smallint, p_query @vector@.halfvec, p_query_kind pgclip.kind, p_k int,
    p_narrowing pgclip.narrowing, p_least real[], p_recall real, p_after_score real,
    p_after_item bigint, OUT items bigint[], OUT scores real[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_kinds   pgclip.kind[] := CASE WHEN p_query_kind = 'image' THEN '{image,text}'
                                    ELSE '{text,image}' END;
    v_efforts int[];  -- of each; NULL where one kind is all there is
    v_of_kind pgclip.narrowing := p_narrowing;
    v_least   real[] := p_least;
    v_best    record;
BEGIN
    IF p_narrowing.kind IS NULL AND p_narrowing.few IS NULL
       AND (SELECT count(DISTINCT kind) FROM pgclip.segment
            WHERE model_id = p_model AND state = 'sealed') = 2 THEN
        v_efforts := ARRAY(
            SELECT pgclip._effort(p_model, p_query_kind, kind, p_recall)
            FROM unnest(v_kinds) WITH ORDINALITY k(kind, n) ORDER BY n);
    END IF;
    IF v_efforts[1] IS NOT DISTINCT FROM v_efforts[2] THEN
        SELECT b.items, b.scores INTO items, scores FROM pgclip._best(
            p_model, p_query, p_k, p_narrowing, p_least,
            pgclip._effort(p_model, p_query_kind, p_narrowing.kind, p_recall), p_after_score,
            p_after_item) b;
        RETURN;
    END IF;
    FOR n IN 1 .. 2 LOOP
        v_of_kind.kind := v_kinds[n];
        v_of_kind.of_items := p_narrowing.of_items || format(' AND i.kind = %L', v_kinds[n]);
        v_best := pgclip._best(p_model, p_query, p_k, v_of_kind, v_least, v_efforts[n],
                               p_after_score, p_after_item);
        SELECT * INTO items, scores, v_least FROM pgclip._merged(
            items || v_best.items, scores || v_best.scores, p_k, p_least);
    END LOOP;
END $$;

-- The k best of several searches, and the lowest scores that what comes may still have.
CREATE FUNCTION pgclip._merged(
    p_items bigint[], p_scores real[], p_k int, p_least real[],
    OUT items bigint[], OUT scores real[], OUT lowest real[]
) LANGUAGE sql IMMUTABLE AS $$
    SELECT m.items, m.scores,
           CASE WHEN m.items[p_k] IS NULL THEN p_least
                ELSE ARRAY(SELECT greatest(l, m.scores[p_k]) FROM unnest(p_least)
                           WITH ORDINALITY t(l, n) ORDER BY t.n) END
    FROM (SELECT array_agg(b.item ORDER BY b.score DESC, b.item) AS items,
                 array_agg(b.score ORDER BY b.score DESC, b.item) AS scores
          FROM (SELECT item, score FROM unnest(p_items, p_scores) u(item, score)
                ORDER BY score DESC, item LIMIT p_k) b) m
$$;

-- The k best items of all: by the model's own vectors, and of what has none yet by those of its
-- map's source, where that answers. p_recall NULL is what is promised; p_exact compares every
-- vector.
CREATE FUNCTION pgclip._best_of_all(
    p_model smallint, p_query @vector@.halfvec, p_query_kind pgclip.kind, p_k int,
    p_narrowing pgclip.narrowing, p_least real[], p_recall real, p_exact boolean,
    p_after_score real, p_after_item bigint, OUT items bigint[], OUT scores real[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_map   record;
    v_least real[];
    v_best  record := CASE WHEN p_exact
        THEN pgclip._best(p_model, p_query, p_k, p_narrowing, p_least, NULL, p_after_score,
                          p_after_item)
        ELSE pgclip._best_of_kinds(p_model, p_query, p_query_kind, p_k, p_narrowing, p_least,
                                   p_recall, p_after_score, p_after_item) END;
BEGIN
    SELECT * INTO items, scores, v_least FROM pgclip._merged(
        v_best.items, v_best.scores, p_k, p_least);
    FOR v_map IN
        SELECT p.source_id, m.kind, q.query, ROW(@vector@.l2_norm(p_query), q.base
               / @vector@.l2_norm(p_query))::pgclip.gauge AS gauge
        FROM pgclip.model_mapping p JOIN pgclip.model_map m USING (model_id)
        CROSS JOIN LATERAL pgclip._mapped_query(p_model, m.kind, p_query) q
        WHERE p.model_id = p_model AND p.state = 'answers'
          AND (p_narrowing.kind IS NULL OR p_narrowing.kind = m.kind)
        ORDER BY m.kind IS DISTINCT FROM p_query_kind
    LOOP
        v_best := pgclip._best(
            v_map.source_id, v_map.query, p_k,
            pgclip._narrowed_to_mapped(p_narrowing, p_model, v_map.source_id, v_map.kind), v_least,
            -- Nobody measures how far to look for mapped queries.
            CASE WHEN NOT p_exact
                 THEN pgclip._effort(v_map.source_id, NULL, v_map.kind, p_recall) END,
            p_after_score, p_after_item, v_map.gauge);
        SELECT * INTO items, scores, v_least FROM pgclip._merged(
            items || v_best.items, scores || v_best.scores, p_k, p_least);
    END LOOP;
END $$;

-- What narrows a search of a source's vectors of a kind: besides, that an item has no real vector.
CREATE FUNCTION pgclip._narrowed_to_mapped(
    p_narrowing pgclip.narrowing, p_model smallint, p_source smallint, p_kind pgclip.kind
) RETURNS pgclip.narrowing
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_where   pgclip.narrowing := p_narrowing;
    v_lacking text := format('NOT EXISTS (SELECT FROM pgclip.embedding_set r '
                             'WHERE r.item_id = %%s AND r.model_id = %s)', p_model);
BEGIN
    v_where.kind := p_kind;
    v_where.of_items := concat_ws(' AND ', p_narrowing.of_items, format('i.kind = %L', p_kind),
                                  format(v_lacking, 'i.id'));
    v_where.of_near := concat_ws(' AND ', format(v_lacking, 'n.item_id'), p_narrowing.of_near);
    IF p_narrowing.of_all IS NOT NULL OR p_narrowing.of_near IS NULL THEN
        v_where.of_all := concat_ws(' AND ', p_narrowing.of_all, format(v_lacking, 'e.item_id'));
    END IF;
    IF p_narrowing.few IS NOT NULL THEN
        v_where.few := pgclip._few_that_match(p_source, v_where.of_items, 2000);
    END IF;
    RETURN v_where;
END $$;
