-- Scores of items, for labels of which something is promised.

-- A temporary table that a worker COPYs scores into; as open_results().
CREATE FUNCTION pgclip.open_scores() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pgclip._is_staged('staged_score') THEN
        CREATE TEMPORARY TABLE staged_score (
            job_id       bigint NOT NULL,
            label_id     int NOT NULL,
            head_version int NOT NULL,
            score        real NOT NULL
        ) ON COMMIT DELETE ROWS;
        PERFORM pgclip._let_caller_insert('staged_score');
    END IF;
END $$;

-- Whether a worker gives the scores that are wanted: one of a version before can't.
CREATE FUNCTION pgclip._gives_scores() RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT to_regclass('pg_temp.staged_score') IS NOT NULL
        OR NOT EXISTS (SELECT FROM pgclip.promise)
$$;

-- Keeps what is staged in the place of what these items have of these sets, or of all (NULL).
-- p_owners are what scores are staged under, p_items the items that these stand for, which have
-- their embeddings.
CREATE FUNCTION pgclip._store_scores(
    p_model smallint, p_owners bigint[], p_items bigint[], p_sets int[]
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgclip.promise) THEN
        RETURN;
    END IF;
    DELETE FROM pgclip.item_score sc
    WHERE sc.item_id = ANY(p_items) AND sc.model_id = p_model
      AND (p_sets IS NULL
           OR sc.label_id IN (SELECT id FROM pgclip.label WHERE set_id = ANY(p_sets)));
    IF to_regclass('pg_temp.staged_score') IS NULL THEN
        RETURN;
    END IF;
    PERFORM pgclip._is_staged('staged_score');
    INSERT INTO pgclip.item_score (item_id, model_id, label_id, head_version, chance, score)
    SELECT o.item_id, p_model, l.id, s.head_version, pgclip._chance(e.content_hash), s.score
    FROM unnest(p_owners, p_items) o(owner, item_id)
    JOIN pg_temp.staged_score s ON s.job_id = o.owner
    JOIN pgclip.embedding_set e ON e.item_id = o.item_id AND e.model_id = p_model
    JOIN pgclip.label l ON l.id = s.label_id
    JOIN pgclip.label_set ls ON ls.id = l.set_id
    WHERE e.item_id = ANY(p_items) AND l.id IN (SELECT label_id FROM pgclip.promise)
      AND (ls.collections IS NULL
           OR (SELECT c.name FROM pgclip.item i
               JOIN pgclip.collection c ON c.id = i.collection_id
               WHERE i.id = o.item_id) = ANY(ls.collections))
    ON CONFLICT (item_id, model_id, label_id) DO UPDATE SET head_version = excluded.head_version,
        chance = excluded.chance, score = excluded.score;
END $$;
