-- Workers, leases and the steward's sweep. Times are the database's clock throughout.

CREATE VIEW pgclip.queue AS
SELECT m.name AS model, s.state, s.jobs, s.oldest
FROM pgclip.model m
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(rank) AS oldest FROM pgclip.job
    WHERE model_id = m.id AND lease IS NOT NULL) l
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(rank) AS oldest FROM pgclip.job
    WHERE model_id = m.id AND not_before IS NOT NULL AND lease IS NULL) d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(rows), 0)::bigint AS jobs FROM pgclip._tallies
    WHERE what = 'job' AND model_id = m.id AND collection_id = 0) t
CROSS JOIN LATERAL (
    SELECT min(rank) AS oldest FROM pgclip.job
    WHERE model_id = m.id AND lease IS NULL AND not_before IS NULL) q
CROSS JOIN LATERAL (VALUES ('leased', l.jobs, l.oldest), ('delayed', d.jobs, d.oldest),
                           ('queued', t.jobs - l.jobs - d.jobs, q.oldest)) s(state, jobs, oldest)
WHERE s.jobs > 0;

CREATE VIEW pgclip.workers AS
SELECT w.id, w.host, w.pid, m.name AS model, w.device, w.precision, w.batch_size, w.started_at,
       w.heartbeat_at, w.expires_at > clock_timestamp() AS alive,
       (SELECT count(*) FROM pgclip.job j WHERE j.worker_id = w.id AND j.lease IS NOT NULL) AS jobs,
       w.trouble, w.rate
FROM pgclip.worker w JOIN pgclip.model m ON m.id = w.model_id;

