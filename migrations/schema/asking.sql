-- Asking about one thing, or about each of many: how like another it is, which label fits, which
-- answer does, what could be said of it. On stored vectors and the model's own scale; an item of
-- several vectors counts with their mean, as for labels.

-- An item, a text or a picture: its vector, and of what. Raises PC001, PC002, PC003.
CREATE FUNCTION pgclip._asked_about(
    p_key text, p_collection text, p_query text, p_image bytea,
    OUT embedding @vector@.halfvec, OUT kind pgclip.kind
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_item record;
BEGIN
    IF num_nonnulls(p_key, p_query, p_image) <> 1 THEN
        RAISE EXCEPTION 'one of an item''s key, a text and an image is asked about'
            USING ERRCODE = 'PC001';
    END IF;
    IF p_key IS NOT NULL THEN
        v_item := pgclip._item_at(p_key, p_collection);
        embedding := pgclip._mean_vector(v_item.id);
        kind := v_item.kind;
    ELSE
        embedding := pgclip.query_embedding(p_query, p_image);
        kind := CASE WHEN p_image IS NULL THEN 'text' ELSE 'image' END;
    END IF;
END $$;

-- The vectors of texts that have been asked for, in their order. Raises PC001, PC003.
CREATE FUNCTION pgclip._prompt_vectors(p_prompts text[]) RETURNS @vector@.halfvec[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_model   smallint := pgclip._live_model();
    v_vectors @vector@.halfvec[] := ARRAY(
        SELECT q.embedding FROM unnest(p_prompts) WITH ORDINALITY p(prompt, nth)
        LEFT JOIN pgclip.query_vector q ON q.model_id = v_model AND q.kind = 'text'
              AND q.hash = sha256(pgclip._query_data(prompt, NULL))
        ORDER BY nth);
    v_lacking int := array_position(v_vectors, NULL);
BEGIN
    IF v_lacking IS NOT NULL THEN
        RAISE EXCEPTION 'there is no vector yet of "%"', left(p_prompts[v_lacking], 100)
            USING ERRCODE = 'PC003', HINT = 'First CALL pgclip.embed_many(…) with what '
                'pgclip.prompts makes of labels, or pgclip.question_prompts of a question, '
                'outside a transaction; it waits for a worker to encode them.';
    END IF;
    RETURN v_vectors;
END $$;

-- Labels, each in a template that has {} where it goes. Raises PC001.
CREATE FUNCTION pgclip.prompts(labels text[], template text DEFAULT '{}') RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(cardinality(labels), 0) NOT BETWEEN 1 AND 1000 OR array_ndims(labels) <> 1
       OR EXISTS (SELECT FROM unnest(labels) l WHERE l IS NULL OR pgclip._is_blank(l)) THEN
        RAISE EXCEPTION 'needed are 1 to 1000 texts that are not blank' USING ERRCODE = 'PC001';
    END IF;
    IF strpos(template, '{}') = 0 IS NOT FALSE THEN
        RAISE EXCEPTION 'a template has {} where the label goes, as in "a photo of {}"'
            USING ERRCODE = 'PC001';
    END IF;
    RETURN ARRAY(SELECT replace(template, '{}', l)
                 FROM unnest(labels) WITH ORDINALITY t(l, n) ORDER BY n);
END $$;

-- Has several texts encoded, as embed has one, all within the time. CALL it outside a transaction.
CREATE PROCEDURE pgclip.embed_many(queries text[], timeout interval DEFAULT '10 s')
LANGUAGE plpgsql AS $$
DECLARE
    v_query text;
    v_end   timestamptz := clock_timestamp() + timeout;
BEGIN
    -- All of them first, so that they are encoded together; in an order that all keep.
    PERFORM pgclip.request_embedding(q)
    FROM (SELECT DISTINCT q FROM unnest(queries) q ORDER BY q) ordered;
    PERFORM set_config('synchronous_commit', 'off', true);
    COMMIT;
    FOREACH v_query IN ARRAY queries LOOP
        CALL pgclip.embed(v_query, timeout => greatest(v_end - clock_timestamp(), '10 ms'));
    END LOOP;
END $$;

-- The probabilities of labels, from the cosines: a softmax over the model's logits; or of a model
-- with a bias, which learned each pair by itself, a sigmoid. Labels are scored in the same way.
CREATE FUNCTION pgclip._probabilities(p_cosines real[], p_scale real, p_bias real) RETURNS real[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(pgclip._as_real(
               CASE WHEN p_bias IS NULL THEN weight / total
                    ELSE 1 / (1 + exp(least(-(p_scale * cosine + p_bias), 80))) END) ORDER BY nth)
    FROM (SELECT cosine, nth, weight, sum(weight) OVER () AS total
          FROM (SELECT cosine::float8, nth,
                       exp(greatest(p_scale * (cosine - max(cosine) OVER ()), -500)) AS weight
                FROM unnest(p_cosines) WITH ORDINALITY c(cosine, nth)) c) w
$$;

CREATE FUNCTION pgclip._logits(p_model smallint, OUT scale real, OUT bias real)
LANGUAGE sql STABLE AS $$
    SELECT logit_scale, (fingerprint -> 'recorded' ->> 'logit_bias')::real
    FROM pgclip.model WHERE id = p_model
$$;

-- The cosines of a vector to others, in their order.
CREATE FUNCTION pgclip._cosines(p_embedding @vector@.halfvec, p_others @vector@.halfvec[])
RETURNS real[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(-(p_embedding OPERATOR(@vector@.<#>) o)::real ORDER BY nth)
    FROM unnest(p_others) WITH ORDINALITY t(o, nth)
$$;

-- How like each other two are, each an item, a text or a picture: the cosine, and what it means, if
-- calibrated, with one that is no item asking for the other. Raises PC001, PC002, PC003.
CREATE FUNCTION pgclip.similarity(
    key text DEFAULT NULL, with_query text DEFAULT NULL, query text DEFAULT NULL,
    image bytea DEFAULT NULL, with_key text DEFAULT NULL, with_image bytea DEFAULT NULL,
    collection text DEFAULT 'default', with_collection text DEFAULT NULL,
    OUT score real, OUT relevance real
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_one   record := pgclip._asked_about(key, collection, query, image);
    v_other record := pgclip._asked_about(with_key, coalesce(with_collection, collection),
                                          with_query, with_image);
    v_asks  pgclip.kind := CASE WHEN key IS NULL OR with_key IS NOT NULL THEN v_one.kind
                                ELSE v_other.kind END;
    v_found pgclip.kind := CASE WHEN key IS NULL OR with_key IS NOT NULL THEN v_other.kind
                                ELSE v_one.kind END;
BEGIN
    score := pgclip._score(
        v_one.embedding OPERATOR(@vector@.<#>) v_other.embedding,
        ROW(@vector@.l2_norm(v_one.embedding) * @vector@.l2_norm(v_other.embedding), 0));
    SELECT pgclip._relevance(score, c) INTO relevance FROM pgclip.calibration c
    WHERE c.model_id = pgclip._live_model() AND c.query_kind = v_asks AND c.item_kind = v_found;
END $$;

-- What an item was found to be: the label that fits best, and the probabilities of all, in the
-- order in which they were given.
CREATE TYPE pgclip.classified AS (
    item_id       bigint,
    collection    text,
    key           text,
    label         text,
    probability   real,
    probabilities real[]
);

-- Which of some labels fits: an item, a text or a picture, one row; or each item of a collection,
-- or of all that a filter lets through, a row each, in pages if there is a limit, after an item's
-- id. Raises PC001, PC002, PC003, PC005.
CREATE FUNCTION pgclip.classify(
    key text DEFAULT NULL, labels text[] DEFAULT NULL, template text DEFAULT '{}',
    query text DEFAULT NULL, image bytea DEFAULT NULL, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, after bigint DEFAULT 0,
    "limit" bigint DEFAULT NULL
) RETURNS SETOF pgclip.classified
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model   smallint := pgclip._live_model();
    v_logits  record := pgclip._logits(v_model);
    v_prompts @vector@.halfvec[] := pgclip._prompt_vectors(pgclip.prompts(labels, template));
    v_asked   @vector@.halfvec;
    v_things  text;
BEGIN
    IF num_nonnulls(key, query, image) > 0 THEN
        v_asked := (pgclip._asked_about(key, coalesce(collection, 'default'), query, image)
                   ).embedding;
        v_things := 'SELECT (SELECT i.id FROM pgclip.item i JOIN pgclip.collection c
                                    ON c.id = i.collection_id WHERE i.key = $6 AND c.name = $7),
                            CASE WHEN $6 IS NOT NULL THEN $7 END, $6, $8';
    ELSIF num_nonnulls(collection, kind, filter, "limit") = 0 THEN
        RAISE EXCEPTION 'what is classified is a key, a text or an image, or each item of a '
            'collection, a kind, a filter or a limit' USING ERRCODE = 'PC001';
    ELSE  -- each item's vectors by their ids: segments have no index by item
        v_things := format($q$
            SELECT i.id, c.name, i.key, (
                SELECT @vector@.l2_normalize(@vector@.avg(e.embedding))
                FROM unnest(i.vector_ids) v(id)
                CROSS JOIN LATERAL (SELECT x.embedding FROM %5$s x WHERE x.id = v.id OFFSET 0) e)
            FROM (SELECT i.id, i.key, i.collection_id, s.vector_ids
                  FROM pgclip.item i
                  JOIN pgclip.embedding_set s ON s.item_id = i.id AND s.model_id = %3$s
                  WHERE %1$s AND i.id > %2$s AND s.item_id > %2$s ORDER BY i.id LIMIT %4$s) i
            JOIN pgclip.collection c ON c.id = i.collection_id OFFSET 0
        $q$, (pgclip._narrowing(v_model, collection, kind, filter, NULL)).of_items,
            coalesce(after, 0), v_model, coalesce("limit"::text, 'ALL'), pgclip._vectors(v_model));
    END IF;
    RETURN QUERY EXECUTE format($q$
        SELECT id, collection, key, $2[best], p[best], p
        FROM (%s) t(id, collection, key, embedding)
        CROSS JOIN LATERAL (SELECT pgclip._probabilities(
            pgclip._cosines(t.embedding, $1), $3, $4) AS p OFFSET 0) s
        CROSS JOIN LATERAL (
            SELECT array_position(p, (SELECT max(x) FROM unnest(p) x)) AS best OFFSET 0) b
        ORDER BY id
    $q$, v_things)
    USING v_prompts, labels, v_logits.scale, v_logits.bias, NULL, key,
          coalesce(collection, 'default'), v_asked;
EXCEPTION WHEN undefined_table THEN
    PERFORM pgclip._raise_exchanged();
END $$;

-- Which of some answers to a question fits an item, a text or a picture, the best first. Each is
-- read together with the question, and so is none: what fits no better than the question alone,
-- which has a probability as well, under the answer NULL. Raises PC001, PC002, PC003.
CREATE FUNCTION pgclip.answer(
    key text DEFAULT NULL, question text DEFAULT NULL, answers text[] DEFAULT NULL,
    query text DEFAULT NULL, image bytea DEFAULT NULL, collection text DEFAULT 'default',
    OUT answer text, OUT probability real
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_asked   record := pgclip._asked_about(key, collection, query, image);
    v_scale   real := (pgclip._logits(pgclip._live_model())).scale;
    v_vectors @vector@.halfvec[] := pgclip._prompt_vectors(
                                        pgclip.question_prompts(question, answers));
BEGIN
    RETURN QUERY
        SELECT a.answer, a.probability
        FROM unnest(answers || NULL::text, pgclip._probabilities(
                 pgclip._cosines(v_asked.embedding, v_vectors), v_scale, NULL))
             WITH ORDINALITY a(answer, probability, nth)
        ORDER BY a.probability DESC, a.nth;
END $$;

-- The texts that answer() compares: the question with each answer, and alone. Raises PC001.
CREATE FUNCTION pgclip.question_prompts(question text, answers text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF question IS NULL OR pgclip._is_blank(question) THEN
        RAISE EXCEPTION 'the question is blank' USING ERRCODE = 'PC001';
    END IF;
    RETURN pgclip.prompts(answers, replace(question, '{}', '') || ' {}') || question;
END $$;

-- What could be said of an item or a picture: the nearest texts of a collection of captions.
CREATE FUNCTION pgclip.captions(
    key text DEFAULT NULL, collection text DEFAULT 'captions', k int DEFAULT 3,
    image bytea DEFAULT NULL, of_collection text DEFAULT 'default'
) RETURNS SETOF pgclip.hit
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_asked record := pgclip._asked_about(key, of_collection, NULL, image);
BEGIN
    RETURN QUERY SELECT * FROM pgclip.search_vector(v_asked.embedding, k, collection, 'text',
                                                    query_kind => v_asked.kind);
END $$;
