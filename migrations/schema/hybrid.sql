-- Words and vectors together.

CREATE TYPE pgclip.hybrid_hit AS (
    item_id     bigint,
    collection  text,
    key         text,
    kind        pgclip.kind,
    score       real,
    source      text,
    metadata    jsonb,
    labels      jsonb,
    relevance   real,
    snippet     text,
    vector_rank int,
    text_rank   int,
    fused       real
);

-- What to look for, the narrowest first: all of the words, then each of them; and what ranks it. If
-- some are excluded (-word) or in quotes, it is that and nothing else.
CREATE FUNCTION pgclip._words_wanted(p_query text, OUT narrowest tsquery[], OUT ranking tsquery)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_language regconfig := (SELECT language::regconfig FROM pgclip.text_search);
    v_words    text[] := ARRAY(  -- quoted as a tsquery has it
        SELECT '''' || replace(replace(w, E'\\', E'\\\\'), '''', '''''') || ''''
        FROM unnest(tsvector_to_array(to_tsvector(v_language, p_query))) w);
BEGIN
    ranking := websearch_to_tsquery(v_language, p_query);
    narrowest := ARRAY[ranking];
    IF p_query !~ '"|(^|[[:space:]])-' AND v_words <> '{}' THEN
        ranking := array_to_string(v_words, '|')::tsquery;
        narrowest := array_to_string(v_words, '&')::tsquery || v_words::tsquery[];
    END IF;
END $$;

-- Items by words and by vectors together: reciprocal rank fusion (Cormack, Clarke and Büttcher,
-- SIGIR 2009), the sum of 1 / (60 + rank) over both rankings, of which the first "depth" count
-- (NULL: 100, or k). An item that only one ranking has says NULL for its rank in the other. score
-- is the cosine in any case. At most 2,000 items that have all of the words are ranked, and 2,000
-- of each word: which ones of a word that more have is left open.
CREATE FUNCTION pgclip.hybrid(
    query text, k int DEFAULT 10, collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL,
    filter jsonb DEFAULT NULL, depth int DEFAULT NULL
) RETURNS SETOF pgclip.hybrid_hit
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model   smallint := pgclip._live_model();
    v_vector  @vector@.halfvec := pgclip.query_embedding(query);
    v_where   pgclip.narrowing := pgclip._narrowing(v_model, collection, kind, filter, NULL);
    v_nearest record;
    v_words   record := pgclip._words_wanted(query);
    v_worded  bigint[];
    v_fused   record;
BEGIN
    depth := coalesce(depth, greatest(100, k));
    IF k IS NULL OR k < 1 OR depth NOT BETWEEN k AND 10000 THEN
        RAISE EXCEPTION 'k must be at least 1, and depth (%) from k (%) to 10000', depth, k
            USING ERRCODE = 'PC001';
    END IF;
    v_nearest := pgclip._best_of_kinds(v_model, v_vector, 'text', depth, v_where, ARRAY[-1, -1],
                                       NULL, NULL, NULL);
    EXECUTE format($q$
        SELECT array_agg(id ORDER BY rank DESC, id) FROM (
            SELECT id, ts_rank(words, $1) AS rank FROM (
                SELECT DISTINCT f.id, f.words FROM unnest($4) q(words)
                CROSS JOIN LATERAL (
                    SELECT i.id, t.words
                    FROM pgclip.item_text t JOIN pgclip.item i ON i.id = t.item_id
                    WHERE t.words @@ q.words AND %s
                      AND EXISTS (SELECT FROM pgclip.embedding_set s
                                  WHERE s.item_id = i.id AND s.model_id = $2)
                    LIMIT 2000) f) found
            ORDER BY rank DESC, id LIMIT $3) ranked
    $q$, v_where.of_items) INTO v_worded
    USING v_words.ranking, v_model, depth, v_words.narrowest;

    SELECT array_agg(b.item_id ORDER BY b.fused DESC, b.item_id) AS items,
           array_agg(b.fused ORDER BY b.fused DESC, b.item_id) AS fused,
           array_agg(b.by_vector ORDER BY b.fused DESC, b.item_id) AS by_vector,
           array_agg(b.by_words ORDER BY b.fused DESC, b.item_id) AS by_words
    INTO v_fused
    FROM (SELECT item_id, v.rank AS by_vector, w.rank AS by_words,
                 coalesce(1.0 / (60 + v.rank), 0) + coalesce(1.0 / (60 + w.rank), 0) AS fused
          FROM unnest(v_nearest.items) WITH ORDINALITY v(item_id, rank)
          FULL JOIN unnest(v_worded) WITH ORDINALITY w(item_id, rank) USING (item_id)
          WHERE item_id IS NOT NULL
          ORDER BY fused DESC, item_id LIMIT k) b;
    RETURN QUERY
    SELECT h.item_id, h.collection, h.key, h.kind, h.score, h.source, h.metadata, h.labels,
           h.relevance, h.snippet, f.by_vector::int, f.by_words::int, f.fused::real
    FROM unnest(v_fused.items, v_fused.fused, v_fused.by_vector, v_fused.by_words)
         WITH ORDINALITY f(item_id, fused, by_vector, by_words, nth)
    JOIN pgclip._hits(v_model, 'text', v_fused.items,
                      pgclip._scores_of(v_model, v_vector, v_fused.items)) h USING (item_id)
    ORDER BY f.nth;
END $$;

-- The cosines of items to a query, each with its best vector, in the order of the items.
CREATE FUNCTION pgclip._scores_of(
    p_model smallint, p_query @vector@.halfvec, p_items bigint[]
) RETURNS real[]
LANGUAGE sql STABLE AS $$
    SELECT array_agg(pgclip._score(n.distance, @vector@.l2_norm(p_query)) ORDER BY i.nth)
    FROM pgclip._nearest_exactly(pgclip._vectors(p_model), 'e.id = ANY($3)', p_query, 1000000,
        ARRAY(SELECT v.id FROM pgclip.embedding_set s CROSS JOIN unnest(s.vector_ids) v(id)
              WHERE s.item_id = ANY(p_items) AND s.model_id = p_model ORDER BY v.id)) r
    CROSS JOIN unnest(p_items) WITH ORDINALITY i(item_id, nth)
    LEFT JOIN unnest(r.items, r.distances) n(item_id, distance) ON n.item_id = i.item_id
$$;
