-- Label sets, and the sets that ship.

CREATE FUNCTION pgclip._raise_label_epoch() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgclip.label_epoch SET epoch = epoch + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER label_set_changed AFTER INSERT OR UPDATE OR DELETE ON pgclip.label_set
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._raise_label_epoch();

CREATE FUNCTION pgclip._forget_labels() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.item_label il USING gone WHERE il.label_id = gone.id;
    RETURN NULL;
END $$;
CREATE TRIGGER label_deleted AFTER DELETE ON pgclip.label REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._forget_labels();

CREATE FUNCTION pgclip._forget_item_labels() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.item_label il USING gone
    WHERE il.item_id = gone.item_id AND il.model_id = gone.model_id;
    RETURN NULL;
END $$;
CREATE TRIGGER embedding_set_deleted AFTER DELETE ON pgclip.embedding_set
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._forget_item_labels();

-- Creates a label set or replaces its definition. A template contains {} where the label goes.
-- Items encoded from now on are labelled with it; the labels of earlier ones keep the version
-- of the set that they were made with. Returns the set's id.
CREATE FUNCTION pgclip.define_label_set(
    name text, labels text[], templates text[] DEFAULT ARRAY['a photo of a {}'], top_k int DEFAULT 3,
    threshold real DEFAULT 0.1, applies_to text DEFAULT 'both', active boolean DEFAULT true
) RETURNS int
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_set int;
BEGIN
    IF coalesce(cardinality(labels), 0) < 2 OR array_position(labels, NULL) IS NOT NULL
       OR '' = ANY(labels) OR cardinality(labels) <> (SELECT count(DISTINCT l) FROM unnest(labels) l)
    THEN
        RAISE EXCEPTION 'label set % needs at least two labels, all different and not empty', name
            USING ERRCODE = 'PC001';
    END IF;
    IF coalesce(cardinality(templates), 0) = 0
       OR EXISTS (SELECT FROM unnest(templates) t WHERE t IS NULL OR position('{}' IN t) = 0) THEN
        RAISE EXCEPTION 'label set % needs templates that contain {}', name
            USING ERRCODE = 'PC001';
    END IF;
    INSERT INTO pgclip.label_set AS old
           (name, templates, top_k, threshold, applies_to, active)
    VALUES (define_label_set.name, define_label_set.templates, define_label_set.top_k,
            define_label_set.threshold, define_label_set.applies_to, define_label_set.active)
    ON CONFLICT (name) DO UPDATE SET templates = excluded.templates, top_k = excluded.top_k,
        threshold = excluded.threshold, applies_to = excluded.applies_to,
        active = excluded.active, version = old.version + 1
    RETURNING id INTO v_set;
    DELETE FROM pgclip.label l WHERE l.set_id = v_set AND l.name <> ALL(labels);
    INSERT INTO pgclip.label (set_id, name, position)
    SELECT v_set, l.name, l.position FROM unnest(labels) WITH ORDINALITY AS l(name, position)
    ON CONFLICT (set_id, name) DO UPDATE SET position = excluded.position;
    RETURN v_set;
END $$;

-- Deletes a label set with all its labels on items. Returns whether it existed.
CREATE FUNCTION pgclip.drop_label_set(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pgclip.label_set s WHERE s.name = drop_label_set.name;
    RETURN FOUND;
END $$;

SELECT pgclip.define_label_set('general', ARRAY[
    'person', 'face', 'animal', 'bird', 'fish', 'insect', 'plant', 'flower', 'fruit', 'meal',
    'drink', 'vehicle', 'boat', 'aircraft', 'building', 'landscape', 'sky', 'sports equipment',
    'musical instrument', 'piece of clothing', 'tool', 'electronic device', 'document', 'sign',
    'piece of furniture', 'toy', 'painting', 'logo'],
    templates => ARRAY['a photo of a {}', 'a picture of a {}', 'a drawing of a {}', 'a {}'],
    top_k => 3, threshold => 0.1);

SELECT pgclip.define_label_set('moderation', ARRAY[
    'safe everyday scene', 'nude body', 'bloody injury', 'weapon', 'drugs', 'hateful symbol'],
    templates => ARRAY['a photo of a {}', 'a picture of {}', '{}'],
    top_k => 2, threshold => 0.2);
