-- Changing the model that is searched: another is promoted, gone back from, retired, dropped. Each
-- is one transaction, and what it leaves to be done is done page by page beside everything else.

-- What models are to do and have done. state: live (searched), filling, standby (another was
-- promoted in its place; kept until kept_until to be gone back to), retired (no more worked for),
-- dropping (what it has is going). "lacking": items that have neither its vectors nor a failure,
-- about; "rate": items a second that its workers have stored of late; "bytes": of its vectors and
-- their indexes; "recall": the least of what searches were found to find; "mapped": what becomes of
-- answers before it is filled.
CREATE VIEW pgclip.models AS
SELECT c.name, c.state, c.dimension, c.fingerprint, c.created_at, c.items, c.jobs, c.failures,
       greatest(0, (SELECT coalesce(sum(t.rows), 0)::bigint FROM pgclip._tallies t
                    WHERE t.what = 'item' AND t.collection_id = 0) - c.items - c.failures)
           AS lacking,
       c.paused, c.pace, c.workers, c.rate, c.bytes, c.recall, c.mapped, c.replaced_at,
       c.kept_until, c.attended
FROM (SELECT m.name, CASE WHEN m.state = 'retired' AND w.model_id IS NOT NULL THEN 'dropping'
                          WHEN m.state = 'filling' AND m.replaced_at IS NOT NULL THEN 'standby'
                          ELSE m.state::text END AS state,
             m.dimension, m.fingerprint, m.created_at,
             t.items, t.jobs, t.failures,
             m.is_paused AS paused, m.pace, o.workers, o.rate,
             (SELECT coalesce(sum(pg_total_relation_size(
                         to_regclass(pgclip._segment_table(s.model_id, s.number)))), 0)::bigint
              FROM pgclip.segment s WHERE s.model_id = m.id) AS bytes,
             (SELECT min(d.recall[1]) FROM pgclip.direction d WHERE d.model_id = m.id) AS recall,
             (SELECT p.state FROM pgclip.model_mapping p WHERE p.model_id = m.id) AS mapped,
             m.replaced_at, m.kept_until, NOT m.is_unattended AS attended
      FROM pgclip.model m LEFT JOIN pgclip.model_walk w ON w.model_id = m.id
      CROSS JOIN LATERAL (
          SELECT count(*) AS workers, sum(k.rate)::real AS rate FROM pgclip.worker k
          WHERE k.model_id = m.id AND k.expires_at > clock_timestamp()) o
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(rows) FILTER (WHERE what = 'embedding_set'), 0)::bigint AS items,
                 coalesce(sum(rows) FILTER (WHERE what = 'job'), 0)::bigint AS jobs,
                 coalesce(sum(rows) FILTER (WHERE what = 'failure'), 0)::bigint AS failures
          FROM pgclip._tallies WHERE model_id = m.id AND collection_id = 0) t) c;

-- How many items have no vectors of a model, by the reason for which they failed.
CREATE VIEW pgclip.failures AS
SELECT m.name AS model, t.detail AS reason, sum(t.rows)::bigint AS items
FROM pgclip._tallies t JOIN pgclip.model m ON m.id = t.model_id
WHERE t.what = 'failure' AND t.collection_id = 0
GROUP BY m.name, t.detail HAVING sum(t.rows) > 0;

-- How much of what a model has to have is there: items that were there when it was added (or
-- replaced) and can be encoded. One whose content was replaced since counts with what it had.
CREATE FUNCTION pgclip._filled(p_model smallint, OUT filled bigint, OUT of bigint)
LANGUAGE sql STABLE AS $$
    SELECT count(*) FILTER (WHERE e.item_id IS NOT NULL),
           count(*) FILTER (WHERE e.item_id IS NOT NULL OR f.item_id IS NULL)
    FROM pgclip.item i
    LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = p_model
    LEFT JOIN pgclip.failure f ON f.item_id = i.id AND f.model_id = p_model
    WHERE i.id <= (SELECT last_item FROM pgclip.model WHERE id = p_model)
$$;

