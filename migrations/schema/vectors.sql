-- What a search asks with: vectors of queries and of items, alone or weighed against each other.

-- A model that can be asked: by its name, or the live one. Raises PC005, PC006.
CREATE FUNCTION pgclip._model_asked(p_name text) RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint;
BEGIN
    IF p_name IS NULL THEN
        RETURN pgclip._live_model();
    END IF;
    SELECT id INTO v_model FROM pgclip.model
    WHERE name = p_name AND state <> 'retired' AND dimension IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no model % that has vectors', p_name USING ERRCODE = 'PC006',
            HINT = 'SELECT name, state FROM pgclip.models tells what there is.';
    END IF;
    RETURN v_model;
END $$;

-- The vector of a query, and the model whose it is: of the one named, else of the live one; else of
-- the one that was live up to a minute ago, which whoever was about to search had it encoded by.
CREATE FUNCTION pgclip._asked(
    p_text text, p_image bytea, p_model text, OUT model_id smallint, OUT embedding @vector@.halfvec
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_model smallint := pgclip._model_asked(p_model);
    v_hash  bytea := sha256(pgclip._query_data(p_text, p_image));
    v_found record;
BEGIN
    SELECT q.model_id, q.embedding INTO v_found
    FROM pgclip.query_vector q JOIN pgclip.model m ON m.id = q.model_id
    WHERE q.kind = CASE WHEN p_image IS NULL THEN 'text' ELSE 'image' END::pgclip.kind
      AND q.hash = v_hash
      AND (q.model_id = v_model
           OR p_model IS NULL AND m.replaced_at > clock_timestamp() - interval '1 min')
    ORDER BY q.model_id = v_model DESC, m.replaced_at DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the query''s vector is not there yet' USING ERRCODE = 'PC003',
            HINT = 'First CALL pgclip.embed(…) with the same query, outside a transaction; '
                   'it waits for a worker to encode it.';
    END IF;
    model_id := v_found.model_id;
    embedding := v_found.embedding;
END $$;

-- The vector of a text or a picture that has been asked for with pgclip.embed, by the live model or
-- the one that is named. Raises PC003 if no worker has encoded it yet.
CREATE FUNCTION pgclip.query_embedding(
    query text DEFAULT NULL, image bytea DEFAULT NULL, model text DEFAULT NULL
) RETURNS @vector@.halfvec
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (pgclip._asked(query, image, coalesce(model, (
        SELECT name FROM pgclip.model WHERE state = 'live')))).embedding
$$;

-- The vectors of an item by the live model, or another's, in order.
CREATE FUNCTION pgclip.vectors_of(p_item bigint, p_model smallint DEFAULT NULL)
RETURNS SETOF @vector@.halfvec
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint;
BEGIN
    SELECT id INTO v_model FROM pgclip.model
    WHERE CASE WHEN p_model IS NULL THEN state = 'live' ELSE id = p_model END
      AND dimension IS NOT NULL;
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

-- An item's vector; of several, the mean. Its norm is 1. The mapped one, if it has none yet.
CREATE FUNCTION pgclip._mean_vector(p_item bigint, p_model smallint DEFAULT pgclip._live_model())
RETURNS @vector@.halfvec
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT @vector@.l2_normalize(@vector@.avg(v)) FROM pgclip.vectors_of(p_item, p_model) v),
        (SELECT pgclip._mapped_vector(p_model, i.kind, (
                    SELECT @vector@.l2_normalize(@vector@.avg(v))
                    FROM pgclip.vectors_of(p_item, p.source_id) v))
         FROM pgclip.model_mapping p
         JOIN pgclip.embedding_set i ON i.item_id = p_item AND i.model_id = p.source_id
         WHERE p.model_id = p_model AND p.state = 'answers'))
$$;

-- An item that has an embedding by the live model or another, or a mapped one. Raises PC002, PC003.
CREATE FUNCTION pgclip._item_at(
    p_key text, p_collection text, p_model smallint DEFAULT pgclip._live_model(),
    OUT id bigint, OUT kind pgclip.kind
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_embedded boolean;
BEGIN
    SELECT i.id, i.kind, EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = i.id
                                 AND e.model_id = ANY(pgclip._models_that_answer(p_model)))
    INTO id, kind, v_embedded
    FROM pgclip.item i
    JOIN pgclip.collection c ON c.id = i.collection_id
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

-- The vector of an item, to search or to reckon with, by the live model or another. Raises PC002
-- and PC003.
CREATE FUNCTION pgclip.item_embedding(
    key text, collection text DEFAULT 'default', model text DEFAULT NULL
) RETURNS @vector@.halfvec
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._mean_vector((pgclip._item_at(key, collection, m)).id, m)
    FROM pgclip._model_asked(model) m
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
