-- Changes of decisions, for those who follow them. Whoever changes what decisions rest on says
-- which items or contents it touches; a worker, one at a time, compares what is decided with what
-- was told last, and tells the difference. So positions are in the order of commits, and who reads
-- by position misses none.

-- Changes of decisions after a position, in their order: from 0 on all that are kept, which is
-- thirty days, and of what is decided now the last one.
CREATE FUNCTION pgclip.decision_changes(after bigint DEFAULT 0, "limit" int DEFAULT 1000)
RETURNS TABLE ("position" bigint, item_id bigint, collection text, key text, set text, label text,
               was text, now text, changed_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.position, i.id, c.name, i.key, s.name, l.name,
           CASE h.was WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'review' END,
           CASE h.now WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'review' END,
           h.changed_at
    FROM pgclip.decision_change h
    JOIN pgclip.item i ON i.id = h.item_id
    JOIN pgclip.collection c ON c.id = i.collection_id
    JOIN pgclip.label l ON l.id = h.label_id
    JOIN pgclip.label_set s ON s.id = l.set_id
    WHERE h.position > coalesce(decision_changes.after, 0)
    ORDER BY h.position LIMIT decision_changes."limit"
$$;

-- Items have other vectors, scores or contents. Only what may be decided is noted.
CREATE FUNCTION pgclip._touch_items(p_model smallint, p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pgclip.promise) THEN
        INSERT INTO pgclip.decision_touch (item_id) SELECT unnest(p_items);
    ELSIF EXISTS (SELECT FROM pgclip.judgement) OR EXISTS (SELECT FROM pgclip.decision_change) THEN
        INSERT INTO pgclip.decision_touch (item_id)
        SELECT id FROM unnest(p_items) id
        WHERE EXISTS (SELECT FROM pgclip.decision_change h WHERE h.item_id = id)
           OR EXISTS (SELECT FROM pgclip.embedding_set e
                      JOIN pgclip.judgement j ON j.content_hash = e.content_hash
                      WHERE e.item_id = id AND e.model_id = p_model);
    END IF;
END $$;

CREATE FUNCTION pgclip._touch_contents() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO pgclip.decision_touch (content_hash) SELECT DISTINCT content_hash FROM gone;
    ELSE
        INSERT INTO pgclip.decision_touch (content_hash) SELECT DISTINCT content_hash FROM fresh;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER judgement_made AFTER INSERT ON pgclip.judgement REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._touch_contents();

CREATE TRIGGER judgement_changed AFTER UPDATE ON pgclip.judgement REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._touch_contents();

CREATE TRIGGER judgement_taken_back AFTER DELETE ON pgclip.judgement REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._touch_contents();

-- For a worker: puts promises to the test as far as people have judged, and tells what has changed.
-- At most p_most items at once, one worker at a time; how many rows it dealt with, 0 when all is
-- done.
CREATE FUNCTION pgclip.decide_items(p_most int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count int;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7311994466)
       OR NOT EXISTS (SELECT FROM pgclip.model WHERE state = 'live' AND dimension IS NOT NULL) THEN
        RETURN 0;
    END IF;
    PERFORM pgclip._begin_campaigns();
    PERFORM pgclip._advance(id, true) FROM pgclip._campaigns_to_advance() id;
    v_count := pgclip._tell_touched(p_most);
    IF v_count = 0 THEN
        v_count := pgclip._tell_page(p_most);
    END IF;
    IF v_count = 0 THEN
        DELETE FROM pgclip.decision_change WHERE position IN (
            SELECT position FROM pgclip.decision_change
            WHERE (NOT is_last OR now IS NULL) AND changed_at < now() - interval '30 days'
            ORDER BY changed_at LIMIT p_most);
    END IF;
    RETURN v_count;
END $$;

-- Tells of what was touched. Contents are looked at once more when those have ended who stored
-- meanwhile what was judged: they may not have known of it.
CREATE FUNCTION pgclip._tell_touched(p_most int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_touched  bigint[] := ARRAY(
        SELECT id FROM pgclip.decision_touch
        WHERE NOT is_seen OR pgclip._has_ended(xid, v_snapshot) ORDER BY id LIMIT p_most);
BEGIN
    IF v_touched = '{}' THEN
        RETURN 0;
    END IF;
    PERFORM pgclip._tell_items(ARRAY(
        SELECT t.item_id FROM pgclip.decision_touch t
        WHERE t.id = ANY(v_touched) AND t.item_id IS NOT NULL
        UNION
        SELECT e.item_id FROM pgclip.decision_touch t
        JOIN pgclip.embedding_set e ON e.content_hash = t.content_hash
        WHERE t.id = ANY(v_touched)));
    UPDATE pgclip.decision_touch SET is_seen = true
    WHERE id = ANY(v_touched) AND content_hash IS NOT NULL
      AND NOT pgclip._has_ended(xid, v_snapshot);
    DELETE FROM pgclip.decision_touch
    WHERE id = ANY(v_touched) AND (content_hash IS NULL OR pgclip._has_ended(xid, v_snapshot));
    RETURN cardinality(v_touched);
END $$;

-- Whether all have ended who began before this transaction ended. A restored copy counts its
-- transactions anew.
CREATE FUNCTION pgclip._has_ended(p_xid xid8, p_snapshot pg_snapshot) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_xid < pg_snapshot_xmin(p_snapshot) OR p_xid > pg_snapshot_xmax(p_snapshot)
$$;

-- Tells, page by page, of labels whose promises have come into force, lapsed or changed.
CREATE FUNCTION pgclip._tell_page(p_most int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_walk  record;
    v_items bigint[];
BEGIN
    INSERT INTO pgclip.decision_walk AS old (label_id, known, after_item)
    SELECT w.label_id, w.known, 0 FROM pgclip._walks_wanted() w
    ON CONFLICT (label_id) DO UPDATE SET known = excluded.known, after_item = 0
        WHERE old.known <> excluded.known;
    FOR v_walk IN
        SELECT * FROM pgclip.decision_walk WHERE after_item IS NOT NULL ORDER BY label_id
    LOOP
        v_items := ARRAY(
            SELECT h.item_id FROM pgclip.decision_change h
            WHERE h.label_id = v_walk.label_id AND h.is_last AND h.item_id > v_walk.after_item
            UNION
            SELECT sc.item_id FROM pgclip._promises_in_force() f
            JOIN pgclip.item_score sc ON sc.label_id = f.label_id AND sc.model_id = f.model_id
            WHERE f.label_id = v_walk.label_id AND sc.item_id > v_walk.after_item
              AND CASE f.what WHEN 'precision' THEN sc.score >= f.threshold
                  ELSE sc.score < f.threshold END
            ORDER BY item_id LIMIT p_most);
        PERFORM pgclip._tell_items(v_items);
        UPDATE pgclip.decision_walk SET after_item = v_items[cardinality(v_items)]
        WHERE label_id = v_walk.label_id;
        IF v_items <> '{}' THEN
            RETURN cardinality(v_items);
        END IF;
    END LOOP;
    RETURN 0;
END $$;

-- By label what its decisions rest on: the live model and the promises in force.
CREATE FUNCTION pgclip._walks_wanted() RETURNS TABLE (label_id int, known text)
LANGUAGE sql STABLE AS $$
    SELECT l.id, pgclip._live_model() || coalesce(
               (SELECT string_agg(format(' %s:%s', f.campaign_id, f.threshold), ''
                                  ORDER BY f.campaign_id)
                FROM pgclip._promises_in_force() f WHERE f.label_id = l.id), '')
    FROM (SELECT p.label_id AS id FROM pgclip.promise p
          UNION SELECT w.label_id FROM pgclip.decision_walk w) l
$$;

-- Writes down what is decided otherwise of these items than was told last.
CREATE FUNCTION pgclip._tell_items(p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
BEGIN
    WITH known AS MATERIALIZED (
        SELECT v.item_id, v.label_id, v.decision = 'yes' AS decision FROM pgclip.decisions v
        WHERE v.item_id = ANY(p_items) AND v.decision <> 'review'
    ), told AS MATERIALIZED (
        SELECT h.position, h.item_id, h.label_id, h.now FROM pgclip.decision_change h
        WHERE h.item_id = ANY(p_items) AND h.is_last
    ), fresh AS MATERIALIZED (
        SELECT item_id, label_id, t.position, t.now AS was, k.decision
        FROM known k FULL JOIN told t USING (item_id, label_id)
        WHERE k.decision IS DISTINCT FROM t.now
    ), before AS (
        UPDATE pgclip.decision_change h SET is_last = false FROM fresh f
        WHERE h.position = f.position
    ), labels AS (
        INSERT INTO pgclip.decision_walk (label_id, known)
        SELECT DISTINCT f.label_id, pgclip._live_model()::text FROM fresh f ON CONFLICT DO NOTHING
    )
    INSERT INTO pgclip.decision_change (item_id, label_id, was, now)
    SELECT f.item_id, f.label_id, f.was, f.decision FROM fresh f
    WHERE EXISTS (SELECT FROM pgclip.item i WHERE i.id = f.item_id)
    ORDER BY f.item_id, f.label_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        PERFORM pg_notify('pgclip_decision', '');
    END IF;
END $$;
