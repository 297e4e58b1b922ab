-- Decisions: yes or no, for each item and label of which something is promised or whose set
-- decides; by people, whose word on a content wins, or by a promise in force. All else is to be
-- reviewed.

-- What is decided now. rests_on: "judgement", "precision" or "recall"; what the promise says, by
-- which version of the head and threshold. NULL: nothing decides.
CREATE VIEW pgclip.decisions AS
SELECT i.id AS item_id, c.name AS collection, i.key, i.kind, s.name AS set, l.name AS label,
       CASE d.decision WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'review' END AS decision,
       coalesce(sc.score, il.score) AS score,
       CASE WHEN d.campaign_id IS NULL AND d.decision IS NOT NULL THEN 'judgement'
            ELSE p.what END AS rests_on,
       p.share, p.confidence, k.threshold, k.head_version, d.decided_at
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
JOIN pgclip.label_set s ON s.applies_to IN ('both', i.kind::text)
                       AND (s.collections IS NULL OR c.name = ANY(s.collections))
JOIN pgclip.label l ON l.set_id = s.id AND l.archived_at IS NULL AND NOT l.is_background
LEFT JOIN pgclip.item_decision d
     ON d.item_id = i.id AND d.label_id = l.id
    AND (d.campaign_id IS NULL
         OR d.campaign_id = ANY(ARRAY(SELECT f.campaign_id FROM pgclip._promises_in_force() f)))
LEFT JOIN pgclip.campaign k ON k.id = d.campaign_id
LEFT JOIN pgclip.promise p ON p.id = k.promise_id
LEFT JOIN pgclip.model m ON m.state = 'live'
LEFT JOIN pgclip.item_score sc ON sc.item_id = i.id AND sc.model_id = m.id AND sc.label_id = l.id
LEFT JOIN pgclip.item_label il ON il.item_id = i.id AND il.model_id = m.id AND il.label_id = l.id
WHERE s.decides OR EXISTS (SELECT FROM pgclip.promise asked WHERE asked.label_id = l.id);

-- Decisions of a set, or of one label or collection, or of one kind ("yes", "no", "review"), in the
-- order of items and labels: at most "limit", after an item and a label. Raises PC001, PC002.
CREATE FUNCTION pgclip.decisions(
    label_set text, label text DEFAULT NULL, decision text DEFAULT NULL,
    collection text DEFAULT NULL, after bigint DEFAULT 0, after_label text DEFAULT '',
    "limit" int DEFAULT 1000
) RETURNS SETOF pgclip.decisions
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_labels int[] := pgclip._labels_to_review(decisions.label_set, decisions.label);
    v_items  bigint[];
    v_next   bigint := decisions.after;
    v_left   int := decisions."limit";
    v_count  int;
BEGIN
    IF decisions.decision NOT IN ('yes', 'no', 'review') THEN
        RAISE EXCEPTION 'a decision is yes, no or review, not %', decisions.decision
            USING ERRCODE = 'PC001';
    END IF;
    WHILE v_left > 0 LOOP  -- a page of items after the other, each by its key
        v_items := pgclip._items_to_list(v_labels, decisions.decision, decisions.collection,
                                         v_next);
        EXIT WHEN v_items = '{}';
        RETURN QUERY
            SELECT v.* FROM pgclip.decisions v
            WHERE v.item_id = ANY(v_items)
              AND v.set = decisions.label_set AND v.label = coalesce(decisions.label, v.label)
              AND v.decision = coalesce(decisions.decision, v.decision)
              AND (v.item_id, v.label) > (decisions.after, decisions.after_label)
            ORDER BY v.item_id, v.label LIMIT v_left;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        v_next := v_items[cardinality(v_items)] + 1;
    END LOOP;
END $$;

