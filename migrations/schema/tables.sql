-- Tables of applications that are kept in step: saying which, and following them no more.
--
-- Whoever indexes a table does so with his own rights: the triggers and the grant are his
-- statements. Rows are read later with the rights of pgclip's owner, who trusts indexers in that:
-- whoever reads a table trusts its owner. All the same nothing is evaluated that they have written:
-- expressions are what Postgres took for a generated column, which is to say immutable, and call
-- built-in functions alone.

-- Keeps a table in step: each row that meets the condition has an item for each of the columns or
-- expressions named, with the metadata named; rows that are there are filled in behind other work.
-- A picture is bytes, an absolute path or a URL. Called again with the same collection it changes
-- what is indexed. replicated: rows that logical replication applies are followed, too. Returns the
-- collection, by default the table's name. Raises PC001 if the table can't be followed.
CREATE FUNCTION pgclip.index_table(
    relation regclass, image text DEFAULT NULL, text text DEFAULT NULL,
    metadata text[] DEFAULT '{}', condition text DEFAULT NULL, collection text DEFAULT NULL,
    images text[] DEFAULT '{}', texts text[] DEFAULT '{}', priority int DEFAULT 1,
    replicated boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_images text[] := array_remove(image || images, NULL);
    v_texts  text[] := array_remove(text || texts, NULL);
    v_name   text := coalesce(collection, (SELECT relname FROM pg_class WHERE oid = relation));
    v_table  int;
BEGIN
    PERFORM pgclip._check_table(relation);
    PERFORM pgclip._parse_columns(relation, v_images, v_texts, coalesce(condition, 'true'));
    v_table := pgclip._define_table(relation, v_name, v_images, v_texts, metadata, priority,
                                    replicated);
    DROP TABLE pg_temp.pgclip_columns;
    PERFORM pgclip._grant_reading(v_table);
    PERFORM pgclip._set_triggers(v_table);
    RETURN v_name;
END $$;

-- Why a table can't be followed, if so.
CREATE FUNCTION pgclip._check_table(p_relation regclass) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_class pg_class;
BEGIN
    SELECT * INTO v_class FROM pg_class WHERE oid = p_relation;
    IF v_class.oid IS NULL OR v_class.relkind NOT IN ('r', 'p') OR v_class.relpersistence = 't' THEN
        RAISE EXCEPTION '% is no table that can be indexed', coalesce(p_relation::text, 'NULL')
            USING ERRCODE = 'PC001',
            HINT = 'Views, foreign and temporary tables have no rows that can be followed.';
    END IF;
    IF v_class.relnamespace IN ('pgclip'::regnamespace, 'pg_catalog'::regnamespace) THEN
        RAISE EXCEPTION '% is a table of pgclip or Postgres itself', p_relation
            USING ERRCODE = 'PC001';
    END IF;
    IF pgclip._key_columns(p_relation) = '{}' THEN
        RAISE EXCEPTION 'table % has no primary key, which tells its rows apart', p_relation
            USING ERRCODE = 'PC001', HINT = format('ALTER TABLE %s ADD PRIMARY KEY (…);',
                                                   p_relation);
    END IF;
END $$;

-- The numbers of the columns of a table's primary key, in its order.
CREATE FUNCTION pgclip._key_columns(p_relation regclass) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT indkey::smallint[] FROM pg_index
                     WHERE indrelid = p_relation AND indisprimary), '{}')
$$;

