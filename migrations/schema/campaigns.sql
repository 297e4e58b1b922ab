-- Putting promises to the test: campaigns, their draws, and what these show. Of several thresholds
-- the safest is tried first and each further one only when the one before is shown to keep the
-- promise: in a fixed order none of them uses up the doubt of another (Maurer, Hothorn and
-- Lehmacher 1995).

-- A random number of a content, by which contents are drawn: the beginning of its hash.
CREATE FUNCTION pgclip._chance(p_hash bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(substr(p_hash, 1, 8), 'hex'))::bit(64)::bigint
$$;

-- What a head can be judged by, of what has a score of p_version: each content once, without those
-- that have taught it.
CREATE FUNCTION pgclip._population(
    p_label int, p_model smallint, p_version int, p_last_item bigint
) RETURNS TABLE (chance bigint, item_id bigint, score float4)
LANGUAGE sql STABLE AS $$
    WITH lesson AS MATERIALIZED (
        SELECT DISTINCT pgclip._chance(substr(c.content, length(c.content) - 31)) AS chance
        FROM pgclip.label_teaching t
        JOIN pgclip.label l ON l.set_id = t.set_id AND l.id = p_label
        JOIN pgclip.label_set ls ON ls.id = t.set_id AND ls.words_version = t.words_version
        CROSS JOIN unnest(t.contents) c(content)
        WHERE t.model_id = p_model
    )
    SELECT s.chance, min(s.item_id), max(s.score)
    FROM pgclip.item_score s
    WHERE s.label_id = p_label AND s.model_id = p_model AND s.head_version = p_version
      AND s.item_id <= p_last_item
      AND NOT EXISTS (SELECT FROM lesson WHERE lesson.chance = s.chance)
    GROUP BY s.chance
$$;

-- Campaigns of labels, for the live model and the heads that it has now.
CREATE FUNCTION pgclip._campaigns_of(p_labels int[]) RETURNS SETOF int
LANGUAGE sql STABLE AS $$
    SELECT k.id FROM pgclip.promise p
    JOIN pgclip.label l ON l.id = p.label_id AND l.archived_at IS NULL
    JOIN pgclip.model m ON m.state = 'live'
    JOIN pgclip.campaign k ON k.promise_id = p.id AND k.model_id = m.id
                          AND k.head_version = pgclip._head_version(l.set_id, m.id)
    WHERE p.label_id = ANY(p_labels) ORDER BY k.id
$$;

-- Those that a worker has to go on with: what they need next has not been drawn, or somebody has
-- judged what they have drawn.
CREATE FUNCTION pgclip._campaigns_to_advance() RETURNS SETOF int
LANGUAGE sql STABLE AS $$
    SELECT k.id FROM pgclip._campaigns_of(ARRAY(SELECT label_id FROM pgclip.promise)) c(id)
    JOIN pgclip.campaign k ON k.id = c.id
    WHERE k.state = 'judging' AND coalesce(k.drawn_above[k.step], 0) < k.looks[k.look]
       OR EXISTS (SELECT FROM pgclip.decision_touch t
                  JOIN pgclip.campaign_draw d ON d.campaign_id = k.id
                                             AND d.content_hash = t.content_hash)
    ORDER BY k.id
$$;

-- Begins what can begin: promises of the live model whose items all have scores of its heads, if
-- there are enough of them.
CREATE FUNCTION pgclip._begin_campaigns() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model    smallint := (SELECT id FROM pgclip.model
                            WHERE state = 'live' AND dimension IS NOT NULL);
    v_due      record;
    v_campaign int;
