-- Where indexed tables and their items differ, and why.

-- Where a table and its items differ: rows are gone through, and then the items, for what is left
-- over of rows that are gone; no more than "limit" differences are looked for. reason: noted, which
-- will come; lacking, outdated or left_over, which pgclip.heal mends; or why a row can't be an
-- item. For who may read the table. Raises PC002 if it is not indexed.
CREATE FUNCTION pgclip.missing_rows(
    relation regclass, collection text DEFAULT NULL, "limit" int DEFAULT 1000,
    OUT in_collection text, OUT key text, OUT part text, OUT reason text
) RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_place jsonb;
    v_found record;
    v_left  int := coalesce("limit", 2147483647);
BEGIN
    LOOP
        FOR v_found IN SELECT * FROM pgclip._missing_page(relation, collection, v_place) LOOP
            v_place := v_found.place;
            CONTINUE WHEN v_found.reason IS NULL;
            EXIT WHEN v_left = 0;
            v_left := v_left - 1;
            SELECT v_found.in_collection, v_found.key, v_found.part, v_found.reason
            INTO in_collection, key, part, reason;
            RETURN NEXT;
        END LOOP;
        EXIT WHEN v_place IS NULL OR v_left = 0;
    END LOOP;
END $$;

-- The same for a part of them, as a client asks for it in transactions of their own: from a place
-- on, NULL being the beginning. The last row has no reason, and the place to go on from, or NULL.
CREATE FUNCTION pgclip._missing_page(
    p_relation regclass, p_collection text, p_place jsonb,
    OUT in_collection text, OUT key text, OUT part text, OUT reason text, OUT place jsonb
) RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off
SET DateStyle = ISO SET IntervalStyle = postgres SET TimeZone = UTC SET extra_float_digits = 1
SET bytea_output = hex AS $$
DECLARE
    v_table pgclip.indexed_table;
    v_walk  text := coalesce(p_place ->> 'walk', 'rows');
    v_after text := p_place ->> 'after';
    v_keys  text[];
    v_found record;
BEGIN
    PERFORM pgclip._assert_reads_all(p_relation);
    SELECT * INTO v_table FROM pgclip.indexed_table t
    WHERE t.relation = p_relation AND NOT t.is_leaving
      AND (p_collection IS NULL OR t.collection = p_collection)
      AND t.id >= coalesce((p_place ->> 'table')::int, 0)
    ORDER BY t.id LIMIT 1;
    IF v_table.id IS NULL THEN
        IF p_place IS NULL THEN
            RAISE EXCEPTION 'table % is not indexed', p_relation USING ERRCODE = 'PC002';
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    IF v_table.id <> (p_place ->> 'table')::int THEN  -- that one has gone meanwhile
        v_walk := 'rows';
        v_after := NULL;
    END IF;
    FOR v_page IN 1..40 LOOP
        v_keys := CASE v_walk
            WHEN 'rows' THEN pgclip._next_keys(p_relation, v_after, pgclip._page_of(v_table))
            ELSE pgclip._next_item_keys(v_table.id, v_after, pgclip._page_of(v_table)) END;
        v_after := v_keys[cardinality(v_keys)];
        EXIT WHEN v_keys = '{}';
        FOR v_found IN
            SELECT d.*, EXISTS (SELECT FROM pgclip.row_change c WHERE c.table_id = v_table.id
                                AND (c.row_keys IS NULL OR d.row_key = ANY(c.row_keys))) AS is_noted
            FROM pgclip._differences(v_table, v_keys) d
            WHERE (d.reason = 'left_over') = (v_walk = 'items')
        LOOP
            SELECT v_table.collection, v_found.row_key, v_found.part,
                   CASE WHEN v_found.is_noted THEN 'noted' ELSE v_found.reason END
            INTO in_collection, key, part, reason;
            RETURN NEXT;
        END LOOP;
    END LOOP;
    SELECT NULL, NULL, NULL, NULL INTO in_collection, key, part, reason;
    place := CASE
        WHEN v_keys <> '{}' THEN
            jsonb_build_object('table', v_table.id, 'walk', v_walk, 'after', v_after)
        WHEN v_walk = 'rows' THEN jsonb_build_object('table', v_table.id, 'walk', 'items')
        ELSE jsonb_build_object('table', v_table.id + 1) END;
    RETURN NEXT;
END $$;

-- What a table lacks is told to those who may read all of it.
CREATE FUNCTION pgclip._assert_reads_all(p_relation regclass) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT has_table_privilege(pgclip._caller(), p_relation, 'SELECT') THEN
        RAISE EXCEPTION 'permission denied for table %', p_relation
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = p_relation) AND NOT (
        SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = pgclip._caller()) THEN
        RAISE EXCEPTION 'row-level security keeps rows of table % from you', p_relation
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

-- Where rows with these keys and their items differ.
CREATE FUNCTION pgclip._differences(
    p_table pgclip.indexed_table, p_keys text[], OUT row_key text, OUT part text, OUT reason text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_half int := cardinality(p_keys) / 2;
BEGIN
    RETURN QUERY
    SELECT coalesce(w.row_key, i.row_key), coalesce(w.part, i.part),
           CASE WHEN w.problem IS NOT NULL THEN w.problem
                WHEN w.key IS NULL THEN 'left_over'
                WHEN i.id IS NULL THEN 'lacking'
                ELSE 'outdated' END
    FROM pgclip._wanted_items(p_table, p_keys) w
    FULL JOIN (SELECT i.*, t.row_key, t.part
               FROM pgclip.table_item t JOIN pgclip.item i ON i.id = t.item_id
               WHERE t.table_id = p_table.id AND t.row_key = ANY(p_keys)) i ON i.key = w.key
    WHERE w.problem IS NOT NULL
       OR (i.kind, i.source, i.content_hash) IS DISTINCT FROM (w.kind, w.source, sha256(w.data))
       OR i.metadata <> i.metadata || w.metadata;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR raise_exception THEN
    IF v_half > 0 THEN
        RETURN QUERY SELECT * FROM pgclip._differences(p_table, p_keys[:v_half])
            UNION ALL SELECT * FROM pgclip._differences(p_table, p_keys[v_half + 1:]);
    ELSE
        RETURN QUERY SELECT p_keys[1], '', SQLERRM;
    END IF;
END $$;
