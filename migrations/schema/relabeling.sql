-- Labelling anew, from the vectors that are stored, items whose labels are older than label sets.
-- Workers do it by themselves when a set has changed, one of them at a time for each model.

-- How far models are: "share" of the items that were there, roughly, from their numbers.
CREATE VIEW pgclip.relabelings AS
SELECT m.name AS model, r.labelled,
       least(r.after_item::float8 / greatest((SELECT max(id) FROM pgclip.item), 1), 1)::real
           AS share,
       r.requested_at
FROM pgclip.relabeling r JOIN pgclip.model m ON m.id = r.model_id;

-- The epoch that labels should be of, as far as sets label anew by themselves.
CREATE FUNCTION pgclip._wanted_label_epoch() RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(epoch), 0) FROM pgclip.label_set WHERE active AND relabels
$$;

-- Has items labelled anew whose labels are of an epoch before this one.
CREATE FUNCTION pgclip._begin_relabeling(p_epoch bigint DEFAULT pgclip._wanted_label_epoch())
RETURNS void
LANGUAGE sql AS $$
    INSERT INTO pgclip.relabeling (model_id, epoch)
    SELECT m.id, p_epoch FROM pgclip.model m
    WHERE m.state <> 'retired' AND m.dimension IS NOT NULL
      AND EXISTS (SELECT FROM pgclip.embedding_set e
                  WHERE e.model_id = m.id AND e.label_epoch < p_epoch)
    ON CONFLICT (model_id) DO UPDATE SET epoch = excluded.epoch, after_item = 0, labelled = 0,
        requested_at = now() WHERE relabeling.epoch < excluded.epoch
$$;

-- Has all items labelled as the set says now, and from now on whenever it changes; or, with stop,
-- neither: for a set that is being tried out. Raises PC002.
CREATE FUNCTION pgclip.relabel(label_set text, stop boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_set s SET relabels = NOT stop WHERE s.name = relabel.label_set;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no label set %', label_set USING ERRCODE = 'PC002';
    END IF;
    PERFORM pgclip._begin_relabeling();
    IF stop THEN
        UPDATE pgclip.relabeling SET epoch = least(epoch, pgclip._wanted_label_epoch());
    END IF;
END $$;

-- Items with the mean of their vectors, of norm 1.
CREATE FUNCTION pgclip._means_of(p_model smallint, p_items bigint[])
RETURNS TABLE (item_id bigint, embedding @vector@.halfvec)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH wanted AS MATERIALIZED (
            SELECT s.item_id, s.vector_ids FROM pgclip.embedding_set s
            WHERE s.item_id = ANY($1) AND s.model_id = %1$s
        ), vector AS (
            SELECT w.item_id, e.embedding, cardinality(w.vector_ids) AS count
            FROM wanted w CROSS JOIN LATERAL unnest(w.vector_ids) v(id)
            -- OFFSET 0: one look by id for each vector, rather than a join with all there are
            CROSS JOIN LATERAL (SELECT x.embedding FROM %2$s x WHERE x.id = v.id OFFSET 0) e
        )
        SELECT item_id, embedding FROM vector WHERE count = 1
        UNION ALL
        SELECT item_id, @vector@.l2_normalize(@vector@.avg(embedding))
        FROM vector WHERE count > 1 GROUP BY item_id
    $q$, p_model, pgclip._vectors(p_model)) USING p_items;
END $$;

-- For a worker: the next items whose labels are older than the sets, in order, with the epoch of
-- their labels; at most p_most. None if there are none, or another worker is at it. They stay
-- locked until the worker's transaction ends, which store_labels belongs to.
CREATE FUNCTION pgclip.labels_due(p_model smallint, p_most int)
RETURNS TABLE (item_id bigint, kind pgclip.kind, label_epoch bigint, embedding @vector@.halfvec)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_walk  pgclip.relabeling;
    v_items bigint[];