BEGIN
    FOR v_due IN
        SELECT p.*, pgclip._head_version(l.set_id, v_model) AS version,
               (SELECT max(item_id) FROM pgclip.embedding_set WHERE model_id = v_model) AS last
        FROM pgclip.promise p
        JOIN pgclip.label l ON l.id = p.label_id AND l.archived_at IS NULL
        JOIN pgclip.label_set s ON s.id = l.set_id AND s.active AND s.relabels
        WHERE v_model IS NOT NULL AND p.id NOT IN (SELECT k.promise_id
                           FROM pgclip._campaigns_of(ARRAY(
                                    SELECT label_id FROM pgclip.promise)) c(id)
                           JOIN pgclip.campaign k ON k.id = c.id)
        ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED
    LOOP
        PERFORM pgclip._begin_relabeling();  -- of what a worker of a version before has stored
        EXIT WHEN EXISTS (SELECT FROM pgclip.relabeling WHERE model_id = v_model);
        INSERT INTO pgclip.campaign (promise_id, model_id, head_version, start, last_item,
                                     contents, thresholds, above, looks, allowed, doubts)
        SELECT v_due.id, v_model, v_due.version,
               pgclip._chance(sha256(gen_random_uuid()::text::bytea)), v_due.last,
               c.contents, c.thresholds, c.above, k.looks, k.allowed, k.doubts
        FROM pgclip._candidates(v_due.what, v_due.judgements, v_due.label_id, v_model,
                                v_due.version, v_due.last) c
        CROSS JOIN pgclip._looks(v_due.what, v_due.share, v_due.confidence, v_due.judgements) k
        WHERE c.contents >= 1.25 * v_due.judgements
        ON CONFLICT DO NOTHING RETURNING id INTO v_campaign;
        IF v_campaign IS NOT NULL THEN
            PERFORM pgclip._advance(v_campaign, true);
        END IF;
    END LOOP;
END $$;

-- Campaigns in which nobody has judged anything begin anew when there is twice as much.
CREATE FUNCTION pgclip._renew_campaigns(p_labels int[]) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM pgclip.campaign k
    WHERE k.id IN (SELECT pgclip._campaigns_of(p_labels)) AND k.threshold IS NULL
      AND NOT EXISTS (SELECT FROM pgclip.campaign_draw d WHERE d.campaign_id = k.id AND d.judged)
      AND 2 * k.contents <= (SELECT count(*) FROM pgclip.item_score sc
                             JOIN pgclip.promise p ON p.id = k.promise_id
                             WHERE sc.label_id = p.label_id AND sc.model_id = k.model_id)
$$;

