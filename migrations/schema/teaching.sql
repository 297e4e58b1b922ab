-- Teaching label sets and checking them: asked for here, done by a worker on stored vectors.

-- Has a worker of the live model teach a set from judgements, or from a field of the metadata that
-- says what items are; and those of other models, when their vectors are there. Returns a number
-- to ask label_result for. Raises PC001, and PC002 if there is no such set.
CREATE FUNCTION pgclip.request_teaching(
    label_set text, truth text DEFAULT NULL, collection text DEFAULT NULL,
    sample int DEFAULT 100000
) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM pgclip.label_epoch FOR UPDATE;  -- first, as one who defines a set does
    UPDATE pgclip.label_set s SET teaching = teaching + 1, lessons = jsonb_build_object(
        'truth', request_teaching.truth, 'collection', request_teaching.collection,
        'sample', request_teaching.sample)
    WHERE s.name = label_set;
    RETURN pgclip._request_label_task('teach', label_set, truth, collection, sample, NULL);
END $$;

-- The same for finding out how often the labels that a set gives are right; groups: a field of the
-- metadata by whose values it is told, too, for each group of items. model: of another than the
-- live one, for its workers.
CREATE FUNCTION pgclip.request_evaluation(
    label_set text, truth text DEFAULT NULL, collection text DEFAULT NULL,
    sample int DEFAULT 100000, groups text DEFAULT NULL, model text DEFAULT NULL
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._request_label_task('evaluate', label_set, truth, collection, sample, groups,
                                      model)
$$;

CREATE FUNCTION pgclip._request_label_task(
    p_what text, p_set text, p_truth text, p_collection text, p_sample int, p_groups text,
    p_model text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_set  pgclip.label_set;
    v_task bigint;
BEGIN
    SELECT * INTO v_set FROM pgclip.label_set WHERE name = p_set FOR KEY SHARE;
    IF v_set.id IS NULL THEN
        RAISE EXCEPTION 'there is no label set %', p_set USING ERRCODE = 'PC002';
    ELSIF p_sample IS NULL OR p_sample NOT BETWEEN 10 AND 1000000 THEN
        RAISE EXCEPTION 'sample is from 10 to 1000000, not %', p_sample USING ERRCODE = 'PC001';
    ELSIF p_what = 'evaluate' AND (SELECT count(*) FROM pgclip.label_task
                                   WHERE done_at IS NULL AND what = 'evaluate') >= 20 THEN
        RAISE EXCEPTION 'twenty evaluations wait already' USING ERRCODE = 'PC005',
            HINT = 'Is a worker running? SELECT * FROM pgclip.workers;';
    END IF;
    PERFORM pgclip._path(p_groups);
    INSERT INTO pgclip.label_task (set_id, model_id, what, teaching, truth, collection, sample,
                                   groups)
    VALUES (v_set.id, pgclip._model_asked(p_model), p_what,
            CASE p_what WHEN 'teach' THEN v_set.teaching END, p_truth, p_collection, p_sample,
            p_groups)
    RETURNING id INTO v_task;
    RETURN v_task;
END $$;

-- What came of it: NULL while it is not done. Raises PC005 with the reason if it can't be done,
-- and PC002 if nobody asked, or a week ago.
CREATE FUNCTION pgclip.label_result(task bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_task pgclip.label_task;
BEGIN
    SELECT * INTO v_task FROM pgclip.label_task WHERE id = task;
    IF v_task.id IS NULL THEN
        RAISE EXCEPTION 'there is no task %', task USING ERRCODE = 'PC002';
    ELSIF v_task.error IS NOT NULL THEN
        RAISE EXCEPTION '%', v_task.error USING ERRCODE = 'PC005';
    END IF;
    RETURN v_task.result;
END $$;

-- Teaches, and waits for it. CALL it outside a transaction.
CREATE PROCEDURE pgclip.teach(
    label_set text, truth text DEFAULT NULL, collection text DEFAULT NULL,
    timeout interval DEFAULT '5 minutes', INOUT result jsonb DEFAULT NULL
) LANGUAGE plpgsql AS $$
BEGIN
    CALL pgclip._await_label_task(
        pgclip.request_teaching(label_set, truth, collection), timeout, result);
END $$;

-- Evaluates, and waits for it. CALL it outside a transaction.
CREATE PROCEDURE pgclip.evaluate(
    label_set text, truth text DEFAULT NULL, collection text DEFAULT NULL,
    timeout interval DEFAULT '5 minutes', INOUT result jsonb DEFAULT NULL,
    groups text DEFAULT NULL
) LANGUAGE plpgsql AS $$
BEGIN
    CALL pgclip._await_label_task(
        pgclip.request_evaluation(label_set, truth, collection, groups => groups), timeout,
        result);
END $$;

CREATE PROCEDURE pgclip._await_label_task(
    p_task bigint, p_timeout interval, INOUT p_result jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    v_end timestamptz := clock_timestamp() + p_timeout;
BEGIN
    COMMIT;
    LOOP
        p_result := pgclip.label_result(p_task);
        EXIT WHEN p_result IS NOT NULL;
        IF clock_timestamp() > v_end THEN
            RAISE EXCEPTION 'no worker has done it within %', p_timeout USING ERRCODE = 'PC003',
                HINT = format('Is a worker running? SELECT pgclip.label_result(%s) later.', p_task);
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;

-- For a worker: the next task of its model, teaching first. One whose worker is gone is taken
-- again, three times at most. A set that was to be taught and that the model has not learnt becomes
-- a task, once: of the live model at once, of others when what was judged has been encoded, or, by
-- a field, all items.
CREATE FUNCTION pgclip.take_label_task(p_model smallint, p_worker bigint)
RETURNS TABLE (id bigint, set_id int, what text, truth text, collection text, sample int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO pgclip.label_task (set_id, model_id, what, teaching, truth, collection, sample)
    SELECT s.id, p_model, 'teach', s.teaching, s.lessons ->> 'truth', s.lessons ->> 'collection',
           (s.lessons ->> 'sample')::int
    FROM pgclip.label_set s
    WHERE s.teaching > 0
      AND NOT EXISTS (SELECT FROM pgclip.label_task k WHERE k.set_id = s.id
                      AND k.model_id = p_model AND k.teaching = s.teaching)
      AND (p_model = (SELECT m.id FROM pgclip.model m WHERE m.state = 'live')
           OR CASE WHEN s.lessons ->> 'truth' IS NULL THEN NOT EXISTS (
                  SELECT FROM pgclip.label l JOIN pgclip.judgement g ON g.label_id = l.id
                  WHERE l.set_id = s.id
                    AND NOT EXISTS (SELECT FROM pgclip.embedding_set e
                                    WHERE e.item_id = g.item_id AND e.model_id = p_model)
                    AND NOT EXISTS (SELECT FROM pgclip.failure f
                                    WHERE f.item_id = g.item_id AND f.model_id = p_model))
              ELSE NOT EXISTS (SELECT FROM pgclip.model_walk w WHERE w.model_id = p_model)
                   AND NOT EXISTS (SELECT FROM pgclip.job j
                                   WHERE j.model_id = p_model AND j.not_before IS NULL) END)
    ON CONFLICT DO NOTHING;
    DELETE FROM pgclip.label_task WHERE done_at < now() - interval '7 days' AND what = 'evaluate';
    UPDATE pgclip.label_task k SET done_at = now(),
        error = 'three workers ended while they were at it: see their logs'
    WHERE k.model_id = p_model AND k.done_at IS NULL AND k.attempts >= 3
      AND pgclip._is_left(k.worker_id, p_worker);
    RETURN QUERY
        UPDATE pgclip.label_task k SET worker_id = p_worker, attempts = k.attempts + 1
        WHERE k.id = (SELECT n.id FROM pgclip.label_task n
                      WHERE n.model_id = p_model AND n.done_at IS NULL
                        AND pgclip._is_left(n.worker_id, p_worker)
                      ORDER BY n.what <> 'teach', n.id LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING k.id, k.set_id, k.what, k.truth, k.collection, k.sample;
END $$;

-- Whether nobody is at a task: nobody took it, its worker is gone, or it is the one that asks.
CREATE FUNCTION pgclip._is_left(p_worker bigint, p_asks bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_worker IS NULL OR p_worker = p_asks OR NOT EXISTS (
        SELECT FROM pgclip.worker w WHERE w.id = p_worker AND w.expires_at > clock_timestamp())
$$;

-- What is known of contents for a set: of each its vector, and of a label whether it is right. A
-- label NULL says that the content is none of them. By judgements: every person's last word on a
-- content counts once, and where as many say yes as no, value is NULL. By a field of the metadata:
-- a text, or a list of them, which are labels or forms of labels; all other labels are wrong.
-- At most p_sample contents, drawn at random, the same ones each time.
CREATE FUNCTION pgclip.label_examples(
    p_set int, p_model smallint, p_truth text, p_collection text, p_sample int
) RETURNS TABLE (item_id bigint, kind pgclip.kind, content_hash bytea, embedding @vector@.halfvec,
                 label_ids int[], "values" boolean[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH said AS (
        SELECT * FROM pgclip._judged(p_set, p_model, p_collection) WHERE p_truth IS NULL
        UNION ALL
        SELECT * FROM pgclip._true_by(p_set, p_model, p_truth, p_collection, p_sample)
        WHERE p_truth IS NOT NULL
    ), content AS (
        SELECT DISTINCT ON (d.kind, d.content_hash) * FROM said d
        ORDER BY d.kind, d.content_hash, d.item_id
    ), drawn AS MATERIALIZED (
        SELECT * FROM content ORDER BY md5(content_hash) LIMIT p_sample
    )
    SELECT d.item_id, d.kind, d.content_hash, m.embedding, d.label_ids, d.vals
    FROM drawn d
    JOIN pgclip._means_of(p_model, ARRAY(SELECT item_id FROM drawn)) m USING (item_id);
END $$;

CREATE FUNCTION pgclip._judged(p_set int, p_model smallint, p_collection text)
RETURNS TABLE (item_id bigint, kind pgclip.kind, content_hash bytea, label_ids int[],
               vals boolean[])
LANGUAGE sql STABLE AS $$
    WITH word AS (  -- of items that still have that content
        SELECT DISTINCT ON (j.label_id, i.kind, j.content_hash, j.judge)
               j.label_id, i.kind, j.content_hash, j.value, j.item_id
        FROM pgclip.judgement j
        JOIN pgclip.label l ON l.id = j.label_id AND l.archived_at IS NULL AND l.set_id = p_set
        JOIN pgclip.embedding_set e ON e.item_id = j.item_id AND e.model_id = p_model
                                   AND e.content_hash = j.content_hash
        JOIN pgclip.item i ON i.id = j.item_id
        JOIN pgclip.collection c ON c.id = i.collection_id
        JOIN pgclip.label_set s ON s.id = p_set AND s.applies_to IN ('both', i.kind::text)
                               AND (s.collections IS NULL OR c.name = ANY(s.collections))
        WHERE (p_collection IS NULL OR c.name = p_collection) AND NOT l.is_background
        ORDER BY j.label_id, i.kind, j.content_hash, j.judge, j.judged_at DESC
    ), vote AS (
        SELECT kind, content_hash, label_id, min(item_id) AS item_id,
               sum(CASE WHEN value THEN 1 ELSE -1 END) AS votes
        FROM word GROUP BY kind, content_hash, label_id
    )
    SELECT min(item_id), kind, content_hash, array_agg(label_id ORDER BY label_id),
           array_agg(CASE sign(votes) WHEN 1 THEN true WHEN -1 THEN false END ORDER BY label_id)
    FROM vote GROUP BY kind, content_hash
$$;

CREATE FUNCTION pgclip._true_by(
    p_set int, p_model smallint, p_field text, p_collection text, p_sample int
) RETURNS TABLE (item_id bigint, kind pgclip.kind, content_hash bytea, label_ids int[],
                 vals boolean[])
LANGUAGE sql STABLE AS $$
    WITH word AS (
        SELECT DISTINCT lower(w) AS word, l.id FROM pgclip.label l
        CROSS JOIN unnest(l.forms || l.name) w
        WHERE l.set_id = p_set AND l.archived_at IS NULL AND NOT l.is_background
    ), drawn AS (  -- items rather than contents: as many as may be needed
        SELECT i.id, i.kind, e.content_hash, i.metadata -> p_field AS said
        FROM pgclip.item i
        JOIN pgclip.collection c ON c.id = i.collection_id
        JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = p_model
        JOIN pgclip.label_set s ON s.id = p_set AND s.applies_to IN ('both', i.kind::text)
                               AND (s.collections IS NULL OR c.name = ANY(s.collections))
        WHERE jsonb_typeof(i.metadata -> p_field) IN ('string', 'array')
          AND (p_collection IS NULL OR c.name = p_collection)
        ORDER BY md5(e.content_hash), i.id LIMIT p_sample
    ), named AS (
        SELECT d.id, d.kind, d.content_hash, array_agg(DISTINCT w.id ORDER BY w.id) AS labels
        FROM drawn d
        LEFT JOIN LATERAL jsonb_array_elements_text(
            CASE jsonb_typeof(d.said) WHEN 'array' THEN d.said
                 ELSE jsonb_build_array(d.said) END) v(value) ON true
        LEFT JOIN word w ON w.word = lower(v.value)
        GROUP BY d.id, d.kind, d.content_hash
    )
    SELECT id, kind, content_hash,
           CASE WHEN array_remove(labels, NULL) = '{}' THEN ARRAY[NULL]::int[]
                ELSE array_remove(labels, NULL) END,
           array_fill(true, ARRAY[greatest(cardinality(array_remove(labels, NULL)), 1)])
    FROM named
$$;

-- The group that each content belongs to, by the field that an evaluation was asked to tell groups
-- by: that of the first of its items. None if it was not, or where there is no such field.
CREATE FUNCTION pgclip.example_groups(p_task bigint, p_hashes bytea[])
RETURNS TABLE (content_hash bytea, value text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT ON (e.content_hash)
           e.content_hash, i.metadata #>> string_to_array(k.groups, '.')
    FROM pgclip.label_task k
    JOIN pgclip.embedding_set e ON e.model_id = k.model_id AND e.content_hash = ANY(p_hashes)
    JOIN pgclip.item i ON i.id = e.item_id
    WHERE k.id = p_task AND i.metadata #> string_to_array(k.groups, '.') IS NOT NULL
    ORDER BY e.content_hash, e.item_id
$$;

-- What a teaching has found, in the place of what was there; items are labelled anew. heads:
-- [{"label", "embedding", "intercept", "background"}]; contents are what it has learnt from. Raises
-- PC007 if the set is not the one of p_version.
CREATE FUNCTION pgclip.keep_teaching(
    p_task bigint, p_version int, p_scale real, p_report jsonb, p_heads jsonb, p_contents bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_task pgclip.label_task;
BEGIN
    PERFORM FROM pgclip.label_epoch FOR UPDATE;
    SELECT * INTO v_task FROM pgclip.label_task WHERE id = p_task;
    UPDATE pgclip.label_set SET version = version + 1
    WHERE id = v_task.set_id AND version = p_version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'label sets have changed' USING ERRCODE = 'PC007';
    END IF;
    DELETE FROM pgclip.label_head h USING pgclip.label l
    WHERE l.id = h.label_id AND l.set_id = v_task.set_id AND h.model_id = v_task.model_id;
    INSERT INTO pgclip.label_head (label_id, model_id, embedding, intercept, background)
    SELECT h.label, v_task.model_id, h.embedding, h.intercept, h.background
    FROM jsonb_to_recordset(p_heads)
         AS h(label int, embedding real[], intercept real, background real)
    JOIN pgclip.label l ON l.id = h.label;
    INSERT INTO pgclip.label_teaching
           (set_id, model_id, teaching, words_version, scale, report, contents, version)
    SELECT s.id, v_task.model_id, v_task.teaching, s.words_version, p_scale, p_report,
           p_contents, s.version
    FROM pgclip.label_set s WHERE s.id = v_task.set_id
    ON CONFLICT (set_id, model_id) DO UPDATE SET teaching = excluded.teaching,
        words_version = excluded.words_version, scale = excluded.scale, report = excluded.report,
        contents = excluded.contents, version = excluded.version, taught_at = now();
    PERFORM pgclip._begin_relabeling();
END $$;

-- A task is done, with a result or an error.
CREATE FUNCTION pgclip.end_label_task(p_task bigint, p_result jsonb, p_error text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE pgclip.label_task SET done_at = now(), result = p_result, error = p_error
    WHERE id = p_task
$$;
