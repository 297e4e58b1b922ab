-- Decisions: yes or no, for each item and label of which something is promised or whose set
-- decides; by people, whose word on a content wins, or by a promise in force. All else is to be
-- reviewed. They follow from what is there; only what has changed is written down.

-- What most say of a content; NULL where as many say yes as no.
CREATE VIEW pgclip._votes AS
SELECT label_id, content_hash, max(judged_at) AS judged_at,
       CASE sign(sum(CASE WHEN value THEN 1 ELSE -1 END)) WHEN 1 THEN true
                                                          WHEN -1 THEN false END AS decision
FROM (SELECT DISTINCT ON (label_id, content_hash, judge) label_id, content_hash, value, judged_at
      FROM pgclip.judgement
      ORDER BY label_id, content_hash, judge, judged_at DESC) word
GROUP BY label_id, content_hash;

-- The same, and of labels that exclude each other no to all others where most say yes to one.
CREATE VIEW pgclip._said AS
SELECT label_id, content_hash, judged_at, decision FROM pgclip._votes
UNION ALL
SELECT l.id, v.content_hash, max(v.judged_at), false
FROM pgclip._votes v
JOIN pgclip.label o ON o.id = v.label_id AND o.archived_at IS NULL
JOIN pgclip.label_set s ON s.id = o.set_id AND s.exclusive
JOIN pgclip.label l ON l.set_id = s.id AND l.id <> o.id AND NOT l.is_background
WHERE v.decision AND NOT EXISTS (SELECT FROM pgclip.judgement j
                                 WHERE j.content_hash = v.content_hash AND j.label_id = l.id)
GROUP BY l.id, v.content_hash;

-- What is decided now. rests_on: "judgement", "precision" or "recall"; what the promise says, by
-- which version of the head and threshold. NULL: nothing decides.
CREATE VIEW pgclip.decisions AS
SELECT i.id AS item_id, c.name AS collection, i.key, i.kind, s.name AS set, l.name AS label,
       CASE WHEN h.label_id IS NOT NULL
            THEN CASE h.decision WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'review' END
            WHEN yes.campaign_id IS NOT NULL THEN 'yes'
            WHEN no.campaign_id IS NOT NULL THEN 'no'
            ELSE 'review' END AS decision,
       coalesce(sc.score, il.score) AS score,
       CASE WHEN h.label_id IS NULL THEN coalesce(yes.what, no.what)
            WHEN h.decision IS NOT NULL THEN 'judgement' END AS rests_on,
       CASE WHEN h.label_id IS NULL THEN coalesce(yes.share, no.share) END AS share,
       CASE WHEN h.label_id IS NULL THEN coalesce(yes.confidence, no.confidence) END AS confidence,
       CASE WHEN h.label_id IS NULL THEN coalesce(yes.threshold, no.threshold) END AS threshold,
       CASE WHEN h.label_id IS NULL
            THEN coalesce(yes.head_version, no.head_version) END AS head_version,
       CASE WHEN h.label_id IS NULL THEN coalesce(yes.kept_at, no.kept_at)
            ELSE h.judged_at END AS decided_at,
       l.id AS label_id
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
JOIN pgclip.label_set s ON s.applies_to IN ('both', i.kind::text)
                       AND (s.collections IS NULL OR c.name = ANY(s.collections))
JOIN pgclip.label l ON l.set_id = s.id AND l.archived_at IS NULL AND NOT l.is_background
LEFT JOIN pgclip.model m ON m.state = 'live'
-- Of the content that the item has: nothing is decided while it is encoded, or if it can't be.
LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = m.id
                                AND e.generation = i.generation
LEFT JOIN pgclip._said h ON h.label_id = l.id AND h.content_hash = e.content_hash
LEFT JOIN pgclip.item_score sc ON sc.item_id = e.item_id AND sc.model_id = m.id
                              AND sc.label_id = l.id
LEFT JOIN pgclip.item_label il ON il.item_id = e.item_id AND il.model_id = m.id
                              AND il.label_id = l.id
LEFT JOIN pgclip._promises_in_force() yes
     ON yes.what = 'precision' AND yes.label_id = l.id AND yes.model_id = m.id
    AND yes.head_version = sc.head_version AND sc.score >= yes.threshold
LEFT JOIN pgclip._promises_in_force() no
     ON no.what = 'recall' AND no.label_id = l.id AND no.model_id = m.id
    AND no.head_version = sc.head_version AND sc.score < no.threshold
    AND yes.campaign_id IS NULL
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
    v_next   bigint := coalesce(decisions.after, 0);
    v_left   int := least(decisions."limit", 100000);
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
              AND (v.item_id, v.label) > (coalesce(decisions.after, 0),
                                           coalesce(decisions.after_label, ''))
            ORDER BY v.item_id, v.label LIMIT v_left;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        v_next := v_items[cardinality(v_items)] + 1;
    END LOOP;
END $$;

