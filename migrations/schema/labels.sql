-- Label sets, and labels of items.
--
-- Locks are taken in one order: label_epoch, labels by their ids, then what hangs on these:
-- promises, campaigns, labels of items. Whoever labels or judges holds a label FOR KEY SHARE.

-- One row for each label of an item by the live model. "version" is the set's when the score was
-- found first; it is current if the set gives it still. "decision" is "yes", "no" or "review" where
-- a promise or people decide, NULL elsewhere: then the label is the model's guess.
CREATE VIEW pgclip.labels AS
SELECT il.item_id, c.name AS collection, i.key, s.name AS set, l.name AS label, il.score,
       coalesce(s.active AND e.label_epoch >= s.epoch, false) AS current, il.version,
       CASE WHEN s.decides OR EXISTS (SELECT FROM pgclip.promise p WHERE p.label_id = l.id)
            THEN pgclip._decision(il.item_id, il.label_id) END AS decision
FROM pgclip.item_label il
JOIN pgclip.model m ON m.id = il.model_id AND m.state = 'live'
JOIN pgclip.label l ON l.id = il.label_id AND l.archived_at IS NULL
                      AND NOT l.is_background
JOIN pgclip.label_set s ON s.id = l.set_id
JOIN pgclip.item i ON i.id = il.item_id
JOIN pgclip.collection c ON c.id = i.collection_id
LEFT JOIN pgclip.embedding_set e ON e.item_id = il.item_id AND e.model_id = il.model_id;

-- An item's labels by the live model, best first: [{"set", "label", "score", "decision"}].
CREATE FUNCTION pgclip.labels_of(p_item bigint) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('set', s.name, 'label', l.name,
                                                 'score', il.score, 'decision', CASE
        WHEN s.decides OR EXISTS (SELECT FROM pgclip.promise p WHERE p.label_id = l.id)
        THEN pgclip._decision(il.item_id, il.label_id) END)
                              ORDER BY s.name, il.score DESC), '[]')
    FROM pgclip.item_label il
    JOIN pgclip.model m ON m.id = il.model_id AND m.state = 'live'
    JOIN pgclip.label l ON l.id = il.label_id AND l.archived_at IS NULL AND NOT l.is_background
    JOIN pgclip.label_set s ON s.id = l.set_id
    WHERE il.item_id = p_item
$$;

-- A set's epoch and the present one are the same number, taken under one lock: of two sets that
-- are defined at the same moment each has its own.
CREATE FUNCTION pgclip._stamp_label_set() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_epoch SET epoch = epoch + 1 RETURNING epoch INTO NEW.epoch;
    RETURN NEW;
END $$;

CREATE TRIGGER label_set_stamped BEFORE INSERT OR UPDATE OF version, active ON pgclip.label_set
    FOR EACH ROW EXECUTE FUNCTION pgclip._stamp_label_set();

CREATE FUNCTION pgclip._raise_label_epoch() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_epoch SET epoch = epoch + 1;
    RETURN NULL;
END $$;

-- Before, so that whoever drops a set and whoever defines it take the epoch and the set in one
-- order.
CREATE TRIGGER label_set_dropped BEFORE DELETE ON pgclip.label_set
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._raise_label_epoch();

CREATE FUNCTION pgclip._forget_labels() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.item_label il USING gone WHERE il.label_id = gone.id;
    DELETE FROM pgclip.item_score sc USING gone WHERE sc.label_id = gone.id;
    RETURN NULL;
END $$;

CREATE TRIGGER label_deleted AFTER DELETE ON pgclip.label REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._forget_labels();

CREATE FUNCTION pgclip._forget_item_labels() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- Before any row of an item's labels, as one who drops a label does.
    PERFORM FROM pgclip.label WHERE id IN (
        SELECT il.label_id FROM gone JOIN pgclip.item_label il USING (item_id, model_id))
    ORDER BY id FOR KEY SHARE;
    DELETE FROM pgclip.item_label il USING gone
    WHERE il.item_id = gone.item_id AND il.model_id = gone.model_id;
    DELETE FROM pgclip.item_score sc USING gone
    WHERE sc.item_id = gone.item_id AND sc.model_id = gone.model_id;
    RETURN NULL;
END $$;

CREATE TRIGGER embedding_set_deleted AFTER DELETE ON pgclip.embedding_set
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._forget_item_labels();

