-- Near-duplicates in tiers: "identical" (the same bytes), "near" (very probably the same picture or
-- wording) and "similar". Where a model's tiers lie is for its users to say: both scores are
-- arguments.

CREATE TYPE pgclip.duplicate AS (
    item_id    bigint,
    collection text,
    key        text,
    kind       pgclip.kind,
    tier       text,
    score      real
);

CREATE FUNCTION pgclip._tier(p_identical boolean, p_score real, p_near real) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_identical THEN 'identical' WHEN p_score >= p_near THEN 'near'
                ELSE 'similar' END
$$;

-- Where "near" begins, if nothing else is said.
CREATE FUNCTION pgclip._near_from(p_min_score real, p_near real) RETURNS real
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    p_near := coalesce(p_near, greatest(0.97, p_min_score));
    IF (p_min_score > 0 AND p_min_score <= p_near AND p_near <= 1) IS NOT TRUE THEN
        RAISE EXCEPTION '0 < min_score (%) <= near (%) <= 1 must hold', p_min_score, p_near
            USING ERRCODE = 'PC001';
    END IF;
    RETURN p_near;
END $$;

-- Items of the same kind that an item may be a duplicate of, nearest first. within: the collection
-- to look in; NULL: all of them.
CREATE FUNCTION pgclip.duplicates_of(
    key text, collection text DEFAULT 'default', within text DEFAULT NULL,
    min_score real DEFAULT 0.9, near real DEFAULT NULL, k int DEFAULT 100
) RETURNS SETOF pgclip.duplicate
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_item record := pgclip._item_at($1, $2);
    v_hash bytea := (SELECT e.content_hash FROM pgclip.embedding_set e
                     WHERE e.item_id = v_item.id AND e.model_id = pgclip._live_model());
BEGIN
    near := pgclip._near_from(min_score, near);
    RETURN QUERY
    WITH identical AS (  -- a text of several windows may be far from the mean of another's
        SELECT e.item_id, 1::real AS score, 'identical' AS tier
        FROM pgclip.embedding_set e
        WHERE e.content_hash = v_hash AND e.model_id = pgclip._live_model()
          AND e.kind = v_item.kind AND e.item_id <> v_item.id
    ), near_by AS (
        SELECT h.item_id, h.score, pgclip._tier(false, h.score, near) AS tier
        FROM pgclip._find(
            pgclip._live_model(), pgclip._mean_vector(v_item.id), v_item.kind, k, within,
            v_item.kind,
                          NULL, min_score, NULL, false, NULL, NULL, v_item.id, NULL) h
        WHERE h.item_id NOT IN (SELECT d.item_id FROM identical d)
    )
    SELECT i.id, c.name, i.key, i.kind, d.tier, d.score
    FROM (SELECT * FROM identical UNION ALL SELECT * FROM near_by) d
    JOIN pgclip.item i ON i.id = d.item_id
    JOIN pgclip.collection c ON c.id = i.collection_id AND c.name = coalesce(within, c.name)
    ORDER BY d.tier = 'identical' DESC, d.score DESC, i.id LIMIT k;
END $$;

-- Pairs of duplicates of a kind within a collection, as _duplicate_pairs says. By an index made for
-- it: within a collection that has none of its own, each search would compare all of its vectors.
CREATE FUNCTION pgclip._pairs_within(
    p_collection text, p_kind pgclip.kind, p_min_score real, p_neighbours int,
    OUT a bigint[], OUT b bigint[], OUT score real[]
) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET maintenance_work_mem = '256MB' AS $$
DECLARE
    v_model  pgclip.model;
    v_within int := (SELECT id FROM pgclip.collection WHERE name = p_collection);
    v_table  text := 'pg_temp.duplicates_' || replace(gen_random_uuid()::text, '-', '');
    v_before text[] := pgclip._set_scan(ARRAY['relaxed_order', '100', '20000', '4']);
