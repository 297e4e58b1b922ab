-- What a score means: cosines of one model live in narrow bands that differ by direction. A
-- calibration maps them to a relevance from 0 to 1, for each kind of query and kind of item.

CREATE VIEW pgclip.calibrations AS
SELECT m.name AS model, c.query_kind, c.item_kind, c.midpoint, c.slope, c.mean, c.deviation
FROM pgclip.calibration c JOIN pgclip.model m ON m.id = c.model_id;

-- Logistic. NULL without a calibration.
CREATE FUNCTION pgclip._relevance(p_score real, p_calibration pgclip.calibration) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN (p_calibration).midpoint IS NOT NULL THEN (1 / (1 + exp(least(greatest(
        ((p_calibration).midpoint - p_score) * (p_calibration).slope, -80), 80))))::real END
$$;

-- The lowest scores that min_score and min_relevance let through, of images and of texts.
CREATE FUNCTION pgclip._least_scores(
    p_model smallint, p_query_kind pgclip.kind, p_kind pgclip.kind, p_min_score real,
    p_min_relevance real
) RETURNS real[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_least  real[] := ARRAY(  -- 2, which no score is, of a kind that is not wanted
        SELECT CASE WHEN k = p_kind OR p_kind IS NULL THEN coalesce(p_min_score, -1) ELSE 2 END
        FROM unnest(enum_range(NULL::pgclip.kind)) k ORDER BY k);
    v_scale  record;
    v_wanted pgclip.kind[] := CASE WHEN p_kind IS NULL THEN enum_range(NULL::pgclip.kind)
                                   ELSE ARRAY[p_kind] END;
BEGIN
    IF p_min_score = 'NaN' OR p_min_relevance = 'NaN' THEN
        RAISE EXCEPTION 'a minimum must be a number' USING ERRCODE = 'PC001';
    END IF;
    IF p_min_relevance IS NULL THEN
        RETURN v_least;
    END IF;
    IF NOT (p_min_relevance > 0 AND p_min_relevance < 1) THEN
        RAISE EXCEPTION 'min_relevance must be between 0 and 1, not %', p_min_relevance
            USING ERRCODE = 'PC001';
    END IF;
    FOR v_scale IN
        SELECT w.kind, c.midpoint, c.slope FROM unnest(v_wanted) w(kind)
        LEFT JOIN pgclip.calibration c ON c.model_id = p_model AND c.query_kind = p_query_kind
                                      AND c.item_kind = w.kind
    LOOP
        IF v_scale.midpoint IS NULL THEN
            RAISE EXCEPTION 'there is no calibration from % to %',
                coalesce(p_query_kind::text, 'this query'), v_scale.kind USING ERRCODE = 'PC005',
                HINT = 'SELECT pgclip.calibrate(); once there are items, or search one kind only, '
                       'or with min_score.';
        END IF;
        v_least[CASE v_scale.kind WHEN 'image' THEN 1 ELSE 2 END] := greatest(
            coalesce(p_min_score, -1),
            v_scale.midpoint + ln(p_min_relevance / (1 - p_min_relevance)) / v_scale.slope);
    END LOOP;
    RETURN v_least;
END $$;

-- Measures how unrelated pairs score, by the live model, and derives from it what is relevant: a
-- score of 3.5 standard deviations above their mean has relevance 0.5, of 4.5 0.88, of 2.5 0.12.
-- Pairs are drawn from the items (at most "sample" of each kind) and, as texts that ask, from as
-- many queries that were asked. Directions with fewer than 30 vectors on a side are left out.
-- Returns how many were calibrated.
CREATE FUNCTION pgclip.calibrate(sample int DEFAULT 300) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
    IF sample IS NULL OR sample NOT BETWEEN 30 AND 2000 THEN
        RAISE EXCEPTION 'sample must be from 30 to 2000, not %', sample USING ERRCODE = 'PC001';
    END IF;
    RETURN pgclip._calibrate(pgclip._live_model(), sample, true);
END $$;

-- p_anew: also what is calibrated already.
CREATE FUNCTION pgclip._calibrate(p_model smallint, p_sample int, p_anew boolean) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_count int;
BEGIN
    EXECUTE format($q$
        WITH item_side AS MATERIALIZED (
            SELECT d.kind, d.item_id, v.embedding
            FROM unnest(enum_range(NULL::pgclip.kind)) k(kind)
            CROSS JOIN LATERAL (SELECT s.kind, s.item_id, s.vector_ids[1] AS vector_id
                                FROM pgclip.embedding_set s
                                WHERE s.model_id = %1$s AND s.kind = k.kind
                                ORDER BY hashint8(s.item_id) LIMIT $1) d
            CROSS JOIN LATERAL (SELECT x.embedding FROM %2$s x
                                WHERE x.id = d.vector_id OFFSET 0) v
        ), query_side AS MATERIALIZED (
            SELECT kind, item_id, embedding, item_id::text AS place FROM item_side
            UNION ALL
            (SELECT q.kind, NULL, q.embedding, q.hash::text FROM pgclip.query_vector q
             WHERE q.model_id = %1$s AND q.kind = 'text' ORDER BY q.hash LIMIT $1)
        ), unrelated AS (
            SELECT q.kind AS query_kind, i.kind AS item_kind,
                   avg(-(q.embedding OPERATOR(@vector@.<#>) i.embedding)) AS mean,
                   stddev_samp(-(q.embedding OPERATOR(@vector@.<#>) i.embedding)) AS deviation,
                   count(DISTINCT q.place) AS queries, count(DISTINCT i.item_id) AS items
            FROM query_side q JOIN item_side i ON q.item_id IS DISTINCT FROM i.item_id
            GROUP BY q.kind, i.kind
        )
        INSERT INTO pgclip.calibration AS old
               (model_id, query_kind, item_kind, midpoint, slope, mean, deviation)
        SELECT %1$s, query_kind, item_kind, mean + 3.5 * deviation, 2 / deviation, mean, deviation
        FROM unrelated WHERE queries >= 30 AND items >= 30 AND deviation > 0
        ON CONFLICT (model_id, query_kind, item_kind) DO UPDATE SET midpoint = excluded.midpoint,
            slope = excluded.slope, mean = excluded.mean, deviation = excluded.deviation
            WHERE $2
    $q$, p_model, pgclip._vectors(p_model)) USING p_sample, p_anew;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
EXCEPTION WHEN undefined_table THEN
    PERFORM pgclip._raise_exchanged();
END $$;

-- Sets what is relevant by hand, of the live model: "midpoint" is the score of relevance 0.5, and
-- a score that is 2 / slope higher has 0.88.
CREATE FUNCTION pgclip.set_calibration(
    query_kind pgclip.kind, item_kind pgclip.kind, midpoint real, slope real
) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF NOT (midpoint BETWEEN -1 AND 1) OR NOT (slope > 0 AND slope < 1e6) THEN
        RAISE EXCEPTION 'midpoint must be from -1 to 1, and slope positive'
            USING ERRCODE = 'PC001';
    END IF;
    INSERT INTO pgclip.calibration (model_id, query_kind, item_kind, midpoint, slope)
    VALUES (pgclip._live_model(), set_calibration.query_kind, set_calibration.item_kind,
            set_calibration.midpoint, set_calibration.slope)
    ON CONFLICT (model_id, query_kind, item_kind) DO UPDATE SET midpoint = excluded.midpoint,
        slope = excluded.slope, mean = NULL, deviation = NULL;
END $$;
