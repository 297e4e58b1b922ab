-- What a search asks with: vectors of queries and of items, alone or weighed against each other.

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

-- The vector of a text or a picture that has been asked for with pgclip.embed. Raises PC003 if
-- no worker has encoded it yet.
CREATE FUNCTION pgclip.query_embedding(query text DEFAULT NULL, image bytea DEFAULT NULL)
RETURNS @vector@.halfvec
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._query_vector(CASE WHEN image IS NULL THEN 'text' ELSE 'image' END::pgclip.kind,
                                pgclip._query_data(query, image))
$$;

-- The vectors of an item by the live model, in order.
CREATE FUNCTION pgclip.vectors_of(p_item bigint) RETURNS SETOF @vector@.halfvec
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint;
BEGIN
    SELECT id INTO v_model FROM pgclip.model WHERE state = 'live' AND dimension IS NOT NULL;
    IF FOUND THEN
        RETURN QUERY EXECUTE format($q$
            SELECT e.embedding FROM pgclip.embedding_set s
            CROSS JOIN LATERAL unnest(s.vector_ids) WITH ORDINALITY v(id, nth)
            CROSS JOIN LATERAL (SELECT x.embedding FROM %2$s x WHERE x.id = v.id OFFSET 0) e
            WHERE s.item_id = $1 AND s.model_id = %1$s ORDER BY v.nth
        $q$, v_model, pgclip._vectors(v_model)) USING p_item;
    END IF;
EXCEPTION WHEN undefined_table THEN
    PERFORM pgclip._raise_exchanged();
END $$;

-- An item's vector; of several, the mean. Its norm is 1.
CREATE FUNCTION pgclip._mean_vector(p_item bigint) RETURNS @vector@.halfvec
LANGUAGE sql STABLE AS $$
    SELECT @vector@.l2_normalize(@vector@.avg(v)) FROM pgclip.vectors_of(p_item) v
$$;

-- An item that has an embedding by the live model. Raises PC002 and PC003.
CREATE FUNCTION pgclip._item_at(
    p_key text, p_collection text, OUT id bigint, OUT kind pgclip.kind
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_embedded boolean;
BEGIN
    SELECT i.id, i.kind, e.item_id IS NOT NULL INTO id, kind, v_embedded
    FROM pgclip.item i
    JOIN pgclip.collection c ON c.id = i.collection_id
    LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = pgclip._live_model()
    WHERE c.name = p_collection AND i.key = p_key;
    IF id IS NULL THEN
        RAISE EXCEPTION 'there is no item % in collection %', p_key, p_collection
            USING ERRCODE = 'PC002';
    END IF;
    IF NOT v_embedded THEN
        RAISE EXCEPTION 'item % in collection % has no embedding yet', p_key, p_collection
            USING ERRCODE = 'PC003', HINT = 'SELECT state, error FROM pgclip.items says why.';
    END IF;
END $$;

-- The vector of an item, to search or to reckon with. Raises PC002 and PC003.
CREATE FUNCTION pgclip.item_embedding(key text, collection text DEFAULT 'default')
RETURNS @vector@.halfvec
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._mean_vector((pgclip._item_at(key, collection)).id)
$$;

-- What is too small for a real is 0 there, rather than an error.
CREATE FUNCTION pgclip._as_real(p_value double precision) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN abs(p_value) > 1e-30 THEN p_value ELSE 0 END::real
$$;

-- Numbers as a vector of norm 1, for search_vector. Raises PC001 for NaN, infinity and all zeros.
CREATE FUNCTION pgclip.as_vector(numbers double precision[]) RETURNS @vector@.halfvec
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_most double precision := (SELECT max(abs(x)) FROM unnest(numbers) x);
    v_norm double precision;
BEGIN
    IF coalesce(cardinality(numbers), 0) NOT BETWEEN 1 AND 16000
       OR array_position(numbers, NULL) IS NOT NULL
       OR NOT v_most BETWEEN 1e-300 AND 1e300 THEN  -- NaN is greater than any number
        RAISE EXCEPTION 'a vector needs 1 to 16000 finite numbers that are not all 0'
            USING ERRCODE = 'PC001';
    END IF;
    v_norm := v_most * (SELECT sqrt(sum((x / v_most) ^ 2)) FROM unnest(numbers) x);
    RETURN (SELECT array_agg(pgclip._as_real(x / v_norm) ORDER BY nth)
            FROM unnest(numbers) WITH ORDINALITY n(x, nth))::@vector@.halfvec;
END $$;

-- One query of several: the sum of the unit vectors, each times its weight, normalised. A vector
-- of twice the weight pulls twice as hard; a negative weight pushes away from what it stands for.
-- Raises PC001 if they cancel each other out: if the sum is shorter than a hundredth of what the
-- weights could make together, its direction is rounding.
CREATE FUNCTION pgclip.weigh(vectors @vector@.halfvec[], weights double precision[])
RETURNS @vector@.halfvec
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_sum   double precision[];
    v_total double precision := (SELECT sum(abs(w)) FROM unnest(weights) w);
    v_norm  double precision;
BEGIN
    IF coalesce(cardinality(vectors), 0) = 0
       OR cardinality(vectors) <> coalesce(cardinality(weights), 0)
       OR array_position(vectors, NULL) IS NOT NULL OR array_position(weights, NULL) IS NOT NULL
    THEN
        RAISE EXCEPTION 'weigh takes vectors and as many weights' USING ERRCODE = 'PC001';
    END IF;
    IF NOT v_total BETWEEN 1e-30 AND 1e30 THEN  -- NaN is greater than any number
        RAISE EXCEPTION 'the weights must be finite, and not all 0' USING ERRCODE = 'PC001';
    END IF;
    IF (SELECT count(DISTINCT @vector@.vector_dims(v)) FROM unnest(vectors) v) > 1 THEN
        RAISE EXCEPTION 'the vectors have different dimensions' USING ERRCODE = 'PC001';
    END IF;
    SELECT array_agg(s.value ORDER BY s.nth), sqrt(sum(s.value * s.value)) INTO v_sum, v_norm
    FROM (SELECT e.nth, sum(w.weight / v_total * e.value) AS value
          FROM unnest(vectors) WITH ORDINALITY v(vector, place)
          JOIN unnest(weights) WITH ORDINALITY w(weight, place) USING (place)
          CROSS JOIN unnest(@vector@.l2_normalize(v.vector)::real[]) WITH ORDINALITY e(value, nth)
          GROUP BY e.nth) s;
    IF v_norm < 0.01 THEN
        RAISE EXCEPTION 'the weights cancel each other out: nothing is left to search for'
            USING ERRCODE = 'PC001';
    END IF;
    RETURN (SELECT array_agg(pgclip._as_real(s.value / v_norm) ORDER BY s.nth)
            FROM unnest(v_sum) WITH ORDINALITY s(value, nth))::@vector@.halfvec;
END $$;
