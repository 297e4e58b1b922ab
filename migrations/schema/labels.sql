-- Label sets, labels of items, and labelling anew from the vectors that are stored.

-- One row for each label of an item by the live model.
CREATE VIEW pgclip.labels AS
SELECT il.item_id, c.name AS collection, i.key, s.name AS set, l.name AS label, il.score,
       il.version = s.version AS current
FROM pgclip.item_label il
JOIN pgclip.model m ON m.id = il.model_id AND m.state = 'live'
JOIN pgclip.label l ON l.id = il.label_id
JOIN pgclip.label_set s ON s.id = l.set_id
JOIN pgclip.item i ON i.id = il.item_id
JOIN pgclip.collection c ON c.id = i.collection_id;

-- An item's labels by the live model, best first: [{"set", "label", "score"}].
CREATE FUNCTION pgclip.labels_of(p_item bigint) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('set', s.name, 'label', l.name,
                                                 'score', il.score)
                              ORDER BY s.name, il.score DESC), '[]')
    FROM pgclip.item_label il
    JOIN pgclip.model m ON m.id = il.model_id AND m.state = 'live'
    JOIN pgclip.label l ON l.id = il.label_id
    JOIN pgclip.label_set s ON s.id = l.set_id
    WHERE il.item_id = p_item
$$;

-- A set's epoch and the present one are the same number, taken under one lock: of two sets that
-- are defined at the same moment each has its own.
CREATE FUNCTION pgclip._stamp_label_set() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_epoch SET epoch = epoch + 1 RETURNING epoch INTO NEW.epoch;
    RETURN NEW;
END $$;

CREATE TRIGGER label_set_stamped BEFORE INSERT OR UPDATE ON pgclip.label_set
    FOR EACH ROW EXECUTE FUNCTION pgclip._stamp_label_set();

CREATE FUNCTION pgclip._raise_label_epoch() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_epoch SET epoch = epoch + 1;
    RETURN NULL;
END $$;

-- Before, so that whoever drops a set and whoever defines it take the epoch and the set in one
-- order.
CREATE TRIGGER label_set_dropped BEFORE DELETE ON pgclip.label_set
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._raise_label_epoch();

CREATE FUNCTION pgclip._forget_labels() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.item_label il USING gone WHERE il.label_id = gone.id;
    RETURN NULL;
END $$;

CREATE TRIGGER label_deleted AFTER DELETE ON pgclip.label REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._forget_labels();

CREATE FUNCTION pgclip._forget_item_labels() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.item_label il USING gone
    WHERE il.item_id = gone.item_id AND il.model_id = gone.model_id;
    RETURN NULL;
END $$;

CREATE TRIGGER embedding_set_deleted AFTER DELETE ON pgclip.embedding_set
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._forget_item_labels();

-- Creates a label set or replaces its definition. A template contains {} where the label goes.
-- Items encoded from now on are labelled with it; the labels of earlier ones keep the version
-- of the set that they were made with. Returns the set's id.
CREATE FUNCTION pgclip.define_label_set(
    name text, labels text[], templates text[] DEFAULT ARRAY['a photo of a {}'],
    top_k int DEFAULT 3, threshold real DEFAULT 0.1, applies_to text DEFAULT 'both',
    active boolean DEFAULT true
) RETURNS int
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_set int;
BEGIN
    IF coalesce(cardinality(labels), 0) < 2 OR array_position(labels, NULL) IS NOT NULL
       OR '' = ANY(labels)
       OR cardinality(labels) <> (SELECT count(DISTINCT l) FROM unnest(labels) l) THEN
        RAISE EXCEPTION 'label set % needs at least two labels, all different and not empty', name
            USING ERRCODE = 'PC001';
    END IF;
    IF coalesce(cardinality(templates), 0) = 0
       OR EXISTS (SELECT FROM unnest(templates) t WHERE t IS NULL OR position('{}' IN t) = 0) THEN
        RAISE EXCEPTION 'label set % needs templates that contain {}', name
            USING ERRCODE = 'PC001';
    END IF;
    INSERT INTO pgclip.label_set AS old
           (name, templates, top_k, threshold, applies_to, active)
    VALUES (define_label_set.name, define_label_set.templates, define_label_set.top_k,
            define_label_set.threshold, define_label_set.applies_to, define_label_set.active)
    ON CONFLICT (name) DO UPDATE SET templates = excluded.templates, top_k = excluded.top_k,
        threshold = excluded.threshold, applies_to = excluded.applies_to,
        active = excluded.active, version = old.version + 1
    RETURNING id INTO v_set;
    DELETE FROM pgclip.label l WHERE l.set_id = v_set AND l.name <> ALL(labels);
    INSERT INTO pgclip.label (set_id, name, position)
    SELECT v_set, l.name, l.position FROM unnest(labels) WITH ORDINALITY AS l(name, position)
    ON CONFLICT (set_id, name) DO UPDATE SET position = excluded.position;
    RETURN v_set;
END $$;

-- Deletes a label set with all its labels on items. Returns whether it existed.
CREATE FUNCTION pgclip.drop_label_set(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.label_set s WHERE s.name = drop_label_set.name;
    RETURN FOUND;
END $$;

-- Keeps a label's vector, unless there is one of a later version of its set.
CREATE FUNCTION pgclip.keep_label_vector(
    p_label int, p_model smallint, p_version int, p_embedding real[]
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgclip.label_vector (label_id, model_id, version, embedding)
    SELECT id, p_model, p_version, p_embedding FROM pgclip.label WHERE id = p_label FOR KEY SHARE
    ON CONFLICT (label_id, model_id) DO UPDATE SET version = excluded.version,
        embedding = excluded.embedding WHERE label_vector.version < excluded.version
$$;

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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