BEGIN
    SELECT * INTO v_model FROM pgclip.model WHERE id = pgclip._live_model();
    EXECUTE format('CREATE TEMPORARY TABLE %s ON COMMIT DROP AS
                    SELECT item_id, embedding::@vector@.halfvec(%s) FROM %s e
                    WHERE collection_id = %s AND kind = %L ORDER BY hashint8(id)',
                   v_table, v_model.dimension, pgclip._vectors(v_model.id, p_kind), v_within,
                   p_kind);
    EXECUTE format('CREATE INDEX ON %s USING hnsw (embedding @vector@.halfvec_ip_ops)', v_table);
    EXECUTE format('ANALYZE %s (item_id)', v_table);
    EXECUTE format($q$
        WITH mean AS MATERIALIZED (
            SELECT item_id, @vector@.l2_normalize(@vector@.avg(embedding)) AS embedding
            FROM %1$s GROUP BY item_id
        ), item AS MATERIALIZED (
            SELECT s.item_id, min(s.item_id) OVER w AS first, count(*) OVER w AS copies
            FROM pgclip.embedding_set s
            WHERE s.model_id = $1 AND s.item_id IN (SELECT item_id FROM mean)
            WINDOW w AS (PARTITION BY s.content_hash)
        ), pair AS (
            SELECT first AS a, item_id AS b, 1::real AS score FROM item WHERE item_id <> first
            UNION ALL
            SELECT least(t.item_id, n.item_id), greatest(t.item_id, n.item_id), max(n.score)
            FROM item t JOIN mean m USING (item_id)
            CROSS JOIN LATERAL (
                SELECT v.item_id, pgclip._score(v.distance, ROW(1, 0)) AS score
                FROM (SELECT x.item_id, x.embedding OPERATOR(@vector@.<#>) m.embedding AS distance
                      FROM %1$s x ORDER BY x.embedding OPERATOR(@vector@.<#>) m.embedding
                      LIMIT 2 * ($2 + t.copies) + 20) v) n
            WHERE t.item_id = t.first AND n.item_id <> t.item_id AND n.score >= $3
            GROUP BY 1, 2
        )
        SELECT array_agg(a), array_agg(b), array_agg(score) FROM pair
    $q$, v_table) INTO a, b, score USING v_model.id, p_neighbours, p_min_score;
    EXECUTE format('DROP TABLE %s', v_table);
    PERFORM pgclip._set_scan(v_before);
EXCEPTION WHEN undefined_table THEN
    PERFORM pgclip._raise_exchanged();
END $$;

-- Pairs of items that are duplicates: each item with its nearest ones, by one search through the
-- index for each content, with the mean of its vectors. Of items with the same bytes the first one
-- searches for all, beyond all of them.
CREATE FUNCTION pgclip._duplicate_pairs(
    p_collection text, p_kind pgclip.kind, p_min_score real, p_neighbours int,
    OUT a bigint[], OUT b bigint[], OUT score real[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_model smallint := pgclip._live_model();
    v_where pgclip.narrowing := pgclip._narrowing(v_model, p_collection, p_kind, NULL, NULL);
    v_pairs record;
BEGIN
    IF p_collection IS NOT NULL AND current_setting('transaction_read_only') = 'off' THEN
        FOR v_pairs IN
            SELECT p.* FROM unnest(enum_range(NULL::pgclip.kind)) k(kind)
            CROSS JOIN LATERAL pgclip._pairs_within(p_collection, k.kind, p_min_score,
                                                    p_neighbours) p
            WHERE k.kind = coalesce(p_kind, k.kind)
        LOOP
            a := a || v_pairs.a;
            b := b || v_pairs.b;
            score := score || v_pairs.score;
        END LOOP;
        RETURN;
    END IF;
    EXECUTE format($q$
        WITH narrowing AS MATERIALIZED (
            SELECT k.kind, pgclip._narrowing($1, $2, k.kind, NULL, NULL) AS of_kind
            FROM unnest(enum_range(NULL::pgclip.kind)) k(kind)
        ), item AS MATERIALIZED (
            SELECT s.item_id, s.kind, min(s.item_id) OVER w AS first, count(*) OVER w AS copies
            FROM pgclip.embedding_set s JOIN pgclip.item i ON i.id = s.item_id
            WHERE s.model_id = $1 AND %s
            WINDOW w AS (PARTITION BY s.kind, s.content_hash)
        ), pair AS (
            SELECT first AS a, item_id AS b, 1::real AS score FROM item WHERE item_id <> first
            UNION ALL
            SELECT least(t.item_id, n.item_id), greatest(t.item_id, n.item_id), max(n.score)
            FROM item t JOIN narrowing w ON w.kind = t.kind
            CROSS JOIN LATERAL pgclip._best(
                $1, pgclip._mean_vector(t.item_id), ($3 + t.copies)::int, w.of_kind,
                ARRAY[$4, $4], pgclip._effort($1, t.kind, t.kind, NULL), NULL, NULL) r
            CROSS JOIN LATERAL unnest(r.items, r.scores) n(item_id, score)
            WHERE t.item_id = t.first AND n.item_id <> t.item_id
            GROUP BY 1, 2
        )
        SELECT array_agg(a), array_agg(b), array_agg(score) FROM pair
    $q$, v_where.of_items) INTO a, b, score
    USING v_model, p_collection, p_neighbours, p_min_score;
END $$;

-- Groups of duplicates in a collection (NULL: in all), the largest first. Two items are in one
-- group if a chain of pairs joins them, each pair of one kind and with a score of min_score or
-- more. An item's score is that of its best pair in the group, and its tier follows from it. Of
-- each item the nearest "neighbours" are looked at.
CREATE FUNCTION pgclip.duplicate_groups(
    collection text DEFAULT NULL, kind pgclip.kind DEFAULT NULL, min_score real DEFAULT 0.95,
    near real DEFAULT NULL, neighbours int DEFAULT 20,
    OUT "group" int, OUT item_id bigint, OUT item_collection text, OUT key text,
    OUT item_kind pgclip.kind, OUT tier text, OUT score real
) RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_pairs record;
    v_items bigint[];
    v_roots bigint[];
    v_next  bigint[];
BEGIN
    near := pgclip._near_from(min_score, near);
    IF neighbours IS NULL OR neighbours NOT BETWEEN 1 AND 500 THEN
        RAISE EXCEPTION 'neighbours must be from 1 to 500, not %', neighbours
            USING ERRCODE = 'PC001';
    END IF;
    v_pairs := pgclip._duplicate_pairs(collection, kind, min_score, neighbours);
    v_items := ARRAY(SELECT DISTINCT u FROM unnest(v_pairs.a || v_pairs.b) u ORDER BY u);
    v_roots := v_items;
    -- Every item takes the lowest root of those it is paired with, and then that one's own, until
    -- none changes: a chain is halved by every round.
    LOOP
        v_next := ARRAY(
            WITH root AS MATERIALIZED (
                SELECT i, r FROM unnest(v_items, v_roots) t(i, r)
            ), lower AS MATERIALIZED (
                SELECT o.i, least(o.r, min(p.r)) AS r FROM root o
                LEFT JOIN (SELECT x.b AS i, r.r FROM unnest(v_pairs.a, v_pairs.b) x(a, b)
                           JOIN root r ON r.i = x.a
                           UNION ALL
                           SELECT x.a, r.r FROM unnest(v_pairs.a, v_pairs.b) x(a, b)
                           JOIN root r ON r.i = x.b) p ON p.i = o.i
                GROUP BY o.i, o.r
            )
            SELECT n.r FROM lower o JOIN lower n ON n.i = o.r ORDER BY o.i);
        EXIT WHEN v_next = v_roots;
        v_roots := v_next;
    END LOOP;
    RETURN QUERY
    WITH member AS (
        SELECT m.i, m.r, count(*) OVER (PARTITION BY m.r) AS size
        FROM unnest(v_items, v_roots) m(i, r)
    ), best AS (
        SELECT t.i, max(t.score) AS score
        FROM (SELECT x.a AS i, x.score
              FROM unnest(v_pairs.a, v_pairs.b, v_pairs.score) x(a, b, score)
              UNION ALL
              SELECT x.b, x.score
              FROM unnest(v_pairs.a, v_pairs.b, v_pairs.score) x(a, b, score)) t
        GROUP BY t.i
    )
    SELECT dense_rank() OVER (ORDER BY m.size DESC, m.r)::int, i.id, c.name, i.key, i.kind,
           pgclip._tier(count(*) OVER (PARTITION BY m.r, e.content_hash) > 1, s.score, near),
           s.score
    FROM member m
    JOIN best s ON s.i = m.i
    JOIN pgclip.item i ON i.id = m.i
    JOIN pgclip.collection c ON c.id = i.collection_id
    JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = pgclip._live_model()
    ORDER BY 1, s.score DESC, i.id;
END $$;
