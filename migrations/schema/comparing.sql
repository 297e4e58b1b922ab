-- Two models side by side, before one takes the other's place.

-- A question, and what both models answer. asked: "query" (somebody did), or "item" (what is like
-- one that is stored). query: the text, NULL of a picture; of an item its key. overlap: the share
-- of the old model's answers that the new one gives, too.
CREATE TYPE pgclip.model_comparison AS (
    nth         int,
    asked       text,
    query_kind  pgclip.kind,
    collection  text,
    query       text,
    overlap     real,
    old_items   bigint[],
    old_keys    text[],
    old_scores  real[],
    old_seconds real,
    new_items   bigint[],
    new_keys    text[],
    new_scores  real[],
    new_seconds real
);

-- What a model answers where another does (NULL: the live one), to questions that were asked and
-- are kept (PGCLIP_KEEP_QUERIES), the latest first; where these are too few, to what is like items
-- that both have encoded. Raises PC006, PC001, PC002.
CREATE FUNCTION pgclip.compare_models(
    p_name text, with_model text DEFAULT NULL, queries int DEFAULT 100, k int DEFAULT 10,
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL
) RETURNS SETOF pgclip.model_comparison
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
DECLARE
    v_new    smallint := pgclip._model_asked(p_name);
    v_old    smallint := pgclip._model_asked(with_model);
    v_asked  record;
    v_answer record;
    v_row    pgclip.model_comparison;
    v_nth    int := 0;
BEGIN
    IF queries IS NULL OR queries NOT BETWEEN 1 AND 10000 OR k IS NULL OR k NOT BETWEEN 1 AND 100
    THEN
        RAISE EXCEPTION 'queries is from 1 to 10000, k from 1 to 100' USING ERRCODE = 'PC001';
    ELSIF v_new = v_old THEN
        RAISE EXCEPTION 'model % is compared with another, not with itself', p_name
            USING ERRCODE = 'PC001';
    END IF;
    FOR v_asked IN SELECT * FROM pgclip._questions_for_both(v_new, v_old, queries) LOOP
        v_nth := v_nth + 1;
        v_row := ROW(v_nth, v_asked.asked, v_asked.kind, v_asked.collection, v_asked.query);
        v_answer := pgclip._timed_answer(v_old, v_asked.old, v_asked.kind, k, collection, kind,
                                         v_asked.item_id);
        v_row.old_items := v_answer.items;
        v_row.old_scores := v_answer.scores;
        v_row.old_seconds := v_answer.seconds;
        v_answer := pgclip._timed_answer(v_new, v_asked.new, v_asked.kind, k, collection, kind,
                                         v_asked.item_id);
        v_row.new_items := v_answer.items;
        v_row.new_scores := v_answer.scores;
        v_row.new_seconds := v_answer.seconds;
        v_row.old_keys := pgclip._keys_of(v_row.old_items);
        v_row.new_keys := pgclip._keys_of(v_row.new_items);
        v_row.overlap := (SELECT avg((i = ANY(v_row.new_items))::int)
                          FROM unnest(v_row.old_items) i);
        RETURN NEXT v_row;
    END LOOP;
END $$;

-- Queries that both models have encoded, and, if these are too few, items, with the vectors of
-- both.
CREATE FUNCTION pgclip._questions_for_both(p_new smallint, p_old smallint, p_most int)
RETURNS TABLE (asked text, kind pgclip.kind, collection text, query text, item_id bigint,
               old @vector@.halfvec, new @vector@.halfvec)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_count int;
BEGIN
    RETURN QUERY
        SELECT 'query', q.kind, NULL::text,
               CASE q.kind WHEN 'text' THEN convert_from(q.data, 'UTF8') END, NULL::bigint,
               o.embedding, n.embedding
        FROM pgclip.kept_query q
        JOIN pgclip.query_vector o ON (o.model_id, o.kind, o.hash) = (p_old, q.kind, q.hash)
        JOIN pgclip.query_vector n ON (n.model_id, n.kind, n.hash) = (p_new, q.kind, q.hash)
        ORDER BY q.asked_at DESC LIMIT p_most;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN QUERY
        SELECT 'item', i.kind, c.name, i.key, i.id, pgclip._mean_vector(i.id, p_old),
               pgclip._mean_vector(i.id, p_new)
        FROM (SELECT n.item_id
              FROM pgclip.embedding_set n
              JOIN pgclip.embedding_set o ON o.item_id = n.item_id AND o.model_id = p_old
              WHERE n.model_id = p_new
              ORDER BY n.content_hash DESC LIMIT greatest(0, p_most - v_count)) d
        JOIN pgclip.item i ON i.id = d.item_id
        JOIN pgclip.collection c ON c.id = i.collection_id;
END $$;

CREATE FUNCTION pgclip._timed_answer(
    p_model smallint, p_query @vector@.halfvec, p_query_kind pgclip.kind, p_k int,
    p_collection text, p_kind pgclip.kind, p_without bigint,
    OUT items bigint[], OUT scores real[], OUT seconds real
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_begin timestamptz := clock_timestamp();
BEGIN
    SELECT b.items, b.scores INTO items, scores FROM pgclip._best_of_all(
        p_model, p_query, p_query_kind, p_k,
        pgclip._narrowing(p_model, p_collection, p_kind, NULL, p_without), ARRAY[-1, -1]::real[],
        NULL, false, NULL, NULL) b;
    seconds := extract(epoch FROM clock_timestamp() - v_begin);
END $$;

-- Keys of items, in their order.
CREATE FUNCTION pgclip._keys_of(p_items bigint[]) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT array_agg(i.key ORDER BY u.nth)
    FROM unnest(p_items) WITH ORDINALITY u(id, nth) JOIN pgclip.item i ON i.id = u.id
$$;
