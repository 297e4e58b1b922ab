-- What lacks a current vector or label, why, and how it is healed.

-- One row for each item, model that takes work, and thing that is missing: its vectors ("label_set"
-- is NULL) or its labels of a set. "reason" is queued or leased (it will come), never_queued or
-- outdated (pgclip.heal brings it), or the reason for which the item failed (pgclip.retry).
CREATE VIEW pgclip.missing AS
SELECT i.id AS item_id, c.name AS collection, i.key, i.kind, m.name AS model,
       NULL::text AS label_set,
       CASE WHEN j.lease IS NOT NULL THEN 'leased'
            WHEN j.id IS NOT NULL THEN 'queued'
            WHEN f.item_id IS NOT NULL THEN f.reason
            WHEN w.model_id IS NOT NULL OR m.dimension IS NULL THEN 'queued'
            ELSE 'never_queued' END AS reason,
       CASE WHEN j.id IS NULL THEN f.message END AS error
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
CROSS JOIN pgclip.model m
LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = m.id
LEFT JOIN pgclip.job j ON j.item_id = i.id AND j.model_id = m.id
LEFT JOIN pgclip.failure f ON f.item_id = i.id AND f.model_id = m.id
                          AND f.generation = i.generation
LEFT JOIN pgclip.model_walk w ON w.model_id = m.id
WHERE m.state <> 'retired' AND NOT m.is_unattended AND e.generation IS DISTINCT FROM i.generation
UNION ALL
SELECT i.id, c.name, i.key, i.kind, m.name, s.name,
       CASE WHEN r.model_id IS NULL THEN 'outdated' ELSE 'queued' END, NULL
FROM pgclip.embedding_set e
JOIN pgclip.model m ON m.id = e.model_id AND m.state <> 'retired'
JOIN pgclip.item i ON i.id = e.item_id AND i.generation = e.generation
JOIN pgclip.collection c ON c.id = i.collection_id
JOIN pgclip.label_set s ON s.active AND s.applies_to IN ('both', i.kind::text)
                       AND s.epoch > e.label_epoch
                       AND (s.collections IS NULL OR c.name = ANY(s.collections))
LEFT JOIN pgclip.relabeling r ON r.model_id = m.id;

-- How many vectors, and label sets of items, lack and are not queued, without looking at each item.
-- What waits or has failed may have vectors of its content before: while that is more than can be
-- looked at, it may hide as many that lack.
CREATE FUNCTION pgclip.healable(OUT vectors bigint, OUT labels bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT coalesce(sum(greatest(0, t.items - t.embedded - t.others + CASE
                       WHEN t.others <= 10000 THEN (
                           SELECT count(*) FROM pgclip.embedding_set e
                           WHERE e.model_id = m.id AND e.item_id IN (
                               SELECT item_id FROM pgclip.job WHERE model_id = m.id
                               UNION ALL
                               SELECT item_id FROM pgclip.failure WHERE model_id = m.id))
                       ELSE 0 END)), 0)::bigint
            FROM pgclip.model m LEFT JOIN pgclip.model_walk w ON w.model_id = m.id
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(rows) FILTER (WHERE what = 'item'), 0) AS items,
                       coalesce(sum(rows) FILTER (WHERE what = 'embedding_set'), 0) AS embedded,
                       coalesce(sum(rows) FILTER (WHERE what IN ('job', 'failure')), 0) AS others
                FROM pgclip._tallies WHERE collection_id = 0 AND model_id IN (0, m.id)) t
            WHERE m.state <> 'retired' AND m.dimension IS NOT NULL AND NOT m.is_unattended
              AND w.model_id IS NULL),
           (SELECT coalesce(sum(t.rows), 0)::bigint
            FROM pgclip._tallies t
            JOIN pgclip.model m ON m.id = t.model_id AND m.state <> 'retired'
            JOIN pgclip.collection c ON c.id = t.collection_id
            JOIN pgclip.label_set s ON s.active
                 AND s.applies_to IN ('both', split_part(t.detail, ' ', 1))
                 AND s.epoch > split_part(t.detail, ' ', 2)::bigint
                 AND (s.collections IS NULL OR c.name = ANY(s.collections))
            WHERE t.what = 'embedding_set' AND NOT EXISTS (
                SELECT FROM pgclip.relabeling r WHERE r.model_id = m.id))
$$;

-- Jobs for items that have neither a current vector, nor a failure, nor a job, but for a model that
-- is being filled anyway; "limit" bounds the items that are looked at, from the one after "after",
-- in their order. Gives how many jobs, and the item to go on after, or NULL. With the last page
-- workers begin to label anew, from the vectors that are there, the items whose labels are older
-- than the label sets; "relabeled" says how many lack labels; and to go through the rows of indexed
-- tables, and the pictures that have no thumbnail. Items that a transaction has locked are passed
-- over: it sees to them.
CREATE FUNCTION pgclip.heal(
    after bigint DEFAULT 0, "limit" int DEFAULT NULL,
    OUT jobs bigint, OUT relabeled bigint, OUT last_id bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_page bigint[] := ARRAY(SELECT id FROM pgclip.item WHERE id > after ORDER BY id LIMIT "limit");
BEGIN
    PERFORM pgclip._know_models();
    last_id := pgclip._last_of(v_page, "limit");
    jobs := pgclip._enqueue_lacking(ARRAY(
        SELECT m.id FROM pgclip.model m LEFT JOIN pgclip.model_walk w ON w.model_id = m.id
        WHERE m.dimension IS NOT NULL AND NOT m.is_unattended
          AND (m.state = 'live' OR m.state = 'filling' AND w.model_id IS NULL)), v_page, '30 s');
    relabeled := 0;
    IF last_id IS NULL THEN
        SELECT count(*) INTO relabeled FROM (
            SELECT DISTINCT item_id, model FROM pgclip.missing WHERE label_set IS NOT NULL) lacking;
    END IF;
    IF last_id IS NULL THEN  -- tables are compared with their items by workers
        PERFORM pgclip._begin_table_walk(id) FROM pgclip.indexed_table;
        UPDATE pgclip.tallied SET since = NULL;  -- the steward counts anew
        PERFORM pgclip._begin_thumbnail_walk();
    END IF;
    IF relabeled > 0 THEN
        PERFORM pgclip._begin_relabeling(pgclip._last_label_epoch());
    END IF;
END $$;