-- Lets Postgres parse the expressions, with the caller's rights: as generated columns "@part 1@"
-- and so on, and "@condition@", of a temporary table whose other columns are called by their
-- numbers in the real one. Raises PC001 if one does not parse, or may give another result tomorrow.
CREATE FUNCTION pgclip._parse_columns(
    p_relation regclass, p_images text[], p_texts text[], p_condition text
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_part   record;
    v_column record;
BEGIN
    IF p_images || p_texts = '{}' THEN
        RAISE EXCEPTION 'name a column or an expression to index: image => …, text => …'
            USING ERRCODE = 'PC001';
    END IF;
    DROP TABLE IF EXISTS pg_temp.pgclip_columns;
    EXECUTE format('CREATE TEMP TABLE pgclip_columns (LIKE %s) ON COMMIT DROP', p_relation);
    FOR v_part IN
        SELECT format('@part %s@', p.nth) AS name, p.given,
               coalesce(quote_ident(a.attname), p.given) AS expression,
               CASE WHEN p.nth <= cardinality(p_images) AND a.atttypid = 'bytea'::regtype
                    THEN 'bytea' ELSE 'text' END AS type
        FROM unnest(p_images || p_texts) WITH ORDINALITY p(given, nth)
        LEFT JOIN pg_attribute a ON a.attrelid = p_relation AND a.attname = p.given
                                AND a.attnum > 0
        UNION ALL SELECT '@condition@', p_condition, p_condition, 'boolean'
    LOOP
        BEGIN
            EXECUTE format('ALTER TABLE pg_temp.pgclip_columns ADD COLUMN %I %s '
                           'GENERATED ALWAYS AS ((%s)::%s) STORED',
                           v_part.name, v_part.type, v_part.expression, v_part.type);
        EXCEPTION WHEN syntax_error_or_access_rule_violation OR data_exception THEN
            RAISE EXCEPTION 'table %: % can''t be indexed: %', p_relation, v_part.given, SQLERRM
                USING ERRCODE = 'PC001', HINT = 'An expression is over columns of the row, and as '
                    'immutable as that of a generated column.';
        END;
    END LOOP;
    FOR v_column IN
        SELECT attname, attnum FROM pg_attribute
        WHERE attrelid = p_relation AND attnum > 0 AND NOT attisdropped
    LOOP
        EXECUTE format('ALTER TABLE pg_temp.pgclip_columns RENAME COLUMN %I TO %I',
                       v_column.attname, format('@%s@', v_column.attnum));
    END LOOP;
END $$;

-- Writes down what was parsed. Trusts nothing of the caller's but what the catalogs say.
CREATE FUNCTION pgclip._define_table(
    p_relation regclass, p_collection text, p_images text[], p_texts text[], p_metadata text[],
    p_priority int, p_replicated boolean
) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_parsed    regclass := to_regclass('pg_temp.pgclip_columns');
    v_labels    text[] := pgclip._labels_of(p_relation, p_images, p_texts);
    v_parts     jsonb;
    v_condition text;
    v_columns   smallint[];
    v_fields    jsonb;
    v_table     int;
BEGIN
    PERFORM pgclip._check_table(p_relation);
    IF NOT (has_table_privilege(pgclip._caller(), p_relation, 'SELECT')
            AND has_table_privilege(pgclip._caller(), p_relation, 'TRIGGER')) THEN
        RAISE EXCEPTION 'table % can''t be indexed by %', p_relation, pgclip._caller()
            USING ERRCODE = 'PC001', HINT = 'The table''s owner may, and whom he has granted '
                'SELECT and TRIGGER.';
    END IF;
    PERFORM pgclip._check_parsed(p_relation, v_parsed);
    SELECT jsonb_agg(jsonb_build_object(
               'label', v_labels[p.nth], 'type', format_type(a.atttypid, NULL), 'kind',
               CASE WHEN p.nth <= cardinality(p_images) THEN 'image' ELSE 'text' END,
               'expression', pg_get_expr(d.adbin, d.adrelid)) ORDER BY p.nth)
    INTO v_parts
    FROM generate_series(1, cardinality(v_labels)) p(nth)
    JOIN pg_attribute a ON a.attrelid = v_parsed AND a.attname = format('@part %s@', p.nth)
    JOIN pg_attrdef d ON d.adrelid = v_parsed AND d.adnum = a.attnum;
    SELECT pg_get_expr(d.adbin, d.adrelid) INTO v_condition
    FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = v_parsed AND a.attname = '@condition@';
    SELECT coalesce(array_agg(DISTINCT r.attnum), '{}') INTO v_columns
    FROM pg_attrdef d
    JOIN pg_depend n ON n.classid = 'pg_attrdef'::regclass AND n.objid = d.oid
                    AND n.refclassid = 'pg_class'::regclass AND n.refobjid = d.adrelid
    JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = n.refobjsubid
    JOIN pg_attribute r ON r.attrelid = p_relation AND a.attname = format('@%s@', r.attnum)
    WHERE d.adrelid = v_parsed;
    SELECT coalesce(jsonb_object_agg(a.attname, a.attnum), '{}') INTO v_fields
    FROM pg_attribute a
    WHERE a.attrelid = p_relation AND a.attnum > 0 AND a.attname = ANY(p_metadata);
    PERFORM pgclip._check_definition(p_relation, p_collection, v_labels, p_metadata, v_fields,
                                     p_priority);

    INSERT INTO pgclip.indexed_table AS t (relation, name, home, collection, parts, columns,
                                           metadata, condition, priority, replicated, walk)
    VALUES (p_relation, p_relation, pgclip._home(), p_collection, v_parts, v_columns, v_fields,
            v_condition, p_priority, p_replicated, 'rows')
    ON CONFLICT (collection) DO UPDATE SET
        relation = excluded.relation, name = excluded.name, home = excluded.home,
        parts = excluded.parts, columns = excluded.columns, metadata = excluded.metadata,
        condition = excluded.condition, priority = excluded.priority,
        replicated = excluded.replicated, walk = 'rows',
        after_key = NULL, walked = 0, is_leaving = false, trouble = NULL, names = NULL,
        retired_fields = ARRAY(
            SELECT DISTINCT f FROM (SELECT unnest(t.retired_fields) UNION ALL
                                    SELECT jsonb_object_keys(t.metadata)) r(f)
            WHERE NOT excluded.metadata ? f)
    RETURNING id INTO v_table;
    INSERT INTO pgclip.collection (name) VALUES (p_collection) ON CONFLICT DO NOTHING;
    PERFORM pgclip._follow_columns(v_table);
    EXECUTE format('GRANT EXECUTE ON FUNCTION pgclip.note_rows_%s() TO %I', v_table,
                   pgclip._caller());
    RETURN v_table;
END $$;

-- Where numbers of relations are what they were: another database, also a restored one, has others.
CREATE FUNCTION pgclip._home() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%s %s', oid, 'pgclip.indexed_table'::regclass::oid)
    FROM pg_database WHERE datname = current_database()
$$;

-- What the parts of a row are called: a column by its name, expressions text, text2 …
CREATE FUNCTION pgclip._labels_of(p_relation regclass, p_images text[], p_texts text[])
RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT array_agg(coalesce(name, kind || CASE WHEN which > 1 THEN which::text ELSE '' END)
                     ORDER BY nth)
    FROM (SELECT p.nth, a.attname::text AS name, k.kind,
                 row_number() OVER (PARTITION BY a.attname IS NULL, k.kind ORDER BY p.nth) AS which
          FROM unnest(p_images || p_texts) WITH ORDINALITY p(given, nth)
          CROSS JOIN LATERAL (SELECT CASE WHEN p.nth <= cardinality(p_images) THEN 'image'
                                          ELSE 'text' END) k(kind)
          LEFT JOIN pg_attribute a ON a.attrelid = p_relation AND a.attname = p.given
                                  AND a.attnum > 0) l
$$;

-- Whether the temporary table is what _parse_columns makes, with nothing in it that would run
-- another's code: a function, operator or cast that somebody made.
CREATE FUNCTION pgclip._check_parsed(p_relation regclass, p_parsed regclass) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_what text;
BEGIN
    IF p_parsed IS NULL OR EXISTS (
        SELECT FROM pg_attribute t JOIN pg_attribute r
               ON r.attrelid = p_relation AND r.attnum > 0 AND NOT r.attisdropped
              AND t.attname = format('@%s@', r.attnum)
        WHERE t.attrelid = p_parsed AND t.atttypid <> r.atttypid) OR EXISTS (
        SELECT FROM pg_attribute t
        WHERE t.attrelid = p_parsed AND (t.attname LIKE '@part%' OR t.attname = '@condition@')
          AND (t.attgenerated <> 's' OR t.atttypid NOT IN (
                   'text'::regtype, 'bytea'::regtype, 'boolean'::regtype))) THEN
        RAISE EXCEPTION 'call pgclip.index_table' USING ERRCODE = 'PC001';
    END IF;
    SELECT pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) INTO v_what
    FROM pg_attrdef a
    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
    WHERE a.adrelid = p_parsed AND d.refobjid >= 16384 AND d.refobjid <> p_parsed
      AND NOT (d.refclassid = 'pg_collation'::regclass
               OR d.refclassid = 'pg_type'::regclass AND pgclip._is_plain(d.refobjid)
                  AND (SELECT typtype <> 'd' FROM pg_type WHERE oid = d.refobjid)
               OR pgclip._is_trusted((
                   SELECT proowner FROM pg_proc
                   WHERE d.refclassid = 'pg_proc'::regclass AND oid = d.refobjid
                   UNION ALL SELECT oprowner FROM pg_operator
                   WHERE d.refclassid = 'pg_operator'::regclass AND oid = d.refobjid
                   UNION ALL SELECT typowner FROM pg_type
                   WHERE d.refclassid = 'pg_type'::regclass AND oid = d.refobjid))) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table %: an expression uses %', p_relation, v_what
            USING ERRCODE = 'PC001', HINT = 'Only what is built in, or a superuser''s, is '
                'evaluated later; put the rest into a generated column of the table.';
    END IF;
