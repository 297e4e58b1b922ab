-- What judgements of draws show: exact binomial bounds, and how many draws to look after.

-- The probability that of p_n draws at most p_k are of a kind whose share is p_share.
CREATE FUNCTION pgclip._at_most(p_k int, p_n int, p_share float8) RETURNS float8
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_log   float8;
    v_odds  float8;
    v_total float8 := 0;
BEGIN
    IF p_k < 0 THEN
        RETURN 0;
    ELSIF p_k >= p_n OR p_share <= 0 THEN
        RETURN 1;
    ELSIF p_share >= 1 THEN
        RETURN 0;
    END IF;
    v_log := p_n * ln(1 - p_share);  -- in logarithms, which don't underflow
    v_odds := ln(p_share / (1 - p_share));
    FOR i IN 0 .. p_k LOOP
        IF v_log > -700 THEN
            v_total := v_total + exp(v_log);
        END IF;
        v_log := v_log + ln((p_n - i)::float8 / (i + 1)) + v_odds;
    END LOOP;
    RETURN least(v_total, 1);
END $$;

-- The share that p_k of p_n draws leave no doubt of, but p_doubt: the lower bound of Clopper and
-- Pearson (Biometrika 26, 1934). Their upper bound is 1 less that of the p_n - p_k others.
CREATE FUNCTION pgclip._lower_bound(p_k int, p_n int, p_doubt float8) RETURNS float8
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_low    float8 := 0;
    v_high   float8 := 1;
    v_middle float8;
BEGIN
    IF p_k <= 0 THEN
        RETURN 0;
    END IF;
    FOR i IN 1 .. 50 LOOP
        v_middle := (v_low + v_high) / 2;
        IF pgclip._at_most(p_n - p_k, p_n, 1 - v_middle) < p_doubt THEN
            v_low := v_middle;
        ELSE
            v_high := v_middle;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;

-- The fewest draws of which p_wrong may be wrong so that no doubt is left of a share but p_doubt.
CREATE FUNCTION pgclip._draws_needed(p_wrong int, p_share float8, p_doubt float8) RETURNS int
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_low  int := p_wrong;
    v_high int := p_wrong + 1;
BEGIN
    WHILE pgclip._at_most(p_wrong, v_high, 1 - p_share) > p_doubt LOOP
        v_low := v_high;
        v_high := 2 * v_high;
    END LOOP;
    WHILE v_high - v_low > 1 LOOP
        IF pgclip._at_most(p_wrong, (v_low + v_high) / 2, 1 - p_share) > p_doubt THEN
            v_low := (v_low + v_high) / 2;
        ELSE
            v_high := (v_low + v_high) / 2;
        END IF;
    END LOOP;
    RETURN v_high;
END $$;

-- After how many draws one looks, how many may be wrong then, and what part of the doubt each look
-- may use: together no more than 1 - p_confidence, so that looking again and again proves nothing
-- that a single look would not. Of precision the first look, after p_first draws, has all but a
-- fiftieth; what it leaves goes to later ones, half of the rest to each, one more wrong each time.
-- Of recall looks double, and "allowed" says nothing.
CREATE FUNCTION pgclip._looks(
    p_what text, p_share float8, p_confidence float8, p_first int,
    OUT looks int[], OUT allowed int[], OUT doubts float8[]
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_doubt float8 := 1 - p_confidence;
    v_wrong int := 0;
BEGIN
    looks := ARRAY[p_first];
    allowed := '{0}';
    doubts := ARRAY[v_doubt / 2];
    IF p_what = 'precision' THEN
        WHILE pgclip._at_most(v_wrong + 1, p_first, 1 - p_share) <= 0.98 * v_doubt LOOP
            v_wrong := v_wrong + 1;
        END LOOP;
        allowed := ARRAY[v_wrong];
        doubts := ARRAY[pgclip._at_most(v_wrong, p_first, 1 - p_share)];
    END IF;
    v_doubt := v_doubt - doubts[1];
    FOR i IN 1 .. 10 LOOP
        v_doubt := v_doubt / 2;
        looks := looks || CASE p_what
            WHEN 'recall' THEN 2 * looks[i]
            ELSE greatest(pgclip._draws_needed(v_wrong + i, p_share, v_doubt), looks[i] + 1) END;
        allowed := allowed || (v_wrong + i);
        doubts := doubts || v_doubt;
        EXIT WHEN looks[i + 1] > 5000;
    END LOOP;
END $$;
