-- Search over all segments, through their indexes or exactly, narrowed by filters, page by page.

DROP FUNCTION pgclip.search(text, int, text, pgclip.kind);
DROP FUNCTION pgclip.search_image(bytea, int, text, pgclip.kind);
DROP FUNCTION pgclip.similar(text, int, text, text, pgclip.kind);
DROP FUNCTION pgclip.search_vector(@vector@.halfvec, int, text, pgclip.kind, bigint);

-- relevance: see calibration. snippet: how a text begins, if it is kept.
ALTER TYPE pgclip.hit ADD ATTRIBUTE relevance real;
ALTER TYPE pgclip.hit ADD ATTRIBUTE snippet text;

-- The p_limit vectors nearest to a query, each item with its best. found: how many vectors there
-- were before items were counted once; if fewer than p_limit, the index has no more to give.
-- Segments are read in the order of the distance; nothing else may be sorted by, or no index is
-- used. Filters are asked of one candidate after another, until there are enough (iterative scan)
-- or max_scan_tuples have been looked at. Sequential scans are off for what has an index; the hot
-- segment has none.
CREATE FUNCTION pgclip._nearest_by_index(
    p_vectors text, p_where text, p_query @vector@.halfvec, p_limit int
) RETURNS TABLE (item_id bigint, kind pgclip.kind, distance double precision, found bigint)
LANGUAGE plpgsql STABLE
SET hnsw.iterative_scan = 'relaxed_order' SET hnsw.ef_search = 64 SET hnsw.max_scan_tuples = 8000
SET hnsw.scan_mem_multiplier = 4 SET enable_seqscan = off SET jit = off AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT n.item_id, n.kind, min(n.distance), sum(count(*)) OVER ()::bigint
        FROM (SELECT e.item_id, e.kind, e.embedding OPERATOR(@vector@.<#>) $1 AS distance
              FROM %s e WHERE %s
              ORDER BY e.embedding OPERATOR(@vector@.<#>) $1 LIMIT $2) n
        GROUP BY n.item_id, n.kind
    $q$, p_vectors, p_where) USING p_query, p_limit;
END $$;

-- The same by comparing every vector that the condition lets through; $3 are p_ids.
CREATE FUNCTION pgclip._nearest_exactly(
    p_vectors text, p_where text, p_query @vector@.halfvec, p_limit int, p_ids bigint[] DEFAULT NULL
) RETURNS TABLE (item_id bigint, kind pgclip.kind, distance double precision, found bigint)
LANGUAGE plpgsql STABLE SET jit = off AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT n.item_id, n.kind, min(n.distance), sum(count(*)) OVER ()::bigint
        FROM (SELECT e.item_id, e.kind, e.embedding OPERATOR(@vector@.<#>) $1 AS distance
              FROM %s e WHERE %s
              ORDER BY (e.embedding OPERATOR(@vector@.<#>) $1) + 0 LIMIT $2) n
        GROUP BY n.item_id, n.kind
    $q$, p_vectors, p_where) USING p_query, p_limit, p_ids;
END $$;

-- What narrows a search, in the forms in which it is used.
CREATE TYPE pgclip.narrowing AS (
    of_vectors text,  -- on the columns of a segment, e
    of_items   text,  -- on pgclip.item i, for all items at once; NULL: nothing but of_vectors
    of_each    text,  -- the same, asked of one vector's item after another
    indexed    boolean
);

CREATE FUNCTION pgclip._narrowing(
    p_model smallint, p_collection text, p_kind pgclip.kind, p_filter jsonb, p_without bigint
) RETURNS pgclip.narrowing
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_collection int;
    v_filtered   boolean := coalesce(p_filter, '{}') <> '{}';
    n            pgclip.narrowing;
BEGIN
    n.of_vectors := 'true';
    n.of_items := 'true';
    IF p_collection IS NOT NULL THEN
        SELECT id INTO v_collection FROM pgclip.collection WHERE name = p_collection;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no collection named %', p_collection USING ERRCODE = 'PC002',
                HINT = 'SELECT name FROM pgclip.collections; one is there once an item is in it.';
        END IF;
        n.of_vectors := format('e.collection_id = %s', v_collection);
        n.of_items := format('i.collection_id = %s', v_collection);
    END IF;
    IF p_kind IS NOT NULL THEN
        n.of_vectors := n.of_vectors || format(' AND e.kind = %L', p_kind);
        n.of_items := n.of_items || format(' AND i.kind = %L', p_kind);
    END IF;
    IF p_without IS NOT NULL THEN
        n.of_vectors := n.of_vectors || format(' AND e.item_id <> %s', p_without);
        n.of_items := n.of_items || format(' AND i.id <> %s', p_without);
    END IF;
    IF v_filtered THEN
        n.of_items := format('%s AND %s', n.of_items,
                             pgclip._condition(p_filter, p_model, false));
        n.of_each := format('(SELECT %s FROM pgclip.item i WHERE i.id = e.item_id)',
                            pgclip._condition(p_filter, p_model, true));
    END IF;
    n.indexed := p_collection IS NOT NULL OR v_filtered AND pgclip._is_indexed(p_filter);
    RETURN n;
END $$;

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

-- The k best items: through the index, or exactly if that was asked for, if few items match, or if
-- the index gives out before there are k. A page begins after a hit: the same score and a higher
-- id, or a lower score. p_least: the lowest score wanted of images, and of texts.
CREATE FUNCTION pgclip._best(
    p_model smallint, p_query @vector@.halfvec, p_k int, p_narrowing pgclip.narrowing,
    p_least real[], p_exact boolean, p_after_score real, p_after_item bigint,
    OUT items bigint[], OUT scores real[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    n         pgclip.narrowing := p_narrowing;
    v_vectors text := pgclip._vectors(p_model);
    v_norm    double precision := @vector@.l2_norm(p_query);
    v_exact   boolean := p_exact OR NOT EXISTS (
                  SELECT FROM pgclip.segment WHERE model_id = p_model AND state = 'sealed');
    v_limit   int := 2 * p_k + 20;  -- some items may have several vectors
    v_ids     bigint[];
    v_where   text;
    v_found   bigint;
    v_last    real;
BEGIN
    IF n.indexed AND NOT p_exact THEN
        v_ids := pgclip._few_that_match(p_model, n.of_items, 2000);
    END IF;
    LOOP
        v_where := CASE WHEN v_ids IS NOT NULL THEN 'e.id = ANY($3)'
            WHEN n.of_each IS NULL THEN n.of_vectors
            WHEN v_exact THEN format('e.item_id IN (SELECT i.id FROM pgclip.item i WHERE %s)',
                                     n.of_items)
            ELSE format('%s AND %s', n.of_vectors, n.of_each) END;
        WITH nearest AS MATERIALIZED (
            SELECT f.item_id, f.kind, f.found,
                   greatest(-1, least(1, -f.distance / v_norm))::real AS score
            FROM pgclip._nearest_exactly(v_vectors, v_where, p_query, v_limit, v_ids) f
            WHERE v_exact OR v_ids IS NOT NULL
            UNION ALL
            SELECT f.item_id, f.kind, f.found,
                   greatest(-1, least(1, -f.distance / v_norm))::real
            FROM pgclip._nearest_by_index(v_vectors, v_where, p_query, v_limit) f
            WHERE NOT (v_exact OR v_ids IS NOT NULL)
        ), reach AS (
            SELECT coalesce(max(s.found), 0) AS found, min(s.score) AS last FROM nearest s
        ), page AS (
            SELECT item_id, score FROM nearest CROSS JOIN reach
            WHERE score >= p_least[CASE kind WHEN 'image' THEN 1 ELSE 2 END]
              -- Of those that are as far as the last, some may not have been looked at.
              AND (reach.found < v_limit OR score > reach.last)
              AND (p_after_score IS NULL OR score < p_after_score
                   OR score = p_after_score AND item_id > p_after_item)
            ORDER BY score DESC, item_id LIMIT p_k
        )
        SELECT array_agg(p.item_id ORDER BY p.score DESC, p.item_id),
               array_agg(p.score ORDER BY p.score DESC, p.item_id), r.found, r.last
        INTO items, scores, v_found, v_last
        FROM reach r LEFT JOIN page p ON true GROUP BY r.found, r.last;
        EXIT WHEN items[p_k] IS NOT NULL OR v_last < least(p_least[1], p_least[2])
               OR v_found < v_limit AND (v_exact OR v_ids IS NOT NULL);
        v_exact := v_exact OR v_found < v_limit OR v_limit > 4000;
        v_limit := 4 * v_limit;
    END LOOP;
END $$;

-- Items as hits, in the order given.
CREATE FUNCTION pgclip._hits(
    p_model smallint, p_query_kind pgclip.kind, p_items bigint[], p_scores real[]
) RETURNS SETOF pgclip.hit
LANGUAGE sql STABLE AS $$
    SELECT i.id, c.name, i.key, i.kind, h.score, i.source, i.metadata, pgclip.labels_of(i.id),
           pgclip._relevance(h.score, b),
           CASE i.kind WHEN 'text' THEN left(convert_from(o.data, 'UTF8'), 500) END
    FROM unnest(p_items, p_scores) WITH ORDINALITY h(item_id, score, nth)
    JOIN pgclip.item i ON i.id = h.item_id
    JOIN pgclip.collection c ON c.id = i.collection_id
    LEFT JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash AND i.kind = 'text'
    LEFT JOIN pgclip.calibration b ON b.model_id = p_model AND b.query_kind = p_query_kind
                                  AND b.item_kind = i.kind
    ORDER BY h.nth
$$;

-- All that searches have in common. Raises PC001, PC002, PC005, PC008.
CREATE FUNCTION pgclip._find(
    p_query @vector@.halfvec, p_query_kind pgclip.kind, p_k int, p_collection text,
    p_kind pgclip.kind, p_filter jsonb, p_min_score real, p_min_relevance real, p_exact boolean,
    p_after_score real, p_after_item bigint, p_without bigint
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_model pgclip.model;
    v_best  record;
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE id = pgclip._live_model();
    IF p_k IS NULL OR p_k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k must be from 1 to 10000, not %', p_k USING ERRCODE = 'PC001';
    END IF;
    IF @vector@.vector_dims(p_query) <> v_model.dimension THEN
        RAISE EXCEPTION 'the query has % dimensions, model % has %',
            @vector@.vector_dims(p_query), v_model.name, v_model.dimension USING ERRCODE = 'PC001';
    END IF;
    IF @vector@.l2_norm(p_query) = 0 THEN
        RAISE EXCEPTION 'the query vector is zero' USING ERRCODE = 'PC001';
    END IF;
    IF (p_after_score IS NULL) <> (p_after_item IS NULL) THEN
        RAISE EXCEPTION 'a page begins after a hit: after_score and after_item go together'
            USING ERRCODE = 'PC001';
    END IF;
    v_best := pgclip._best(v_model.id, p_query, p_k,
        pgclip._narrowing(v_model.id, p_collection, p_kind, p_filter, p_without),
        pgclip._least_scores(v_model.id, p_query_kind, p_kind, p_min_score, p_min_relevance),
        coalesce(p_exact, false), p_after_score, p_after_item);
    RETURN QUERY
        SELECT * FROM pgclip._hits(v_model.id, p_query_kind, v_best.items, v_best.scores);
EXCEPTION WHEN undefined_table THEN
    RAISE EXCEPTION 'segments have been exchanged since this transaction took its snapshot'
        USING ERRCODE = 'PC008', HINT = 'End the transaction and search in a new one.';
END $$;

-- The k items nearest to a vector, best first. The score is the cosine; half precision would
-- let it be 1.0002 of two equal vectors, so it is cut off at 1. An item with several vectors
-- counts once, with its best.
--
-- collection, kind and filter narrow the search; min_score and min_relevance leave out what does
-- not fit, so that the answer may be empty. after_score and after_item, those of the last hit of
-- a page, begin the next one. exact compares every vector. query_kind: what the vector was made
-- of, for the relevance.
CREATE FUNCTION pgclip.search_vector(
    query @vector@.halfvec, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL, query_kind pgclip.kind DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(query, query_kind, k, collection, kind, filter,
        min_score, min_relevance, exact, after_score, after_item, NULL);
END $$;

-- Items nearest to a text whose vector has been asked for with pgclip.embed.
CREATE FUNCTION pgclip.search(
    query text, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(pgclip.query_embedding(query), 'text', k, collection,
        kind, filter, min_score, min_relevance, exact, after_score, after_item, NULL);
END $$;

-- Items nearest to a picture whose vector has been asked for with pgclip.embed(image => …).
CREATE FUNCTION pgclip.search_image(
    image bytea, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(pgclip.query_embedding(image => image), 'image', k,
        collection, kind, filter, min_score, min_relevance, exact, after_score, after_item, NULL);
END $$;

-- Items nearest to one that is there, itself left out. of_collection says where that item is;
-- the search goes over "collection", or all of them.
CREATE FUNCTION pgclip.similar(
    key text, k int DEFAULT 10, of_collection text DEFAULT 'default', collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_item record := pgclip._item_at($1, of_collection);  -- "similar" is a keyword
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(pgclip._mean_vector(v_item.id), v_item.kind, k,
        collection, kind, filter, min_score, min_relevance, exact, after_score, after_item,
        v_item.id);
END $$;
