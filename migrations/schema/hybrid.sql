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

-- What a query looks for: the places where a quote or an exclusion begins are words' beginnings.
-- plain: what is neither.
CREATE FUNCTION pgclip._parts_of_query(
    p_query text, OUT plain text, OUT quoted text[], OUT excluded text[]
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_quote text := E'(?:^|\\s)(-?)"([^"]*)"';
    v_minus text := E'(?:^|\\s)-([^\\s!-/:-@\\[-`{-~]\\S*)';
    v_rest  text := pgclip._one_spelling(p_query);
BEGIN
    SELECT coalesce(array_agg(m[2]) FILTER (WHERE m[1] = ''), '{}'),
           coalesce(array_agg(m[2]) FILTER (WHERE m[1] <> ''), '{}')
    INTO quoted, excluded FROM regexp_matches(v_rest, v_quote, 'g') m;
    v_rest := regexp_replace(v_rest, v_quote, ' ', 'g');
    excluded := excluded || ARRAY(SELECT m[1] FROM regexp_matches(v_rest, v_minus, 'g') m);
    plain := regexp_replace(v_rest, v_minus, ' ', 'g');
END $$;

-- Words that follow each other; NULL if there are none.
CREATE FUNCTION pgclip._phrase(p_language regconfig, p_text text) RETURNS tsquery
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN numnode(words) = 0 THEN pairs
                ELSE coalesce(pairs && words, words) END
    FROM (
    SELECT (
        SELECT string_agg('(' || pairs || ')', '&')::tsquery
        FROM (SELECT string_agg(CASE WHEN ends THEN format('''%s'':*', pair)
                                     ELSE format('''%s''', pair) END, '<->' ORDER BY place) AS pairs
              FROM (SELECT *, count(*) OVER (PARTITION BY run) AS length
                    FROM pgclip._pairs(p_text)) p
              WHERE NOT ends OR length = 1 GROUP BY run) r) AS pairs,
           phraseto_tsquery(p_language, regexp_replace(
               p_text, '[' || pgclip._unspaced() || ']+', ' ', 'g')) AS words) p
$$;

-- A text's words as operands of a tsquery, at most p_most: those that tell most, which are rare as
-- far as ANALYZE knows, or long.
CREATE FUNCTION pgclip._telling_words(p_language regconfig, p_text text, p_most int)
RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT operand
        FROM (SELECT word,
                     '''' || replace(replace(word, E'\\', E'\\\\'), '''', '''''') || '''' AS operand
              FROM unnest(tsvector_to_array(to_tsvector(p_language, regexp_replace(
                       p_text, '[' || pgclip._unspaced() || ']+', ' ', 'g')))) word
              UNION
              SELECT pair, '''' || pair || CASE WHEN ends THEN ''':*' ELSE '''' END
              FROM (SELECT *, count(*) OVER (PARTITION BY run) AS length
                    FROM pgclip._pairs(p_text)) p
              WHERE NOT ends OR length = 1) w
        LEFT JOIN (SELECT unnest(most_common_elems::text::text[]) AS word,
                          unnest(most_common_elem_freqs) AS share
                   FROM pg_stats
                   WHERE (schemaname, tablename, attname) = ('pgclip', 'item_text', 'words')) s
             USING (word)
        ORDER BY share NULLS FIRST, length(word) DESC, word LIMIT p_most)
$$;

-- What to look for, the narrowest first: all of the words, then each of them; and what ranks it. If
-- some are excluded (-word) or in quotes, it is that and nothing else. Of many words the 16 that
-- tell most, of quotes the first 16, of exclusions 200. NULL if nothing is left to rank by.
CREATE FUNCTION pgclip._words_wanted(p_query text, OUT narrowest tsquery[], OUT ranking tsquery)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_language regconfig := (SELECT language::regconfig FROM pgclip.text_search);
    v_parts    record := pgclip._parts_of_query(p_query);
    v_words    text[] := pgclip._telling_words(v_language, v_parts.plain, 16);
    v_all      tsquery := CASE WHEN v_words <> '{}' THEN array_to_string(v_words, '&')::tsquery END;
    v_part     text;
    v_phrase   tsquery;
    v_without  tsquery;
BEGIN
    IF v_parts.quoted = '{}' AND v_parts.excluded = '{}' THEN
        IF v_words <> '{}' THEN
            ranking := array_to_string(v_words, '|')::tsquery;
            narrowest := v_all || v_words::tsquery[];
        END IF;
        RETURN;
    END IF;
    FOREACH v_part IN ARRAY v_parts.quoted[:16] LOOP
        v_phrase := pgclip._phrase(v_language, v_part);
        v_all := coalesce(v_all && v_phrase, v_all, v_phrase);
    END LOOP;
    FOREACH v_part IN ARRAY v_parts.excluded[:200] LOOP
        v_phrase := pgclip._phrase(v_language, v_part);
        v_without := coalesce(v_without || v_phrase, v_without, v_phrase);
    END LOOP;
    IF v_all IS NOT NULL THEN
        ranking := coalesce(v_all && !! v_without, v_all);
        narrowest := ARRAY[ranking];
    END IF;
END $$;

-- Items by words and by vectors together: reciprocal rank fusion (Cormack, Clarke and Büttcher,
-- SIGIR 2009), the sum of 1 / (60 + rank) over both rankings, of which the first "depth" count
-- (NULL: 100, or k). An item that only one ranking has says NULL for its rank in the other. score
-- is the cosine in any case. At most 2,000 items that have all of the words are ranked, and 2,000
-- of each word, 4,000 altogether: which ones of a word that more have is left open.
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
    v_nearest := pgclip._best_of_all(v_model, v_vector, 'text', depth, v_where, ARRAY[-1, -1],
                                     NULL, false, NULL, NULL);
    EXECUTE format($q$
        SELECT array_agg(id ORDER BY rank DESC, id) FROM (
            SELECT id, ts_rank(t.words, $1) AS rank
            FROM (SELECT DISTINCT id FROM (
                      SELECT f.id FROM unnest($4) q(words)
                      CROSS JOIN LATERAL (
                          SELECT i.id
                          FROM pgclip.item_text t JOIN pgclip.item i ON i.id = t.item_id
                          WHERE t.words @@ q.words AND %s
                            AND EXISTS (SELECT FROM pgclip.embedding_set s
                                        WHERE s.item_id = i.id AND s.model_id = ANY($2))
                          LIMIT 2000) f
                      LIMIT 4000) each) found
            JOIN pgclip.item_text t ON t.item_id = found.id
            ORDER BY rank DESC, id LIMIT $3) ranked
    $q$, v_where.of_items) INTO v_worded
    USING v_words.ranking, pgclip._models_that_answer(v_model), depth, v_words.narrowest;

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

-- A model, and the source of its map where that answers.
CREATE FUNCTION pgclip._models_that_answer(p_model smallint) RETURNS smallint[]
LANGUAGE sql STABLE AS $$
    SELECT p_model || ARRAY(SELECT source_id FROM pgclip.model_mapping
                            WHERE model_id = p_model AND state = 'answers')
$$;

-- The cosines of items to a query, each with its best vector, in the order of the items; of those
-- that have none the mapped ones.
CREATE FUNCTION pgclip._scores_of(
    p_model smallint, p_query @vector@.halfvec, p_items bigint[]
) RETURNS real[]
LANGUAGE sql STABLE AS $$
    SELECT array_agg(coalesce(o.score, b.score) ORDER BY o.nth)
    FROM unnest(pgclip._scores_by(p_model, p_query, p_items, pgclip._gauge_of(p_query)))
         WITH ORDINALITY o(score, nth)
    LEFT JOIN (
        SELECT s.nth, s.score
        FROM pgclip.model_mapping p JOIN pgclip.model_map m USING (model_id)
        CROSS JOIN LATERAL pgclip._mapped_query(p_model, m.kind, p_query) q
        CROSS JOIN LATERAL unnest(p_items, pgclip._scores_by(
            p.source_id, q.query, p_items, ROW(@vector@.l2_norm(p_query),
                                            q.base / @vector@.l2_norm(p_query))))
            WITH ORDINALITY s(item_id, score, nth)
        JOIN pgclip.item i ON i.id = s.item_id AND i.kind = m.kind
        WHERE p.model_id = p_model AND p.state = 'answers') b USING (nth)
$$;

CREATE FUNCTION pgclip._scores_by(
    p_model smallint, p_query @vector@.halfvec, p_items bigint[], p_gauge pgclip.gauge
) RETURNS real[]
LANGUAGE sql STABLE AS $$
    SELECT array_agg(pgclip._score(n.distance, p_gauge) ORDER BY i.nth)
    FROM pgclip._nearest_exactly(pgclip._vectors(p_model), 'e.id = ANY($3)', p_query, 1000000,
        ARRAY(SELECT v.id FROM pgclip.embedding_set s CROSS JOIN unnest(s.vector_ids) v(id)
              WHERE s.item_id = ANY(p_items) AND s.model_id = p_model ORDER BY v.id)) r
    CROSS JOIN unnest(p_items) WITH ORDINALITY i(item_id, nth)
    LEFT JOIN unnest(r.items, r.distances) n(item_id, distance) ON n.item_id = i.item_id
$$;