-- Raises PC006 if the model does not take work any more.
CREATE FUNCTION pgclip.sign_on(
    p_model smallint, p_host text, p_pid int, p_device text, p_precision text,
    p_batch_size int, p_lease_seconds double precision
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_worker bigint;
BEGIN
    PERFORM pgclip._attend(p_model);  -- before the lock below, which others may hold as well
    INSERT INTO pgclip.worker (model_id, host, pid, device, precision, batch_size, expires_at)
    SELECT id, p_host, p_pid, p_device, p_precision, p_batch_size,
           clock_timestamp() + make_interval(secs => p_lease_seconds)
    -- A lock that a change of its state waits for, and that waits for one: otherwise a worker could
    -- sign on for a model that is just being taken back, and nobody would tell it.
    FROM pgclip.model WHERE id = p_model AND state <> 'retired' FOR SHARE
    RETURNING id INTO v_worker;
    IF v_worker IS NULL THEN
        RAISE EXCEPTION 'this worker''s model is retired or gone' USING ERRCODE = 'PC006',
            HINT = 'Start it with the live model; see pgclip.models.';
    END IF;
    RETURN v_worker;
END $$;

-- Keeps a worker's leases alive and returns them, so that it can release those it does not know
-- of (the connection broke while it claimed, or a store failed). NULL: the worker was given up;
-- it has to sign on again. p_trouble is what a person should read of it, NULL if there is none;
-- p_stored how many items it has stored since it started, from which its rate of late follows: each
-- second's half as much after ten.
CREATE FUNCTION pgclip.heartbeat(
    p_worker bigint, p_lease_seconds double precision, p_trouble text DEFAULT NULL,
    p_stored bigint DEFAULT NULL
) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_model smallint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE pgclip.worker SET heartbeat_at = clock_timestamp(), held_at_death = NULL,
           expires_at = clock_timestamp() + make_interval(secs => p_lease_seconds),
           trouble = p_trouble,
           stored = coalesce(p_stored, stored),
           fastest = greatest(fastest, rate),  -- a heartbeat late
           rate = CASE WHEN heartbeat_at < clock_timestamp() THEN (
                      SELECT (p_stored - stored) / s * (1 - 0.5 ^ (s / 10))
                             + coalesce(rate, 0) * 0.5 ^ (s / 10)
                      FROM (SELECT extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS s
                            ) e) ELSE rate END
    WHERE id = p_worker RETURNING model_id INTO v_model;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM pgclip._attend(v_model);
    RETURN ARRAY(SELECT DISTINCT lease FROM pgclip.job
                 WHERE worker_id = p_worker AND lease IS NOT NULL);
END $$;

CREATE FUNCTION pgclip.sign_off(p_worker bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip.release(p_worker);
    DELETE FROM pgclip.worker WHERE id = p_worker;
$$;

-- Hands a worker's jobs under these leases (NULL: all of them) back to the queue without blame.
-- Jobs that a transaction has locked are left: it is either replacing them, or its own end frees
-- them for the next call. Losing this in a crash does no harm, so nobody waits for the disk.
CREATE FUNCTION pgclip.release(p_worker bigint, p_leases uuid[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH free AS (
        SELECT id FROM pgclip.job
        WHERE worker_id = p_worker AND lease IS NOT NULL
          AND (p_leases IS NULL OR lease = ANY(p_leases))
        ORDER BY id FOR UPDATE SKIP LOCKED
    )
    UPDATE pgclip.job SET lease = NULL, worker_id = NULL WHERE id IN (SELECT id FROM free);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

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
--
-- By indexes, and content by content (OFFSET 0), whatever the planner knows: a plan that was made
-- while the queue was all but empty read and sorted it, once for each job, when it was full.
CREATE FUNCTION pgclip.claim(
    p_worker bigint, p_lease uuid, p_limit int, p_max_bytes bigint, p_texts int DEFAULT 1
) RETURNS TABLE (job_id bigint, item_id bigint, collection text, key text, kind pgclip.kind,
               content_hash bytea, source text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_model    smallint;
    v_held     bigint;
    v_cautious boolean;
    v_group    smallint;
    v_picked   bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT w.model_id INTO v_model FROM pgclip.worker w JOIN pgclip.model m ON m.id = w.model_id
    WHERE w.id = p_worker AND NOT m.is_paused;
    SELECT count(*), coalesce(bool_or(group_limit IS NOT NULL), false) INTO v_held, v_cautious
    FROM pgclip.job WHERE worker_id = p_worker AND lease IS NOT NULL;
    SELECT group_limit INTO v_group FROM pgclip.job
    WHERE model_id = v_model AND lease IS NULL AND not_before IS NULL
    ORDER BY rank, id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR v_cautious OR (v_group IS NOT NULL AND v_held > 0) THEN
        RETURN;
    END IF;

    WITH candidate AS MATERIALIZED (
        SELECT j.id, j.rank, j.kind, j.content_hash FROM pgclip.job j
        WHERE j.model_id = v_model AND j.lease IS NULL AND j.not_before IS NULL
          -- Not "IS NOT DISTINCT FROM": the planner takes that for rare, and sorts the queue.
          AND (v_group IS NULL AND j.group_limit IS NULL OR j.group_limit = v_group)
          AND NOT EXISTS (SELECT FROM pgclip.job o WHERE o.content_hash = j.content_hash
                          AND o.kind = j.kind AND o.model_id = j.model_id
                          AND o.lease IS NOT NULL OFFSET 0)
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
                          AND o.lease IS NOT NULL OFFSET 0)
        RETURNING j.id, j.item_id, j.kind, j.content_hash, j.rank
    )
    SELECT l.id, l.item_id, c.name, i.key, l.kind, l.content_hash,
           CASE WHEN l.content_hash IS NULL THEN i.source END
    FROM leased l CROSS JOIN LATERAL (
        SELECT collection_id, key, source FROM pgclip.item WHERE id = l.item_id OFFSET 0) i
    JOIN pgclip.collection c ON c.id = i.collection_id
    ORDER BY l.rank, l.id;
END $$;

-- Takes back the leases of workers whose heartbeat stopped. Their jobs run again in smaller
-- groups; a job that was alone on its worker gets a strike, and fails at the limit, together with
-- the queued ones of the same content. SKIP LOCKED throughout: a transaction of a frozen worker
-- must not stop the sweep. While Postgres itself was down no heartbeat could arrive, so workers
-- get their time again after its start. Returns how many jobs it took back.
CREATE FUNCTION pgclip.sweep(p_strike_limit int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_worker pgclip.worker;
    v_jobs   bigint[];
    v_count  bigint := 0;
BEGIN
    FOR v_worker IN
        SELECT * FROM pgclip.worker
        WHERE expires_at < clock_timestamp()
          AND pg_postmaster_start_time() + (expires_at - heartbeat_at) < clock_timestamp()
        ORDER BY id FOR UPDATE SKIP LOCKED
    LOOP
        IF v_worker.held_at_death IS NULL THEN
            UPDATE pgclip.worker SET held_at_death = (
                SELECT count(*) FROM pgclip.job WHERE worker_id = v_worker.id
                AND lease IS NOT NULL)
            WHERE id = v_worker.id RETURNING * INTO v_worker;
        END IF;
        v_jobs := ARRAY(SELECT id FROM pgclip.job WHERE worker_id = v_worker.id
                        AND lease IS NOT NULL ORDER BY id FOR UPDATE SKIP LOCKED);
        UPDATE pgclip.job SET lease = NULL, worker_id = NULL,
            group_limit = CASE WHEN v_worker.held_at_death > 8 THEN 8 ELSE 1 END,
            strikes = strikes + (v_worker.held_at_death = 1)::int
        WHERE id = ANY(v_jobs);
        PERFORM pgclip._strike_out(v_jobs, p_strike_limit);
        v_count := v_count + cardinality(v_jobs);
        DELETE FROM pgclip.worker w WHERE w.id = v_worker.id
        AND NOT EXISTS (SELECT FROM pgclip.job j WHERE j.worker_id = w.id AND j.lease IS NOT NULL);
    END LOOP;
    -- Leases of workers that are not there at all.
    FOR v_worker.id IN
        SELECT DISTINCT j.worker_id FROM pgclip.job j WHERE j.lease IS NOT NULL
        AND NOT EXISTS (SELECT FROM pgclip.worker w WHERE w.id = j.worker_id)
    LOOP
        v_count := v_count + pgclip.release(v_worker.id);
    END LOOP;
    RETURN v_count;
END $$;

-- Fails those of these jobs that have reached the limit, and queued ones of the same content.
CREATE FUNCTION pgclip._strike_out(p_jobs bigint[], p_strike_limit int) RETURNS void
LANGUAGE sql AS $$
    WITH struck AS (
        SELECT id, model_id, kind, content_hash, strikes FROM pgclip.job
        WHERE id = ANY(p_jobs) AND strikes >= p_strike_limit
    ), doomed AS (
        SELECT j.id, s.strikes FROM struck s JOIN pgclip.job j ON j.id = s.id
        UNION
        SELECT j.id, s.strikes FROM struck s
        JOIN pgclip.item i ON i.content_hash = s.content_hash AND i.kind = s.kind
        JOIN pgclip.job j ON j.item_id = i.id AND j.model_id = s.model_id
                         AND j.generation = i.generation
        WHERE j.lease IS NULL
    ), free AS (
        SELECT j.id, d.strikes FROM pgclip.job j JOIN doomed d ON d.id = j.id
        ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
    ), ended AS (
        DELETE FROM pgclip.job j USING free f WHERE j.id = f.id
        RETURNING j.item_id, j.model_id, j.generation, f.strikes
    )
    INSERT INTO pgclip.failure (item_id, model_id, generation, reason, message)
    SELECT item_id, model_id, generation, 'worker_died', format(
           'the worker died %s times while it processed this content alone; its log says why',
           strikes)
    FROM ended
    ON CONFLICT (item_id, model_id) DO UPDATE SET generation = excluded.generation,
        reason = excluded.reason, message = excluded.message, failed_at = now();
$$;

-- Puts jobs of a lease off that could not be had ([{"job_id", "reason", "message", "retry_after"
-- (seconds that a site asks for, or 0), "retry_for" (seconds)}]): by 5 s, and twice as long each
-- time, up to an hour, or longer if the site asks for it; a tenth more or less, so that they don't
-- come all at once. Returns them; not those for which that is later than retry_for after the first
-- time.
CREATE FUNCTION pgclip._put_off(p_jobs bigint[], p_failed jsonb) RETURNS bigint[]
LANGUAGE sql AS $$
    WITH told AS (
        SELECT j.id, f.reason, f.message, coalesce(j.delayed_since, clock_timestamp()) AS since,
               f.retry_for,
               clock_timestamp() + greatest(f.retry_after, least(3600, 5 * 2 ^ least(j.tries, 12))
                                            * (0.9 + 0.2 * random())) * interval '1 s' AS at
        FROM jsonb_to_recordset(p_failed) AS f(
            job_id bigint, reason text, message text, retry_after double precision,
            retry_for double precision)
        JOIN pgclip.job j ON j.id = f.job_id
        WHERE j.id = ANY(p_jobs) AND f.retry_after IS NOT NULL
    ), put_off AS (
        UPDATE pgclip.job j SET lease = NULL, worker_id = NULL, not_before = t.at,
               delayed_since = t.since, tries = least(j.tries + 1, 1000), reason = t.reason,
               message = t.message
        FROM told t WHERE j.id = t.id AND t.at <= t.since + t.retry_for * interval '1 s'
        RETURNING j.id
    )
    SELECT coalesce(array_agg(id), '{}') FROM put_off
$$;

-- Brings back up to p_most jobs whose time has come, as bulk work, behind what is submitted now.
-- Returns how many.
CREATE FUNCTION pgclip.wake_jobs(p_most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH due AS (
        SELECT id FROM pgclip.job WHERE not_before <= now()
        ORDER BY not_before LIMIT p_most FOR UPDATE SKIP LOCKED
    )
    UPDATE pgclip.job SET not_before = NULL, rank = clock_timestamp() + interval '30 s'
    WHERE id IN (SELECT id FROM due);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Queued jobs of a model, counted up to p_most; those that wait for a time do not count.
CREATE FUNCTION pgclip._waits(p_model smallint, p_most int) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM (SELECT FROM pgclip.job WHERE model_id = p_model AND lease IS NULL
                          AND not_before IS NULL LIMIT p_most) counted
$$;

-- For the steward: queued jobs, counted up to p_most, and living workers of each model that
-- takes work.
CREATE FUNCTION pgclip.backlog(p_most int)
RETURNS TABLE (queue text, queued bigint, workers bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgclip._ticket_queue(m.id),
           pgclip._waits(m.id, p_most),
           (SELECT count(*) FROM pgclip.worker w
            WHERE w.model_id = m.id AND w.expires_at > clock_timestamp())
    FROM pgclip.model m WHERE m.state <> 'retired' AND NOT m.is_paused
$$;

-- Jobs of the live model that wait, counted up to p_most. What fills a model is no backlog: it is
-- queued a day behind.
CREATE FUNCTION pgclip.waiting(p_most int) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FROM (
        SELECT FROM pgclip.job j JOIN pgclip.model m ON m.id = j.model_id AND m.state = 'live'
        WHERE j.lease IS NULL AND j.not_before IS NULL
          AND j.rank < clock_timestamp() + interval '10 min' LIMIT p_most) counted
$$;