-- Thresholds to try. For precision what lies above them grows by a half each time, from a quarter
-- more than the first look needs; for recall it shrinks, from a half of all.
CREATE FUNCTION pgclip._candidates(
    p_what text, p_first int, p_label int, p_model smallint, p_version int, p_last_item bigint,
    OUT contents int, OUT thresholds float4[], OUT above int[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_scores float4[] := ARRAY(
        SELECT score FROM pgclip._population(p_label, p_model, p_version, p_last_item)
        ORDER BY score DESC);
    v_size   float8;
    v_last   float4;
    v_at     int;
BEGIN
    contents := cardinality(v_scores);
    thresholds := '{}';
    above := '{}';
    v_size := CASE p_what WHEN 'recall' THEN contents / 2.0 ELSE 1.25 * p_first END;
    WHILE v_size BETWEEN 1 AND contents LOOP
        v_last := v_scores[v_size::int];
        IF v_last IS DISTINCT FROM thresholds[cardinality(thresholds)] THEN
            v_at := v_size::int;
            WHILE v_scores[v_at + 1] = v_last LOOP  -- equal scores are on one side
                v_at := v_at + 1;
            END LOOP;
            thresholds := thresholds || v_last;
            above := above || v_at;
        END IF;
        v_size := v_size * CASE p_what WHEN 'recall' THEN 1 / 1.5 ELSE 1.5 END;
    END LOOP;
END $$;

-- The first draws that reach a threshold, or that don't, in their order.
CREATE FUNCTION pgclip._first_draws(
    p_campaign pgclip.campaign, p_threshold float4, p_is_above boolean, p_most int
) RETURNS SETOF pgclip.campaign_draw
LANGUAGE sql STABLE AS $$
    SELECT d.* FROM pgclip.campaign_draw d
    WHERE d.campaign_id = p_campaign.id AND (d.score >= p_threshold) = p_is_above
    ORDER BY d.chance < p_campaign.start, d.chance LIMIT p_most
$$;

-- Draws the first p_most contents that reach a threshold, or that don't.
CREATE FUNCTION pgclip._draw(
    p_campaign pgclip.campaign, p_threshold float4, p_is_above boolean, p_most int
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO pgclip.campaign_draw (campaign_id, chance, score, item_id, content_hash)
    SELECT p_campaign.id, n.chance, n.score, n.item_id, e.content_hash
    FROM (SELECT c.* FROM pgclip.promise p
          CROSS JOIN pgclip._population(p.label_id, p_campaign.model_id, p_campaign.head_version,
                                        p_campaign.last_item) c
          WHERE p.id = p_campaign.promise_id AND (c.score >= p_threshold) = p_is_above
          ORDER BY c.chance < p_campaign.start, c.chance LIMIT p_most) n
    JOIN pgclip.embedding_set e ON e.item_id = n.item_id AND e.model_id = p_campaign.model_id
    ON CONFLICT DO NOTHING
$$;

-- A side of a threshold: how many contents there are, drawn for a look, judged, and of these so.
-- Who isn't sure counts against the promise.
CREATE TYPE pgclip._side_count AS (contents int, drawn int, judged int, good int);

-- What a look shows: whether the promise is kept, NULL while draws are to be judged; how many are
-- judged, and of those that reach the threshold right; the bound so far; how many more judgements
-- it takes until it can be told.
CREATE TYPE pgclip._look AS (
    is_kept boolean, judged int, good int, bound float8, lacking int
);

-- Goes through a campaign's tests as far as its draws have been judged, from the first one on, so
-- that a judgement that is taken back counts, too. Each look has its own part of the doubt, and
-- goes through the candidates in their order, past those that another look has shown already: an
-- error needs a look to be wrong about the first candidate of its that does not keep the promise.
-- p_draws: contents that are needed next are drawn. Passes over a campaign that another transaction
-- is at, unless it p_waits: a worker goes on with it.
CREATE FUNCTION pgclip._advance(
    p_campaign int, p_draws boolean, p_waits boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_now   pgclip.campaign;
    v_waits pgclip.campaign;  -- at its first test that waits for judgements
    v_what  text;
    v_kept  int := 0;  -- the last candidate that is shown to keep it
    v_shown pgclip._look;
    v_open  pgclip._look;
BEGIN
    IF p_waits THEN
        PERFORM FROM pgclip.campaign WHERE id = p_campaign FOR NO KEY UPDATE;
    END IF;
    SELECT * INTO v_now FROM pgclip.campaign WHERE id = p_campaign FOR NO KEY UPDATE SKIP LOCKED;
    IF v_now.id IS NULL THEN
        RETURN;
    END IF;
    v_what := (SELECT what FROM pgclip.promise WHERE id = v_now.promise_id);
    v_now := pgclip._refreshed(v_now, p_draws);
    v_now.look := 1;
    v_now.threshold := NULL;
    WHILE v_now.look <= cardinality(v_now.looks) LOOP
        v_now.step := pgclip._next_candidate(v_now, v_what, v_kept);
        IF v_now.step IS NULL THEN
            v_now.look := v_now.look + 1;
            CONTINUE;
        ELSIF p_draws AND v_waits.id IS NULL THEN
            v_now := pgclip._drawn(v_now, v_what);
        END IF;
        v_shown := pgclip._shown(v_now, v_what);
        IF v_shown.is_kept THEN
            v_kept := v_now.step;
            v_now := pgclip._kept(v_now, v_what, v_shown);
            v_waits := NULL;
            v_open := NULL;
            CONTINUE;
        ELSIF v_shown.is_kept IS NULL AND v_waits.id IS NULL THEN
            v_waits := v_now;
            v_open := v_shown;
        END IF;
        v_now.look := v_now.look + 1;
    END LOOP;
    PERFORM pgclip._note_state(v_now, v_waits, coalesce(v_open, v_shown), v_kept);
END $$;

-- A campaign whose draws know what people have said by now. Two of three who agree are enough. What
-- is gone and was judged stays as it was; what was shown to somebody and is gone counts as if they
-- were unsure, or a promise could be kept by deleting what is wrong; others make place for others.
CREATE FUNCTION pgclip._refreshed(p_campaign pgclip.campaign, p_draws boolean)
RETURNS pgclip.campaign
LANGUAGE plpgsql AS $$
BEGIN
    WITH s AS MATERIALIZED (SELECT * FROM pgclip._judged_draws(p_campaign))
    UPDATE pgclip.campaign_draw d SET judged = s.judged, "right" = s.is_right FROM s
    WHERE d.campaign_id = p_campaign.id AND d.chance = s.chance
      AND (d.judged, d."right") IS DISTINCT FROM (s.judged, s.is_right);
    IF p_draws THEN
        DELETE FROM pgclip.campaign_draw d
        WHERE d.campaign_id = p_campaign.id AND NOT d.judged AND NOT d.shown
          AND NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.model_id = p_campaign.model_id
                          AND e.content_hash = d.content_hash OFFSET 0);
        IF FOUND THEN
            p_campaign.drawn_above := '{}';
        END IF;
    END IF;
    RETURN p_campaign;
END $$;

CREATE FUNCTION pgclip._judged_draws(p_campaign pgclip.campaign)
RETURNS TABLE (chance bigint, judged boolean, is_right boolean)
LANGUAGE sql STABLE AS $$
    WITH draw AS MATERIALIZED (
        SELECT d.*, p.label_id, p.opinions,
               EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.model_id = p_campaign.model_id
                       AND e.content_hash = d.content_hash OFFSET 0) AS is_there
        FROM pgclip.campaign_draw d JOIN pgclip.promise p ON p.id = p_campaign.promise_id
        WHERE d.campaign_id = p_campaign.id
    ), word AS (
        SELECT DISTINCT ON (d.chance, j.judge) d.chance, j.judge,
               CASE WHEN j.value THEN 1 ELSE -1 END AS vote
        FROM draw d
        JOIN pgclip.judgement j ON j.content_hash = d.content_hash AND j.label_id = d.label_id
        ORDER BY d.chance, j.judge, j.judged_at DESC
    ), said AS (
        SELECT chance, vote FROM word
        UNION ALL
        SELECT d.chance, 0
        FROM draw d
        JOIN pgclip.review r ON r.content_hash = d.content_hash AND r.label_id = d.label_id
        WHERE r.unsure
          AND NOT EXISTS (SELECT FROM word w WHERE w.chance = d.chance AND w.judge = r.judge)
    ), counted AS (
        SELECT chance, count(*) AS people, count(*) FILTER (WHERE vote = 1) AS yes,
               count(*) FILTER (WHERE vote = -1) AS no
        FROM said GROUP BY chance
    )
    SELECT d.chance,
           CASE WHEN d.is_there
                THEN coalesce(greatest(c.yes, c.no) * 2 > d.opinions
                              OR c.people >= d.opinions, false)
                ELSE d.judged OR d.shown END,
           CASE WHEN NOT d.is_there THEN d."right"
                WHEN c.yes * 2 > c.people THEN true
                WHEN c.no * 2 > c.people THEN false END
    FROM draw d LEFT JOIN counted c USING (chance)
$$;

-- A campaign of which a candidate is shown to keep the promise; it goes on with the first look.
CREATE FUNCTION pgclip._kept(p_campaign pgclip.campaign, p_what text, p_shown pgclip._look)
RETURNS pgclip.campaign
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    p_campaign.threshold := p_campaign.thresholds[p_campaign.step];
    p_campaign.bound := p_shown.bound;
    p_campaign.judged := p_shown.judged;
    p_campaign."right" := p_shown.good;
    p_campaign.decides := CASE p_what
        WHEN 'recall' THEN p_campaign.contents - p_campaign.above[p_campaign.step]
        ELSE p_campaign.above[p_campaign.step] END;
    p_campaign.look := 1;
    RETURN p_campaign;
END $$;

-- Writes down how far a campaign is: p_waits at its test that waits, if there is one, of which
-- p_shown says what it shows, or what the last one has shown.
CREATE FUNCTION pgclip._note_state(
    p_now pgclip.campaign, p_waits pgclip.campaign, p_shown pgclip._look, p_kept int
) RETURNS void
LANGUAGE sql AS $$
    UPDATE pgclip.campaign k SET
        state = CASE WHEN p_waits.id IS NOT NULL THEN 'judging'
                     WHEN p_kept > 0 AND p_kept = cardinality(p_now.thresholds) THEN 'complete'
                     ELSE 'exhausted' END,
        step = coalesce(p_waits.step, p_now.step, 1),
        look = coalesce(p_waits.look, 1),
        lacking = CASE WHEN p_waits.id IS NOT NULL THEN p_shown.lacking END,
        threshold = p_now.threshold,
        bound = CASE p_kept WHEN 0 THEN p_shown.bound ELSE p_now.bound END,
        judged = CASE p_kept WHEN 0 THEN p_shown.judged ELSE p_now.judged END,
        "right" = CASE p_kept WHEN 0 THEN p_shown.good ELSE p_now."right" END,
        decides = CASE WHEN p_kept > 0 THEN p_now.decides END,
        kept_at = CASE WHEN p_kept > 0 THEN coalesce(k.kept_at, clock_timestamp()) END,
        drawn_above = coalesce(p_waits.drawn_above, p_now.drawn_above)
    WHERE k.id = p_now.id
$$;

-- The candidate that a look tries after p_kept: of precision one with a quarter more contents than
-- it draws. NULL if there is none.
CREATE FUNCTION pgclip._next_candidate(p_campaign pgclip.campaign, p_what text, p_kept int)
RETURNS int
LANGUAGE sql IMMUTABLE AS $$
    SELECT min(nth)::int FROM unnest(p_campaign.above) WITH ORDINALITY a(contents, nth)
    WHERE nth > p_kept
      AND (p_what = 'recall' OR contents >= 1.25 * p_campaign.looks[p_campaign.look])
$$;

-- The campaign with what its present look needs drawn.
CREATE FUNCTION pgclip._drawn(p_campaign pgclip.campaign, p_what text) RETURNS pgclip.campaign
LANGUAGE plpgsql AS $$
DECLARE
    v_threshold float4 := p_campaign.thresholds[p_campaign.step];
    v_needs     int := p_campaign.looks[p_campaign.look];
BEGIN
    IF coalesce(p_campaign.drawn_above[p_campaign.step], 0) >= v_needs THEN
        RETURN p_campaign;
    END IF;
    PERFORM pgclip._draw(p_campaign, v_threshold, true, v_needs);
    p_campaign.drawn_above[p_campaign.step] := v_needs;
    IF p_what = 'recall' THEN
        PERFORM pgclip._draw(p_campaign, v_threshold, false, v_needs);
    END IF;
    RETURN pgclip._refreshed(p_campaign, false);  -- of some people have said something before
END $$;

-- What the present look of a campaign shows.
CREATE FUNCTION pgclip._shown(p_campaign pgclip.campaign, p_what text) RETURNS pgclip._look
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_look  pgclip._look;
    v_needs int := p_campaign.looks[p_campaign.look];
    v_doubt float8 := p_campaign.doubts[p_campaign.look];
    v_share float8 := (SELECT share FROM pgclip.promise WHERE id = p_campaign.promise_id);
    -- If not, what other thresholds have drawn is no random choice of what reaches this one.
    v_drawn boolean := coalesce(p_campaign.drawn_above[p_campaign.step], 0) >= v_needs;
    v_above pgclip._side_count := pgclip._side(p_campaign, true, v_needs);
    v_below pgclip._side_count;
BEGIN
    v_look.judged := v_above.judged;
    v_look.good := v_above.good;
    IF p_what = 'precision' THEN
        v_look.bound := pgclip._lower_bound(v_above.good, v_above.judged, v_doubt);
        v_look.lacking := CASE
            WHEN v_drawn THEN v_needs - v_above.judged
            -- As many as there will be, about: some were drawn for the candidate before.
            WHEN p_campaign.step > 1 THEN ceil(v_needs * (1 - p_campaign.above[p_campaign.step - 1]
                                               / p_campaign.above[p_campaign.step]::float8))
            ELSE v_needs END;
        v_look.is_kept := CASE
            WHEN NOT v_drawn THEN NULL
            WHEN v_above.judged - v_above.good > p_campaign.allowed[p_campaign.look] THEN false
            WHEN v_above.judged = v_needs THEN true
            WHEN v_above.drawn < v_needs THEN false END;  -- others are gone
        RETURN v_look;
    END IF;
    v_below := pgclip._side(p_campaign, false, v_needs);
    v_look.bound := pgclip._recall_bound(v_above, v_below, v_doubt);
    v_look.judged := v_above.judged + v_below.judged;
    v_look.lacking := least(v_needs, v_above.contents) + least(v_needs, v_below.contents)
                      - v_look.judged;
    IF v_drawn AND v_above.drawn + v_below.drawn = v_look.judged THEN
        v_look.is_kept := coalesce(v_look.bound >= v_share, false);
    ELSE
        v_look.lacking := v_look.lacking
            + pgclip._lacking_for_recall(p_campaign, v_above, v_below, v_share);
    END IF;
    RETURN v_look;
END $$;

CREATE FUNCTION pgclip._side(p_campaign pgclip.campaign, p_is_above boolean, p_needs int)
RETURNS pgclip._side_count
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_is_above THEN p_campaign.above[p_campaign.step]
                ELSE p_campaign.contents - p_campaign.above[p_campaign.step] END,
           count(*)::int, count(*) FILTER (WHERE judged)::int,
           count(*) FILTER (WHERE judged AND coalesce("right", NOT p_is_above))::int
    FROM pgclip._first_draws(p_campaign, p_campaign.thresholds[p_campaign.step], p_is_above,
                             p_needs)
$$;

-- What share of the contents that are so reaches the threshold, at least. Half the doubt is for how
-- many do, half for how many don't; a side that has been judged whole leaves none.
CREATE FUNCTION pgclip._recall_bound(
    p_above pgclip._side_count, p_below pgclip._side_count, p_doubt float8
) RETURNS float8
LANGUAGE sql IMMUTABLE AS $$
    SELECT (found / nullif(found + missed, 0))
    FROM (SELECT CASE WHEN p_above.judged >= p_above.contents THEN p_above.good
                      ELSE p_above.contents
                           * pgclip._lower_bound(p_above.good, p_above.judged, p_doubt / 2) END,
                 CASE WHEN p_below.judged >= p_below.contents THEN p_below.good
                      ELSE p_below.contents
                           * (1 - pgclip._lower_bound(p_below.judged - p_below.good,
                                                      p_below.judged, p_doubt / 2)) END
         ) bound(found, missed)
$$;

-- How many judgements more than the present look needs it takes until recall is shown if what is
-- judged goes on as it does; NULL if no look is enough.
CREATE FUNCTION pgclip._lacking_for_recall(
    p_campaign pgclip.campaign, p_above pgclip._side_count, p_below pgclip._side_count,
    p_share float8
) RETURNS int
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_above pgclip._side_count;
    v_below pgclip._side_count;
BEGIN
    IF least(p_above.judged, p_below.judged) = 0 THEN
        RETURN 0;
    END IF;
    FOR i IN p_campaign.look .. cardinality(p_campaign.looks) LOOP
        v_above := pgclip._gone_on(p_above, p_campaign.looks[i]);
        v_below := pgclip._gone_on(p_below, p_campaign.looks[i]);
        IF pgclip._recall_bound(v_above, v_below, p_campaign.doubts[i]) >= p_share THEN
            RETURN greatest(v_above.judged + v_below.judged - p_above.drawn - p_below.drawn, 0);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

CREATE FUNCTION pgclip._gone_on(p_side pgclip._side_count, p_judged int)
RETURNS pgclip._side_count
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_side.contents, n, n, round(n * p_side.good::float8 / p_side.judged)::int
    FROM (SELECT least(p_judged, p_side.contents)) judged(n)
$$;

-- What people have said of a content for a label, the last word of each.
CREATE FUNCTION pgclip._opinions(
    p_label int, p_hash bytea, OUT yes int, OUT no int, OUT unsure int
) LANGUAGE sql STABLE AS $$
    WITH word AS (
        SELECT DISTINCT ON (j.judge) j.judge, j.value
        FROM pgclip.judgement j WHERE j.label_id = p_label AND j.content_hash = p_hash
        ORDER BY j.judge, j.judged_at DESC
    )
    SELECT count(*) FILTER (WHERE value)::int, count(*) FILTER (WHERE NOT value)::int,
           (SELECT count(*)::int FROM pgclip.review r
            WHERE r.label_id = p_label AND r.content_hash = p_hash AND r.unsure
              AND r.judge NOT IN (SELECT judge FROM word))
    FROM word
$$;
