-- Rows of indexed tables become items: of rows that are said to have changed, and of all, page by
-- page, of a table that is new, changed, restored, truncated or attached to. Both come down to one:
-- the items of these rows are made what the rows say, now. One at a time does so, or an older state
-- of a row might be written after a newer one.

-- What a row says, as one item.
CREATE TYPE pgclip.wanted_item AS (
    row_key text, part text, key text, kind pgclip.kind, data bytea, source text, metadata jsonb,
    problem text
);

-- A path as a URL, a URL as it is.
CREATE FUNCTION pgclip._as_source(p_value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN starts_with(p_value, '/')
                THEN 'file://' || replace(replace(replace(p_value, '%', '%25'), '?', '%3F'),
                                          '#', '%23')
                ELSE p_value END
$$;

-- Rows of a key and the values of its columns, for a statement: "('7', '7'::bigint), …". They are
-- literals, since a cast could be somebody's function. Of no keys a row of NULLs, which joins none.
CREATE FUNCTION pgclip._key_values(p_relation regclass, p_keys text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('(%L, %s)', u.key, (
               SELECT string_agg(format('%L::%s', CASE WHEN k.columns = 1 THEN u.key
                                                       ELSE u.key::jsonb ->> (k.nth - 1) END,
                                        k.type), ', ' ORDER BY k.nth)
               FROM (SELECT nth, type, count(*) OVER () AS columns
                     FROM pgclip._key_of(p_relation)) k)), ', ')
    FROM unnest(CASE WHEN p_keys = '{}' THEN ARRAY[NULL::text] ELSE p_keys END) u(key)
$$;

-- "ONLY shop.product r": what inherits from a table has keys of its own.
CREATE FUNCTION pgclip._from(p_relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%s %s r', CASE relkind WHEN 'r' THEN 'ONLY' ELSE '' END, p_relation)
    FROM pg_class WHERE oid = p_relation
$$;

-- The same with the columns that count, and those of the key, called by their numbers, as
-- expressions have them, and the key as "@key@". Raises PC001 if a column is gone.
CREATE FUNCTION pgclip._numbered(p_table pgclip.indexed_table) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('(SELECT %s, %s AS "@key@" FROM %s) r',
                  string_agg(format('r.%s AS "@%s@"', name, number), ', '),
                  pgclip._key_expression(p_table.relation, 'r'), pgclip._from(p_table.relation))
    FROM (SELECT number, pgclip._column_now(p_table.relation, number) AS name
          FROM (SELECT unnest(pgclip._columns_of(p_table))
          UNION SELECT unnest(pgclip._key_columns(p_table.relation))) n(number)) c
$$;

-- The keys that follow one, in the order of the primary key.
CREATE FUNCTION pgclip._next_keys(p_relation regclass, p_after text, p_most int) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_columns text := (SELECT string_agg('r.' || name, ', ' ORDER BY nth)
                       FROM pgclip._key_of(p_relation));
    v_named   text := (SELECT string_agg('c' || nth, ', ' ORDER BY nth)
                       FROM pgclip._key_of(p_relation));
    v_keys    text[];
BEGIN
    EXECUTE format('SELECT array_agg(%s ORDER BY %s) FROM (SELECT %s FROM %s %s ORDER BY %s '
                   'LIMIT %s) r',
        pgclip._key_expression(p_relation, 'r'), v_columns, v_columns, pgclip._from(p_relation),
        CASE WHEN p_after IS NULL THEN ''
             ELSE format('WHERE (%s) > (SELECT %s FROM (VALUES %s) k(key, %s))', v_columns,
                         v_named, pgclip._key_values(p_relation, ARRAY[p_after]), v_named) END,
        v_columns, p_most) INTO v_keys;
    RETURN coalesce(v_keys, '{}');
END $$;

-- The keys of rows that have items or failures, which follow one.
CREATE FUNCTION pgclip._next_item_keys(p_table int, p_after text, p_most int) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT DISTINCT row_key FROM (
        (SELECT row_key FROM pgclip.table_item
         WHERE table_id = p_table AND (p_after IS NULL OR row_key > p_after)
         ORDER BY row_key LIMIT p_most)
        UNION ALL
        (SELECT row_key FROM pgclip.row_failure
         WHERE table_id = p_table AND (p_after IS NULL OR row_key > p_after)
         ORDER BY row_key LIMIT p_most)) p ORDER BY row_key LIMIT p_most)
$$;

-- What rows with these keys say, as far as they are there, meet the condition, and their keys are
-- spelt so. Nothing in a column, or an empty text, is no item.
CREATE FUNCTION pgclip._wanted_items(p_table pgclip.indexed_table, p_keys text[])
RETURNS SETOF pgclip.wanted_item
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_values text := (
        SELECT string_agg(format(CASE p ->> 'type' WHEN 'bytea' THEN '(%s, NULL, (%s))'
                                                   ELSE '(%s, concat(%s), NULL::bytea)' END,
                                 nth, p ->> 'expression'),
                          ', ' ORDER BY p ->> 'type' = 'bytea', nth)
        FROM jsonb_array_elements(p_table.parts) WITH ORDINALITY e(p, nth));
    v_key    record;
BEGIN
    SELECT string_agg(format('r."@%s@" = k.c%s', number, nth), ' AND ') AS same,
           string_agg('c' || nth, ', ' ORDER BY nth) AS columns
    INTO v_key FROM pgclip._key_of(p_table.relation);
    RETURN QUERY EXECUTE format($query$
        SELECT w.row_key, w.part, w.key, w.kind, w.data, w.source, w.metadata,
               CASE WHEN w.is_long AND w.kind = 'text' THEN 'the text has more than 256 KiB'
                    WHEN w.is_long THEN 'the image has more than 64 MiB'
                    WHEN w.data IS NULL AND w.source IS NULL
                    THEN 'the picture must be bytes, an absolute path or a URL such as '
                         'https://example.com/cat.jpg'
                    WHEN w.row_key ~ ' # ' AND EXISTS (
                        SELECT FROM jsonb_array_elements(%1$L::jsonb) e(p)
                        WHERE right(w.row_key, length(e.p ->> 'label') + 3)
                              = ' # ' || (e.p ->> 'label'))
                    THEN 'the key ends as that of a further column of another row does'
                    ELSE coalesce(pgclip._content_problem(w.kind, w.data),
                                  pgclip._problem((%2$L, w.key, w.kind,
                                      CASE WHEN w.data IS NOT NULL THEN ''::bytea END,
                                      w.source, w.metadata, 1, true)::pgclip.submission)) END
        FROM (SELECT k.row_key, e.p ->> 'label',
                     CASE WHEN v.nth = 1 THEN k.row_key
                          ELSE k.row_key || ' # ' || (e.p ->> 'label') END,
                     (e.p ->> 'kind')::pgclip.kind,
                     CASE WHEN l.is_long THEN NULL
                          WHEN e.p ->> 'kind' = 'text' THEN convert_to(v.value, 'UTF8')
                          ELSE v.data END,
                     CASE WHEN e.p ->> 'kind' = 'image' AND v.value ~ '^/|^[A-Za-z][^:/]*://.'
                          THEN pgclip._as_source(v.value) END,
                     %3$s, l.is_long
              FROM (VALUES %4$s) k(row_key, %5$s)
              JOIN %6$s ON %7$s
              CROSS JOIN LATERAL (VALUES %8$s) v(nth, value, data)
              CROSS JOIN LATERAL (SELECT coalesce(octet_length(v.value) > 262144, false)
                                      OR coalesce(octet_length(v.data) > 67108864, false)
                                 ) l(is_long)
              JOIN jsonb_array_elements(%1$L::jsonb) WITH ORDINALITY e(p, nth) ON e.nth = v.nth
              WHERE (%9$s) AND r."@key@" = k.row_key
                AND (v.value <> '' OR octet_length(v.data) > 0)
             ) w(row_key, part, key, kind, data, source, metadata, is_long)
        $query$, p_table.parts, p_table.collection, pgclip._metadata_expression(p_table),
        pgclip._key_values(p_table.relation, p_keys), v_key.columns, pgclip._numbered(p_table),
        v_key.same, v_values, p_table.condition);
END $$;

-- The expression that makes an item's metadata. A type that somebody has made, and so may have a
-- cast to JSON, is written as text.
CREATE FUNCTION pgclip._metadata_expression(p_table pgclip.indexed_table) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('jsonb_build_object(%s)', string_agg(format(
               CASE WHEN pgclip._base_type(a.atttypid) < 16384 THEN '%L, r."@%s@"'
                    ELSE '%L, CASE WHEN r."@%2$s@" IS NOT NULL THEN concat(r."@%2$s@") END' END,
               f.key, f.value), ', '))
    FROM jsonb_each_text(p_table.metadata) f
    LEFT JOIN pg_attribute a ON a.attrelid = p_table.relation AND a.attnum = f.value::smallint
$$;

-- Makes the items of these rows what the rows say: what is new or has another content is submitted,
-- another metadata is written, what is not wanted any more is deleted, and of what can't be an item
-- it is noted why. Returns how many were submitted.
CREATE FUNCTION pgclip._sync_rows(
    p_table pgclip.indexed_table, p_keys text[], p_priority int
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_wanted pgclip.wanted_item[] := ARRAY(
        SELECT w FROM pgclip._wanted_items(p_table, p_keys) w);
    v_collection int;
    v_count      bigint;
BEGIN
    DELETE FROM pgclip.row_failure
    WHERE table_id = p_table.id AND md5(row_key) IN (SELECT md5(k) FROM unnest(p_keys) k);
    INSERT INTO pgclip.row_failure (table_id, row_key, part, reason, message)
    SELECT p_table.id, row_key, part, 'unacceptable', problem FROM unnest(v_wanted)
    WHERE problem IS NOT NULL;
    PERFORM pgclip.open_staging();
    INSERT INTO pg_temp.staged_submission (place, collection, key, kind, data, source, metadata,
                                           priority, keep_source, merge)
    SELECT w.nth, p_table.collection, w.key, w.kind, w.data, w.source, w.metadata, p_priority,
           true, true
    FROM unnest(v_wanted) WITH ORDINALITY
         w(row_key, part, key, kind, data, source, metadata, problem, nth)
    LEFT JOIN pgclip.collection c ON c.name = p_table.collection
    LEFT JOIN pgclip.item i ON i.collection_id = c.id AND i.key = w.key
    WHERE w.problem IS NULL
      AND (i.kind, i.source, i.content_hash) IS DISTINCT FROM (w.kind, w.source, sha256(w.data));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    INSERT INTO pgclip.row_failure AS old (table_id, row_key, part, reason, message)
    SELECT p_table.id, w.row_key, w.part, 'unacceptable', s.error
    FROM pgclip.submit_staged() s
    JOIN unnest(v_wanted) WITH ORDINALITY
         w(row_key, part, key, kind, data, source, metadata, problem, nth) ON w.nth = s.place
    WHERE s.error IS NOT NULL
    ON CONFLICT (table_id, md5(row_key), part) DO UPDATE SET message = excluded.message;

    SELECT id INTO v_collection FROM pgclip.collection WHERE name = p_table.collection;
    UPDATE pgclip.item i
    SET metadata = (i.metadata - p_table.retired_fields) || w.metadata, updated_at = now()
    FROM unnest(v_wanted) w
    WHERE i.collection_id = v_collection AND i.key = w.key AND w.problem IS NULL
      AND i.metadata <> (i.metadata - p_table.retired_fields) || w.metadata;
    INSERT INTO pgclip.table_item AS old (item_id, table_id, row_key, part)
    SELECT i.id, p_table.id, w.row_key, w.part
    FROM unnest(v_wanted) w
    JOIN pgclip.item i ON i.collection_id = v_collection AND i.key = w.key
    WHERE w.problem IS NULL
    ON CONFLICT (item_id) DO UPDATE SET
        table_id = excluded.table_id, row_key = excluded.row_key, part = excluded.part
        WHERE (old.table_id, old.row_key, old.part)
              IS DISTINCT FROM (excluded.table_id, excluded.row_key, excluded.part);
    PERFORM pgclip._delete_items(v_gone) FROM (
        SELECT array_agg(t.item_id) AS v_gone FROM pgclip.table_item t
        JOIN pgclip.item i ON i.id = t.item_id
        WHERE t.table_id = p_table.id AND t.row_key = ANY(p_keys)
          AND NOT EXISTS (SELECT FROM unnest(v_wanted) w
                          WHERE w.key = i.key AND w.problem IS NULL)) g
    WHERE v_gone IS NOT NULL;
    RETURN v_count;
END $$;

-- The same, whatever is in the rows: one that can't be read keeps no other back.
CREATE FUNCTION pgclip._sync_each(
    p_table pgclip.indexed_table, p_keys text[], p_priority int
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_half int := cardinality(p_keys) / 2;
BEGIN
    RETURN pgclip._sync_rows(p_table, p_keys, p_priority);
EXCEPTION WHEN data_exception OR program_limit_exceeded OR raise_exception
             OR integrity_constraint_violation OR cardinality_violation THEN
    IF v_half > 0 THEN
        RETURN pgclip._sync_each(p_table, p_keys[:v_half], p_priority)
             + pgclip._sync_each(p_table, p_keys[v_half + 1:], p_priority);
    END IF;
    INSERT INTO pgclip.row_failure (table_id, row_key, part, reason, message)
    VALUES (p_table.id, p_keys[1], '', 'unreadable', SQLERRM)
    ON CONFLICT (table_id, md5(row_key), part) DO UPDATE SET message = excluded.message;
    RETURN 0;
END $$;

-- How many rows are read at once: a bytea has up to 64 MiB.
CREATE FUNCTION pgclip._page_of(p_table pgclip.indexed_table) RETURNS int
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_table.parts @> '[{"type": "bytea"}]' THEN 20 ELSE 500 END
$$;

-- One step of one table: changes first, then the next page of what is gone through. Returns whether
-- there was any, and how many items were submitted.
CREATE FUNCTION pgclip._step_of_table(
    p_table pgclip.indexed_table, OUT did boolean, OUT submitted bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_page int := pgclip._page_of(p_table);
    v_keys text[];
    v_any  boolean;
BEGIN
    submitted := 0;
    -- In their order, those of a transaction that is not over left for later.
    WITH taken AS (
        DELETE FROM pgclip.row_change WHERE table_id = p_table.id AND id IN (
            SELECT id FROM (
                SELECT id, row_number() OVER (ORDER BY id) AS nth,
                       sum(cardinality(row_keys)) OVER (ORDER BY id) AS keys
                FROM (SELECT id, row_keys FROM pgclip.row_change
                      WHERE table_id = p_table.id ORDER BY id LIMIT v_page) oldest) o
            WHERE nth = 1 OR keys <= v_page)
        RETURNING row_keys, key_columns = pgclip._key_columns(p_table.relation) AS is_known
    )
    SELECT count(*) > 0, bool_or(row_keys IS NULL OR is_known IS NOT true),
           ARRAY(SELECT DISTINCT key FROM taken t CROSS JOIN unnest(t.row_keys) key
                 WHERE t.is_known)
    INTO did, v_any, v_keys FROM taken;
    IF v_any THEN
        PERFORM pgclip._begin_table_walk(p_table.id);
    END IF;
    IF v_keys <> '{}' AND NOT p_table.is_leaving THEN
        submitted := pgclip._sync_each(p_table, v_keys, p_table.priority);
    ELSIF NOT did THEN
        SELECT s.did, s.submitted INTO did, submitted FROM pgclip._walk_table(p_table, v_page) s;
    END IF;
END $$;

CREATE FUNCTION pgclip._begin_table_walk(p_table int) RETURNS void
LANGUAGE sql AS $$
    UPDATE pgclip.indexed_table
    SET walk = 'rows', after_key = NULL, walked = 0, looked_at = '-infinity'
    WHERE id = p_table AND NOT is_leaving
$$;

-- The next page of the rows; after the last, of the items, for rows that are gone.
CREATE FUNCTION pgclip._walk_table(
    p_table pgclip.indexed_table, p_page int, OUT did boolean, OUT submitted bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_keys text[] := '{}';
BEGIN
    submitted := 0;
    did := p_table.walk IS NOT NULL OR p_table.is_leaving;
    IF p_table.is_leaving THEN
        PERFORM pgclip._forget_table(p_table.id, 500);
    ELSIF p_table.walk = 'rows' THEN
        v_keys := pgclip._next_keys(p_table.relation, p_table.after_key, p_page);
    ELSIF p_table.walk = 'items' THEN
        v_keys := pgclip._next_item_keys(p_table.id, p_table.after_key, p_page);
    END IF;
    IF v_keys <> '{}' THEN
        submitted := pgclip._sync_each(p_table, v_keys, 9);
    END IF;
    IF did AND NOT p_table.is_leaving THEN
        UPDATE pgclip.indexed_table SET
            walk = CASE WHEN v_keys <> '{}' THEN walk WHEN walk = 'rows' THEN 'items' END,
            after_key = v_keys[cardinality(v_keys)],
            walked = walked + CASE walk WHEN 'rows' THEN cardinality(v_keys) ELSE 0 END,
            retired_fields = CASE WHEN v_keys = '{}' AND walk = 'items' THEN '{}'
                                  ELSE retired_fields END
        WHERE id = p_table.id AND walk = p_table.walk
          AND after_key IS NOT DISTINCT FROM p_table.after_key;
    END IF;
END $$;

-- A page of the items of a table that is followed no more; after the last, the table.
CREATE FUNCTION pgclip._forget_table(p_table int, p_page int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_items bigint[] := ARRAY(SELECT item_id FROM pgclip.table_item
                              WHERE table_id = p_table LIMIT p_page);
BEGIN
    PERFORM pgclip._delete_items(v_items);
    IF v_items = '{}' THEN
        DELETE FROM pgclip.row_change WHERE table_id = p_table;
        DELETE FROM pgclip.indexed_table WHERE id = p_table;
        EXECUTE format('DROP FUNCTION IF EXISTS pgclip.note_rows_%s()', p_table);
    END IF;
END $$;

-- Whether a table is still what was indexed: where its rows lie (other files after TRUNCATE and
-- restores, other partitions), what its columns are called, whether its triggers are set. Returns
-- what is wrong, if something is.
CREATE FUNCTION pgclip._look_at_table(p_table pgclip.indexed_table) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_relation oid := CASE WHEN p_table.home = pgclip._home() THEN p_table.relation
                           ELSE pgclip._restored_relation(p_table) END;
    v_place    text := (
        SELECT md5(string_agg(format('%s %s', c.oid, c.relfilenode), ',' ORDER BY c.oid))
        FROM (SELECT v_relation AS relid
              UNION SELECT relid FROM pg_partition_tree(v_relation)) t
        JOIN pg_class c ON c.oid = t.relid);
BEGIN
    IF v_place IS NULL AND p_table.home <> pgclip._home() THEN
        RETURN format('table %s has not been restored; its items stay', p_table.name);
    ELSIF v_place IS NULL THEN
        UPDATE pgclip.indexed_table SET is_leaving = true, walk = NULL WHERE id = p_table.id;
        RETURN format('table %s is gone', p_table.name);
    END IF;
    UPDATE pgclip.indexed_table SET relation = v_relation, home = pgclip._home()
    WHERE id = p_table.id AND home <> pgclip._home();
    p_table.relation := v_relation;
    IF pgclip._follow_columns(p_table.id) OR v_place <> p_table.place THEN
        PERFORM pgclip._begin_table_walk(p_table.id);
    END IF;
    UPDATE pgclip.indexed_table SET place = v_place, looked_at = clock_timestamp()
    WHERE id = p_table.id;
    IF EXISTS (SELECT FROM pgclip._lacking_triggers(p_table)) THEN
        RETURN format('table %s lacks triggers, or they are switched off: changes are not seen. '
                      'SELECT pgclip.index_table(…) sets them again', v_relation::regclass);
    END IF;
    RETURN NULL;
END $$;

-- Which table it is in another database than it was indexed in: the one that has the triggers, or
-- the one of that name.
CREATE FUNCTION pgclip._restored_relation(p_table pgclip.indexed_table) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((
        SELECT min(tgrelid) FROM pg_trigger
        WHERE tgfoid = to_regproc(format('pgclip.note_rows_%s', p_table.id)) AND tgparentid = 0),
        to_regclass(p_table.name))
$$;

-- Follows every table one step. A table that can't be followed says why, and keeps its changes.
-- Returns how many tables there are, whether there may be more to do now, how many items were
-- submitted, and the queues in which tickets for them belong.
CREATE FUNCTION pgclip.follow_tables(
    OUT tables bigint, OUT did boolean, OUT submitted bigint, OUT queues text[]
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off
SET DateStyle = ISO SET IntervalStyle = postgres SET TimeZone = UTC SET extra_float_digits = 1
SET bytea_output = hex SET lock_timeout = '1s' AS $$
DECLARE
    v_id      int;
    v_table   pgclip.indexed_table;
    v_step    record;
    v_trouble text;
BEGIN
    did := false;
    submitted := 0;
    tables := 0;
    queues := pgclip.ticket_queues();
    FOR v_id IN SELECT id FROM pgclip.indexed_table ORDER BY id LOOP
        tables := tables + 1;
        BEGIN
            -- As it is now, and until this is committed: one who changes it waits for the page.
            SELECT * INTO v_table FROM pgclip.indexed_table WHERE id = v_id FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            IF NOT v_table.is_leaving
               AND v_table.looked_at < clock_timestamp() - interval '10 s' THEN
                v_trouble := pgclip._look_at_table(v_table);
                UPDATE pgclip.indexed_table SET trouble = v_trouble
                WHERE id = v_id AND trouble IS DISTINCT FROM v_trouble;
                SELECT * INTO v_table FROM pgclip.indexed_table WHERE id = v_id;
                CONTINUE WHEN v_table.home <> pgclip._home();
            END IF;
            v_step := pgclip._step_of_table(v_table);
            did := did OR v_step.did;
            submitted := submitted + v_step.submitted;
        EXCEPTION
            WHEN transaction_rollback OR insufficient_resources OR operator_intervention
                 OR system_error THEN
                RAISE;
            WHEN OTHERS THEN  -- a look that finds nothing wrong takes it back
                UPDATE pgclip.indexed_table SET trouble = SQLERRM, looked_at = '-infinity'
                WHERE id = v_id;
        END;
    END LOOP;
END $$;