-- The next items, from p_first on, that may have a decision: those that people or a promise decide
-- so, by their indexes, or any.
CREATE FUNCTION pgclip._items_to_list(
    p_labels int[], p_decision text, p_collection text, p_first bigint
) RETURNS bigint[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_collection int := (SELECT id FROM pgclip.collection WHERE name = p_collection);
    v_items      bigint[];
BEGIN
    EXECUTE format(
        'SELECT ARRAY(SELECT i.id FROM pgclip.item i WHERE i.id >= $1 AND %s AND (%s)
                      ORDER BY i.id LIMIT 1000)',
        CASE WHEN p_collection IS NULL THEN 'true'
             ELSE format('i.collection_id = %s', coalesce(v_collection, 0)) END,
        CASE WHEN p_decision IN ('yes', 'no')
             THEN (SELECT coalesce(string_agg(pgclip._decided_so(l, p_decision, false), ' OR '),
                                   'false') FROM unnest(p_labels) l)
             ELSE 'true' END)
    INTO v_items USING p_first;
    RETURN v_items;
END $$;

-- The condition on pgclip.item i that a label is decided so for it, "yes" or "no"; p_each: it is
-- asked of one item after another, rather than of all at once.
CREATE FUNCTION pgclip._decided_so(p_label int, p_decision text, p_each boolean) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_model  smallint := pgclip._live_model();
    v_said   text := format('SELECT e.item_id FROM pgclip._said h
                             JOIN pgclip.embedding_set e ON e.content_hash = h.content_hash
                                                        AND e.model_id = %s
                             WHERE h.label_id = %s', v_model, p_label);
    v_scored text := pgclip._scored_so(p_label, p_decision);
BEGIN
    RETURN format($q$(%s AND EXISTS (
            SELECT FROM pgclip.embedding_set e
            WHERE e.item_id = i.id AND e.model_id = %s AND e.generation = i.generation OFFSET 0)
        AND (i.id IN (%s AND h.decision = %L) OR %s AND i.id NOT IN (%s)))$q$,
        pgclip._applies(p_label), v_model, v_said, p_decision = 'yes',
        CASE WHEN v_scored IS NULL THEN 'false'
             WHEN p_each THEN format('EXISTS (%s AND sc.item_id = i.id OFFSET 0)', v_scored)
             ELSE format('i.id IN (%s)', v_scored) END,
        v_said);
END $$;

-- A query for the items that a promise in force decides so; NULL if none does.
CREATE FUNCTION pgclip._scored_so(p_label int, p_decision text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT format('SELECT sc.item_id FROM pgclip.item_score sc WHERE sc.label_id = %s'
                  ' AND sc.model_id = %s AND sc.head_version = %s AND %s',
                  p_label, f.model_id, f.head_version,
                  CASE p_decision
                  WHEN 'yes' THEN format('sc.score >= %L::float4', f.above)
                  ELSE format('sc.score < %L::float4 AND (sc.score >= %L::float4) IS NOT TRUE',
                              f.below, f.above) END)
    FROM (SELECT max(model_id) AS model_id, max(head_version) AS head_version,
                 max(threshold) FILTER (WHERE what = 'precision') AS above,
                 max(threshold) FILTER (WHERE what = 'recall') AS below
          FROM pgclip._promises_in_force() WHERE label_id = p_label) f
    WHERE CASE p_decision WHEN 'yes' THEN f.above ELSE f.below END IS NOT NULL
$$;

-- The condition on pgclip.item i that a label's set is for it.
CREATE FUNCTION pgclip._applies(p_label int) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE s.applies_to WHEN 'both' THEN 'true'
                ELSE format('i.kind = %L', s.applies_to) END
        || CASE WHEN s.collections IS NULL THEN ''
                ELSE format(' AND i.collection_id = ANY(%L::int[])',
                            ARRAY(SELECT c.id FROM pgclip.collection c
                                  WHERE c.name = ANY(s.collections))) END
    FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id WHERE l.id = p_label
$$;

-- Of an item and a label that is decided: "yes", "no" or "review"; as the view says it, by keys.
CREATE FUNCTION pgclip._decision(p_item bigint, p_label int) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_content record;
    v_said    record;
    v_score   pgclip.item_score;
BEGIN
    SELECT e.content_hash, e.model_id INTO v_content
    FROM pgclip.item i
    JOIN pgclip.model m ON m.state = 'live'
    JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = m.id
                               AND e.generation = i.generation
    WHERE i.id = p_item;
    IF EXISTS (SELECT FROM pgclip.judgement j WHERE j.content_hash = v_content.content_hash) THEN
        SELECT s.decision INTO v_said FROM pgclip._said s
        WHERE s.label_id = p_label AND s.content_hash = v_content.content_hash;
        IF FOUND THEN
            RETURN CASE v_said.decision WHEN true THEN 'yes' WHEN false THEN 'no'
                                        ELSE 'review' END;
        END IF;
    END IF;
    SELECT * INTO v_score FROM pgclip.item_score sc
    WHERE sc.item_id = p_item AND sc.model_id = v_content.model_id AND sc.label_id = p_label;
    IF v_score.score IS NULL THEN
        RETURN 'review';
    END IF;
    RETURN (SELECT CASE WHEN bool_or(f.what = 'precision' AND v_score.score >= f.threshold)
                        THEN 'yes'
                        WHEN bool_or(f.what = 'recall' AND v_score.score < f.threshold) THEN 'no'
                        ELSE 'review' END
            FROM pgclip._promises_in_force() f
            WHERE f.label_id = p_label AND f.model_id = v_score.model_id
              AND f.head_version = v_score.head_version);
END $$;
