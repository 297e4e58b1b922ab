-- Recall, a promise that is kept by itself: how much of the nearest a search through indexes finds
-- is measured, for each direction (what asks, and what is looked for), and how much of an index a
-- search looks at (its effort, hnsw.ef_search) follows from that.

CREATE VIEW pgclip.recall AS
SELECT m.name AS model, d.query_kind, d.kind, t.share, t.queries, d.asked, t.recall, t.met_nothing,
       d.effort, d.promise, d.looked_at
FROM pgclip.direction d JOIN pgclip.model m ON m.id = d.model_id
CROSS JOIN LATERAL unnest(ARRAY[1, 0.1, 0.01], d.queries, d.recall, d.met_nothing)
     t(share, queries, recall, met_nothing);

-- How much is tried; 1,000 is the most that pgvector takes.
CREATE FUNCTION pgclip._efforts() RETURNS int[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT ARRAY[60, 100, 160, 250, 400, 640, 1000]';

-- The least effort that missed at most three quarters of what the promise lets it miss, so that it
-- is kept for other queries; the most if there is none. p_recalls as _try_efforts has them.
CREATE FUNCTION pgclip._least_effort(p_efforts int[], p_recalls real[], p_promise real) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(min(effort) FILTER (WHERE recall >= (1 + 3 * p_promise) / 4 - 1e-6),
                    max(effort))
    FROM unnest(p_efforts, p_recalls) t(effort, recall)
$$;

-- The effort of a search: of what asks and what is looked for, where NULL is whichever needs most.
-- p_recall: NULL for what is promised; 1 for all there is, which is no search through indexes.
-- Where nothing was measured yet, or other segments were, some of which may have been built in
-- haste, and for queries of which it is not known what they are, or that are weighted of both,
-- which nobody measures: at least what does for most.
CREATE FUNCTION pgclip._effort(
    p_model smallint, p_query_kind pgclip.kind, p_kind pgclip.kind, p_recall real
) RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_recall IS NULL OR p_recall < 1 THEN coalesce(max(
        greatest(CASE WHEN p_recall IS NULL THEN d.effort
                      ELSE pgclip._least_effort(d.efforts, d.recalls, p_recall) END,
                 CASE WHEN p_query_kind IS NULL OR d.segments <> s.segments THEN 250 END)), 250) END
    FROM pgclip.direction d
    CROSS JOIN LATERAL (SELECT array_agg(g.number ORDER BY g.number) AS segments
                        FROM pgclip.segment g WHERE g.model_id = d.model_id
                          AND g.state = 'sealed' AND g.kind = d.kind) s
    WHERE d.model_id = p_model AND d.recalls <> '{}'
      AND d.query_kind = coalesce(p_query_kind, d.query_kind) AND d.kind = coalesce(p_kind, d.kind)
$$;

-- Vectors to ask with: of queries that somebody asked; where these are too few, of stored items;
-- and where there are no texts, of labels' prompts.
CREATE FUNCTION pgclip._queries_to_ask(
    p_model smallint, p_kind pgclip.kind, p_most int, OUT vectors @vector@.halfvec[], OUT asked int
) LANGUAGE plpgsql AS $$
BEGIN
    vectors := ARRAY(SELECT q.embedding FROM pgclip.query_vector q
                     WHERE q.model_id = p_model AND q.kind = p_kind ORDER BY random() LIMIT p_most);
    asked := cardinality(vectors);
    EXECUTE format($q$
        SELECT $1 || ARRAY(
            SELECT v.embedding
            FROM (SELECT s.vector_ids[1 + floor(random() * cardinality(s.vector_ids))::int] AS id
                  FROM pgclip.embedding_set s WHERE s.model_id = %1$s AND s.kind = %3$L
                  ORDER BY hashint8extended(s.item_id, $3) LIMIT $2) d
            CROSS JOIN LATERAL (SELECT x.embedding FROM %2$s x WHERE x.id = d.id OFFSET 0) v)
    $q$, p_model, pgclip._vectors(p_model), p_kind)
    INTO vectors USING vectors, p_most - asked, floor(random() * 1e9)::bigint;
    IF p_kind = 'text' THEN
        vectors := vectors || ARRAY(
            SELECT l.embedding::@vector@.halfvec FROM pgclip.label_vector l
            WHERE l.model_id = p_model ORDER BY random() LIMIT p_most - cardinality(vectors));
    END IF;
    vectors := ARRAY(SELECT v FROM unnest(vectors) v ORDER BY random());
END $$;

-- Which direction to measure next: one whose segments, or whose promise, are not those that were
-- measured, or that was measured an hour ago; the one that waits longest. None again for fifty
-- times as long as the last took (of a model that nobody searches yet, five times), so that
-- measuring takes a fiftieth of a processor at most, and none in a burst, which has the processors
-- to itself.
CREATE FUNCTION pgclip._next_direction(
    p_model smallint, p_promise real, p_now boolean,
    OUT query_kind pgclip.kind, OUT kind pgclip.kind, OUT segments int[], OUT rows bigint
) LANGUAGE sql STABLE AS $$
    SELECT q.kind, s.kind, s.segments, s.rows
    FROM (SELECT kind, array_agg(number ORDER BY number) AS segments, sum(rows)::bigint AS rows
          FROM pgclip.segment WHERE model_id = p_model AND state = 'sealed' GROUP BY kind) s
    CROSS JOIN unnest(enum_range(NULL::pgclip.kind)) q(kind)
    LEFT JOIN pgclip.direction d ON d.model_id = p_model AND d.query_kind = q.kind
                                AND d.kind = s.kind
    WHERE p_now OR (d.segments IS DISTINCT FROM s.segments OR d.promise <> p_promise
                    OR d.looked_at < clock_timestamp() - interval '1 hour')
      AND (d.looked_at IS NULL OR NOT EXISTS (
               SELECT FROM pgclip.direction o WHERE o.model_id = p_model
               AND o.looked_at + o.seconds * interval '1 s' * CASE
                   WHEN EXISTS (SELECT FROM pgclip.model m WHERE m.id = p_model
                                AND m.state = 'live') THEN 50 ELSE 5 END
                   > clock_timestamp()))
      AND pgclip._hot_for(p_model) > '10 s'
    ORDER BY d.looked_at NULLS FIRST, q.kind, s.kind LIMIT 1
$$;

-- A vector that asks, and the scores of the ten items nearest to it by comparing all vectors.
CREATE TYPE pgclip.probe AS (query @vector@.halfvec, truth real[]);

-- Those that have any item near them.
CREATE FUNCTION pgclip._probes(
    p_model smallint, p_queries @vector@.halfvec[], p_narrowing pgclip.narrowing
) RETURNS pgclip.probe[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT ROW(query, truth)::pgclip.probe
        FROM (SELECT query, pgclip._ten_nearest(p_model, query, p_narrowing, NULL) AS truth
              FROM unnest(p_queries) q(query)) t
        WHERE truth IS NOT NULL)
$$;

-- Of a query's ten nearest, those that a search found: the scores of the ten, and the hits'.
CREATE FUNCTION pgclip._found_of(p_truth real[], p_scores real[]) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT count(*) FILTER (WHERE score >= p_truth[cardinality(p_truth)])::float8
           / cardinality(p_truth)
    FROM unnest(p_scores) s(score)
$$;

-- Measures one direction of a model if it is time to, or now, and sets its effort: on one
-- half of the queries what each effort finds of the ten nearest by comparing all vectors; on the
-- other half what the chosen one finds, of some also under filters. If that is too little, so is
-- the effort. Some seconds, in which 100 to 400 queries ask. Returns whether it did.
CREATE FUNCTION pgclip.measure_recall(p_model smallint, p_promise real, p_now boolean DEFAULT false)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_begin   timestamptz := clock_timestamp();
    v_next    record;
    v_efforts int[] := pgclip._efforts();
    v_asked   record;
    v_all     pgclip.narrowing;
    v_probes  pgclip.probe[];
    v_half    int;
    v_curve   real[];
    v_effort  int := 250;
    v_judged  record;
    v_shares  record;
BEGIN
    SELECT * INTO v_next FROM pgclip._next_direction(p_model, p_promise, p_now);
    IF v_next.kind IS NULL
       OR NOT EXISTS (SELECT FROM pgclip.model WHERE id = p_model AND state <> 'retired') THEN
        RETURN false;
    END IF;
    v_asked := pgclip._queries_to_ask(p_model, v_next.query_kind,
                                      greatest(100, least(400, 6e7 / (v_next.rows + 50000)))::int);
    v_all := pgclip._sample(v_next.kind, 1);
    v_probes := pgclip._probes(p_model, v_asked.vectors, v_all);
    v_half := cardinality(v_probes) / 2;
    v_curve := pgclip._try_efforts(p_model, v_probes[:v_half], v_all, v_efforts);
    IF v_curve IS NOT NULL THEN
        v_effort := pgclip._least_effort(v_efforts, v_curve, p_promise);
    END IF;
    LOOP
        v_judged := pgclip._judge(p_model, v_probes[v_half + 1 :], v_all, v_effort);
        EXIT WHEN v_judged.recall IS NULL OR v_judged.recall >= p_promise
               OR v_effort >= v_efforts[cardinality(v_efforts)];
        v_effort := (SELECT min(e) FROM unnest(v_efforts) e WHERE e > v_effort);
    END LOOP;
    SELECT array_agg(queries ORDER BY n) AS queries, array_agg(recall ORDER BY n) AS recall,
           array_agg(met_nothing ORDER BY n) AS met_nothing INTO v_shares
    FROM generate_series(1, 2) n
    CROSS JOIN LATERAL (SELECT pgclip._sample(v_next.kind, 10 ^ n) AS narrowing) s
    CROSS JOIN LATERAL pgclip._judge(
        p_model, pgclip._probes(p_model, v_asked.vectors[:20], s.narrowing), s.narrowing, v_effort);
    INSERT INTO pgclip.direction AS old VALUES (
        p_model, v_next.query_kind, v_next.kind, v_effort, v_efforts, coalesce(v_curve, '{}'),
        v_judged.queries || v_shares.queries, v_judged.recall || v_shares.recall,
        v_judged.met_nothing || v_shares.met_nothing, v_asked.asked, p_promise, v_next.segments,
        clock_timestamp(), extract(epoch FROM clock_timestamp() - v_begin))
    ON CONFLICT (model_id, query_kind, kind) DO UPDATE SET effort = excluded.effort,
        efforts = excluded.efforts, recalls = excluded.recalls, queries = excluded.queries,
        recall = excluded.recall, met_nothing = excluded.met_nothing, asked = excluded.asked,
        promise = excluded.promise, segments = excluded.segments, looked_at = excluded.looked_at,
        seconds = excluded.seconds;
    RETURN true;
END $$;

-- All of a kind, or one item of so many.
CREATE FUNCTION pgclip._sample(p_kind pgclip.kind, p_of double precision) RETURNS pgclip.narrowing
LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(p_kind, NULL, format('i.kind = %L AND i.id', p_kind) || one,
               CASE WHEN p_of > 1 THEN 'n.item_id' || one END,
               CASE WHEN p_of > 1 THEN 'e.item_id' || one END, NULL)::pgclip.narrowing
    FROM (SELECT ' % ' || p_of::int || ' = 0' AS one) s
$$;

-- What each effort finds of the nearest, on average; NULL if there is no query. A best hit that is
-- missed tells more than another: of those a search may miss half of what the promise lets it
-- miss, so each takes as much of the recall as leaves that of _least_effort. One that has found all
-- is not tried with more.
CREATE FUNCTION pgclip._try_efforts(
    p_model smallint, p_probes pgclip.probe[], p_narrowing pgclip.narrowing, p_efforts int[]
) RETURNS real[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_probe  pgclip.probe;
    v_scores real[];
    v_found  double precision;
    v_missed int;
    v_sums   double precision[] := array_fill(0::float8, ARRAY[cardinality(p_efforts)]);
    v_best   int[] := array_fill(0, ARRAY[cardinality(p_efforts)]);
BEGIN
    FOREACH v_probe IN ARRAY p_probes LOOP
        v_found := 0;
        FOR i IN 1 .. cardinality(p_efforts) LOOP
            IF v_found < 1 THEN
                v_scores := pgclip._ten_nearest(p_model, v_probe.query, p_narrowing, p_efforts[i]);
                v_found := pgclip._found_of(v_probe.truth, v_scores);
                v_missed := (v_scores[1] >= v_probe.truth[1] IS NOT true)::int;
            END IF;
            v_sums[i] := v_sums[i] + v_found;
            v_best[i] := v_best[i] + v_missed;
        END LOOP;
    END LOOP;
    RETURN (SELECT array_agg(least(s / of, 1 - 1.5 * b / of) ORDER BY n)
            FROM unnest(v_sums, v_best) WITH ORDINALITY t(s, b, n)
            CROSS JOIN (SELECT cardinality(p_probes) AS of) c WHERE of > 0);
END $$;

-- What an effort finds, on average, and the share of queries that met none of their ten.
CREATE FUNCTION pgclip._judge(
    p_model smallint, p_probes pgclip.probe[], p_narrowing pgclip.narrowing, p_effort int,
    OUT queries int, OUT recall real, OUT met_nothing real
) LANGUAGE sql STABLE AS $$
    SELECT count(*), avg(found), avg((found = 0)::int)
    FROM (SELECT pgclip._found_of(truth, pgclip._ten_nearest(p_model, query, p_narrowing, p_effort))
                 AS found
          FROM unnest(p_probes)) f
$$;

-- The scores of the ten nearest items; NULL if there is none.
CREATE FUNCTION pgclip._ten_nearest(
    p_model smallint, p_query @vector@.halfvec, p_narrowing pgclip.narrowing, p_effort int
) RETURNS real[]
LANGUAGE sql STABLE AS $$
    SELECT b.scores FROM pgclip._best(p_model, p_query, 10, p_narrowing, ARRAY[-1, -1]::real[],
                                      p_effort, NULL, NULL) b
$$;
