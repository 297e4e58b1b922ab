-- Searching by a text, a picture, a vector, an item.

CREATE TYPE pgclip.hit AS (
    item_id    bigint,
    collection text,
    key        text,
    kind       pgclip.kind,
    score      real,
    source     text,
    metadata   jsonb,
    labels     jsonb,
    relevance  real,  -- see calibration.sql
    snippet    text   -- how a text begins, if it is kept
);

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

-- Why the content that replaced the one of a hit could not be encoded by the live model; NULL if it
-- was not replaced by such. Not a column of hits: who is in a search while one is added fails.
CREATE FUNCTION pgclip.failure_of(item_id bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.reason FROM pgclip.failure f
    JOIN pgclip.item i ON i.id = f.item_id AND i.generation = f.generation
    JOIN pgclip.model m ON m.id = f.model_id AND m.state = 'live'
    WHERE f.item_id = failure_of.item_id
$$;

-- Whether an item has no vector of the model's own yet, so that it is found by a mapped one. Not a
-- column of hits either.
CREATE FUNCTION pgclip.is_mapped(item_id bigint, model text DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = is_mapped.item_id
                       AND e.model_id = pgclip._model_asked(model))
$$;

-- All that searches have in common. Raises PC001, PC002, PC005, PC008.
CREATE FUNCTION pgclip._find(
    p_model smallint, p_query @vector@.halfvec, p_query_kind pgclip.kind, p_k int,
    p_collection text, p_kind pgclip.kind, p_filter jsonb, p_min_score real,
    p_min_relevance real, p_exact boolean, p_after_score real, p_after_item bigint,
    p_without bigint, p_recall real
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_model pgclip.model;
    v_where pgclip.narrowing;
    v_least real[];
    v_best  record;
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE id = p_model;
    IF p_k IS NULL OR p_k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k must be from 1 to 10000, not %', p_k USING ERRCODE = 'PC001';
    END IF;
    IF p_query IS NULL THEN
        RAISE EXCEPTION 'there is no vector to search for' USING ERRCODE = 'PC001';
    END IF;
    IF @vector@.vector_dims(p_query) <> v_model.dimension THEN
        RAISE EXCEPTION 'the query has % dimensions, model % has %',
            @vector@.vector_dims(p_query), v_model.name, v_model.dimension USING ERRCODE = 'PC001';
    END IF;
    IF @vector@.l2_norm(p_query) = 0 THEN
        RAISE EXCEPTION 'the query vector is zero' USING ERRCODE = 'PC001';
    END IF;
    IF (p_after_score IS NULL) <> (p_after_item IS NULL) OR p_after_score = 'NaN' THEN
        RAISE EXCEPTION 'a page begins after a hit: after_score and after_item go together'
            USING ERRCODE = 'PC001';
    END IF;
    IF NOT (p_recall > 0 AND p_recall <= 1) OR p_recall = 'NaN' THEN
        RAISE EXCEPTION 'recall must be more than 0 and at most 1, not %', p_recall
            USING ERRCODE = 'PC001';
    END IF;
    v_where := pgclip._narrowing(v_model.id, p_collection, p_kind, p_filter, p_without);
    v_least := pgclip._least_scores(v_model.id, p_query_kind, p_kind, p_min_score,
                                    p_min_relevance);
    v_best := pgclip._best_of_all(v_model.id, p_query, p_query_kind, p_k, v_where, v_least,
                                  p_recall, p_exact, p_after_score, p_after_item);
    RETURN QUERY
        SELECT * FROM pgclip._hits(v_model.id, p_query_kind, v_best.items, v_best.scores);
END $$;

-- The k items nearest to a vector, best first. The score is the cosine; half precision would
-- let it be 1.0002 of two equal vectors, so it is cut off at 1. An item with several vectors
-- counts once, with its best.
--
-- collection, kind and filter narrow the search; min_score and min_relevance leave out what does
-- not fit, so that the answer may be empty. after_score and after_item, those of the last hit of
-- a page, begin the next one. exact compares every vector; recall asks for another share of the
-- nearest, on average, than PGCLIP_RECALL. query_kind: what the vector was made of, for the
-- relevance and for how much of an index is looked at.
CREATE FUNCTION pgclip.search_vector(
    query @vector@.halfvec, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL, query_kind pgclip.kind DEFAULT NULL,
    recall real DEFAULT NULL, model text DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(pgclip._model_asked(model), query, query_kind, k,
        collection, kind, filter, min_score, min_relevance, exact, after_score, after_item, NULL,
        recall);
END $$;

-- Items nearest to a text whose vector has been asked for with pgclip.embed. model: another than
-- the live one, by its name, here as in the others; embed has to be called for it, too.
CREATE FUNCTION pgclip.search(
    query text, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL, recall real DEFAULT NULL, model text DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_asked record := pgclip._asked(query, NULL, model);
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(v_asked.model_id, v_asked.embedding, 'text', k,
        collection, kind, filter, min_score, min_relevance, exact, after_score, after_item, NULL,
        recall);
END $$;

-- Items nearest to a picture whose vector has been asked for with pgclip.embed(image => …).
CREATE FUNCTION pgclip.search_image(
    image bytea, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL, recall real DEFAULT NULL, model text DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_asked record := pgclip._asked(NULL, image, model);
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(v_asked.model_id, v_asked.embedding, 'image', k,
        collection, kind, filter, min_score, min_relevance, exact, after_score, after_item, NULL,
        recall);
END $$;

-- Items nearest to one that is there, itself left out. of_collection says where that item is;
-- the search goes over "collection", or all of them.
CREATE FUNCTION pgclip.similar(
    key text, k int DEFAULT 10, of_collection text DEFAULT 'default', collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, exact boolean DEFAULT false, after_score real DEFAULT NULL,
    after_item bigint DEFAULT NULL, recall real DEFAULT NULL, model text DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint := pgclip._model_asked(model);
    v_item  record := pgclip._item_at($1, of_collection, v_model);  -- "similar" is a keyword
BEGIN
    RETURN QUERY SELECT * FROM pgclip._find(v_model, pgclip._mean_vector(v_item.id, v_model),
        v_item.kind, k, collection, kind, filter, min_score, min_relevance, exact, after_score,
        after_item, v_item.id, recall);
END $$;
