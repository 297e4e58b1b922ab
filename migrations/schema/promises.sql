-- Promises of labels: what is wanted, and whether it can be kept.

-- The version of the head that decides for a set's labels: that of its teaching, or, where there is
-- none of these words, that of its words.
CREATE FUNCTION pgclip._head_version(p_set int, p_model smallint) RETURNS int
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(s.words_version, t.version)
    FROM pgclip.label_set s
    LEFT JOIN pgclip.label_teaching t ON t.set_id = s.id AND t.model_id = p_model
                                     AND t.words_version = s.words_version
    WHERE s.id = p_set
$$;

-- Promises that the live model keeps with the heads that it has now. They lapse with a new head.
CREATE FUNCTION pgclip._promises_in_force()
RETURNS TABLE (campaign_id int, label_id int, what text, threshold float4, model_id smallint,
               head_version int, share float8, confidence float8, kept_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.id, p.label_id, p.what, k.threshold, k.model_id, k.head_version, p.share,
           p.confidence, k.kept_at
    FROM pgclip.campaign k
    JOIN pgclip.promise p ON p.id = k.promise_id
    JOIN pgclip.label l ON l.id = p.label_id AND l.archived_at IS NULL
    JOIN pgclip.model m ON m.id = k.model_id AND m.state = 'live'
    WHERE k.threshold IS NOT NULL
      AND k.head_version = pgclip._head_version(l.set_id, k.model_id)
$$;

-- What was asked of labels and how far it is: state is "waiting" while items get their scores or
-- there are too few, "judging" until a threshold is shown to keep it, "kept", or "out of reach"
-- when no more judgements of this head would help. Of a kept one, too, "lacking" more judgements
-- may lower the threshold, so that it decides more.
CREATE VIEW pgclip.promises AS
SELECT s.name AS set, l.name AS label, p.what, p.share, p.confidence, p.opinions,
       CASE WHEN k.threshold IS NOT NULL THEN 'kept'
            WHEN k.state = 'judging' THEN 'judging'
            WHEN k.id IS NULL THEN 'waiting'
            ELSE 'out of reach' END AS state,
       m.name AS model, k.head_version, k.threshold, k.bound, k.judged, k."right",
       k.decides, k.contents, k.decides::float8 / nullif(k.contents, 0) AS coverage,
       CASE WHEN k.id IS NULL THEN p.judgements ELSE k.lacking END AS lacking,
       k.begun_at, k.kept_at
FROM pgclip.promise p
JOIN pgclip.label l ON l.id = p.label_id AND l.archived_at IS NULL
JOIN pgclip.label_set s ON s.id = l.set_id
LEFT JOIN pgclip.model m ON m.state = 'live'
LEFT JOIN pgclip.campaign k ON k.promise_id = p.id AND k.model_id = m.id
                           AND k.head_version = pgclip._head_version(s.id, m.id);

-- Wants a label to keep a promise, and says how far that is. The same once more only says it;
-- another share or confidence is put to the test anew.
--
--   what        "precision": of the items that are called so, at least this share is; "recall": of
--               the items that are so, at most 1 less this share is denied
--   confidence  how often that holds of promises made so
--   opinions    how many people judge each draw; the majority counts
--   judgements  after how many one looks first; NULL: as few as can be, of which none may be wrong
--
-- Items get scores of the label, which takes a pass over all of them. Raises PC001, and PC002 if
-- there is no such label.
CREATE FUNCTION pgclip.promise(
    label_set text, label text, what text DEFAULT 'precision', share float8 DEFAULT 0.95,
    confidence float8 DEFAULT 0.95, opinions int DEFAULT 1, judgements int DEFAULT NULL
) RETURNS SETOF pgclip.promises
LANGUAGE plpgsql AS $$
DECLARE
    v_label int := pgclip._label(label_set, label);
BEGIN
    PERFORM pgclip._ask_promise(v_label, what, share, confidence, opinions, judgements);
    PERFORM pgclip._renew_campaigns(ARRAY[v_label]);
    PERFORM pgclip._begin_campaigns();
    RETURN QUERY SELECT * FROM pgclip.promises p
                 WHERE p.set = label_set AND p.label = promise.label AND p.what = promise.what;
END $$;

CREATE FUNCTION pgclip._ask_promise(
    p_label int, p_what text, p_share float8, p_confidence float8, p_opinions int,
    p_judgements int
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_least  int := 60;
    v_is_new boolean := NOT EXISTS (SELECT FROM pgclip.promise WHERE label_id = p_label);
BEGIN
    IF (p_what IN ('precision', 'recall')) IS NOT TRUE THEN
        RAISE EXCEPTION 'a promise is of precision or recall, not %', p_what
            USING ERRCODE = 'PC001';
    ELSIF (p_share BETWEEN 0.5 AND 0.999 AND p_confidence BETWEEN 0.5 AND 0.999) IS NOT TRUE THEN
        RAISE EXCEPTION '% and confidence are from 0.5 to 0.999', p_what USING ERRCODE = 'PC001';
    ELSIF (p_opinions BETWEEN 1 AND 9) IS NOT TRUE THEN
        RAISE EXCEPTION 'opinions are 1 to 9, not %', p_opinions USING ERRCODE = 'PC001';
    ELSIF NOT (SELECT s.relabels AND s.active FROM pgclip.label_set s
               JOIN pgclip.label l ON l.set_id = s.id WHERE l.id = p_label) THEN
        RAISE EXCEPTION 'its set does not label items that are there' USING ERRCODE = 'PC001',
            HINT = 'It has to be active, and: SELECT pgclip.relabel(…);';
    END IF;
    IF p_what = 'precision' THEN
        v_least := pgclip._draws_needed(0, p_share, 0.98 * (1 - p_confidence));
    END IF;
    IF p_judgements NOT BETWEEN v_least AND 5000 THEN
        RAISE EXCEPTION 'for that % judgements are from % to 5000, not %', p_what, v_least,
            p_judgements USING ERRCODE = 'PC001';
    END IF;
    PERFORM FROM pgclip.label_epoch FOR UPDATE;  -- first, as one who defines a set does
    PERFORM FROM pgclip.label WHERE id = p_label FOR NO KEY UPDATE;  -- as those who review do
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the label set has been dropped' USING ERRCODE = 'PC002';
    END IF;
    IF EXISTS (SELECT FROM pgclip.promise WHERE label_id = p_label AND what = p_what
               AND (share, confidence, opinions, judgements)
                 = (p_share, p_confidence, p_opinions, coalesce(p_judgements, v_least))) THEN
        RETURN;
    END IF;
    PERFORM FROM pgclip.campaign k JOIN pgclip.promise p ON p.id = k.promise_id
    WHERE p.label_id = p_label ORDER BY k.id FOR UPDATE OF k;
    DELETE FROM pgclip.promise WHERE label_id = p_label AND what = p_what;
    INSERT INTO pgclip.promise (label_id, what, share, confidence, opinions, judgements)
    VALUES (p_label, p_what, p_share, p_confidence, p_opinions, coalesce(p_judgements, v_least));
    IF v_is_new THEN
        -- Workers read sets anew, and give scores to the items that are there.
        UPDATE pgclip.label_set SET version = version + 1
        WHERE id = (SELECT set_id FROM pgclip.label WHERE id = p_label);
        PERFORM pgclip._begin_relabeling();
    END IF;
END $$;

-- Takes a label's promises back: only people decide. Returns whether there were any.
CREATE FUNCTION pgclip.withdraw_promise(
    label_set text, label text, what text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_label int := pgclip._label(label_set, label);
BEGIN
    PERFORM FROM pgclip.label_epoch FOR UPDATE;
    PERFORM FROM pgclip.label WHERE id = v_label FOR NO KEY UPDATE;
    IF withdraw_promise.what NOT IN ('precision', 'recall') THEN
        RAISE EXCEPTION 'what is precision or recall, not %', withdraw_promise.what
            USING ERRCODE = 'PC001';
    END IF;
    DELETE FROM pgclip.promise
    WHERE label_id = v_label AND what = coalesce(withdraw_promise.what, what);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE pgclip.label_set SET version = version + 1
    WHERE id = (SELECT set_id FROM pgclip.label WHERE id = v_label);
    PERFORM pgclip._begin_relabeling();
    DELETE FROM pgclip.item_score
    WHERE label_id = v_label
      AND NOT EXISTS (SELECT FROM pgclip.promise WHERE label_id = v_label);
    RETURN true;
END $$;

-- Keeps a label from being dropped until the end of the transaction. Raises PC002 if it is gone.
CREATE FUNCTION pgclip._hold_label(p_id int, p_set text, p_label text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM pgclip.label WHERE id = p_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'label set % has no label % any more', p_set, p_label
            USING ERRCODE = 'PC002';
    END IF;
END $$;

-- A label's number. Raises PC002.
CREATE FUNCTION pgclip._label(p_set text, p_label text) RETURNS int
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_label int := (SELECT l.id FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
                    WHERE s.name = p_set AND l.name = p_label AND NOT l.is_background);
BEGIN
    IF v_label IS NULL THEN
        RAISE EXCEPTION 'label set % has no label %', p_set, p_label USING ERRCODE = 'PC002',
            HINT = 'SELECT name FROM pgclip.label_set;';
    END IF;
    RETURN v_label;
END $$;
