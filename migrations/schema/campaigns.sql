-- Putting promises to the test: campaigns, their draws, and what these show. Of several thresholds
-- the safest is tried first and each further one only when the one before is shown to keep the
-- promise: in a fixed order none of them uses up the doubt of another (Maurer, Hothorn and
-- Lehmacher 1995).

-- A random number of a content, by which contents are drawn: the beginning of its hash.
CREATE FUNCTION pgclip._chance(p_hash bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(substr(p_hash, 1, 8), 'hex'))::bit(64)::bigint
$$;

-- What the live model's head can be judged by, of what has a score of p_version: each content once,
-- without those that have taught it.
CREATE FUNCTION pgclip._population(
    p_label int, p_model smallint, p_version int, p_last_item bigint
) RETURNS TABLE (chance bigint, item_id bigint, score float4)
LANGUAGE sql STABLE AS $$
    SELECT s.chance, min(s.item_id), max(s.score)
    FROM pgclip.item_score s
    WHERE s.label_id = p_label AND s.model_id = p_model AND s.head_version = p_version
      AND s.item_id <= p_last_item
      AND s.chance <> ALL(ARRAY(
          SELECT pgclip._chance(substr(c.content, length(c.content) - 31))
          FROM pgclip.label_teaching t
          JOIN pgclip.label l ON l.set_id = t.set_id AND l.id = p_label
          JOIN pgclip.label_set ls ON ls.id = t.set_id AND ls.words_version = t.words_version
          CROSS JOIN unnest(t.contents) c(content)
          WHERE t.model_id = p_model))
    GROUP BY s.chance
$$;

-- Begins what can begin: promises of the live model whose items all have scores of its heads.
CREATE FUNCTION pgclip._begin_campaigns() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_model    smallint := pgclip._live_model();
    v_due      record;
    v_campaign int;
BEGIN
    IF EXISTS (SELECT FROM pgclip.relabeling WHERE model_id = v_model) THEN
        RETURN;
    END IF;
    FOR v_due IN
        SELECT p.*, pgclip._head_version(l.set_id, v_model) AS version,
               (SELECT max(item_id) FROM pgclip.embedding_set WHERE model_id = v_model) AS last
        FROM pgclip.promise p
        JOIN pgclip.label l ON l.id = p.label_id AND l.archived_at IS NULL
        WHERE NOT EXISTS (SELECT FROM pgclip.campaign k
                          WHERE k.promise_id = p.id AND k.model_id = v_model
                            AND k.head_version = pgclip._head_version(l.set_id, v_model))
        ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED
    LOOP
        INSERT INTO pgclip.campaign (promise_id, model_id, head_version, start, last_item,
                                     contents, thresholds, above, looks, allowed, doubts)
        SELECT v_due.id, v_model, v_due.version,
               pgclip._chance(sha256(gen_random_uuid()::text::bytea)), v_due.last,
               c.contents, c.thresholds, c.above, k.looks, k.allowed, k.doubts
        FROM pgclip._candidates(v_due.what, v_due.judgements, v_due.label_id, v_model,
                                v_due.version, v_due.last) c
        CROSS JOIN pgclip._looks(v_due.what, v_due.share, v_due.confidence, v_due.judgements) k
        WHERE c.contents > 0
        ON CONFLICT DO NOTHING RETURNING id INTO v_campaign;
        IF v_campaign IS NOT NULL THEN
            PERFORM pgclip._advance(v_campaign, true);
        END IF;
    END LOOP;
