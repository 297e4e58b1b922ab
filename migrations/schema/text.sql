-- Words: a full-text index over texts and chosen fields of metadata.

-- Fields of metadata weigh more (A) than the text itself (B).
CREATE FUNCTION pgclip._words(
    p_language regconfig, p_fields text[], p_metadata jsonb, p_text bytea
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_words tsvector := setweight(to_tsvector(p_language,
                            coalesce(convert_from(p_text, 'UTF8'), '')), 'B');
    v_field text;
BEGIN
    FOREACH v_field IN ARRAY p_fields LOOP
        v_words := setweight(jsonb_to_tsvector(p_language,
            coalesce(p_metadata #> string_to_array(v_field, '.'), '{}'), '["string", "numeric"]'),
            'A') || v_words;
    END LOOP;
    RETURN v_words;
END $$;

-- Of items whose text is not kept any longer the words stay as they were.
CREATE FUNCTION pgclip._index_words(p_items bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO pgclip.item_text (item_id, words)
    SELECT i.id, pgclip._words(s.language::regconfig, s.fields, i.metadata, o.data)
    FROM pgclip.item i CROSS JOIN pgclip.text_search s
    LEFT JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash AND i.kind = 'text'
    WHERE i.id = ANY(p_items) AND (i.kind = 'image' OR o.data IS NOT NULL)
    ORDER BY i.id
    ON CONFLICT (item_id) DO UPDATE SET words = excluded.words
$$;

CREATE FUNCTION pgclip._items_added() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_fields boolean := (SELECT fields <> '{}' FROM pgclip.text_search);
BEGIN
    PERFORM pgclip._index_words(ids) FROM (
        SELECT array_agg(id) AS ids FROM added WHERE kind = 'text' OR v_fields) a
    WHERE ids IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER item_added AFTER INSERT ON pgclip.item REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._items_added();

CREATE FUNCTION pgclip._items_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_fields boolean := (SELECT fields <> '{}' FROM pgclip.text_search);
BEGIN
    PERFORM pgclip._index_words(ids) FROM (
        SELECT array_agg(n.id) AS ids FROM changed n JOIN before o USING (id)
        WHERE (n.kind = 'text' OR o.kind = 'text')
              AND (n.kind, n.content_hash) IS DISTINCT FROM (o.kind, o.content_hash)
           OR v_fields AND n.metadata <> o.metadata) a
    WHERE ids IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER item_changed AFTER UPDATE ON pgclip.item
    REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._items_changed();

-- Chooses the language of the words, and fields of metadata (paths such as about.title) whose words
-- count. All words are indexed anew: that takes a while, and submissions wait for it.
CREATE FUNCTION pgclip.configure_text_search(
    language regconfig DEFAULT 'pg_catalog.english', fields text[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_field text;
BEGIN
    FOREACH v_field IN ARRAY configure_text_search.fields LOOP
        PERFORM pgclip._path(v_field);
    END LOOP;
    LOCK TABLE pgclip.item IN SHARE ROW EXCLUSIVE MODE;
    UPDATE pgclip.text_search SET fields = configure_text_search.fields, language = (
        SELECT format('%I.%I', n.nspname, c.cfgname)
        FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
        WHERE c.oid = configure_text_search.language);
    PERFORM pgclip._index_words(ARRAY(SELECT id FROM pgclip.item
                                      WHERE kind = 'text' OR configure_text_search.fields <> '{}'));
    DELETE FROM pgclip.item_text t USING pgclip.item i
    WHERE i.id = t.item_id AND i.kind = 'image' AND configure_text_search.fields = '{}';
END $$;
