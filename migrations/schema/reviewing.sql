-- What people should look at next: draws that promises rest on, and what labels learn most from.

-- What a person is to look at, and why.
CREATE TYPE pgclip.draw AS (
    item_id bigint, collection text, key text, kind pgclip.kind, label text, purpose text,
    score real, content_hash bytea
);

-- Draws at most n contents of a set for a person to judge, or of one label, each with why:
--
--   precision, recall   a promise rests on it: drawn at random, where a threshold is tried
--   learn               the label learns from it: most where it is unsure, and of what it gives
--                       little the most likely, since what is rare is not found at random
--
-- purpose: "promise" or "learn" alone; NULL: both, three in four for promises as long as these need
-- any. Nobody else gets the same within half an hour, unless more than one opinion is wanted. The
-- order says nothing. Raises PC001, and PC002 if there is no such set or label.
CREATE FUNCTION pgclip.review(
    label_set text, n int DEFAULT 20, judge text DEFAULT NULL, label text DEFAULT NULL,
    purpose text DEFAULT NULL
) RETURNS SETOF pgclip.draw
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_judge  text := coalesce(review.judge, pgclip._caller());
    v_labels int[];
    v_model  smallint := pgclip._live_model();
    v_bound  pgclip._review_draw[] := '{}';
    v_learn  pgclip._review_draw[] := '{}';
