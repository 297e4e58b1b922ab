-- Words: full-text search over texts and chosen fields of metadata, and its fusion with vectors.

CREATE TABLE pgclip.text_search (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    language regconfig NOT NULL DEFAULT 'pg_catalog.english',
    fields   text[] NOT NULL DEFAULT '{}'
);
INSERT INTO pgclip.text_search DEFAULT VALUES;

CREATE TABLE pgclip.item_text (
    item_id bigint PRIMARY KEY REFERENCES pgclip.item ON DELETE CASCADE,
    words   tsvector NOT NULL
);
CREATE INDEX item_text_words ON pgclip.item_text USING gin (words);

-- Fields of metadata weigh more (A) than the text itself (B).
CREATE FUNCTION pgclip._words(
    p_language regconfig, p_fields text[], p_metadata jsonb, p_text bytea
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_words tsvector := setweight(to_tsvector(p_language,
                            coalesce(convert_from(p_text, 'UTF8'), '')), 'B');
    v_field text;
BEGIN
    FOREACH v_field IN ARRAY p_fields LOOP
        v_words := setweight(jsonb_to_tsvector(p_language,
            coalesce(p_metadata #> string_to_array(v_field, '.'), '{}'), '["string", "numeric"]'),
            'A') || v_words;
    END LOOP;
    RETURN v_words;
END $$;

-- Of items whose text is not kept any longer the words stay as they were.
CREATE FUNCTION pgclip._index_words(p_items bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO pgclip.item_text (item_id, words)
    SELECT i.id, pgclip._words(s.language, s.fields, i.metadata, o.data)
    FROM pgclip.item i CROSS JOIN pgclip.text_search s
    LEFT JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash AND i.kind = 'text'
    WHERE i.id = ANY(p_items) AND (i.kind = 'image' OR o.data IS NOT NULL)
    ORDER BY i.id
    ON CONFLICT (item_id) DO UPDATE SET words = excluded.words
$$;

CREATE FUNCTION pgclip._items_added() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_fields boolean := (SELECT fields <> '{}' FROM pgclip.text_search);
BEGIN
    PERFORM pgclip._index_words(ids) FROM (
        SELECT array_agg(id) AS ids FROM added WHERE kind = 'text' OR v_fields) a
    WHERE ids IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER item_added AFTER INSERT ON pgclip.item REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._items_added();

CREATE FUNCTION pgclip._items_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_fields boolean := (SELECT fields <> '{}' FROM pgclip.text_search);
BEGIN
    PERFORM pgclip._index_words(ids) FROM (
        SELECT array_agg(n.id) AS ids FROM changed n JOIN before o USING (id)
        WHERE (n.kind = 'text' OR o.kind = 'text')
              AND (n.kind, n.content_hash) IS DISTINCT FROM (o.kind, o.content_hash)
           OR v_fields AND n.metadata <> o.metadata) a
    WHERE ids IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER item_changed AFTER UPDATE ON pgclip.item
    REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._items_changed();

-- Chooses the language of the words, and fields of metadata (paths such as about.title) whose words
-- count. All words are indexed anew: that takes a while, and submissions wait for it.
CREATE FUNCTION pgclip.configure_text_search(
    language regconfig DEFAULT 'pg_catalog.english', fields text[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_field text;
BEGIN
    FOREACH v_field IN ARRAY configure_text_search.fields LOOP
        PERFORM pgclip._path(v_field);
    END LOOP;
    LOCK TABLE pgclip.item IN SHARE ROW EXCLUSIVE MODE;
    UPDATE pgclip.text_search SET language = configure_text_search.language,
                                  fields = configure_text_search.fields;
    PERFORM pgclip._index_words(ARRAY(SELECT id FROM pgclip.item
                                      WHERE kind = 'text' OR configure_text_search.fields <> '{}'));
    DELETE FROM pgclip.item_text t USING pgclip.item i
    WHERE i.id = t.item_id AND i.kind = 'image' AND configure_text_search.fields = '{}';
END $$;

-- What to look for, the narrowest first: all of the words, then each of them; and what ranks it. If
-- some are excluded (-word) or in quotes, it is that and nothing else.
CREATE FUNCTION pgclip._words_wanted(p_query text, OUT narrowest tsquery[], OUT ranking tsquery)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_language regconfig := (SELECT language FROM pgclip.text_search);
    v_words    text[] := ARRAY(  -- quoted as a tsquery has it
        SELECT '''' || replace(replace(w, '\', '\\'), '''', '''''') || ''''
        FROM unnest(tsvector_to_array(to_tsvector(v_language, p_query))) w);
BEGIN
    ranking := websearch_to_tsquery(v_language, p_query);
    narrowest := ARRAY[ranking];
    IF p_query !~ '"|(^|\s)-' AND v_words <> '{}' THEN
        ranking := array_to_string(v_words, '|')::tsquery;
        narrowest := array_to_string(v_words, '&')::tsquery || v_words::tsquery[];
    END IF;
END $$;

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

-- Items by words and by vectors together: reciprocal rank fusion (Cormack, Clarke and Büttcher,
-- SIGIR 2009), the sum of 1 / (60 + rank) over both rankings, of which the first "depth" count
-- (NULL: 100, or k). An item that only one ranking has says NULL for its rank in the other. score is
-- the cosine in any case. At most 2,000 items that have all of the words are ranked, and 2,000 of each
-- word: which ones of a word that more have is left open.
CREATE FUNCTION pgclip.hybrid(
    query text, k int DEFAULT 10, collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL,
    filter jsonb DEFAULT NULL, depth int DEFAULT NULL
) RETURNS SETOF pgclip.hybrid_hit
LANGUAGE plpgsql STABLE AS $$
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
    v_nearest := pgclip._best(v_model, v_vector, depth, v_where, ARRAY[-1, -1], false, NULL, NULL);
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

SELECT pgclip._index_words(ARRAY(SELECT id FROM pgclip.item WHERE kind = 'text'));
