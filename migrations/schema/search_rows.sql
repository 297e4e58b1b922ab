-- Rows of indexed tables that fit a query.

-- The k rows that fit best, best first, each once, as the columns of its table: of a text, a
-- picture that pgclip.embed has been called for, or a vector. part: which column or expression it
-- was. Give NULL::your.table as the first argument. Rows are read with the caller's rights: what
-- these or row-level security keep from him are not among them. Otherwise like pgclip.search.
-- Raises PC002 if the table is not indexed.
CREATE FUNCTION pgclip.search_rows(
    of anyelement, query text DEFAULT NULL, k int DEFAULT 10, collection text DEFAULT NULL,
    kind pgclip.kind DEFAULT NULL, filter jsonb DEFAULT NULL, min_score real DEFAULT NULL,
    min_relevance real DEFAULT NULL, recall real DEFAULT NULL, image bytea DEFAULT NULL,
    vector @vector@.halfvec DEFAULT NULL,
    OUT hit anyelement, OUT score real, OUT relevance real, OUT part text, OUT key text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET DateStyle = ISO SET IntervalStyle = postgres SET TimeZone = UTC
SET extra_float_digits = 1 SET bytea_output = hex AS $$
#variable_conflict use_column
DECLARE
    v_table     pgclip.indexed_table;
    v_items     int := search_rows.k;
    v_hits      pgclip.hit[];
    v_rows      int;
    v_statement text;
BEGIN
    IF search_rows.k IS NULL OR search_rows.k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k must be from 1 to 10000, not %', search_rows.k USING ERRCODE = 'PC001';
    END IF;
    v_table := pgclip._table_searched(pg_typeof(of)::oid, search_rows.collection);
    IF num_nonnulls(search_rows.query, search_rows.image, search_rows.vector) <> 1 THEN
        RAISE EXCEPTION 'give a query, an image or a vector to search for' USING ERRCODE = 'PC001';
    END IF;
    -- No variable of its type, which the caller may not be able to name.
    vector := coalesce(search_rows.vector,
                       pgclip.query_embedding(search_rows.query, search_rows.image));
    -- Some rows have several items, and some are gone or not to be seen.
    LOOP
        v_items := least(10000, v_items * greatest(2, jsonb_array_length(v_table.parts)));
        v_hits := ARRAY(
            SELECT h FROM pgclip.search_vector(
                search_rows.vector, v_items, v_table.collection, search_rows.kind,
                search_rows.filter, search_rows.min_score, search_rows.min_relevance,
                recall => search_rows.recall,
                query_kind => CASE WHEN search_rows.query IS NOT NULL THEN 'text'
                                   WHEN search_rows.image IS NOT NULL THEN 'image'
                                   END::pgclip.kind) h);
        v_statement := pgclip._rows_statement(v_table, v_hits);
        EXIT WHEN cardinality(v_hits) < v_items OR v_items = 10000;
        EXECUTE format('SELECT count(*) FROM (%s) found', v_statement) INTO v_rows
        USING v_hits, search_rows.k;
        EXIT WHEN v_rows >= search_rows.k;
    END LOOP;
    RETURN QUERY EXECUTE v_statement USING v_hits, search_rows.k;
END $$;

-- What is indexed of the table whose rows are of a type. Raises PC001 if that is not one thing.
CREATE FUNCTION pgclip._table_searched(p_type oid, p_collection text) RETURNS pgclip.indexed_table
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_tables pgclip.indexed_table[] := ARRAY(
        SELECT t FROM pgclip.indexed_table t JOIN pg_type y ON y.typrelid = t.relation
        WHERE y.oid = p_type AND NOT t.is_leaving
          AND (p_collection IS NULL OR t.collection = p_collection));
BEGIN
    IF cardinality(v_tables) > 1 THEN
        RAISE EXCEPTION 'table % is indexed in several collections; name one',
            v_tables[1].relation::regclass USING ERRCODE = 'PC001';
    ELSIF v_tables = '{}' THEN
        RAISE EXCEPTION '% is no table that is indexed%', p_type::regtype,
            coalesce(' in collection ' || p_collection, '') USING ERRCODE = 'PC002',
            HINT = 'Give NULL::your.table; pgclip.tables says what is indexed.';
    END IF;
    RETURN v_tables[1];
END $$;

-- The statement that gives the rows of hits ($1), at most $2.
CREATE FUNCTION pgclip._rows_statement(p_table pgclip.indexed_table, p_hits pgclip.hit[])
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys text[] := ARRAY(SELECT DISTINCT t.row_key FROM unnest(p_hits) h
                           JOIN pgclip.table_item t ON t.item_id = h.item_id
                           WHERE t.table_id = p_table.id);
    v_key  record;
BEGIN
    SELECT string_agg('c' || nth, ', ' ORDER BY nth) AS columns,
           string_agg(format('r.%s = w.c%s', name, nth), ' AND ')
           || format(' AND %s = w.row_key', pgclip._key_expression(p_table.relation, 'r')) AS same
    INTO v_key FROM pgclip._key_of(p_table.relation);
    RETURN format($statement$
        SELECT r, b.score, b.relevance, b.part, w.row_key
        FROM (VALUES %s) w(row_key, %s)
        JOIN %s ON %s
        JOIN (SELECT DISTINCT ON (t.row_key) t.row_key, t.part, h.score, h.relevance, h.item_id
              FROM unnest($1) h JOIN pgclip.table_item t ON t.item_id = h.item_id
              WHERE t.table_id = %s ORDER BY t.row_key, h.score DESC, h.item_id
             ) b ON b.row_key = w.row_key
        ORDER BY b.score DESC, b.item_id LIMIT $2
        $statement$, pgclip._key_values(p_table.relation, v_keys), v_key.columns,
        pgclip._from(p_table.relation), v_key.same, p_table.id);
END $$;