END $$;

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
-- p_draws: contents that are needed next are drawn; else it stops there.
CREATE FUNCTION pgclip._advance(p_campaign int, p_draws boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_before pgclip.campaign;
    v_now    pgclip.campaign;
    v_waits  pgclip.campaign;  -- at its first test that waits for judgements
    v_what   text;
    v_kept   int := 0;  -- the last candidate that is shown to keep it
    v_shown  pgclip._look;
    v_open   pgclip._look;
BEGIN
    SELECT * INTO v_before FROM pgclip.campaign WHERE id = p_campaign FOR NO KEY UPDATE;
    v_what := (SELECT what FROM pgclip.promise WHERE id = v_before.promise_id);
    v_now := v_before;
    IF p_draws THEN
        v_now := pgclip._forget_gone_draws(v_now);
    END IF;
    v_now.look := 1;
    v_now.threshold := NULL;
    WHILE v_now.look <= cardinality(v_now.looks) LOOP
        v_now.step := pgclip._next_candidate(v_now, v_what, v_kept);
        IF v_now.step IS NULL THEN
            v_now.look := v_now.look + 1;
            CONTINUE;
        END IF;
        IF p_draws AND v_waits.id IS NULL THEN
            v_now := pgclip._drawn(v_now, v_what);
        END IF;
        v_shown := pgclip._shown(v_now, v_what);
        IF v_shown.is_kept THEN
            v_kept := v_now.step;
            v_now.threshold := v_now.thresholds[v_kept];
            v_now.bound := v_shown.bound;
            v_now.judged := v_shown.judged;
            v_now."right" := v_shown.good;
            v_now.look := 1;
            v_waits := NULL;
            CONTINUE;
        ELSIF v_shown.is_kept IS NULL AND v_waits.id IS NULL THEN
            v_waits := v_now;
            v_open := v_shown;
        END IF;
        v_now.look := v_now.look + 1;
    END LOOP;
    v_now.state := CASE WHEN v_waits.id IS NOT NULL THEN 'judging'
                        WHEN v_kept = cardinality(v_now.thresholds) THEN 'complete'
                        ELSE 'exhausted' END;
    IF v_waits.id IS NOT NULL THEN
        v_now.step := v_waits.step;
        v_now.look := v_waits.look;
        v_shown := v_open;
    END IF;
    IF v_kept = 0 THEN
        v_now.bound := v_shown.bound;
        v_now.judged := v_shown.judged;
        v_now."right" := v_shown.good;
    END IF;
    v_now.decides := CASE WHEN v_kept = 0 THEN NULL
                          WHEN v_what = 'recall' THEN v_now.contents - v_now.above[v_kept]
                          ELSE v_now.above[v_kept] END;
    v_now.kept_at := CASE WHEN v_kept > 0 THEN coalesce(v_before.kept_at, clock_timestamp()) END;
    v_now.lacking := CASE v_now.state WHEN 'judging' THEN v_shown.lacking END;
    IF v_now.threshold IS DISTINCT FROM v_before.threshold THEN  -- items are decided anew
        v_now.after_item := 0;
        v_now.changed := pg_current_xact_id();
    END IF;
    UPDATE pgclip.campaign SET state = v_now.state, step = coalesce(v_now.step, 1),
        look = v_now.look, threshold = v_now.threshold, bound = v_now.bound,
        judged = v_now.judged, "right" = v_now."right", decides = v_now.decides,
        lacking = v_now.lacking, kept_at = v_now.kept_at, after_item = v_now.after_item,
        changed = v_now.changed, drawn_above = v_now.drawn_above,
        drawn_below = v_now.drawn_below
    WHERE id = p_campaign;
END $$;

-- The candidate that a look tries after p_kept: of precision one with a quarter more contents than
-- it draws. NULL if there is none.
CREATE FUNCTION pgclip._next_candidate(p_campaign pgclip.campaign, p_what text, p_kept int)
RETURNS int
LANGUAGE sql IMMUTABLE AS $$
    SELECT min(nth)::int FROM unnest(p_campaign.above) WITH ORDINALITY a(contents, nth)
    WHERE nth > p_kept
      AND (p_what = 'recall' OR contents >= 1.25 * p_campaign.looks[p_campaign.look])
$$;

-- Draws of contents that nobody has judged and that are gone now make place for others.
CREATE FUNCTION pgclip._forget_gone_draws(p_campaign pgclip.campaign) RETURNS pgclip.campaign
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.campaign_draw d
    WHERE d.campaign_id = p_campaign.id AND NOT d.judged
      AND NOT EXISTS (SELECT FROM pgclip.embedding_set e
                      WHERE e.content_hash = d.content_hash AND e.model_id = p_campaign.model_id);
    IF FOUND THEN
        p_campaign.drawn_above := '{}';
        p_campaign.drawn_below := '{}';
    END IF;
    RETURN p_campaign;
END $$;

-- The campaign with what its present look needs drawn.
CREATE FUNCTION pgclip._drawn(p_campaign pgclip.campaign, p_what text) RETURNS pgclip.campaign
LANGUAGE plpgsql AS $$
DECLARE
    v_threshold float4 := p_campaign.thresholds[p_campaign.step];
    v_needs     int := p_campaign.looks[p_campaign.look];
BEGIN
    IF coalesce(p_campaign.drawn_above[p_campaign.step], 0) < v_needs THEN
        PERFORM pgclip._draw(p_campaign, v_threshold, true, v_needs);
        p_campaign.drawn_above[p_campaign.step] := v_needs;
    END IF;
    IF p_what = 'recall' AND coalesce(p_campaign.drawn_below[p_campaign.step], 0) < v_needs THEN
        PERFORM pgclip._draw(p_campaign, v_threshold, false, v_needs);
        p_campaign.drawn_below[p_campaign.step] := v_needs;
    END IF;
    RETURN p_campaign;
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

-- A content was judged for a label: what campaigns drew it know of it, and go on.
CREATE FUNCTION pgclip._count_judgement(p_label int, p_hash bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_campaign int;
BEGIN
    FOR v_campaign IN
        SELECT k.id FROM pgclip.campaign k
        JOIN pgclip.promise p ON p.id = k.promise_id AND p.label_id = p_label
        JOIN pgclip.label l ON l.id = p_label
        WHERE k.model_id = pgclip._live_model()
          AND k.head_version = pgclip._head_version(l.set_id, k.model_id)
        ORDER BY k.id
    LOOP
        -- Two of three who agree are enough.
        UPDATE pgclip.campaign_draw d SET
            judged = greatest(o.yes, o.no) * 2 > p.opinions
                     OR o.yes + o.no + o.unsure >= p.opinions,
            "right" = CASE WHEN o.yes > o.no + o.unsure THEN true
                           WHEN o.no > o.yes + o.unsure THEN false END
        FROM pgclip.campaign k
        JOIN pgclip.promise p ON p.id = k.promise_id
        CROSS JOIN pgclip._opinions(p_label, p_hash) o
        WHERE k.id = v_campaign AND d.campaign_id = v_campaign
          AND d.chance = pgclip._chance(p_hash);
        IF FOUND THEN
            PERFORM pgclip._advance(v_campaign, false);
        END IF;
    END LOOP;
END $$;

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
