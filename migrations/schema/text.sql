-- Words: a full-text index over texts and chosen fields of metadata.

-- Characters of scripts that put no space between words, for a bracket expression: Thai, Lao,
-- Tibetan's neighbours Myanmar and Khmer, kana, bopomofo and Han, with their extensions.
CREATE FUNCTION pgclip._unspaced() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT E'\\u0e01-\\u0e3a\\u0e40-\\u0e4e\\u0e81-\\u0ece\\u0edc-\\u0edf\\u1000-\\u103f'
        || E'\\u1050-\\u108f\\u1780-\\u17d3\\u1950-\\u1974\\u1980-\\u19c9\\u1a20-\\u1a7c'
        || E'\\u3005-\\u3007\\u3031-\\u3035\\u3041-\\u3096\\u3099\\u309a\\u309d-\\u309f'
        || E'\\u30a1-\\u30fa\\u30fc-\\u30ff\\u3105-\\u312f\\u31a0-\\u31bf\\u31f0-\\u31ff'
        || E'\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua9e0-\\ua9fe\\uaa60-\\uaa7f\\uaadb-\\uaadd'
        || E'\\uf900-\\ufaff\\U00016fe0-\\U00018cff\\U0001aff0-\\U0001b16f'
        || E'\\U00020000-\\U0003ffff'
$$;

-- A text as its words are read from it: one spelling of what Unicode spells in several ways (NFKC).
-- Marks on one letter are sorted in time quadratic in their number, which nothing interrupts: where
-- there may be hundreds, piece by piece.
CREATE FUNCTION pgclip._one_spelling(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_text !~ E'[^\\x01-\\x7f]' THEN p_text
        WHEN p_text ~ (E'[\\u0300-\\u036f\\u0483-\\u1dff\\u20d0-\\u20ff\\u302a-\\u302f'
                       || E'\\u3099\\u309a\\ua66f-\\uabed\\ufb1e\\ufe20-\\ufe2f'
                       || E'\\U000101fd-\\U0001e94a]{200}')
            THEN (SELECT string_agg(normalize(substr(p_text, n, 500), NFKC), '' ORDER BY n)
                  FROM generate_series(1, length(p_text), 500) n)
        ELSE normalize(p_text, NFKC) END
$$;

-- The overlapping pairs of characters that stand for the words of such scripts, at their places, of
-- the first 30,000 characters. The last character of each run, which begins no pair, stands alone,
-- so that a single character is found by what begins with it.
CREATE FUNCTION pgclip._pairs(p_text text)
RETURNS TABLE (run int, place int, pair text, ends boolean)
LANGUAGE sql IMMUTABLE AS $$
    SELECT (n - row_number() OVER (ORDER BY n))::int, n::int, c || coalesce(next, ''), next IS NULL
    FROM (SELECT c, n, nullif(lead(c) OVER (ORDER BY n), ' ') AS next
          FROM unnest(string_to_array(
                   left(regexp_replace(p_text, '[^' || pgclip._unspaced() || ']+', ' ', 'g'),
                        30000), NULL)) WITH ORDINALITY t(c, n)) each
    WHERE c <> ' '
$$;

-- A text's words, as they are searched for.
CREATE FUNCTION pgclip._words_of(p_language regconfig, p_text text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_text  text := pgclip._one_spelling(p_text);
    v_pairs tsvector;
BEGIN
    IF v_text !~ ('[' || pgclip._unspaced() || ']') THEN
        RETURN to_tsvector(p_language, v_text);
    END IF;
    SELECT string_agg(format('''%s'':%s', pair, least(place, 16383)), ' ')::tsvector INTO v_pairs
    FROM pgclip._pairs(v_text);
    RETURN to_tsvector(p_language, regexp_replace(
        v_text, '[' || pgclip._unspaced() || ']+', ' ', 'g')) || v_pairs;
END $$;

-- Fields of metadata weigh more (A) than the text itself (B). Of each p_most characters.
CREATE FUNCTION pgclip._words_within(
    p_language regconfig, p_fields text[], p_metadata jsonb, p_text bytea, p_most int
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_words tsvector := setweight(pgclip._words_of(p_language, left(
                            coalesce(convert_from(p_text, 'UTF8'), ''), p_most)), 'B');
    v_field text;
BEGIN
    FOREACH v_field IN ARRAY p_fields LOOP
        v_words := setweight(pgclip._words_of(p_language, left(coalesce((
            SELECT string_agg(v #>> '{}', ' ')
            FROM jsonb_path_query(p_metadata #> string_to_array(v_field, '.'), 'strict $.**') v
            WHERE jsonb_typeof(v) IN ('string', 'number')), ''), p_most)), 'A') || v_words;
    END LOOP;
    RETURN v_words;
END $$;

-- The words of an item. Postgres takes a megabyte of them, which no text of some kilobytes reaches
-- (one character may stand for eighteen); a longer one that has more counts with its beginning.
CREATE FUNCTION pgclip._words(
    p_language regconfig, p_fields text[], p_metadata jsonb, p_text bytea
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_most  int := 262144;
    v_bytes int := coalesce(octet_length(p_text), 0)
                   + CASE WHEN p_fields <> '{}' THEN octet_length(p_metadata::text) ELSE 0 END;
BEGIN
    IF v_bytes < 8192 THEN
        RETURN pgclip._words_within(p_language, p_fields, p_metadata, p_text, v_most);
    END IF;
    LOOP
        BEGIN
            RETURN pgclip._words_within(p_language, p_fields, p_metadata, p_text, v_most);
        EXCEPTION WHEN program_limit_exceeded THEN
            v_most := v_most / 2;
        END;
    END LOOP;
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
    DELETE FROM pgclip.words_anew;
END $$;

-- For the steward: indexes words anew after an upgrade that reads them from texts differently, some
-- items at once, from where it stopped. One that somebody is changing is left for the next time,
-- with what comes after it. Returns whether some are left.
CREATE FUNCTION pgclip.index_words_anew(p_items int) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_from   bigint;
    v_page   bigint[];
    v_locked bigint[];
BEGIN
    SELECT from_item INTO v_from FROM pgclip.words_anew FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM pgclip.text_search FOR SHARE SKIP LOCKED;
    IF NOT FOUND THEN  -- it is being configured, and all words indexed for that
        RETURN false;
    END IF;
    v_page := ARRAY(SELECT id FROM pgclip.item WHERE id >= v_from ORDER BY id LIMIT p_items);
    v_locked := ARRAY(SELECT id FROM pgclip.item WHERE id = ANY(v_page) ORDER BY id
                      FOR NO KEY UPDATE SKIP LOCKED);
    PERFORM pgclip._index_words(ARRAY(
        SELECT i.id FROM pgclip.item i CROSS JOIN pgclip.text_search
        WHERE i.id = ANY(v_locked) AND (i.kind = 'text' OR fields <> '{}')));
    IF v_page = '{}' THEN
        DELETE FROM pgclip.words_anew;
    ELSE
        UPDATE pgclip.words_anew SET from_item = coalesce(
            (SELECT min(p) FROM unnest(v_page) p WHERE p <> ALL(v_locked)),
            v_page[cardinality(v_page)] + 1);
    END IF;
    RETURN v_page <> '{}' AND v_page <@ v_locked;
END $$;
