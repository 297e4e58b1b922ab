-- Search. Exact here: every vector of the model is compared.

CREATE TYPE pgclip.hit AS (
    item_id    bigint,
    collection text,
    key        text,
    kind       pgclip.kind,
    score      real,
    source     text,
    metadata   jsonb,
    labels     jsonb
);

-- An item's labels by the live model, best first: [{"set", "label", "score"}].
CREATE FUNCTION pgclip.labels_of(p_item bigint) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('set', s.name, 'label', l.name,
                                                 'score', il.score)
                              ORDER BY s.name, il.score DESC), '[]')
    FROM pgclip.item_label il
    JOIN pgclip.model m ON m.id = il.model_id AND m.state = 'live'
    JOIN pgclip.label l ON l.id = il.label_id
    JOIN pgclip.label_set s ON s.id = l.set_id
    WHERE il.item_id = p_item
$$;

-- The k items nearest to a vector, best first. The score is the cosine; half precision would
-- let it be 1.0002 of two equal vectors, so it is cut off at 1. An item with several
-- vectors counts once, with its best. collection and kind narrow the search.
CREATE FUNCTION pgclip.search_vector(
    query @vector@.halfvec, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, exclude_item bigint DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_model      pgclip.model;
    v_collection int;
    v_norm       double precision := @vector@.l2_norm(query);
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE id = pgclip._live_model();
    IF k IS NULL OR k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k must be from 1 to 10000, not %', k USING ERRCODE = 'PC001';
    END IF;
    IF @vector@.vector_dims(query) <> v_model.dimension THEN
        RAISE EXCEPTION 'the query has % dimensions, model % has %', @vector@.vector_dims(query),
            v_model.name, v_model.dimension USING ERRCODE = 'PC001';
    END IF;
    IF v_norm = 0 THEN
        RAISE EXCEPTION 'the query vector is zero' USING ERRCODE = 'PC001';
    END IF;
    IF collection IS NOT NULL THEN
        SELECT c.id INTO v_collection FROM pgclip.collection c
        WHERE c.name = search_vector.collection;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no collection named %', collection USING ERRCODE = 'PC002';
        END IF;
    END IF;
    RETURN QUERY EXECUTE format($q$
        SELECT i.id, c.name, i.key, i.kind, greatest(-1, least(1, -n.distance / $6))::real, i.source, i.metadata,
               pgclip.labels_of(i.id)
        FROM (
            SELECT e.item_id, min(e.embedding OPERATOR(@vector@.<#>) $1) AS distance
            FROM pgclip.embedding_%s e
            WHERE ($2 IS NULL OR e.collection_id = $2) AND ($3 IS NULL OR e.kind = $3)
              AND ($4 IS NULL OR e.item_id <> $4)
            GROUP BY e.item_id ORDER BY distance LIMIT $5
        ) n
        JOIN pgclip.item i ON i.id = n.item_id
        JOIN pgclip.collection c ON c.id = i.collection_id
        ORDER BY n.distance, i.id
    $q$, v_model.id) USING query, v_collection, kind, exclude_item, k, v_norm;
END $$;

CREATE FUNCTION pgclip._query_vector(p_kind pgclip.kind, p_data bytea) RETURNS @vector@.halfvec
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_embedding @vector@.halfvec;
BEGIN
    SELECT q.embedding INTO v_embedding FROM pgclip.query_vector q
    WHERE q.model_id = pgclip._live_model() AND q.kind = p_kind AND q.hash = sha256(p_data);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the query''s vector is not there yet' USING ERRCODE = 'PC003',
            HINT = 'First CALL pgclip.embed(…) with the same query, outside a transaction; '
                   'it waits for a worker to encode it.';
    END IF;
    RETURN v_embedding;
END $$;

-- Items nearest to a text whose vector has been asked for with pgclip.embed.
CREATE FUNCTION pgclip.search(
    query text, k int DEFAULT 10, collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE sql STABLE AS $$
    SELECT * FROM pgclip.search_vector(
        pgclip._query_vector('text', pgclip._query_data(query, NULL)), k, collection, kind)
$$;

-- Items nearest to a picture whose vector has been asked for with pgclip.embed(image => …).
CREATE FUNCTION pgclip.search_image(
    image bytea, k int DEFAULT 10, collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE sql STABLE AS $$
    SELECT * FROM pgclip.search_vector(
        pgclip._query_vector('image', pgclip._query_data(NULL, image)), k, collection, kind)
$$;

-- Items nearest to one that is there, itself left out. of_collection says where that item is;
-- the search goes over "collection", or all of them. Of several vectors the first one asks.
CREATE FUNCTION pgclip.similar(
    key text, k int DEFAULT 10, of_collection text DEFAULT 'default',
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_model     smallint := pgclip._live_model();
    v_item      bigint;
    v_vectors   bigint[];
    v_embedding @vector@.halfvec;
BEGIN
    SELECT i.id, e.vector_ids INTO v_item, v_vectors
    FROM pgclip.item i
    JOIN pgclip.collection c ON c.id = i.collection_id
    LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = v_model
    WHERE c.name = of_collection AND i.key = $1;  -- "similar" is a keyword
    IF v_item IS NULL THEN
        RAISE EXCEPTION 'there is no item % in collection %', key, of_collection
            USING ERRCODE = 'PC002';
    END IF;
    IF v_vectors IS NULL THEN
        RAISE EXCEPTION 'item % in collection % has no embedding yet', key, of_collection
            USING ERRCODE = 'PC003', HINT = 'SELECT state, error FROM pgclip.items says why.';
    END IF;
    EXECUTE format('SELECT embedding FROM pgclip.embedding_%s WHERE id = $1', v_model)
    INTO v_embedding USING v_vectors[1];
    RETURN QUERY SELECT * FROM pgclip.search_vector(v_embedding, k, collection, kind, v_item);
END $$;

-- The vectors of an item by the live model, in order.
CREATE FUNCTION pgclip.vectors_of(p_item bigint) RETURNS SETOF @vector@.halfvec
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_model smallint;
BEGIN
    SELECT id INTO v_model FROM pgclip.model WHERE state = 'live' AND dimension IS NOT NULL;
    IF FOUND THEN
        RETURN QUERY EXECUTE format($q$
            SELECT e.embedding FROM pgclip.embedding_set s
            CROSS JOIN LATERAL unnest(s.vector_ids) WITH ORDINALITY v(id, nth)
            JOIN pgclip.embedding_%1$s e ON e.id = v.id
            WHERE s.item_id = $1 AND s.model_id = %1$s ORDER BY v.nth
        $q$, v_model) USING p_item;
    END IF;
END $$;
