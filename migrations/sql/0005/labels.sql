-- Which items' labels are older than the label sets, and labelling them anew from their vectors.

-- The epoch in which a set was last defined. An item whose labels are of an earlier one lacks them.
ALTER TABLE pgclip.label_set ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
UPDATE pgclip.label_set SET epoch = (SELECT epoch FROM pgclip.label_epoch);
-- Of what was stored before, it is not known.
ALTER TABLE pgclip.embedding_set ADD COLUMN label_epoch bigint NOT NULL DEFAULT 0;

-- A set's epoch and the present one are the same number, taken under one lock: of two sets that
-- are defined at the same moment each has its own.
CREATE FUNCTION pgclip._stamp_label_set() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_epoch SET epoch = epoch + 1 RETURNING epoch INTO NEW.epoch;
    RETURN NEW;
END $$;
DROP TRIGGER label_set_changed ON pgclip.label_set;
CREATE TRIGGER label_set_stamped BEFORE INSERT OR UPDATE ON pgclip.label_set
    FOR EACH ROW EXECUTE FUNCTION pgclip._stamp_label_set();
-- Before, so that whoever drops a set and whoever defines it take the epoch and the set in one order.
CREATE TRIGGER label_set_dropped BEFORE DELETE ON pgclip.label_set
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._raise_label_epoch();

-- Models whose items workers label anew, and how far they are.
CREATE TABLE pgclip.relabeling (
    model_id     smallint PRIMARY KEY REFERENCES pgclip.model,
    after_item   bigint NOT NULL DEFAULT 0,
    requested_at timestamptz NOT NULL DEFAULT now()
);

-- The epoch that labels have to be of.
CREATE FUNCTION pgclip._wanted_label_epoch() RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(epoch), 0) FROM pgclip.label_set WHERE active
$$;

-- For a worker: vectors of the next items whose labels are older than the sets, in order; at most
-- p_most items. None if nobody asked for it, if another worker is at it, or at the end. They stay
-- locked until the worker's transaction ends, which store_labels belongs to.
CREATE FUNCTION pgclip.next_relabeling(p_model smallint, p_most int)
RETURNS TABLE (item_id bigint, kind pgclip.kind, embedding real[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_after bigint;
    v_items bigint[];
BEGIN
    SELECT after_item INTO v_after FROM pgclip.relabeling WHERE model_id = p_model
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_items := ARRAY(
        SELECT item_id FROM pgclip.embedding_set
        WHERE model_id = p_model AND item_id > v_after
          AND label_epoch < (SELECT pgclip._wanted_label_epoch())
        ORDER BY item_id LIMIT p_most FOR NO KEY UPDATE);
    IF v_items = '{}' AND v_after > 0 THEN
        -- Once more from the beginning: a set may have changed on the way.
        UPDATE pgclip.relabeling SET after_item = 0 WHERE model_id = p_model;
        RETURN QUERY SELECT * FROM pgclip.next_relabeling(p_model, p_most);
        RETURN;
    ELSIF v_items = '{}' THEN
        DELETE FROM pgclip.relabeling WHERE model_id = p_model;
        RETURN;
    END IF;
    UPDATE pgclip.relabeling SET after_item = v_items[cardinality(v_items)]
    WHERE model_id = p_model;
    RETURN QUERY EXECUTE format($q$
        SELECT s.item_id, s.kind, e.embedding::real[]
        FROM pgclip.embedding_set s
        CROSS JOIN LATERAL unnest(s.vector_ids) WITH ORDINALITY v(id, nth)
        CROSS JOIN LATERAL (SELECT x.embedding FROM %2$s x WHERE x.id = v.id OFFSET 0) e
        WHERE s.item_id = ANY($1) AND s.model_id = %1$s ORDER BY s.item_id, v.nth
    $q$, p_model, pgclip._vectors(p_model)) USING v_items;
END $$;

-- The staged labels in place of those that these items have; job_id of the staged ones is the
-- item's id here. Labels of sets that are not active stay. Raises PC007 if label sets have changed
-- since p_label_epoch.
CREATE FUNCTION pgclip.store_labels(p_model smallint, p_label_epoch bigint, p_items bigint[])
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_labels int[];
BEGIN
    PERFORM pgclip._is_staged('staged_label');
    IF (SELECT epoch FROM pgclip.label_epoch) <> p_label_epoch THEN
        RAISE EXCEPTION 'label sets have changed' USING ERRCODE = 'PC007';
    END IF;
    v_labels := ARRAY(
        SELECT id FROM pgclip.label WHERE id IN (SELECT label_id FROM pg_temp.staged_label)
        ORDER BY id FOR KEY SHARE);
    DELETE FROM pgclip.item_label WHERE item_id = ANY(p_items) AND model_id = p_model
    AND label_id IN (SELECT l.id FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
                     WHERE s.active);
    INSERT INTO pgclip.item_label (item_id, model_id, label_id, version, score)
    SELECT l.job_id, p_model, l.label_id, l.version, l.score FROM pg_temp.staged_label l
    WHERE l.job_id = ANY(p_items) AND l.label_id = ANY(v_labels);
    UPDATE pgclip.embedding_set SET label_epoch = p_label_epoch
    WHERE item_id = ANY(p_items) AND model_id = p_model;
END $$;