-- The next items, from p_first on, that may have a decision: those of which something is decided,
-- by its index, or any.
CREATE FUNCTION pgclip._items_to_list(
    p_labels int[], p_decision text, p_collection text, p_first bigint
) RETURNS bigint[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_collection int := (SELECT id FROM pgclip.collection WHERE name = p_collection);
BEGIN
    IF p_decision IN ('yes', 'no') THEN
        RETURN ARRAY(
            SELECT DISTINCT d.item_id FROM pgclip.item_decision d
            JOIN pgclip.item i ON i.id = d.item_id
            WHERE d.label_id = ANY(p_labels) AND d.decision = (p_decision = 'yes')
              AND d.item_id >= p_first
              AND (p_collection IS NULL OR i.collection_id = v_collection)
            ORDER BY d.item_id LIMIT 1000);
    END IF;
    RETURN ARRAY(
        SELECT i.id FROM pgclip.item i
        WHERE i.id >= p_first AND (p_collection IS NULL OR i.collection_id = v_collection)
        ORDER BY i.id LIMIT 1000);
END $$;

-- Of an item and a label that is decided: "yes", "no" or "review".
CREATE FUNCTION pgclip._decision(p_item bigint, p_label int) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((
        SELECT CASE WHEN d.decision THEN 'yes' ELSE 'no' END FROM pgclip.item_decision d
        WHERE d.item_id = p_item AND d.label_id = p_label
          AND (d.campaign_id IS NULL
               OR d.campaign_id IN (SELECT f.campaign_id FROM pgclip._promises_in_force() f))
        ), 'review')
$$;

-- A temporary table that a worker COPYs scores into; as open_results().
CREATE FUNCTION pgclip.open_scores() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pgclip._is_staged('staged_score') THEN
        CREATE TEMPORARY TABLE staged_score (
            job_id   bigint NOT NULL,
            label_id int NOT NULL,
            score    real NOT NULL
        ) ON COMMIT DELETE ROWS;
        PERFORM pgclip._let_caller_insert('staged_score');
    END IF;
END $$;

-- Keeps what is staged, and decides by it. p_owners are what scores are staged under, p_items the
-- items that these stand for, which have their embeddings.
CREATE FUNCTION pgclip._store_scores(p_model smallint, p_owners bigint[], p_items bigint[])
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgclip._is_staged('staged_score');
    INSERT INTO pgclip.item_score AS old
           (item_id, model_id, label_id, head_version, chance, score)
    SELECT o.item_id, p_model, l.id, l.version, pgclip._chance(e.content_hash), s.score
    FROM unnest(p_owners, p_items) o(owner, item_id)
    JOIN pg_temp.staged_score s ON s.job_id = o.owner
    JOIN pgclip.embedding_set e ON e.item_id = o.item_id AND e.model_id = p_model
    JOIN (SELECT l.id, ls.collections, pgclip._head_version(ls.id, p_model) AS version
          FROM pgclip.label l JOIN pgclip.label_set ls ON ls.id = l.set_id
          WHERE l.id IN (SELECT label_id FROM pgclip.promise)) l ON l.id = s.label_id
    WHERE e.item_id = ANY(p_items)
      AND (l.collections IS NULL
           OR (SELECT c.name FROM pgclip.item i
               JOIN pgclip.collection c ON c.id = i.collection_id
               WHERE i.id = o.item_id) = ANY(l.collections))
    ORDER BY o.item_id, l.id
    ON CONFLICT (item_id, model_id, label_id) DO UPDATE SET head_version = excluded.head_version,
        chance = excluded.chance, score = excluded.score
        WHERE (old.head_version, old.chance) <> (excluded.head_version, excluded.chance)
           OR abs(old.score - excluded.score) > 1e-5;
END $$;

-- Decides items of the live model anew: all labels, by what is known now.
CREATE FUNCTION pgclip._decide(p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model smallint := pgclip._live_model();
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT * FROM pgclip._wanted_decisions(v_model, p_items)
    ), gone AS (
        DELETE FROM pgclip.item_decision d
        WHERE d.item_id = ANY(p_items)
          AND NOT EXISTS (SELECT FROM wanted w
                          WHERE w.item_id = d.item_id AND w.label_id = d.label_id)
    )
    INSERT INTO pgclip.item_decision AS old (item_id, label_id, decision, campaign_id)
    SELECT w.item_id, w.label_id, w.decision, w.campaign_id FROM wanted w
    ORDER BY w.item_id, w.label_id
    ON CONFLICT (item_id, label_id) DO UPDATE SET decision = excluded.decision,
        campaign_id = excluded.campaign_id, decided_at = now()
        WHERE (old.decision, old.campaign_id)
              IS DISTINCT FROM (excluded.decision, excluded.campaign_id);
END $$;

-- Decides items whose vectors or labels have just been stored, where anything decides.
CREATE FUNCTION pgclip._decide_stored(p_model smallint, p_items bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (EXISTS (SELECT FROM pgclip.judgement) OR EXISTS (SELECT FROM pgclip.campaign))
       AND p_model = pgclip._live_model() THEN
        PERFORM pgclip._decide(p_items);
    END IF;
END $$;

-- People first: what most say of the content, and, of labels that exclude each other, no to all
-- others where they said yes to one. Else a promise: yes above the threshold of its precision, no
-- below that of its recall.
CREATE FUNCTION pgclip._wanted_decisions(p_model smallint, p_items bigint[])
RETURNS TABLE (item_id bigint, label_id int, decision boolean, campaign_id int)
LANGUAGE sql STABLE AS $$
    WITH word AS (
        SELECT DISTINCT ON (e.item_id, j.label_id, j.judge) e.item_id, j.label_id, j.value
        FROM pgclip.embedding_set e
        JOIN pgclip.judgement j ON j.content_hash = e.content_hash
        WHERE e.item_id = ANY(p_items) AND e.model_id = p_model
        ORDER BY e.item_id, j.label_id, j.judge, j.judged_at DESC
    ), said AS MATERIALIZED (
        SELECT w.item_id, w.label_id, l.set_id, s.exclusive,
               sum(CASE WHEN w.value THEN 1 ELSE -1 END) AS votes
        FROM word w
        JOIN pgclip.label l ON l.id = w.label_id
        JOIN pgclip.label_set s ON s.id = l.set_id
        GROUP BY w.item_id, w.label_id, l.set_id, s.exclusive
    ), machine AS (
        SELECT sc.item_id, sc.label_id, l.set_id,
               max(f.campaign_id) FILTER (WHERE f.what = 'precision'
                                            AND sc.score >= f.threshold) AS yes,
               max(f.campaign_id) FILTER (WHERE f.what = 'recall'
                                            AND sc.score < f.threshold) AS no
        FROM pgclip._promises_in_force() f
        JOIN pgclip.item_score sc ON sc.label_id = f.label_id AND sc.model_id = f.model_id
                                 AND sc.head_version = f.head_version
        JOIN pgclip.label l ON l.id = sc.label_id
        WHERE sc.item_id = ANY(p_items) AND f.model_id = p_model
        GROUP BY sc.item_id, sc.label_id, l.set_id
    )
    SELECT item_id, label_id, votes > 0, NULL::int FROM said WHERE votes <> 0
    UNION ALL
    SELECT m.item_id, m.label_id, m.yes IS NOT NULL AND o.item_id IS NULL,
           CASE WHEN o.item_id IS NULL THEN coalesce(m.yes, m.no) END
    FROM machine m
    LEFT JOIN LATERAL (SELECT s.item_id FROM said s
                       WHERE s.item_id = m.item_id AND s.set_id = m.set_id AND s.exclusive
                         AND s.votes > 0 LIMIT 1) o ON true
    WHERE NOT EXISTS (SELECT FROM said s
                      WHERE s.item_id = m.item_id AND s.label_id = m.label_id)
      AND (o.item_id IS NOT NULL OR m.yes IS NOT NULL OR m.no IS NOT NULL)
$$;

-- For a worker: decides the items that are there when a threshold has been found, takes back what
-- rests on a promise that has lapsed, begins campaigns and draws what they need next, and gives
-- changes their positions. At most p_most items at once, one worker at a time; how many rows it
-- dealt with, 0 when all is done.
CREATE FUNCTION pgclip.decide_items(p_most int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count int;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7311994466) THEN
        RETURN 0;
    END IF;
    PERFORM pgclip._begin_campaigns();
    PERFORM pgclip._advance(k.id, true)
    FROM pgclip.campaign k
    JOIN pgclip.promise p ON p.id = k.promise_id
    JOIN pgclip.label l ON l.id = p.label_id
    WHERE k.state = 'judging' AND coalesce(k.drawn_above[k.step], 0) < k.looks[k.look]
      AND k.model_id = pgclip._live_model()
      AND k.head_version = pgclip._head_version(l.set_id, k.model_id);
    v_count := pgclip._take_back_lapsed(p_most) + pgclip._decide_page(p_most);
    RETURN v_count + pgclip._tell_changes(p_most);
END $$;

CREATE FUNCTION pgclip._take_back_lapsed(p_most int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_lapsed int;
    v_items  bigint[];
BEGIN
    -- From one campaign's decisions to the next one's, by their index.
    WITH RECURSIVE found(id) AS (
        SELECT min(campaign_id) FROM pgclip.item_decision WHERE campaign_id IS NOT NULL
        UNION ALL
        SELECT (SELECT min(d.campaign_id) FROM pgclip.item_decision d WHERE d.campaign_id > f.id)
        FROM found f WHERE f.id IS NOT NULL
    )
    SELECT min(id) INTO v_lapsed FROM found
    WHERE id NOT IN (SELECT f.campaign_id FROM pgclip._promises_in_force() f);
    IF v_lapsed IS NULL THEN
        RETURN 0;
    END IF;
    v_items := ARRAY(SELECT item_id FROM pgclip.item_decision
                     WHERE campaign_id = v_lapsed LIMIT p_most);
    PERFORM pgclip._decide(v_items);
    RETURN cardinality(v_items);
END $$;

CREATE FUNCTION pgclip._decide_page(p_most int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_walk  record;
    v_items bigint[];
BEGIN
    FOR v_walk IN
        SELECT k.id, k.after_item, f.*
        FROM pgclip.campaign k JOIN pgclip._promises_in_force() f ON f.campaign_id = k.id
        WHERE k.after_item IS NOT NULL ORDER BY k.id FOR NO KEY UPDATE OF k
    LOOP
        v_items := ARRAY(
            SELECT sc.item_id FROM pgclip.item_score sc
            WHERE sc.label_id = v_walk.label_id AND sc.model_id = v_walk.model_id
              AND sc.score >= CASE v_walk.what WHEN 'precision' THEN v_walk.threshold ELSE 0 END
              AND sc.score < CASE v_walk.what WHEN 'recall' THEN v_walk.threshold ELSE 2 END
              AND sc.item_id > v_walk.after_item
            UNION
            SELECT d.item_id FROM pgclip.item_decision d
            WHERE d.campaign_id = v_walk.id AND d.item_id > v_walk.after_item
            ORDER BY item_id LIMIT p_most);
        IF v_items <> '{}' THEN
            PERFORM pgclip._decide(v_items);
            UPDATE pgclip.campaign SET after_item = v_items[cardinality(v_items)]
            WHERE id = v_walk.id;
            RETURN cardinality(v_items);
        END IF;
        -- Once more when those have ended who may have written by what was before.
        UPDATE pgclip.campaign SET changed = NULL,
            after_item = CASE WHEN changed IS NOT NULL THEN 0 END
        WHERE id = v_walk.id
          AND (changed IS NULL OR changed < pg_snapshot_xmin(pg_current_snapshot())
               -- A restored copy counts its transactions anew.
               OR changed > pg_snapshot_xmax(pg_current_snapshot()));
    END LOOP;
    RETURN 0;
END $$;

-- Numbers changes that are committed, tells those who LISTEN to pgclip_decision, and drops those
-- that are older than thirty days.
CREATE FUNCTION pgclip._tell_changes(p_most int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_ids bigint[] := ARRAY(SELECT id FROM pgclip.decision_change WHERE position IS NULL
                            ORDER BY id LIMIT p_most);
BEGIN
    IF v_ids = '{}' THEN
        DELETE FROM pgclip.decision_change WHERE id IN (
            SELECT id FROM pgclip.decision_change
            WHERE changed_at < now() - interval '30 days' ORDER BY id LIMIT p_most);
        RETURN 0;
    END IF;
    FOR i IN 1 .. cardinality(v_ids) LOOP
        UPDATE pgclip.decision_change SET position = nextval('pgclip.decision_position')
        WHERE id = v_ids[i];
    END LOOP;
    PERFORM pg_notify('pgclip_decision', '');
    RETURN cardinality(v_ids);
END $$;

-- Changes of decisions after a position, in their order: from 0 on all that are kept, which is
-- thirty days. Of one item and label the last one counts.
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
    WHERE h.position > decision_changes.after
    ORDER BY h.position LIMIT decision_changes."limit"
$$;

CREATE FUNCTION pgclip._note_changes() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO pgclip.decision_change (item_id, label_id, now)
        SELECT item_id, label_id, decision FROM fresh ORDER BY item_id, label_id;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO pgclip.decision_change (item_id, label_id, was, now)
        SELECT item_id, label_id, g.decision, f.decision
        FROM gone g JOIN fresh f USING (item_id, label_id) WHERE g.decision <> f.decision
        ORDER BY item_id, label_id;
    ELSE
        INSERT INTO pgclip.decision_change (item_id, label_id, was)
        SELECT g.item_id, g.label_id, g.decision FROM gone g
        WHERE EXISTS (SELECT FROM pgclip.item i WHERE i.id = g.item_id)
          AND EXISTS (SELECT FROM pgclip.label l WHERE l.id = g.label_id)
        ORDER BY g.item_id, g.label_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER decision_made AFTER INSERT ON pgclip.item_decision REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._note_changes();

CREATE TRIGGER decision_changed AFTER UPDATE ON pgclip.item_decision
    REFERENCING OLD TABLE AS gone NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._note_changes();

CREATE TRIGGER decision_taken_back AFTER DELETE ON pgclip.item_decision
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._note_changes();
