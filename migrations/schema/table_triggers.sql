-- What notes that rows of an indexed table have changed: their keys, and no more, within the
-- statement of the application. Whatever has become of the table's columns, that statement does not
-- fail: what can't be told then is "any row".

-- The columns that count: a change of others is not noted.
CREATE FUNCTION pgclip._columns_of(p_table pgclip.indexed_table) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT number ORDER BY number), '{}')
    FROM (SELECT unnest(p_table.columns)
          UNION ALL SELECT value::smallint FROM jsonb_each_text(p_table.metadata)) c(number)
$$;

-- The columns in which a change shows: of a virtual one those that it is computed of, since
-- triggers are not shown its value.
CREATE FUNCTION pgclip._compared_columns(p_table pgclip.indexed_table) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT b.number ORDER BY b.number), '{}')
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                          AND a.attgenerated = 'v'
    CROSS JOIN LATERAL (
        SELECT a.attnum WHERE d.oid IS NULL
        UNION ALL
        SELECT r.refobjsubid::smallint FROM pg_depend r
        WHERE r.classid = 'pg_attrdef'::regclass AND r.objid = d.oid
          AND r.refclassid = 'pg_class'::regclass AND r.refobjid = a.attrelid
          AND r.refobjsubid <> a.attnum) b(number)
    WHERE a.attrelid = p_table.relation AND NOT a.attisdropped
      AND a.attnum = ANY(pgclip._columns_of(p_table))
$$;