BEGIN
    IF pgclip._is_blank(v_judge) OR length(v_judge) > 200 THEN
        RAISE EXCEPTION 'a judge has a name of at most 200 characters' USING ERRCODE = 'PC001';
    ELSIF (review.n BETWEEN 1 AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'n is from 1 to 1000, not %', review.n USING ERRCODE = 'PC001';
    ELSIF review.purpose NOT IN ('promise', 'learn') THEN
        RAISE EXCEPTION 'purpose is promise or learn, not %', review.purpose
            USING ERRCODE = 'PC001';
    END IF;
    -- Two who draw at the same time draw one after the other.
    v_labels := ARRAY(
        SELECT id FROM pgclip.label
        WHERE id = ANY(pgclip._labels_to_review(review.label_set, review.label))
        ORDER BY id FOR NO KEY UPDATE);
    PERFORM pgclip._renew_campaigns(v_labels);
    DELETE FROM pgclip.review r WHERE r.label_id = ANY(v_labels) AND NOT r.unsure
                                  AND r.drawn_at < clock_timestamp() - interval '30 minutes';
    IF review.purpose IS DISTINCT FROM 'learn' THEN
        v_bound := pgclip._draws_of_promises(
            v_labels, v_model, v_judge,
            CASE review.purpose WHEN 'promise' THEN review.n ELSE ceil(0.75 * review.n)::int END);
    END IF;
    IF review.purpose IS DISTINCT FROM 'promise' THEN
        v_learn := pgclip._draws_to_learn(v_labels, v_model, v_judge,
                                          review.n - cardinality(v_bound), v_bound);
    END IF;
    UPDATE pgclip.campaign_draw d SET shown = true
    FROM unnest(v_bound) b
    WHERE d.campaign_id IN (SELECT pgclip._campaigns_of(v_labels)) AND NOT d.shown
      AND d.chance = pgclip._chance(b.content_hash);
    INSERT INTO pgclip.review AS old (label_id, content_hash, judge)
    SELECT d.label_id, d.content_hash, v_judge FROM unnest(v_bound || v_learn) d
    ON CONFLICT ON CONSTRAINT review_pkey DO UPDATE SET drawn_at = now();
    RETURN QUERY
        SELECT i.id, c.name, i.key, i.kind, l.name, d.purpose, d.score, d.content_hash
        FROM unnest(v_bound || v_learn) d
        JOIN pgclip.item i ON i.id = d.item_id
        JOIN pgclip.collection c ON c.id = i.collection_id
        JOIN pgclip.label l ON l.id = d.label_id
        ORDER BY random();
END $$;

CREATE TYPE pgclip._review_draw AS (
    label_id int, item_id bigint, content_hash bytea, score real, purpose text
);

-- Labels of a set, or the one that is named. Raises PC002.
CREATE FUNCTION pgclip._labels_to_review(p_set text, p_label text) RETURNS int[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_labels int[] := ARRAY(
        SELECT l.id FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
        WHERE s.name = p_set AND l.name = coalesce(p_label, l.name)
          AND l.archived_at IS NULL AND NOT l.is_background);
BEGIN
    IF v_labels = '{}' THEN
        RAISE EXCEPTION 'there is no label set %', p_set || coalesce(' with label ' || p_label, '')
            USING ERRCODE = 'PC002', HINT = 'SELECT name FROM pgclip.label_set;';
    END IF;
    RETURN v_labels;
END $$;

-- Whether a person can be asked of a content: they have it before them, or have not been asked, and
-- those who are at it may not be enough for most of so many opinions.
CREATE FUNCTION pgclip._can_be_asked(
    p_label int, p_hash bytea, p_judge text, p_opinions int
) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM pgclip.judgement j
                       WHERE j.label_id = p_label AND j.content_hash = p_hash
                         AND j.judge = p_judge)
       AND count(*) FILTER (WHERE r.judge = p_judge AND r.unsure) = 0
       AND (count(*) FILTER (WHERE NOT r.unsure AND r.judge <> p_judge) + greatest(o.yes, o.no))
           * 2 <= p_opinions
       AND o.yes + o.no + o.unsure < p_opinions
    FROM pgclip._opinions(p_label, p_hash) o
    LEFT JOIN pgclip.review r ON r.label_id = p_label AND r.content_hash = p_hash
    GROUP BY o.yes, o.no, o.unsure
$$;

-- What campaigns need judged next.
CREATE FUNCTION pgclip._draws_of_promises(
    p_labels int[], p_model smallint, p_judge text, p_most int
) RETURNS pgclip._review_draw[]
LANGUAGE plpgsql AS $$
DECLARE
    v_campaign record;
    v_found    pgclip._review_draw[] := '{}';
BEGIN
    PERFORM pgclip._begin_campaigns();
    FOR v_campaign IN
        SELECT k.id, p.what, p.label_id, p.opinions
        FROM pgclip._campaigns_of(p_labels) c(id)
        JOIN pgclip.campaign k ON k.id = c.id AND k.state = 'judging'
        JOIN pgclip.promise p ON p.id = k.promise_id
        ORDER BY k.threshold IS NOT NULL, k.id  -- what is not kept yet comes first
    LOOP
        PERFORM pgclip._advance(v_campaign.id, true, true);
        v_found := v_found || ARRAY(
            SELECT ROW(v_campaign.label_id, e.item_id, d.content_hash, d.score,
                       v_campaign.what)::pgclip._review_draw
            FROM pgclip.campaign k
            CROSS JOIN unnest(CASE v_campaign.what WHEN 'recall' THEN ARRAY[true, false]
                              ELSE ARRAY[true] END) side(is_above)
            CROSS JOIN pgclip._first_draws(k, k.thresholds[k.step], side.is_above,
                                           k.looks[k.look]) d
            CROSS JOIN LATERAL (  -- that has the content now
                SELECT e.item_id FROM pgclip.embedding_set e
                WHERE e.content_hash = d.content_hash AND e.model_id = p_model
                ORDER BY e.item_id LIMIT 1) e
            WHERE k.id = v_campaign.id AND k.state = 'judging' AND NOT d.judged
              AND pgclip._can_be_asked(v_campaign.label_id, d.content_hash, p_judge,
                                       v_campaign.opinions)
              AND d.content_hash <> ALL(ARRAY(SELECT f.content_hash FROM unnest(v_found) f
                                              WHERE f.label_id = v_campaign.label_id))
            ORDER BY d.chance < k.start, d.chance
            LIMIT p_most - cardinality(v_found));
        EXIT WHEN cardinality(v_found) >= p_most;
    END LOOP;
    RETURN v_found;
END $$;

-- What labels learn from: contents that nobody has judged, drawn by weight (Efraimidis and
-- Spirakis, Information Processing Letters 97, 2006), which is greatest at a score of a half; of
-- labels of which nothing is promised, among what they are given to, and, where that is too little,
-- any.
CREATE FUNCTION pgclip._draws_to_learn(
    p_labels int[], p_model smallint, p_judge text, p_most int, p_without pgclip._review_draw[]
) RETURNS pgclip._review_draw[]
LANGUAGE sql AS $$
    WITH scored AS (
        SELECT sc.label_id, sc.item_id, sc.score FROM pgclip.item_score sc
        WHERE sc.label_id = ANY(p_labels) AND sc.model_id = p_model
        UNION ALL
        SELECT il.label_id, il.item_id, il.score FROM pgclip.item_label il
        WHERE il.label_id = ANY(p_labels) AND il.model_id = p_model
          AND il.label_id NOT IN (SELECT label_id FROM pgclip.promise)
    ), weighed AS (
        (SELECT s.*, 0 AS place FROM scored s
         ORDER BY -ln(1 - random()) / (s.score * (1 - s.score) + 1e-6) LIMIT 5 * p_most + 100)
        UNION ALL
        (SELECT l.id, e.item_id, NULL, 1
         FROM (SELECT e.item_id FROM pgclip.embedding_set e
               JOIN pgclip.item i ON i.id = e.item_id
               JOIN pgclip.collection c ON c.id = i.collection_id
               JOIN pgclip.label_set s ON s.id = (SELECT set_id FROM pgclip.label
                                                  WHERE id = p_labels[1])
               WHERE e.model_id = p_model AND s.applies_to IN ('both', i.kind::text)
                 AND (s.collections IS NULL OR c.name = ANY(s.collections))
                 AND (SELECT count(*) FROM (SELECT FROM scored LIMIT p_most) few) < p_most
               ORDER BY random() LIMIT p_most) e
         CROSS JOIN unnest(p_labels) l(id) ORDER BY random() LIMIT 5 * p_most)
    ), content AS (
        SELECT DISTINCT ON (w.label_id, e.content_hash)
               w.label_id, w.item_id, e.content_hash, w.score, w.place
        FROM weighed w
        JOIN pgclip.embedding_set e ON e.item_id = w.item_id AND e.model_id = p_model
        WHERE pgclip._can_be_asked(w.label_id, e.content_hash, p_judge, 1)
          AND NOT EXISTS (SELECT FROM unnest(p_without) x
                          WHERE x.label_id = w.label_id AND x.content_hash = e.content_hash)
        ORDER BY w.label_id, e.content_hash, w.place
    )
    SELECT coalesce(array_agg(ROW(label_id, item_id, content_hash, score,
                                  'learn')::pgclip._review_draw), '{}')
    FROM (SELECT * FROM content ORDER BY place, random() LIMIT p_most) drawn
$$;

-- A person is not sure of a content: it counts against a promise that drew it, and they are not
-- asked again. Raises PC002; PC003 if the item has no vector.
CREATE FUNCTION pgclip.leave_unsure(
    label_set text, label text, key text, judge text DEFAULT NULL,
    collection text DEFAULT 'default', content_hash bytea DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_judge text := coalesce(leave_unsure.judge, pgclip._caller());
    v_label int := pgclip._label(label_set, label);
    v_hash  bytea;
BEGIN
    -- What they said before is taken back; and all is checked there.
    PERFORM pgclip.judge(label_set, label, key, NULL, v_judge, collection,
                         content_hash => leave_unsure.content_hash);
    SELECT e.content_hash INTO v_hash
    FROM pgclip.item i
    JOIN pgclip.collection c ON c.id = i.collection_id
    JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = pgclip._live_model()
    WHERE i.key = leave_unsure.key AND c.name = leave_unsure.collection;
    INSERT INTO pgclip.review (label_id, content_hash, judge, unsure)
    VALUES (v_label, v_hash, v_judge, true)
    ON CONFLICT ON CONSTRAINT review_pkey DO UPDATE SET unsure = true;
    PERFORM pgclip._advance(id, false) FROM pgclip._campaigns_of(ARRAY[v_label]) id;
END $$;