END $$;

-- Whether what a role has made is evaluated: a superuser may do anything anyway, and makes what
-- extensions have.
CREATE FUNCTION pgclip._is_trusted(p_owner oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT rolsuper OR oid = pgclip._owner() FROM pg_roles WHERE oid = p_owner
$$;

-- Whether values of a type are read without code that somebody may have written: a built-in type,
-- an enum, a domain of these, an array of these but for domains.
CREATE FUNCTION pgclip._is_plain(p_type oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_type < 16384 OR CASE t.typtype
        WHEN 'e' THEN true
        WHEN 'd' THEN pgclip._is_plain(t.typbasetype)
        ELSE t.typelem <> 0 AND t.typlen = -1 AND pgclip._is_plain(t.typelem)
                 AND (SELECT typtype <> 'd' FROM pg_type WHERE oid = t.typelem)
             OR pgclip._is_trusted(t.typowner) END
    FROM pg_type t WHERE t.oid = p_type
$$;

CREATE FUNCTION pgclip._check_definition(
    p_relation regclass, p_collection text, p_labels text[], p_metadata text[], p_fields jsonb,
    p_priority int
) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_column record;
    v_other  text;
BEGIN
    IF octet_length(p_collection) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'the collection''s name must have 1 to 200 bytes' USING ERRCODE = 'PC001';
    END IF;
    IF p_priority IS NULL OR p_priority NOT BETWEEN 0 AND 9 THEN
        RAISE EXCEPTION 'the priority must be from 0 (first) to 9' USING ERRCODE = 'PC001';
    END IF;
    IF cardinality(p_labels) > (SELECT count(DISTINCT l) FROM unnest(p_labels) l) THEN
        RAISE EXCEPTION 'a column is named twice' USING ERRCODE = 'PC001';
    END IF;
    IF cardinality(p_metadata) > 50 THEN
        RAISE EXCEPTION 'at most 50 columns are metadata' USING ERRCODE = 'PC001';
    END IF;
    SELECT f INTO v_other FROM unnest(p_metadata) f WHERE NOT p_fields ? f;
    IF FOUND THEN
        RAISE EXCEPTION 'table % has no column %', p_relation, v_other USING ERRCODE = 'PC001';
    END IF;
    SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type INTO v_column
    FROM pg_attribute a
    WHERE a.attrelid = p_relation AND NOT pgclip._is_plain(a.atttypid)
      AND (p_fields ? a.attname::text OR a.attnum = ANY(pgclip._key_columns(p_relation)));
    IF FOUND THEN
        RAISE EXCEPTION 'column % of table % is of type %, which is not built in',
            v_column.attname, p_relation, v_column.type USING ERRCODE = 'PC001';
    END IF;
    SELECT t.name INTO v_other FROM pgclip.indexed_table t
    WHERE t.collection = p_collection AND t.relation <> p_relation
      AND EXISTS (SELECT FROM pg_class WHERE oid = t.relation);
    IF FOUND THEN
        RAISE EXCEPTION 'collection % is that of table %', p_collection, v_other
            USING ERRCODE = 'PC001', HINT = 'Name another one: collection => …';
    END IF;
    IF row_security_active(p_relation) THEN
        RAISE EXCEPTION 'row-level security keeps rows of % from pgclip''s owner', p_relation
            USING ERRCODE = 'PC001', HINT = format('ALTER ROLE %I BYPASSRLS; searches show each '
                'role its own rows nevertheless: pgclip.search_rows.', current_user);
    END IF;
END $$;

-- Grants pgclip's owner to read the columns that count, as the caller.
CREATE FUNCTION pgclip._grant_reading(p_table int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table pgclip.indexed_table;
    v_owner name := pgclip._owner()::regrole;
    v_space name;
    v_names text;
    v_name  regclass;
BEGIN
    SELECT * INTO v_table FROM pgclip.indexed_table WHERE id = p_table;
    v_name := v_table.relation;
    SELECT n.nspname INTO v_space FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = v_table.relation;
    IF NOT has_schema_privilege(v_owner, v_space, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', v_space, v_owner);
    END IF;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO v_names
    FROM pg_attribute a WHERE a.attrelid = v_table.relation
     AND a.attnum = ANY(pgclip._key_columns(v_table.relation) || pgclip._columns_of(v_table))
     AND NOT has_column_privilege(v_owner, v_table.relation, a.attnum, 'SELECT');
    IF v_names IS NOT NULL THEN
        EXECUTE format('GRANT SELECT (%s) ON %s TO %I', v_names, v_name, v_owner);
        IF NOT has_column_privilege(v_owner, v_table.relation,
                                    (pgclip._key_columns(v_table.relation))[1], 'SELECT') THEN
            RAISE EXCEPTION 'pgclip''s owner % may not read table %', v_owner, v_name
                USING ERRCODE = 'PC001', HINT = format('The table''s owner grants it: '
                    'GRANT SELECT (%s) ON %s TO %I;', v_names, v_name, v_owner);
        END IF;
    END IF;
END $$;

-- Follows a table no more, or what of it is in one collection. Its items are deleted page by page;
-- those that are kept are taken on when it is indexed again. Raises PC002 if it is not indexed.
CREATE FUNCTION pgclip.unindex_table(
    relation regclass, collection text DEFAULT NULL, keep boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table record;
BEGIN
    FOR v_table IN
        SELECT t.id FROM pgclip.indexed_table t
        WHERE t.relation = unindex_table.relation AND NOT t.is_leaving
          AND (unindex_table.collection IS NULL OR t.collection = unindex_table.collection)
    LOOP
        PERFORM pgclip._drop_triggers(v_table.id);
        PERFORM pgclip._leave_table(v_table.id, keep);
    END LOOP;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % is not indexed%', relation,
            coalesce(' in collection ' || collection, '') USING ERRCODE = 'PC002';
    END IF;
END $$;

-- Once its triggers are dropped, which only those may who may index it.
CREATE FUNCTION pgclip._leave_table(p_table int, p_keep boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_trigger
               WHERE tgfoid = to_regproc(format('pgclip.note_rows_%s', p_table))) THEN
        RAISE EXCEPTION 'call pgclip.unindex_table' USING ERRCODE = 'PC001';
    END IF;
    -- First, since it waits for a page under way, which may note items.
    UPDATE pgclip.indexed_table SET is_leaving = true, walk = NULL WHERE id = p_table;
    IF p_keep THEN
        DELETE FROM pgclip.table_item WHERE table_id = p_table;
    END IF;
END $$;

CREATE FUNCTION pgclip._rows_reckoned(p_relation regclass) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples
                             ELSE pg_relation_size(c.oid) / 100 END), 0)::bigint
    FROM (SELECT p_relation AS relid UNION SELECT relid FROM pg_partition_tree(p_relation)) t
    JOIN pg_class c ON c.oid = t.relid AND c.relkind = 'r'
$$;

-- What is indexed, and how far it is. rows: as many as Postgres reckons. items: of these some wait
-- for a worker (waiting) or have failed, by reason; changes: rows that have changed and have not
-- been looked at, since oldest_change. filled: the share of the rows that was gone through.
CREATE VIEW pgclip.tables AS
SELECT t.id, t.relation::regclass AS relation, t.collection,
       ARRAY(SELECT p ->> 'label' FROM jsonb_array_elements(t.parts) p) AS columns,
       CASE WHEN t.is_leaving THEN 'leaving' WHEN t.trouble IS NOT NULL THEN 'troubled'
            WHEN t.walk IS NOT NULL THEN 'filling' ELSE 'followed' END AS state,
       pgclip._rows_reckoned(t.relation) AS rows,
       (SELECT count(*) FROM pgclip.table_item i WHERE i.table_id = t.id) AS items,
       (SELECT count(*) FROM pgclip.table_item i JOIN pgclip.job j ON j.item_id = i.item_id
        JOIN pgclip.model m ON m.id = j.model_id AND m.state = 'live'
        WHERE i.table_id = t.id) AS waiting,
       c.changes, c.oldest_change,
       (SELECT coalesce(jsonb_object_agg(f.reason, f.failed), '{}')
        FROM (SELECT reason, count(*) AS failed
              FROM (SELECT f.reason FROM pgclip.table_item i
                    JOIN pgclip.failure f ON f.item_id = i.item_id
                    JOIN pgclip.model m ON m.id = f.model_id AND m.state = 'live'
                    WHERE i.table_id = t.id
                    UNION ALL SELECT reason FROM pgclip.row_failure WHERE table_id = t.id) r
              GROUP BY reason) f) AS failed,
       CASE WHEN t.walk IS DISTINCT FROM 'rows' THEN 1
            ELSE least(0.99, t.walked / greatest(1, pgclip._rows_reckoned(t.relation))::real)
            END::real AS filled,
       t.trouble
FROM pgclip.indexed_table t
CROSS JOIN LATERAL (SELECT coalesce(sum(coalesce(cardinality(row_keys), 1)), 0)::bigint AS changes,
                           min(noted_at) AS oldest_change
                    FROM pgclip.row_change WHERE table_id = t.id) c;