-- Creates a label set or replaces its definition. A template contains {} where the label goes.
--
--   exclusive    the labels' probabilities make 1, with those of the background; if not, each label
--                is a question of its own against the background
--   background   words that take part and are never given, without those that are labels; those of
--                pgclip.background_words() where the labels don't exclude each other and no others
--                are given
--   forms        {"sofa": ["couch", "settee"]}: other words for a label, and descriptions
--   collections  those whose items are labelled; NULL: all
--   relabel      whether items that are there are labelled anew when the set changes
--   decide       its labels are decisions: to be reviewed until a promise or people decide
--
-- Labels that are left out are archived with what people said of them, and come back with it. A set
-- that was taught and gets other words is taught again by a worker; until then prompts decide. The
-- same definition once more changes nothing. Returns the set's id. Raises PC001.
CREATE FUNCTION pgclip.define_label_set(
    name text, labels text[], templates text[] DEFAULT ARRAY['a photo of a {}'],
    top_k int DEFAULT 3, threshold real DEFAULT 0.1, applies_to text DEFAULT 'both',
    active boolean DEFAULT true, exclusive boolean DEFAULT true, background text[] DEFAULT '{}',
    forms jsonb DEFAULT '{}', collections text[] DEFAULT NULL, relabel boolean DEFAULT true,
    decide boolean DEFAULT false
) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_background text[] := ARRAY(  -- without the labels and their other words
        SELECT w FROM unnest(CASE WHEN exclusive OR background <> '{}' THEN background
                             ELSE pgclip.background_words() END) WITH ORDINALITY b(w, nth)
        WHERE w IS NULL OR lower(w) NOT IN (
            SELECT lower(l) FROM unnest(labels) l WHERE l IS NOT NULL
            UNION ALL
            SELECT lower(f #>> '{}') FROM jsonb_path_query(forms, '$.*[*]') f
            WHERE jsonb_typeof(f) = 'string')
        ORDER BY nth);
    v_words      text[] := labels || v_background;
    v_is_new     boolean := false;
    v_set        int;
    v_version    int;
    v_changed    boolean;
    v_others     boolean;  -- other labels, background, or another relation between them
    v_reworded   boolean;
BEGIN
    IF exclusive IS NULL OR relabel IS NULL OR decide IS NULL THEN
        RAISE EXCEPTION 'label set %: exclusive, relabel and decide are true or false', name
            USING ERRCODE = 'PC001';
    END IF;
    PERFORM pgclip._check_label_words(name, labels, v_background, templates, forms);
    IF NOT exclusive AND v_background = '{}' THEN
        RAISE EXCEPTION 'label set % needs background that is none of its labels', name
            USING ERRCODE = 'PC001';
    END IF;
    PERFORM FROM pgclip.label_epoch FOR UPDATE;  -- first, as one who drops a set does
    PERFORM FROM pgclip.label WHERE set_id = (
        SELECT s.id FROM pgclip.label_set s WHERE s.name = define_label_set.name)
    ORDER BY id FOR NO KEY UPDATE;  -- in the order in which those who review take them
    IF NOT EXISTS (SELECT FROM pgclip.label_set s WHERE s.name = define_label_set.name) THEN
        v_is_new := true;
        INSERT INTO pgclip.label_set (name, templates, top_k, threshold, applies_to, active,
                                      exclusive, collections, relabels)
        VALUES (define_label_set.name, define_label_set.templates, define_label_set.top_k,
                define_label_set.threshold, define_label_set.applies_to, define_label_set.active,
                define_label_set.exclusive, define_label_set.collections,
                define_label_set.relabel);
    END IF;
    SELECT s.id, s.version,
           (s.top_k, s.threshold, s.applies_to, s.collections) IS DISTINCT FROM
           (define_label_set.top_k, define_label_set.threshold, define_label_set.applies_to,
            define_label_set.collections),
           s.exclusive <> define_label_set.exclusive, s.templates <> define_label_set.templates
    INTO v_set, v_version, v_changed, v_others, v_reworded
    FROM pgclip.label_set s WHERE s.name = define_label_set.name FOR NO KEY UPDATE;
    WITH wanted AS (
        SELECT w.name, w.position, w.position > cardinality(labels) AS is_background,
               ARRAY(SELECT jsonb_array_elements_text(forms -> w.name)) AS forms
        FROM unnest(v_words) WITH ORDINALITY w(name, position)
    )
    SELECT v_others OR count(*) FILTER (
               WHERE l.id IS NULL OR w.name IS NULL OR l.archived_at IS NOT NULL
                  OR l.position <> w.position OR l.is_background <> w.is_background) > 0,
           v_reworded OR count(*) FILTER (WHERE l.forms <> w.forms) > 0
    INTO v_others, v_reworded
    FROM wanted w
    FULL JOIN (SELECT * FROM pgclip.label WHERE set_id = v_set
               AND (archived_at IS NULL OR label.name = ANY(v_words))) l ON l.name = w.name;
    UPDATE pgclip.label SET archived_at = now()
    WHERE set_id = v_set AND archived_at IS NULL AND label.name <> ALL(v_words);
    INSERT INTO pgclip.label AS old (set_id, name, position, is_background, forms)
    SELECT v_set, w.name, w.position, w.position > cardinality(labels),
           ARRAY(SELECT jsonb_array_elements_text(define_label_set.forms -> w.name))
    FROM unnest(v_words) WITH ORDINALITY w(name, position)
    ON CONFLICT ON CONSTRAINT label_set_id_name_key DO UPDATE SET position = excluded.position,
        is_background = excluded.is_background, forms = excluded.forms, archived_at = NULL
        WHERE (old.position, old.is_background, old.forms, old.archived_at IS NULL)
              <> (excluded.position, excluded.is_background, excluded.forms, true);
    UPDATE pgclip.label_set s SET decides = decide WHERE s.id = v_set AND s.decides <> decide;
    UPDATE pgclip.label_set s SET relabels = define_label_set.relabel
    WHERE s.id = v_set AND s.relabels <> define_label_set.relabel;
    IF FOUND OR v_is_new THEN
        PERFORM pgclip._begin_relabeling();
    END IF;
    IF v_is_new THEN
        RETURN v_set;
    ELSIF v_changed OR v_others OR v_reworded THEN
        UPDATE pgclip.label_set s SET templates = define_label_set.templates,
            top_k = define_label_set.top_k, threshold = define_label_set.threshold,
            applies_to = define_label_set.applies_to, active = define_label_set.active,
            exclusive = define_label_set.exclusive, collections = define_label_set.collections,
            version = v_version + 1,
            prompts_version = CASE WHEN v_reworded THEN v_version + 1 ELSE s.prompts_version END,
            words_version = CASE WHEN v_others OR v_reworded THEN v_version + 1
                                 ELSE s.words_version END,
            -- What was taught is learnt anew for other words.
            teaching = s.teaching + (s.teaching > 0 AND (v_others OR v_reworded))::int
        WHERE s.id = v_set;
        PERFORM pgclip._begin_relabeling();
    ELSE
        UPDATE pgclip.label_set s SET active = define_label_set.active
        WHERE s.id = v_set AND s.active <> define_label_set.active;
        IF FOUND THEN
            PERFORM pgclip._begin_relabeling();
        END IF;
    END IF;
    RETURN v_set;
END $$;

-- Raises PC001 unless a label set can be made of this.
CREATE FUNCTION pgclip._check_label_words(
    p_name text, p_labels text[], p_background text[], p_templates text[], p_forms jsonb
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_words   text[] := p_labels || p_background;
    v_needs   text;
    v_unknown text := (SELECT key FROM jsonb_each(
                           CASE jsonb_typeof(p_forms) WHEN 'object' THEN p_forms END)
                       WHERE key <> ALL(v_words) LIMIT 1);
BEGIN
    v_needs := CASE
        WHEN coalesce(cardinality(p_labels), 0) = 0 OR cardinality(v_words) < 2
          OR cardinality(v_words) <> (SELECT count(DISTINCT w) FROM unnest(v_words) w
                                      WHERE w <> '') THEN
            'at least two labels, or a label and background, all different and not empty'
        WHEN cardinality(v_words) > 10000 THEN 'at most 10,000 labels and background words'
        WHEN coalesce(cardinality(p_templates), 0) = 0
          OR EXISTS (SELECT FROM unnest(p_templates) t
                     WHERE t IS NULL OR position('{}' IN t) = 0) THEN
            'templates that contain {}'
        WHEN jsonb_typeof(p_forms) IS DISTINCT FROM 'object'
          OR EXISTS (SELECT FROM jsonb_each(p_forms) f WHERE jsonb_typeof(f.value) <> 'array')
          OR jsonb_path_exists(p_forms, '$.*[*] ? (@.type() != "string" || @ == "")') THEN
            'forms as {"label": ["another word for it"]}'
        WHEN v_unknown IS NOT NULL THEN format('label %L, which forms are given of', v_unknown)
        END;
    IF v_needs IS NOT NULL THEN
        RAISE EXCEPTION 'label set % needs %', p_name, v_needs USING ERRCODE = 'PC001';
    END IF;
END $$;

-- Deletes a label set with all its labels on items, and what people said of them. Returns whether
-- it existed.
CREATE FUNCTION pgclip.drop_label_set(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7311994466);  -- a worker that decides ends its page
    PERFORM FROM pgclip.label_epoch FOR UPDATE;
    PERFORM FROM pgclip.label WHERE set_id = (
        SELECT s.id FROM pgclip.label_set s WHERE s.name = drop_label_set.name)
    ORDER BY id FOR UPDATE;  -- in the order in which all others take them
    DELETE FROM pgclip.label_set s WHERE s.name = drop_label_set.name;
    RETURN FOUND;
END $$;

-- Keeps a label's vector, unless there is one of later prompts.
CREATE FUNCTION pgclip.keep_label_vector(
    p_label int, p_model smallint, p_version int, p_embedding real[]
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgclip.label_vector (label_id, model_id, version, embedding)
    SELECT id, p_model, p_version, p_embedding FROM pgclip.label WHERE id = p_label FOR KEY SHARE
    ON CONFLICT (label_id, model_id) DO UPDATE SET version = excluded.version,
        embedding = excluded.embedding WHERE label_vector.version < excluded.version
$$;
