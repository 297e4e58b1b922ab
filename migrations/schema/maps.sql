-- Early answers of a model that is being filled. A sample is encoded first; from the pairs of old
-- and new vectors a worker learns an orthogonal map M of the old space into the new one, for each
-- kind: x becomes M x + shift. <M x + shift, q> = <x, M'q> + <shift, q>: so the query is mapped and
-- asked of the old vectors, and no mapped vector is stored. What has a real vector counts by that.

-- Registered beside a live model, a model is to have a map, unless its vectors are shorter: then no
-- map keeps angles.
CREATE FUNCTION pgclip._begin_map(p_model smallint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model  pgclip.model;
    v_source pgclip.model;
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE id = p_model;
    SELECT * INTO v_source FROM pgclip.model WHERE state = 'live' AND id <> p_model;
    IF v_source.dimension IS NULL OR v_model.map_sample = 0 THEN
        RETURN;
    END IF;
    INSERT INTO pgclip.model_mapping (model_id, source_id, state, why)
    SELECT p_model, v_source.id, CASE WHEN why IS NULL THEN 'waits' ELSE 'impossible' END, why
    FROM (SELECT CASE WHEN v_model.dimension < v_source.dimension THEN format(
              'its vectors are shorter, %s numbers instead of %s: it answers when it is filled',
              v_model.dimension, v_source.dimension) END AS why) w;
    INSERT INTO pgclip.model_sample (model_id, kind)
    SELECT p_model, k FROM unnest(enum_range(NULL::pgclip.kind)) k
    WHERE v_model.dimension >= v_source.dimension;
END $$;

CREATE FUNCTION pgclip._forget_map(p_model smallint) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM pgclip.model_mapping WHERE model_id = p_model;
    DELETE FROM pgclip.model_sample WHERE model_id = p_model;
$$;

-- For the steward: queues the next of the contents that maps are learnt from, in the order of their
-- hashes, an item of each. Returns whether there is more to do now.
CREATE FUNCTION pgclip._draw_samples(p_page int, p_most int) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_sample  record;
    v_allowed int;
    v_drawn   record;
    v_more    boolean := false;
    -- A kind may be rare, and rows in the order of hashes lie apart.
    v_looked  int := 10 * p_page;
BEGIN
    FOR v_sample IN
        SELECT s.model_id, s.kind, s.contents, s.last_hash, m.map_sample, p.source_id
        FROM pgclip.model_sample s JOIN pgclip.model m ON m.id = s.model_id
        JOIN pgclip.model_mapping p ON p.model_id = s.model_id
        WHERE s.drawn_at IS NULL AND NOT m.is_unattended
        ORDER BY s.model_id, s.kind FOR UPDATE OF s SKIP LOCKED
    LOOP
        v_allowed := least(pgclip._allowed(v_sample.model_id, p_page, p_most),
                           v_sample.map_sample - v_sample.contents);
        CONTINUE WHEN v_allowed = 0;
        WITH page AS MATERIALIZED (
            SELECT e.content_hash, e.item_id, e.kind FROM pgclip.embedding_set e
            WHERE e.model_id = v_sample.source_id AND e.content_hash > v_sample.last_hash
            ORDER BY e.content_hash, e.item_id LIMIT v_looked
        ), drawn AS (
            SELECT DISTINCT ON (content_hash) content_hash, item_id FROM page
            WHERE kind = v_sample.kind ORDER BY content_hash, item_id LIMIT v_allowed
        )
        SELECT count(*) AS count, array_agg(item_id ORDER BY content_hash) AS items,
               (array_agg(content_hash ORDER BY content_hash DESC))[1] AS last,
               (SELECT count(*) FROM page) AS looked,
               (SELECT content_hash FROM page ORDER BY content_hash DESC LIMIT 1) AS last_looked
        INTO v_drawn FROM drawn;
        PERFORM pgclip._fill(v_sample.model_id, v_drawn.items, v_allowed, '30 s');
        UPDATE pgclip.model_sample s SET contents = s.contents + v_drawn.count,
            last_hash = coalesce(CASE WHEN v_drawn.count = v_allowed THEN v_drawn.last
                                      ELSE v_drawn.last_looked END, s.last_hash),
            drawn_at = CASE WHEN v_drawn.count < v_allowed AND v_drawn.looked < v_looked
                              OR s.contents + v_drawn.count >= v_sample.map_sample
                            THEN clock_timestamp() END
        WHERE s.model_id = v_sample.model_id AND s.kind = v_sample.kind;
        v_more := v_more OR v_drawn.looked > 0;
    END LOOP;
    RETURN v_more;
END $$;

-- For a worker: whether maps of its model are to be learnt, or again since 5, 20 or 50 percent have
-- been filled meanwhile; and the kinds of which something lacks. No other worker is told so for ten
-- minutes, in which it is done.
CREATE FUNCTION pgclip.map_due(p_model smallint)
RETURNS TABLE (source smallint, kind pgclip.kind, filled real)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_mapping pgclip.model_mapping;
    v_drawn   timestamptz;
    v_filled  real;
    v_begin   timestamptz := clock_timestamp();
BEGIN
    SELECT * INTO v_mapping FROM pgclip.model_mapping
    WHERE model_id = p_model AND state <> 'impossible' FOR UPDATE SKIP LOCKED;
    IF v_mapping.model_id IS NULL
       OR EXISTS (SELECT FROM pgclip.model_sample s WHERE s.model_id = p_model
                  AND s.drawn_at IS NULL)
       OR v_mapping.look_at > clock_timestamp() THEN
        RETURN;
    END IF;
    v_drawn := (SELECT max(s.drawn_at) + interval '31 s' FROM pgclip.model_sample s
                WHERE s.model_id = p_model);
    IF EXISTS (SELECT FROM pgclip.job j WHERE j.model_id = p_model AND j.rank < v_drawn
               AND j.lease IS NULL AND j.not_before IS NULL)
       OR EXISTS (SELECT FROM pgclip.job j WHERE j.model_id = p_model AND j.rank < v_drawn
                  AND j.lease IS NOT NULL) THEN
        RETURN;  -- the sample is still being encoded
    END IF;
    v_filled := pgclip._filled_of(p_model, v_mapping.source_id);
    -- Of ten million items that takes some seconds: a two-hundredth of the time.
    UPDATE pgclip.model_mapping SET look_at = clock_timestamp() + greatest(
        interval '30 s', 200 * (clock_timestamp() - v_begin)) WHERE model_id = p_model;
    IF v_filled = 1 THEN
        PERFORM pgclip._forget_map(p_model);
    ELSIF v_mapping.state = 'waits' OR EXISTS (
              SELECT FROM unnest(ARRAY[0.05, 0.2, 0.5]::real[]) at
              WHERE at > v_mapping.filled AND at <= v_filled) THEN
        RETURN QUERY
            SELECT v_mapping.source_id, k, v_filled
            FROM unnest(enum_range(NULL::pgclip.kind)) k
            WHERE EXISTS (
                SELECT FROM pgclip.embedding_set o
                WHERE o.model_id = v_mapping.source_id AND o.kind = k AND NOT EXISTS (
                    SELECT FROM pgclip.embedding_set n
                    WHERE n.item_id = o.item_id AND n.model_id = p_model));
        UPDATE pgclip.model_mapping SET look_at = clock_timestamp() + interval '10 min'
        WHERE model_id = p_model;
    END IF;
END $$;

-- The share of what the source has that the model has, too, or can't encode; 1 only if that is all.
CREATE FUNCTION pgclip._filled_of(p_model smallint, p_source smallint) RETURNS real
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN filled = count THEN 1 ELSE least(0.999, filled / count::float8) END
    FROM (SELECT count(*) AS count, count(*) FILTER (
                     WHERE n.item_id IS NOT NULL OR f.item_id IS NOT NULL) AS filled
          FROM pgclip.embedding_set o
          LEFT JOIN pgclip.embedding_set n ON n.item_id = o.item_id AND n.model_id = p_model
          LEFT JOIN pgclip.failure f ON f.item_id = o.item_id AND f.model_id = p_model
          WHERE o.model_id = p_source) c
$$;

-- For a worker: contents of a kind that both models have encoded, in the order of their hashes, a
-- page from after "p_after" on, with the vectors of both; of several the mean.
CREATE FUNCTION pgclip.map_pairs(
    p_model smallint, p_source smallint, p_kind pgclip.kind, p_after bytea, p_most int
) RETURNS TABLE (content_hash bytea, old @vector@.halfvec, new @vector@.halfvec)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_items bigint[];
BEGIN
    v_items := ARRAY(
        SELECT item_id FROM (
            SELECT DISTINCT ON (n.content_hash) n.content_hash, n.item_id
            FROM pgclip.embedding_set n
            JOIN pgclip.embedding_set o ON o.item_id = n.item_id AND o.model_id = p_source
                                       AND o.content_hash = n.content_hash
            WHERE n.model_id = p_model AND n.kind = p_kind AND n.content_hash > p_after
            ORDER BY n.content_hash, n.item_id LIMIT p_most) d);
    RETURN QUERY
        SELECT n.content_hash, o.embedding, e.embedding
        FROM pgclip.embedding_set n
        JOIN pgclip._means_of(p_source, v_items) o ON o.item_id = n.item_id
        JOIN pgclip._means_of(p_model, v_items) e ON e.item_id = n.item_id
        WHERE n.item_id = ANY(v_items) AND n.model_id = p_model ORDER BY n.content_hash;
END $$;

-- For a worker: vectors to judge a map with, by the model: of what was asked, else of what is
-- stored.
CREATE FUNCTION pgclip.map_queries(p_model smallint, p_kind pgclip.kind, p_most int)
RETURNS TABLE (embedding @vector@.halfvec, asked int)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT v, q.asked FROM pgclip._queries_to_ask(p_model, p_kind, p_most) q, unnest(q.vectors) v
$$;

-- For a worker: a map of a kind, in the place of the one before. axes: a row for each number of the
-- source's vectors.
CREATE FUNCTION pgclip.keep_map(
    p_model smallint, p_kind pgclip.kind, p_axes real[], p_shift real[], p_pairs int
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_axis real[];
    v_nth  int := 0;
BEGIN
    PERFORM FROM pgclip.model_mapping WHERE model_id = p_model FOR NO KEY UPDATE;
    IF NOT FOUND THEN  -- its model or the source has gone meanwhile
        RETURN;
    END IF;
    DELETE FROM pgclip.model_map WHERE model_id = p_model AND kind = p_kind;
    INSERT INTO pgclip.model_map (model_id, kind, shift, pairs)
    VALUES (p_model, p_kind, p_shift::@vector@.halfvec, p_pairs);
    FOREACH v_axis SLICE 1 IN ARRAY p_axes LOOP
        v_nth := v_nth + 1;
        INSERT INTO pgclip.model_map_axis
        VALUES (p_model, p_kind, v_nth, v_axis::@vector@.halfvec);
    END LOOP;
END $$;

-- For a worker: what mapped answers find; p_judged: [{"query_kind", "kind", "contents", "queries",
-- "asked", "recall"}]. From now on they answer, if each direction keeps the bound.
CREATE FUNCTION pgclip.judge_map(p_model smallint, p_filled real, p_judged jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_state text;
BEGIN
    PERFORM FROM pgclip.model_mapping WHERE model_id = p_model FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO pgclip.model_map_judgement
           (model_id, query_kind, kind, filled, contents, queries, asked, recall)
    SELECT p_model, j.query_kind, j.kind, p_filled, j.contents, j.queries, j.asked, j.recall
    FROM jsonb_to_recordset(p_judged) AS j(query_kind pgclip.kind, kind pgclip.kind, contents int,
                                           queries int, asked int, recall real);
    UPDATE pgclip.model_mapping p SET filled = p_filled,
        look_at = least(look_at, clock_timestamp() + interval '30 s'), (state, why) = (
        SELECT CASE WHEN min(j.recall) >= m.map_bound THEN 'answers' ELSE 'refused' END,
               CASE WHEN min(j.recall) >= m.map_bound IS NOT TRUE THEN format(
                   'mapped answers find %s of the ten nearest where they find least, less than %s',
                   round(coalesce(min(j.recall), 0)::numeric, 3), m.map_bound) END
        FROM pgclip.model m LEFT JOIN jsonb_to_recordset(p_judged) AS j(recall real) ON true
        WHERE m.id = p_model GROUP BY m.map_bound)
    WHERE p.model_id = p_model RETURNING state INTO v_state;
    RETURN v_state;
END $$;

-- What mapped answers were found to find, of the ten nearest by the model's own vectors, among the
-- contents that had both.
CREATE VIEW pgclip.model_maps AS
SELECT m.name AS model, s.name AS source, p.state, p.why, j.query_kind, j.kind, j.filled,
       j.contents, j.queries, j.asked, j.recall, m.map_bound AS bound, j.judged_at
FROM pgclip.model_mapping p JOIN pgclip.model m ON m.id = p.model_id
JOIN pgclip.model s ON s.id = p.source_id
LEFT JOIN pgclip.model_map_judgement j ON j.model_id = p.model_id;

-- A query as it is asked of the source's vectors of a kind, and what is added to its products.
CREATE FUNCTION pgclip._mapped_query(
    p_model smallint, p_kind pgclip.kind, p_query @vector@.halfvec,
    OUT query @vector@.halfvec, OUT base double precision
) LANGUAGE sql STABLE AS $$
    SELECT (SELECT array_agg(pgclip._as_real(-(a.axis OPERATOR(@vector@.<#>) p_query))
                             ORDER BY a.nth)::@vector@.halfvec
            FROM pgclip.model_map_axis a WHERE a.model_id = p_model AND a.kind = p_kind),
           -(m.shift OPERATOR(@vector@.<#>) p_query)
    FROM pgclip.model_map m WHERE m.model_id = p_model AND m.kind = p_kind
$$;

-- An item's vectors of the source, mapped: what asks for it before it has a real one.
CREATE FUNCTION pgclip._mapped_vector(
    p_model smallint, p_kind pgclip.kind, p_embedding @vector@.halfvec
) RETURNS @vector@.halfvec
LANGUAGE sql STABLE AS $$
    SELECT @vector@.l2_normalize((
        SELECT array_agg(pgclip._as_real(value) ORDER BY place)::@vector@.halfvec
        FROM (SELECT e.place, sum(e.value * x.value)
                     + (SELECT s.value FROM unnest(m.shift::real[]) WITH ORDINALITY s(value, place)
                        WHERE s.place = e.place) AS value
              FROM unnest(p_embedding::real[]) WITH ORDINALITY x(value, nth)
              JOIN pgclip.model_map_axis a ON a.model_id = p_model AND a.kind = p_kind
                                          AND a.nth = x.nth
              CROSS JOIN LATERAL unnest(a.axis::real[]) WITH ORDINALITY e(value, place)
              GROUP BY e.place) n))
    FROM pgclip.model_map m WHERE m.model_id = p_model AND m.kind = p_kind
$$;