-- What has to be ready for a promotion, so that the first minute is like any other; a row each.
CREATE FUNCTION pgclip.readiness(p_name text, share real DEFAULT 1)
RETURNS TABLE (what text, is_ready boolean, detail text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_model  pgclip.model := pgclip._model_that_is(p_name, '{filling,standby,live}');
    v_filled record;
BEGIN
    IF (share >= 0 AND share <= 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'share is from 0 to 1, not %', share USING ERRCODE = 'PC001';
    END IF;
    IF v_model.dimension IS NULL THEN
        RETURN QUERY SELECT 'worker', false, 'no worker has brought it yet: start one with '
            || format('PGCLIP_MODEL set to it, or take it back: SELECT pgclip.cancel_model(%L)',
                      p_name);
        RETURN;
    END IF;
    RETURN QUERY SELECT 'worker', count(*) > 0, format('%s alive', count(*))
        FROM pgclip.worker WHERE model_id = v_model.id AND expires_at > clock_timestamp();
    v_filled := pgclip._filled(v_model.id);
    RETURN QUERY SELECT 'items', v_filled.filled >= ceil(share::numeric * v_filled.of),
        format('%s of %s that were there and can be encoded', v_filled.filled, v_filled.of);
    RETURN QUERY SELECT * FROM pgclip._readiness_of_labels(v_model.id, share);
    RETURN QUERY SELECT * FROM pgclip._readiness_of_search(v_model.id);
END $$;

CREATE FUNCTION pgclip._readiness_of_labels(p_model smallint, p_share real)
RETURNS TABLE (what text, is_ready boolean, detail text)
LANGUAGE sql STABLE AS $$
    SELECT 'words', count(*) = 0, format('%s words of label sets are not encoded', count(*))
    FROM pgclip.label_set s JOIN pgclip.label l ON l.set_id = s.id AND l.archived_at IS NULL
    WHERE s.active AND NOT EXISTS (
        SELECT FROM pgclip.label_vector v WHERE v.label_id = l.id AND v.model_id = p_model
        AND v.version >= s.prompts_version)
    UNION ALL
    SELECT 'heads', count(*) = 0,
           format('%s label sets are not taught%s', count(*), ': ' || string_agg(s.name, ', '))
    FROM pgclip.label_set s
    WHERE s.teaching > 0 AND NOT EXISTS (  -- a share would teach from some of what was judged
        SELECT FROM pgclip.label_task k WHERE k.set_id = s.id AND k.model_id = p_model
        AND k.teaching = s.teaching AND k.done_at IS NOT NULL)
    UNION ALL
    SELECT 'labels', count(*) = 0 OR p_share < 1,
           CASE count(*) WHEN 0 THEN 'items have theirs' ELSE 'items are being labelled anew' END
    FROM pgclip.relabeling r WHERE r.model_id = p_model
$$;

CREATE FUNCTION pgclip._readiness_of_search(p_model smallint)
RETURNS TABLE (what text, is_ready boolean, detail text)
LANGUAGE sql STABLE AS $$
    SELECT 'indexes', u <= greatest(50000, 2 * pgclip.unindexed(pgclip._live_model())),
           format('%s vectors have no index yet', u)
    FROM pgclip.unindexed(p_model) u
    UNION ALL
    SELECT 'recall', count(*) = 0 OR coalesce(pgclip._hot_for(p_model) < '10 s', false),  -- a burst
           format('%s directions are not measured', count(*))
    FROM (SELECT DISTINCT kind FROM pgclip.segment WHERE model_id = p_model AND state = 'sealed') s
    CROSS JOIN unnest(enum_range(NULL::pgclip.kind)) q(kind)
    WHERE NOT EXISTS (SELECT FROM pgclip.direction d WHERE d.model_id = p_model
                      AND d.query_kind = q.kind AND d.kind = s.kind)
    UNION ALL
    -- Tried, it is as far as it can be: too few may have asked.
    SELECT 'relevance', count(*) = 0 OR (SELECT calibrated_at IS NOT NULL FROM pgclip.model
                                         WHERE id = p_model),
           format('%s directions that the live model is calibrated for are not', count(*))
    FROM pgclip._uncalibrated(p_model)
    UNION ALL
    -- Of those that were asked within the last minute some are always on their way.
    SELECT 'queries', 20 * count(*) FILTER (WHERE is_missing) <= count(*),
           format('%s queries that are kept are not encoded', count(*) FILTER (WHERE is_missing))
    FROM (SELECT NOT EXISTS (SELECT FROM pgclip.query_vector v WHERE v.model_id = p_model
                             AND (v.kind, v.hash) = (k.kind, k.hash))
                 AND NOT EXISTS (SELECT FROM pgclip.query_request r WHERE r.model_id = p_model
                                 AND (r.kind, r.hash) = (k.kind, k.hash)
                                 AND r.error IS NOT NULL) AS is_missing
          FROM pgclip.kept_query k WHERE k.asked_at < clock_timestamp() - interval '1 min') asked
$$;

-- Makes a model the one that is searched, if "share" of what it has to have is there and all else
-- is ready (see readiness); or anyway. The one before stands by for "keep" (NULL: until it is
-- retired), is kept up to date if a worker serves it, and can be gone back to. Raises PC006, PC001.
CREATE FUNCTION pgclip.promote_model(
    p_name text, share real DEFAULT 1, keep interval DEFAULT '7 days', anyway boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model   pgclip.model := pgclip._model_that_is(p_name, '{filling,standby}');
    v_live    text := (SELECT name FROM pgclip.model WHERE state = 'live');
    v_lacking text;
BEGIN
    SELECT string_agg(what || ': ' || detail, '; ') INTO v_lacking
    FROM pgclip.readiness(p_name, share) WHERE NOT is_ready
      AND (NOT anyway OR v_model.dimension IS NULL);
    IF v_lacking IS NOT NULL THEN
        RAISE EXCEPTION 'model % is not ready. %', p_name, v_lacking USING ERRCODE = 'PC006',
            HINT = 'Its workers bring what is lacking. SELECT * FROM pgclip.readiness(…) tells it '
                   'again; share => 0.9 is content with less, anyway => true with everything.';
    END IF;
    PERFORM pgclip._lock_models();
    -- Somebody else may have promoted it meanwhile, or another one.
    v_model := pgclip._model_that_is(p_name, '{filling,standby}');
    IF v_live IS DISTINCT FROM (SELECT name FROM pgclip.model WHERE state = 'live') THEN
        RAISE EXCEPTION 'model % was promoted meanwhile', (
            SELECT name FROM pgclip.model WHERE state = 'live') USING ERRCODE = 'PC006',
            HINT = 'Promote this one again, if it should take its place.';
    END IF;
    PERFORM pgclip._exchange_models(v_model.id, keep);
END $$;

-- Goes back to a model that stands by: the one that was replaced last, or the one that is named.
-- Returns which, and how many items it lacks, which are encoded then. Raises PC006.
CREATE FUNCTION pgclip.rollback_model(
    p_name text DEFAULT NULL, keep interval DEFAULT '7 days', OUT model text, OUT lacking bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._lock_models();
    model := coalesce(p_name, (SELECT name FROM pgclip.model
                               WHERE state = 'filling' AND replaced_at IS NOT NULL
                                 AND dimension IS NOT NULL
                               ORDER BY replaced_at DESC LIMIT 1));
    IF model IS NULL THEN
        RAISE EXCEPTION 'there is no model to go back to' USING ERRCODE = 'PC006',
            HINT = 'One stands by from when another is promoted until it is retired.';
    END IF;
    v_model := pgclip._model_that_is(model, '{standby}');
    PERFORM pgclip._exchange_models(v_model.id, keep);
    SELECT m.lacking INTO lacking FROM pgclip.models m WHERE m.name = model;
END $$;

CREATE FUNCTION pgclip._exchange_models(p_model smallint, p_keep interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_before pgclip.model;
BEGIN
    SELECT * INTO v_before FROM pgclip.model WHERE state = 'live';
    UPDATE pgclip.model SET state = 'filling', replaced_at = clock_timestamp(),
        kept_until = clock_timestamp() + p_keep,
        last_item = coalesce((SELECT max(id) FROM pgclip.item), 0)
    WHERE state = 'live';
    IF v_before.dimension IS NULL THEN  -- no worker has ever brought it
        PERFORM pgclip._begin_drop(v_before.id, true);
    END IF;
    UPDATE pgclip.model SET state = 'live', replaced_at = NULL, kept_until = NULL,
        is_paused = false, pace = NULL
    WHERE id = p_model;
    PERFORM pgclip._attend(p_model);
END $$;

-- A model that was left alone has a worker again, or is searched again: what it has missed is
-- queued.
CREATE FUNCTION pgclip._attend(p_model smallint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.model SET is_unattended = false WHERE id = p_model AND is_unattended;
    IF FOUND THEN
        PERFORM pgclip._begin_walk(p_model);
    END IF;
END $$;

-- For the steward: nothing more is queued for a model that stands by and that no worker has served
-- for ten minutes; one that was kept long enough is retired. What somebody has locked is for later,
-- and each is looked at again once it is locked: it may have become the live one.
CREATE FUNCTION pgclip._see_to_standbys() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model smallint;
BEGIN
    FOR v_model IN
        SELECT m.id FROM pgclip.model m
        WHERE m.state = 'filling' AND m.replaced_at < clock_timestamp() - interval '10 min'
          AND NOT m.is_unattended AND NOT pgclip._is_served(m.id)
        FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        UPDATE pgclip.model m SET is_unattended = true
        WHERE m.id = v_model AND m.state = 'filling' AND NOT pgclip._is_served(m.id);
        IF FOUND THEN
            DELETE FROM pgclip.model_walk WHERE model_id = v_model;
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pgclip.model m WHERE m.state = 'filling'
               AND m.kept_until < clock_timestamp())
       AND pg_try_advisory_xact_lock(7311994461) THEN
        FOR v_model IN
            SELECT m.id FROM pgclip.model m
            WHERE m.state = 'filling' AND m.kept_until < clock_timestamp()
              AND pgclip._answered_by(m.id) IS NULL
            FOR UPDATE SKIP LOCKED
        LOOP
            PERFORM pgclip._begin_drop(v_model, false);
        END LOOP;
    END IF;
END $$;

-- Whether a worker has served it within ten minutes; while Postgres was down none could say so.
CREATE FUNCTION pgclip._is_served(p_model smallint) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT pg_postmaster_start_time() > clock_timestamp() - interval '10 min' OR EXISTS (
        SELECT FROM pgclip.worker w WHERE w.model_id = p_model
        AND w.expires_at > clock_timestamp() - interval '10 min')
$$;

-- The model that a model's vectors still answer for, by a map; NULL if none.
CREATE FUNCTION pgclip._answered_by(p_model smallint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT m.name FROM pgclip.model_mapping p JOIN pgclip.model m ON m.id = p.model_id
    WHERE p.source_id = p_model AND p.state = 'answers' AND m.state = 'live' LIMIT 1
$$;

-- Retires a model that stands by: it takes no more work, its workers end, and its vectors and
-- labels go, page by page while everything runs. Raises PC006, also while its vectors answer for
-- another one's, by a map; not anyway.
CREATE FUNCTION pgclip.retire_model(p_name text, anyway boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{standby,retired}');
    PERFORM pgclip._refuse_while_it_answers(v_model, anyway);
    PERFORM pgclip._begin_drop(v_model.id, false);
END $$;

-- Retires a model and forgets it: its row goes, too. Raises as retire_model does.
CREATE FUNCTION pgclip.drop_model(p_name text, anyway boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{standby,retired,dropping}');
    PERFORM pgclip._refuse_while_it_answers(v_model, anyway);
    UPDATE pgclip.model_walk SET with_model = true
    WHERE model_id = v_model.id AND v_model.state = 'retired';
    IF NOT FOUND THEN
        PERFORM pgclip._begin_drop(v_model.id, true);
    END IF;
END $$;

CREATE FUNCTION pgclip._refuse_while_it_answers(p_model pgclip.model, p_anyway boolean)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_live text := pgclip._answered_by((p_model).id);
BEGIN
    IF v_live IS NOT NULL AND NOT p_anyway THEN  -- workers look at it now and then only
        PERFORM pgclip._forget_map(m.model_id) FROM pgclip.model_mapping m
        WHERE m.source_id = (p_model).id AND pgclip._filled_of(m.model_id, m.source_id) = 1;
        v_live := pgclip._answered_by((p_model).id);
    END IF;
    IF v_live IS NOT NULL AND NOT p_anyway THEN
        RAISE EXCEPTION 'vectors of model % still answer for items that lack those of %',
            (p_model).name, v_live USING ERRCODE = 'PC006',
            HINT = 'Wait until it is filled; anyway => true does without them at once.';
    END IF;
END $$;

-- Takes a model back that was added: one that is being filled, or that no worker has brought. What
-- it has is dropped page by page while everything runs, and then the model; workers of it end.
CREATE FUNCTION pgclip.cancel_model(p_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{filling,live}');
    IF v_model.state = 'live' AND v_model.dimension IS NOT NULL THEN
        RAISE EXCEPTION 'model % is live', p_name USING ERRCODE = 'PC006',
            HINT = 'Promote another one first, or go back: SELECT * FROM pgclip.rollback_model();';
    END IF;
    PERFORM pgclip._begin_drop(v_model.id, true);
END $$;

CREATE FUNCTION pgclip._begin_drop(p_model smallint, p_with_model boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.model SET state = 'retired', replaced_at = NULL, kept_until = NULL
    WHERE id = p_model;
    DELETE FROM pgclip.worker WHERE model_id = p_model;  -- their next heartbeat tells them
    PERFORM pgclip._forget_map(model_id) FROM pgclip.model_mapping
    WHERE p_model IN (model_id, source_id);
    PERFORM pgclip._begin_walk(p_model);
    UPDATE pgclip.model_walk SET with_model = p_with_model WHERE model_id = p_model;
END $$;

-- Nobody works for a model that is not live until it is resumed. Raises PC006.
CREATE FUNCTION pgclip.pause_model(p_name text) RETURNS void
LANGUAGE sql AS $$
    UPDATE pgclip.model SET is_paused = true
    WHERE id = (pgclip._model_that_is(p_name, '{filling,standby}')).id
$$;

CREATE FUNCTION pgclip.resume_model(p_name text) RETURNS void
LANGUAGE sql AS $$
    UPDATE pgclip.model SET is_paused = false
    WHERE id = (pgclip._model_that_is(p_name, '{filling,standby}')).id
$$;

-- How many items a second a model is filled by at most; NULL: as many as its workers take. What
-- waits for it is queued anew at that pace. Raises PC006, PC001.
CREATE FUNCTION pgclip.pace_model(p_name text, pace real DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    PERFORM pgclip._check_pace(pace);
    PERFORM pgclip._lock_models();
    v_model := pgclip._model_that_is(p_name, '{filling,standby}');
    UPDATE pgclip.model m SET pace = pace_model.pace WHERE m.id = v_model.id;
    IF pace_model.pace IS NOT NULL AND v_model.dimension IS NOT NULL THEN
        PERFORM pgclip._forget_jobs(ARRAY(
            SELECT id FROM pgclip.job WHERE model_id = v_model.id AND lease IS NULL
              AND group_limit IS NULL AND strikes = 0 AND not_before IS NULL
            ORDER BY id FOR UPDATE SKIP LOCKED));
        PERFORM pgclip._begin_walk(v_model.id);
        UPDATE pgclip.model_sample SET contents = 0, last_hash = '', drawn_at = NULL
        WHERE model_id = v_model.id;
    END IF;
END $$;

-- For a worker of a model that is not live: what its first minute as the live one would lack. Kept
-- queries are asked for, and what the live model is calibrated for is measured.
CREATE FUNCTION pgclip.prepare_model(p_model smallint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgclip.model WHERE id = p_model AND state = 'filling') THEN
        RETURN;
    END IF;
    INSERT INTO pgclip.query_request (model_id, kind, hash, data)
    SELECT p_model, k.kind, k.hash, k.data FROM pgclip.kept_query k
    WHERE NOT EXISTS (SELECT FROM pgclip.query_vector v WHERE v.model_id = p_model
                      AND (v.kind, v.hash) = (k.kind, k.hash))
      AND NOT EXISTS (SELECT FROM pgclip.query_request r WHERE r.model_id = p_model
                      AND (r.kind, r.hash) = (k.kind, k.hash))
    ORDER BY k.asked_at DESC LIMIT 200
    ON CONFLICT DO NOTHING;
    IF NOT EXISTS (SELECT FROM pgclip.model_walk WHERE model_id = p_model)
       AND EXISTS (SELECT FROM pgclip._uncalibrated(p_model)) THEN
        UPDATE pgclip.model SET calibrated_at = clock_timestamp() WHERE id = p_model
        AND (calibrated_at < clock_timestamp() - interval '1 hour') IS NOT FALSE;
        IF FOUND THEN
            PERFORM pgclip._calibrate(p_model, 300, false);
        END IF;
    END IF;
END $$;

-- Directions that were measured for the live model and are not for this one.
CREATE FUNCTION pgclip._uncalibrated(p_model smallint)
RETURNS TABLE (query_kind pgclip.kind, item_kind pgclip.kind)
LANGUAGE sql STABLE AS $$
    SELECT c.query_kind, c.item_kind FROM pgclip.calibration c
    WHERE c.model_id = pgclip._live_model() AND c.mean IS NOT NULL AND NOT EXISTS (
        SELECT FROM pgclip.calibration o WHERE o.model_id = p_model
        AND (o.query_kind, o.item_kind) = (c.query_kind, c.item_kind))
$$;

-- What a model would cost that is to be added: items that have to be encoded, those that can't be,
-- since their bytes were not kept; bytes on disk, as many as the live one's vectors and indexes
-- take for the dimension (NULL: the same); and seconds, if its workers were as fast as those of the
-- live model have been (NULL: that is not known).
CREATE FUNCTION pgclip.plan_model(
    dimension int DEFAULT NULL, OUT items bigint, OUT images bigint, OUT texts bigint,
    OUT not_kept bigint, OUT bytes bigint, OUT rate real, OUT seconds double precision
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
DECLARE
    v_live    pgclip.model;
    v_vectors bigint;
BEGIN
    IF dimension NOT BETWEEN 1 AND 4000 THEN
        RAISE EXCEPTION 'a dimension is from 1 to 4000, not %', dimension USING ERRCODE = 'PC001';
    END IF;
    SELECT * INTO v_live FROM pgclip.model WHERE id = pgclip._live_model();
    SELECT count(*) FILTER (WHERE i.kind = 'image'), count(*) FILTER (WHERE i.kind = 'text'),
           count(*) FILTER (WHERE i.source IS NULL AND o.data IS NULL)
    INTO images, texts, not_kept
    FROM pgclip.item i
    LEFT JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash;
    items := images + texts;
    SELECT sum(s.table_bytes + s.index_bytes), sum(s.vectors) INTO bytes, v_vectors
    FROM pgclip.segments s WHERE s.model = v_live.name AND s.state IN ('hot', 'closed', 'sealed');
    -- A vector is in the table and in the index, in halves.
    bytes := greatest(0, bytes + v_vectors * 4 * (coalesce(dimension, v_live.dimension)
                                                  - v_live.dimension));
    SELECT sum(w.fastest) INTO rate FROM pgclip.worker w
    WHERE w.model_id = v_live.id AND w.expires_at > clock_timestamp();
    seconds := (items - not_kept) / nullif(rate, 0);
END $$;
