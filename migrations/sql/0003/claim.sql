DROP FUNCTION pgclip.claim(bigint, uuid, int, bigint);
-- Leases the oldest queued jobs of the worker's model to it: at most p_limit pictures, in place of
-- each of which p_texts texts may come, and at most p_max_bytes of inline content unless the first
-- alone has more. Of many texts those of like length go together, with less padding.
-- A byte of text counts 512 times: it becomes windows of tokens, and time in the model. A claim
-- lost in a crash of Postgres does no harm, the lease fences it; so nobody waits for the disk.
--
-- A job that was on a crashed worker runs in a group of at most its group_limit, and nothing
-- else runs beside that group in the process. If such a job is next and the worker still holds
-- others, nothing is leased: the worker finishes those and asks again.
--
-- A job whose content another lease is encoding waits, and copies later. Two claims that run at
-- the same moment are kept apart by a lock on the content, taken before the second look.
CREATE FUNCTION pgclip.claim(
    p_worker bigint, p_lease uuid, p_limit int, p_max_bytes bigint, p_texts int DEFAULT 1
) RETURNS TABLE (job_id bigint, item_id bigint, collection text, key text, kind pgclip.kind,
               content_hash bytea, source text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_model    smallint;
    v_held     bigint;
    v_cautious boolean;
    v_group    smallint;
    v_picked   bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT model_id INTO v_model FROM pgclip.worker WHERE id = p_worker;
    SELECT count(*), coalesce(bool_or(group_limit IS NOT NULL), false) INTO v_held, v_cautious
    FROM pgclip.job WHERE worker_id = p_worker AND lease IS NOT NULL;
    SELECT group_limit INTO v_group FROM pgclip.job
    WHERE model_id = v_model AND lease IS NULL
    ORDER BY rank, id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR v_cautious OR (v_group IS NOT NULL AND v_held > 0) THEN
        RETURN;
    END IF;

    WITH candidate AS MATERIALIZED (
        SELECT j.id, j.rank, j.kind, j.content_hash FROM pgclip.job j
        WHERE j.model_id = v_model AND j.lease IS NULL
          -- Not "IS NOT DISTINCT FROM": the planner takes that for rare, and sorts the queue.
          AND (v_group IS NULL AND j.group_limit IS NULL OR j.group_limit = v_group)
          AND NOT EXISTS (SELECT FROM pgclip.job o WHERE o.content_hash = j.content_hash
                          AND o.kind = j.kind AND o.model_id = j.model_id
                          AND o.lease IS NOT NULL)
        ORDER BY j.rank, j.id LIMIT least(p_texts * p_limit, coalesce(v_group, p_texts * p_limit))
        FOR UPDATE SKIP LOCKED
    ), with_content AS MATERIALIZED (
        SELECT k.id, k.rank, k.kind,
               c.size::bigint * CASE k.kind WHEN 'text' THEN 512 ELSE 1 END AS size
        FROM candidate k
        JOIN pgclip.content c ON c.kind = k.kind AND c.hash = k.content_hash
        FOR NO KEY UPDATE OF c SKIP LOCKED
    ), sized AS (
        SELECT id, row_number() OVER w AS nth, sum(size) OVER w AS bytes,
               sum(CASE kind WHEN 'text' THEN 1 ELSE p_texts END) OVER w AS texts
        FROM (SELECT id, rank, kind, size FROM with_content
              UNION ALL SELECT id, rank, kind, 0 FROM candidate WHERE content_hash IS NULL) either
        WINDOW w AS (ORDER BY rank, id)
    )
    SELECT array_agg(id) INTO v_picked FROM sized
    WHERE nth = 1 OR (bytes <= p_max_bytes AND texts <= p_texts * p_limit);

    RETURN QUERY
    WITH leased AS (
        UPDATE pgclip.job j SET lease = p_lease, worker_id = p_worker
        WHERE j.id = ANY(v_picked)
          AND NOT EXISTS (SELECT FROM pgclip.job o WHERE o.content_hash = j.content_hash
                          AND o.kind = j.kind AND o.model_id = j.model_id
                          AND o.lease IS NOT NULL)
        RETURNING j.id, j.item_id, j.kind, j.content_hash, j.rank
    )
    SELECT l.id, l.item_id, c.name, i.key, l.kind, l.content_hash,
           CASE WHEN l.content_hash IS NULL THEN i.source END
    FROM leased l JOIN pgclip.item i ON i.id = l.item_id
    JOIN pgclip.collection c ON c.id = i.collection_id
    ORDER BY l.rank, l.id;
END $$;