BEGIN
    SELECT * INTO v_walk FROM pgclip.relabeling WHERE model_id = p_model FOR UPDATE SKIP LOCKED;
    IF v_walk.model_id IS NULL OR NOT pgclip._gives_scores() THEN
        RETURN;
    END IF;
    LOOP
        v_items := ARRAY(
            SELECT item_id FROM pgclip.embedding_set
            WHERE model_id = p_model AND item_id > v_walk.after_item
              AND label_epoch < v_walk.epoch AND label_epoch < (SELECT pgclip._last_label_epoch())
            ORDER BY item_id LIMIT p_most FOR NO KEY UPDATE);
        EXIT WHEN v_items <> '{}' OR v_walk.after_item = 0;
        v_walk.after_item := 0;  -- once more: a store under way may have been of an older epoch
    END LOOP;
    IF v_items = '{}' THEN
        DELETE FROM pgclip.relabeling WHERE model_id = p_model;
        RETURN;
    END IF;
    UPDATE pgclip.relabeling SET after_item = v_items[cardinality(v_items)],
        labelled = labelled + cardinality(v_items) WHERE model_id = p_model;
    RETURN QUERY
        SELECT s.item_id, s.kind, s.label_epoch, m.embedding
        FROM pgclip.embedding_set s JOIN pgclip._means_of(p_model, v_items) m USING (item_id)
        WHERE s.item_id = ANY(v_items) AND s.model_id = p_model;
END $$;

-- The epoch of the set that changed last, of those in force.
CREATE FUNCTION pgclip._last_label_epoch() RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(epoch), 0) FROM pgclip.label_set WHERE active
$$;

-- The staged labels in place of those that these items have of these sets; job_id of the staged
-- ones is the item's id here. Labels of other sets stay, and what is the same is not written, but
-- for the rounding of stored vectors.
-- Raises PC007 if label sets have changed since p_label_epoch, lock_not_available while one of them
-- is being dropped: who drops it may wait for a store that waits for these items.
CREATE FUNCTION pgclip.store_labels(
    p_model smallint, p_label_epoch bigint, p_items bigint[], p_sets int[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_labels int[];
    v_ours   int[] := ARRAY(SELECT id FROM pgclip.label WHERE set_id = ANY(p_sets));
BEGIN
    PERFORM pgclip._is_staged('staged_label');
    IF (SELECT epoch FROM pgclip.label_epoch) <> p_label_epoch THEN
        RAISE EXCEPTION 'label sets have changed' USING ERRCODE = 'PC007';
    END IF;
    IF EXISTS (SELECT FROM pgclip.label_set WHERE active AND collections IS NOT NULL) THEN
        PERFORM pgclip._keep_to_collections(p_items, p_items);
    END IF;
    v_labels := ARRAY(
        SELECT id FROM pgclip.label WHERE id IN (SELECT label_id FROM pg_temp.staged_label)
                                       OR set_id = ANY(p_sets)
        ORDER BY id FOR KEY SHARE NOWAIT);
    DELETE FROM pgclip.item_label il
    WHERE il.item_id = ANY(p_items) AND il.model_id = p_model AND il.label_id = ANY(v_ours)
      AND NOT EXISTS (SELECT FROM pg_temp.staged_label s
                      WHERE s.job_id = il.item_id AND s.label_id = il.label_id);
    INSERT INTO pgclip.item_label AS old (item_id, model_id, label_id, version, score)
    SELECT l.job_id, p_model, l.label_id, l.version, l.score FROM pg_temp.staged_label l
    WHERE l.label_id = ANY(v_labels)
    ON CONFLICT (item_id, model_id, label_id) DO UPDATE SET version = excluded.version,
        score = excluded.score WHERE abs(old.score - excluded.score) > 1e-3;
    PERFORM pgclip._store_scores(p_model, p_items, p_items, p_sets);
    UPDATE pgclip.embedding_set SET label_epoch = p_label_epoch
    WHERE item_id = ANY(p_items) AND model_id = p_model;
    PERFORM pgclip._touch_items(p_model, p_items);
END $$;

-- Takes staged labels back of sets that don't label the items' collections. p_owners are what they
-- are staged under, p_items the items that these stand for.
CREATE FUNCTION pgclip._keep_to_collections(p_owners bigint[], p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH place AS MATERIALIZED (
        SELECT o.owner, c.name FROM unnest(p_owners, p_items) o(owner, item_id)
        JOIN pgclip.item i ON i.id = o.item_id
        JOIN pgclip.collection c ON c.id = i.collection_id
        WHERE i.id = ANY(p_items)
    ), bound AS MATERIALIZED (
        SELECT l.id, s.collections
        FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
        WHERE s.active AND s.collections IS NOT NULL
    )
    DELETE FROM pg_temp.staged_label l USING place p, bound b
    WHERE p.owner = l.job_id AND b.id = l.label_id AND p.name <> ALL(b.collections);
END $$;