-- What a column is called today, quoted. Raises PC001 if it is gone.
CREATE FUNCTION pgclip._column_now(p_relation regclass, p_number smallint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text := (SELECT quote_ident(attname) FROM pg_attribute
                    WHERE attrelid = p_relation AND attnum = p_number AND NOT attisdropped);
BEGIN
    IF v_name IS NULL THEN
        RAISE EXCEPTION 'column number % of table % is gone', p_number, p_relation
            USING ERRCODE = 'PC001', HINT = 'SELECT pgclip.index_table(…) says what counts now.';
    END IF;
    RETURN v_name;
END $$;

-- What a domain is made of; another type itself.
CREATE FUNCTION pgclip._base_type(p_type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE typtype WHEN 'd' THEN pgclip._base_type(typbasetype) ELSE oid END
    FROM pg_type WHERE oid = p_type
$$;

-- The columns of a table's primary key, in its order, with the types that their values are read as:
-- a domain's is what it is made of, so that nobody's condition is evaluated.
CREATE FUNCTION pgclip._key_of(
    p_relation regclass, OUT nth int, OUT number smallint, OUT name text, OUT type text
) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.nth, a.attnum, quote_ident(a.attname), format_type(pgclip._base_type(a.atttypid), -1)
    FROM unnest(pgclip._key_columns(p_relation)) WITH ORDINALITY k(number, nth)
    JOIN pg_attribute a ON a.attrelid = p_relation AND a.attnum = k.number
    ORDER BY k.nth
$$;

-- The expression that makes a row's key of a row: its primary key as text, of several columns a
-- JSON array. By concat, which writes values as their types do: a cast could be somebody's
-- function.
CREATE FUNCTION pgclip._key_expression(p_relation regclass, p_row text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) = 1 THEN min(value)
                ELSE format('jsonb_build_array(%s)::text', string_agg(value, ', ' ORDER BY nth)) END
    FROM (SELECT nth, format('concat(%s.%s)', p_row, name) AS value
          FROM pgclip._key_of(p_relation)) k
$$;

-- Makes the function of the triggers anew if columns are called otherwise, or the key has changed.
-- Returns whether it did.
CREATE FUNCTION pgclip._follow_columns(p_table int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_table  pgclip.indexed_table;
    v_source text;
BEGIN
    SELECT * INTO v_table FROM pgclip.indexed_table WHERE id = p_table;
    v_source := pgclip._note_source(v_table);
    IF v_table.names = md5(v_source) THEN
        RETURN false;
    END IF;
    EXECUTE v_source;
    EXECUTE format('REVOKE ALL ON FUNCTION pgclip.note_rows_%s() FROM PUBLIC', p_table);
    UPDATE pgclip.indexed_table SET names = md5(v_source), name = relation::regclass
    WHERE id = p_table;
    RETURN true;
END $$;

-- The statement that makes the function. Keys are read in a block of their own, which writes
-- nothing, and so costs no transaction number. What counts is compared by the bytes of it (*<>), so
-- that every type can be, and nobody's operator is called. A statement that changes more than a
-- million rows notes "any row", rather than keep all their keys in memory.
CREATE FUNCTION pgclip._note_source(p_table pgclip.indexed_table) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_new      text := pgclip._key_expression(p_table.relation, 'n');
    v_old      text := pgclip._key_expression(p_table.relation, 'o');
    -- Values are compared where that is the same as comparing how they are spelt, and faster.
    v_same     text := CASE WHEN pgclip._is_always_spelt_so(p_table.relation)
        THEN (SELECT string_agg(format('o.%s = n.%s', name, name), ' AND ' ORDER BY nth)
              FROM pgclip._key_of(p_table.relation))
        ELSE format('%s = %s', v_old, v_new) END;
    v_first    text := (SELECT name FROM pgclip._key_of(p_table.relation) LIMIT 1);
    v_compared text := (
        SELECT format('ROW(%s)::record *<> ROW(%s)::record',
                      string_agg(format('o.%I', a.attname), ', ' ORDER BY a.attnum),
                      string_agg(format('n.%I', a.attname), ', ' ORDER BY a.attnum))
        FROM pg_attribute a WHERE a.attrelid = p_table.relation
         AND a.attnum = ANY(pgclip._compared_columns(p_table))
        HAVING count(*) > 0);
BEGIN
    RETURN format('CREATE OR REPLACE FUNCTION pgclip.note_rows_%s() RETURNS trigger '
                  'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp %s '
                  'AS %L', p_table.id,
        CASE WHEN pgclip._is_always_spelt_so(p_table.relation) THEN ''
             ELSE 'SET DateStyle = ISO SET IntervalStyle = postgres SET TimeZone = UTC '
                  'SET extra_float_digits = 1 SET bytea_output = hex' END,
        format($body$
DECLARE
    v_keys text[];
BEGIN
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            v_keys := NULL;
        ELSIF TG_LEVEL = 'ROW' THEN
            v_keys := CASE TG_OP
                WHEN 'INSERT' THEN ARRAY(SELECT %1$s FROM (SELECT NEW.*) n)
                WHEN 'DELETE' THEN ARRAY(SELECT %2$s FROM (SELECT OLD.*) o)
                ELSE ARRAY(SELECT unnest(CASE WHEN %8$s THEN ARRAY[%1$s]
                                         ELSE ARRAY[%2$s, %1$s] END)
                           FROM (SELECT OLD.*) o CROSS JOIN (SELECT NEW.*) n
                           WHERE NOT (%8$s) OR %3$s) END;
        ELSIF TG_OP = 'INSERT' THEN
            v_keys := ARRAY(SELECT %1$s FROM new_rows n LIMIT 1000001);
        ELSIF TG_OP = 'DELETE' THEN
            v_keys := ARRAY(SELECT %2$s FROM old_rows o LIMIT 1000001);
        ELSE
            v_keys := ARRAY(SELECT CASE WHEN n.%4$s IS NULL THEN %2$s ELSE %1$s END
                            FROM old_rows o FULL JOIN new_rows n ON %8$s
                            WHERE o.%4$s IS NULL OR n.%4$s IS NULL OR %3$s LIMIT 1000001);
        END IF;
        IF cardinality(v_keys) > 1000000 THEN
            v_keys := NULL;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        v_keys := NULL;
    END;
    IF cardinality(v_keys) > %5$s THEN
        INSERT INTO pgclip.row_change (table_id, key_columns, row_keys)
        SELECT %6$s, %7$L, array_agg(key) FROM unnest(v_keys) WITH ORDINALITY k(key, nth)
        GROUP BY (nth - 1) / %5$s;
    ELSIF v_keys IS DISTINCT FROM '{}' THEN
        INSERT INTO pgclip.row_change (table_id, key_columns, row_keys)
        VALUES (%6$s, %7$L, v_keys);
    END IF;
    RETURN NULL;
END $body$, v_new, v_old, coalesce(v_compared, 'false'), v_first,
            least(100, pgclip._page_of(p_table)), p_table.id,
            pgclip._key_columns(p_table.relation), v_same));
END $$;

-- Whether a table's keys are spelt in one way, whatever the settings: equal ones alike.
CREATE FUNCTION pgclip._is_always_spelt_so(p_relation regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT bool_and(k.type IN ('smallint', 'integer', 'bigint', 'uuid', 'text', 'character varying')
                    AND coalesce(c.collisdeterministic, true))
    FROM pgclip._key_of(p_relation) k
    JOIN pg_attribute a ON a.attrelid = p_relation AND a.attnum = k.number
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
$$;

-- Whether single rows have to be followed: those of partitions, of tables that inherit, and those
-- that replication applies, are not seen by triggers for each statement.
CREATE FUNCTION pgclip._by_row(p_table pgclip.indexed_table) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_table.replicated
        OR EXISTS (SELECT FROM pg_class WHERE oid = p_table.relation AND relkind = 'p')
        OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = p_table.relation)
$$;

-- The triggers that there should be: events, and whether for each row.
CREATE FUNCTION pgclip._triggers_of(
    p_table pgclip.indexed_table, OUT name text, OUT events text, OUT by_row boolean
) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('pgclip_%s_%s', p_table.id, suffix), e.events, e.by_row
    FROM (VALUES ('row', 'INSERT OR UPDATE OR DELETE', true), ('truncate', 'TRUNCATE', false),
                 ('insert', 'INSERT', false), ('update', 'UPDATE', false),
                 ('delete', 'DELETE', false)) e(suffix, events, by_row)
    WHERE e.suffix = 'truncate' OR e.by_row = pgclip._by_row(p_table)
$$;

-- Sets the triggers, with the caller's rights: those of the table's owner, or TRIGGER. All of them
-- anew, since that waits for whoever writes while the definition changes; nobody is waited for
-- longer than two seconds.
CREATE FUNCTION pgclip._set_triggers(p_table int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table   pgclip.indexed_table;
    v_name    regclass;
    v_trigger record;
    v_before  text := current_setting('lock_timeout');
BEGIN
    SELECT * INTO v_table FROM pgclip.indexed_table WHERE id = p_table;
    v_name := v_table.relation;
    PERFORM set_config('lock_timeout', '2s', true);
    FOR v_trigger IN
        SELECT tgname FROM pg_trigger
        WHERE tgrelid = v_table.relation AND tgparentid = 0
          AND tgfoid = to_regproc(format('pgclip.note_rows_%s', p_table))
          AND tgname NOT IN (SELECT name FROM pgclip._triggers_of(v_table))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger.tgname, v_name);
    END LOOP;
    FOR v_trigger IN SELECT * FROM pgclip._triggers_of(v_table) LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s '
                       'EXECUTE FUNCTION pgclip.note_rows_%s()',
            v_trigger.name, v_trigger.events, v_name,
            CASE WHEN v_trigger.by_row THEN 'FOR EACH ROW'
                 ELSE CASE v_trigger.events
                     WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows'
                     WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                     WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows' ELSE '' END
                 || ' FOR EACH STATEMENT' END, p_table);
        EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', v_name,
                       CASE WHEN v_table.replicated THEN 'ALWAYS' ELSE '' END, v_trigger.name);
    END LOOP;
    PERFORM set_config('lock_timeout', v_before, true);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'table % can''t be indexed by %: %', v_name, current_user, SQLERRM
        USING ERRCODE = 'PC001', HINT = 'The table''s owner may, and whom he has granted TRIGGER.';
END $$;

-- Those that are not there, or switched off.
CREATE FUNCTION pgclip._lacking_triggers(
    p_table pgclip.indexed_table, OUT name text, OUT events text, OUT by_row boolean
) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.name, w.events, w.by_row FROM pgclip._triggers_of(p_table) w
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger t
        WHERE t.tgrelid = p_table.relation AND t.tgname = w.name
          AND t.tgfoid = to_regproc(format('pgclip.note_rows_%s', p_table.id))
          AND t.tgenabled = CASE WHEN p_table.replicated THEN 'A' ELSE 'O' END)
$$;

CREATE FUNCTION pgclip._drop_triggers(p_table int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_trigger record;
    v_before  text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    FOR v_trigger IN
        SELECT tgname, tgrelid::regclass AS relation FROM pg_trigger
        WHERE tgparentid = 0 AND tgfoid = to_regproc(format('pgclip.note_rows_%s', p_table))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger.tgname, v_trigger.relation);
    END LOOP;
    PERFORM set_config('lock_timeout', v_before, true);
END $$;
