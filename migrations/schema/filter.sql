-- Filters: which items a search may find. A JSON object; all of its members must hold:
--
--   {"color": "red"}                        the metadata's color is that
--   {"size.width": {"ge": 3, "lt": 9}}      a path, and operators
--   {"$label": {"name": "cat", "min_score": 0.5}}    names with $ are of the item itself
--   {"$or": [{…}, {…}]}, {"$and": […]}, {"$not": {…}}
--
-- Operators of metadata: eq, ne, lt, le, gt, ge (numbers, or strings of up to 1,000 bytes), in,
-- not_in, contains (of a list), exists. Of $key and $source: eq, ne, in, not_in, starts_with. Of
-- $created_at and $updated_at: lt, le, gt, ge, within ("7 days"). What is missing is not equal to
-- anything.
--
-- A filter is translated into a condition on pgclip.item i; every value in it is a quoted literal.

-- Volatile, so that no plan raises it before its turn.
CREATE FUNCTION pgclip._bad_filter(p_message text, p_hint text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF p_hint IS NULL THEN
        RAISE EXCEPTION 'filter: %', p_message USING ERRCODE = 'PC001';
    END IF;
    RAISE EXCEPTION 'filter: %', p_message USING ERRCODE = 'PC001', HINT = p_hint;
END $$;

CREATE FUNCTION pgclip._path(p_field text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_field = '' OR '' = ANY(string_to_array(p_field, '.')) THEN
        PERFORM pgclip._bad_filter(format('%s is not a path such as size.width',
                                          to_json(p_field)));
    END IF;
    RETURN string_to_array(p_field, '.');
END $$;

-- i.metadata -> 'size' -> 'width'
CREATE FUNCTION pgclip._at_path(p_path text[]) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT '(i.metadata' || string_agg(format(' -> %L', part), '' ORDER BY nth) || ')'
    FROM unnest(p_path) WITH ORDINALITY p(part, nth)
$$;

-- Whether metadata contain a value at a path; the index on metadata answers that.
CREATE FUNCTION pgclip._contains(p_path text[], p_value jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    FOR i IN REVERSE cardinality(p_path) .. 1 LOOP
        p_value := jsonb_build_object(p_path[i], p_value);
    END LOOP;
    RETURN format('i.metadata @> %L', p_value);
END $$;

CREATE FUNCTION pgclip._equals(p_path text[], p_value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(p_value) IN ('object', 'array')  -- may contain more than that
                THEN format('(%s AND %s = %L::jsonb)', pgclip._contains(p_path, p_value),
                            pgclip._at_path(p_path), p_value)
                ELSE pgclip._contains(p_path, p_value) END
$$;

CREATE FUNCTION pgclip._list(p_what text, p_value jsonb) RETURNS SETOF jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(p_value) <> 'array' OR jsonb_array_length(p_value) NOT BETWEEN 1 AND 1000 THEN
        PERFORM pgclip._bad_filter(format('%s takes a list of 1 to 1000 values', p_what));
    END IF;
    RETURN QUERY SELECT jsonb_array_elements(p_value);
END $$;

-- A value that ranges are about: an index takes no long ones.
CREATE FUNCTION pgclip._comparable(p_value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(p_value::text) <= 1000 THEN p_value END
$$;

CREATE FUNCTION pgclip._metadata_operator(p_field text, p_operator text, p_value jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_path text[] := pgclip._path(p_field);
    v_at   text := pgclip._at_path(v_path);
    v_type text := jsonb_typeof(p_value);
BEGIN
    CASE p_operator
        WHEN 'eq' THEN RETURN pgclip._equals(v_path, p_value);
        WHEN 'ne' THEN RETURN format('(%s) IS NOT TRUE', pgclip._equals(v_path, p_value));
        WHEN 'in' THEN
            RETURN (SELECT '(' || string_agg(pgclip._equals(v_path, v), ' OR ') || ')'
                    FROM pgclip._list('in', p_value) v);
        WHEN 'not_in' THEN
            RETURN (SELECT '(' || string_agg(pgclip._equals(v_path, v), ' OR ') || ') IS NOT TRUE'
                    FROM pgclip._list('not_in', p_value) v);
        WHEN 'contains' THEN
            RETURN pgclip._contains(v_path, CASE v_type WHEN 'array' THEN p_value
                                            ELSE jsonb_build_array(p_value) END);
        WHEN 'exists' THEN
            IF v_type <> 'boolean' THEN
                PERFORM pgclip._bad_filter('exists takes true or false');
            END IF;
            RETURN format('%s IS %sNULL', v_at, CASE WHEN p_value::boolean THEN 'NOT ' END);
        WHEN 'lt', 'le', 'gt', 'ge' THEN
            IF v_type NOT IN ('number', 'string') THEN
                PERFORM pgclip._bad_filter(format('%s compares with a number or a string, not %s',
                                                  p_operator, p_value));
            END IF;
            RETURN format('(pgclip._comparable(%1$s) %2$s %3$L::jsonb
                            AND jsonb_typeof(%1$s) = %4$L)', v_at,
                CASE p_operator WHEN 'lt' THEN '<' WHEN 'le' THEN '<='
                                WHEN 'gt' THEN '>' ELSE '>=' END, p_value, v_type);
        ELSE
            RETURN pgclip._bad_filter(format('unknown operator %s of %s', to_json(p_operator),
                                             to_json(p_field)),
                'Metadata have eq, ne, lt, le, gt, ge, in, not_in, contains, exists; '
                'a path is written "size.width".');
    END CASE;
END $$;

CREATE FUNCTION pgclip._text_operator(
    p_column text, p_field text, p_operator text, p_value jsonb
) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_operator IN ('eq', 'ne', 'starts_with') AND jsonb_typeof(p_value) <> 'string' THEN
        PERFORM pgclip._bad_filter(format('%s of %s takes a string', p_operator, p_field));
    END IF;
    CASE p_operator
        WHEN 'eq' THEN RETURN format('%s = %L', p_column, p_value #>> '{}');
        WHEN 'ne' THEN RETURN format('%s IS DISTINCT FROM %L', p_column, p_value #>> '{}');
        WHEN 'starts_with' THEN
            RETURN format('starts_with(%s, %L)', p_column, p_value #>> '{}');
        WHEN 'in', 'not_in' THEN
            RETURN format('(%s = ANY(%L::text[]))%s', p_column,
                ARRAY(SELECT v #>> '{}' FROM pgclip._list(p_operator, p_value) v),
                CASE p_operator WHEN 'not_in' THEN ' IS NOT TRUE' END);
        ELSE
            RETURN pgclip._bad_filter(format('unknown operator %s of %s', to_json(p_operator),
                                             p_field),
                                      'It has eq, ne, in, not_in, starts_with.');
    END CASE;
END $$;

CREATE FUNCTION pgclip._time_operator(
    p_column text, p_field text, p_operator text, p_value jsonb
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_text text := p_value #>> '{}';
BEGIN
    IF p_operator NOT IN ('lt', 'le', 'gt', 'ge', 'within') THEN
        PERFORM pgclip._bad_filter(format('unknown operator %s of %s', to_json(p_operator),
                                          p_field), 'It has lt, le, gt, ge, within.');
    END IF;
    IF jsonb_typeof(p_value) <> 'string' THEN
        PERFORM pgclip._bad_filter(format('%s of %s takes a string', p_operator, p_field));
    END IF;
    IF p_operator = 'within' THEN
        RETURN format('%s >= %L::timestamptz', p_column, now() - v_text::interval);
    END IF;
    RETURN format('%s %s %L::timestamptz', p_column,
        CASE p_operator WHEN 'lt' THEN '<' WHEN 'le' THEN '<=' WHEN 'gt' THEN '>' ELSE '>=' END,
        v_text::timestamptz);
EXCEPTION WHEN data_exception THEN
    RETURN pgclip._bad_filter(format('%s of %s can''t be read: %s', p_operator, p_field, p_value));
END $$;

-- p_each: the condition is asked of one item after another, rather than of all at once.
CREATE FUNCTION pgclip._label_condition(p_label jsonb, p_model smallint, p_each boolean)
RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_labels int[];
    v_where  text;
BEGIN
    IF jsonb_typeof(p_label) = 'string' THEN
        p_label := jsonb_build_object('name', p_label);
    END IF;
    IF jsonb_typeof(p_label) <> 'object' OR NOT p_label ? 'name'
       OR p_label - ARRAY['name', 'set', 'min_score'] <> '{}'
       OR jsonb_typeof(p_label -> 'name') <> 'string'
       OR jsonb_typeof(p_label -> 'set') <> 'string'
       OR jsonb_typeof(p_label -> 'min_score') <> 'number' THEN
        PERFORM pgclip._bad_filter('$label takes {"name": …, "set": …, "min_score": …} or a name');
    END IF;
    IF NOT (p_label ->> 'min_score')::numeric BETWEEN 0 AND 1 THEN
        PERFORM pgclip._bad_filter(format('a label''s min_score is from 0 to 1, not %s',
                                          p_label -> 'min_score'));
    END IF;
    v_labels := ARRAY(
        SELECT l.id FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
        WHERE l.name = p_label ->> 'name' AND (NOT p_label ? 'set' OR s.name = p_label ->> 'set')
          AND l.archived_at IS NULL AND NOT l.is_background);
    IF v_labels = '{}' THEN
        RAISE EXCEPTION 'filter: there is no label %', p_label ->> 'name'
                        || coalesce(' in set ' || (p_label ->> 'set'), '')
            USING ERRCODE = 'PC002', HINT = 'SELECT DISTINCT label FROM pgclip.labels;';
    END IF;
    v_where := format('il.label_id = ANY(%L::int[]) AND il.model_id = %s AND il.score >= %s::real',
                      v_labels, p_model, coalesce(p_label ->> 'min_score', '0'));
    IF p_each THEN  -- OFFSET 0: one look by key, rather than a hash of all that have the label
        RETURN format('EXISTS (SELECT FROM pgclip.item_label il
                               WHERE il.item_id = i.id AND %s OFFSET 0)', v_where);
    END IF;
    RETURN format('i.id IN (SELECT il.item_id FROM pgclip.item_label il WHERE %s)', v_where);
END $$;

-- {"weapon": "no"}, or of a set {"moderation": {"weapon": ["no", "review"]}}: all of them.
CREATE FUNCTION pgclip._decisions_condition(p_wanted jsonb, p_each boolean) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_member record;
    v_all    text[] := '{}';
BEGIN
    IF jsonb_typeof(p_wanted) <> 'object' OR p_wanted = '{}' THEN
        PERFORM pgclip._bad_filter('$decision takes {"label": "yes"}, "no" or "review", or '
                                   '{"set": {"label": "yes"}}');
    END IF;
    FOR v_member IN
        SELECT NULL AS set, w.key AS label, w.value FROM jsonb_each(p_wanted) w
        WHERE jsonb_typeof(w.value) <> 'object'
        UNION ALL
        SELECT s.key, w.key, w.value FROM jsonb_each(p_wanted) s
        CROSS JOIN jsonb_each(CASE jsonb_typeof(s.value) WHEN 'object' THEN s.value END) w
    LOOP
        v_all := v_all || pgclip._decision_condition(v_member.set, v_member.label,
                                                     v_member.value, p_each);
    END LOOP;
    IF v_all = '{}' OR EXISTS (SELECT FROM jsonb_each(p_wanted) w WHERE w.value = '{}') THEN
        PERFORM pgclip._bad_filter('$decision names a set and no label');
    END IF;
    RETURN array_to_string(v_all, ' AND ');
END $$;

CREATE FUNCTION pgclip._decision_condition(
    p_set text, p_label text, p_wanted jsonb, p_each boolean
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_wanted text[] := ARRAY(SELECT v #>> '{}' FROM pgclip._list('a decision',
        CASE jsonb_typeof(p_wanted) WHEN 'string' THEN jsonb_build_array(p_wanted)
             ELSE p_wanted END) v);
    v_ids    int[] := ARRAY(
        SELECT l.id FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
        WHERE l.name = p_label AND s.name = coalesce(p_set, s.name)
          AND l.archived_at IS NULL AND NOT l.is_background
          AND (s.decides OR EXISTS (SELECT FROM pgclip.promise p WHERE p.label_id = l.id)));
    v_yes    text := pgclip._decided_so(v_ids[1], 'yes', p_each);
    v_no     text := pgclip._decided_so(v_ids[1], 'no', p_each);
BEGIN
    IF NOT v_wanted <@ ARRAY['yes', 'no', 'review'] THEN
        PERFORM pgclip._bad_filter('a decision is "yes", "no" or "review"');
    ELSIF cardinality(v_ids) <> 1 THEN
        RAISE EXCEPTION 'filter: % label % is decided', CASE v_ids WHEN '{}' THEN 'no'
                        ELSE 'more than one' END, p_label || coalesce(' of set ' || p_set, '')
            USING ERRCODE = 'PC002', HINT = 'SELECT set, label FROM pgclip.promises; '
                  'a set is named as {"$decision": {"set": {"label": "yes"}}}.';
    END IF;
    RETURN (SELECT '(' || string_agg(CASE w
            WHEN 'yes' THEN v_yes
            WHEN 'no' THEN v_no
            ELSE format('(%s AND NOT %s AND NOT %s)', pgclip._applies(v_ids[1]), v_yes, v_no)
            END, ' OR ') || ')' FROM unnest(v_wanted) w);
END $$;

CREATE FUNCTION pgclip._field_condition(
    p_field text, p_value jsonb, p_model smallint, p_each boolean
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_field = '$label' THEN
        RETURN pgclip._label_condition(p_value, p_model, p_each);
    ELSIF p_field = '$decision' THEN
        RETURN pgclip._decisions_condition(p_value, p_each);
    END IF;
    IF jsonb_typeof(p_value) = 'array' THEN
        PERFORM pgclip._bad_filter(format('%s is given a list', to_json(p_field)),
                                   'Write {"in": […]} for one of them, {"eq": […]} for that list.');
    END IF;
    IF p_value = '{}' THEN
        PERFORM pgclip._bad_filter(format('%s has no operator', to_json(p_field)));
    END IF;
    IF jsonb_typeof(p_value) <> 'object' THEN
        p_value := jsonb_build_object('eq', p_value);
    END IF;
    RETURN (SELECT string_agg(CASE p_field
                WHEN '$key' THEN pgclip._text_operator('i.key', p_field, o.key, o.value)
                WHEN '$source' THEN pgclip._text_operator('i.source', p_field, o.key, o.value)
                WHEN '$created_at' THEN
                    pgclip._time_operator('i.created_at', p_field, o.key, o.value)
                WHEN '$updated_at' THEN
                    pgclip._time_operator('i.updated_at', p_field, o.key, o.value)
                ELSE CASE WHEN left(p_field, 1) = '$' THEN pgclip._bad_filter(
                              format('unknown field %s', p_field),
                              'There are $key, $source, $created_at, $updated_at, $label, '
                              '$decision, $and, $or and $not.')
                          ELSE pgclip._metadata_operator(p_field, o.key, o.value) END
                END, ' AND ')
            FROM jsonb_each(p_value) o);
END $$;

-- The condition on pgclip.item i that a filter stands for. Raises PC001 and PC002.
CREATE FUNCTION pgclip._condition(
    p_filter jsonb, p_model smallint, p_each boolean, p_depth int DEFAULT 0
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_member record;
    v_all    text[] := '{}';
BEGIN
    IF jsonb_typeof(p_filter) <> 'object' THEN
        PERFORM pgclip._bad_filter(format('a JSON object is needed, not %s',
                                          left(p_filter::text, 100)));
    END IF;
    IF p_depth = 0 AND octet_length(p_filter::text) > 65536 THEN
        PERFORM pgclip._bad_filter('it may be at most 65536 bytes of JSON');
    END IF;
    IF p_depth > 20 THEN
        PERFORM pgclip._bad_filter('it is nested more than 20 deep');
    END IF;
    FOR v_member IN SELECT key, value FROM jsonb_each(p_filter) LOOP
        v_all := v_all || CASE v_member.key
            WHEN '$not' THEN
                format('(%s) IS NOT TRUE', pgclip._condition(v_member.value, p_model, p_each,
                                                             p_depth + 1))
            WHEN '$or' THEN
                (SELECT '(' || string_agg(pgclip._condition(v, p_model, p_each, p_depth + 1),
                                          ' OR ')
                        || ')' FROM pgclip._list('$or', v_member.value) v)
            WHEN '$and' THEN
                (SELECT '(' || string_agg(pgclip._condition(v, p_model, p_each, p_depth + 1),
                                          ' AND ')
                        || ')' FROM pgclip._list('$and', v_member.value) v)
            ELSE pgclip._field_condition(v_member.key, v_member.value, p_model, p_each) END;
    END LOOP;
    RETURN CASE WHEN v_all = '{}' THEN 'true' ELSE array_to_string(v_all, ' AND ') END;
END $$;

-- Whether an index finds the items that match, so that it pays to look how many there are.
CREATE FUNCTION pgclip._is_indexed(p_filter jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(bool_or(CASE
        WHEN key IN ('$label', '$created_at') THEN true
        WHEN key = '$decision' THEN value::text !~ '"review"'
        WHEN key = '$and' THEN (SELECT bool_or(pgclip._is_indexed(v))
                                FROM jsonb_array_elements(value) v)
        WHEN key = '$or' THEN (SELECT bool_and(pgclip._is_indexed(v))
                               FROM jsonb_array_elements(value) v)
        WHEN key = '$key' THEN jsonb_typeof(value) = 'string' OR value ?| ARRAY['eq', 'in']
        WHEN left(key, 1) = '$' THEN false
        WHEN jsonb_typeof(value) <> 'object' OR value ?| ARRAY['eq', 'in', 'contains'] THEN true
        ELSE value ?| ARRAY['lt', 'le', 'gt', 'ge']
             AND EXISTS (SELECT FROM pgclip.metadata_index WHERE path = key)
        END), false)
    FROM jsonb_each(p_filter)
$$;

-- Makes an index for ranges of a field of the metadata (a path such as size.width). Equality,
-- membership and lists need none. Submissions wait while it is built.
CREATE FUNCTION pgclip.index_metadata(path text) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_name text := 'item_metadata_' || left(md5(index_metadata.path), 12);
BEGIN
    IF left(index_metadata.path, 1) = '$' THEN
        PERFORM pgclip._bad_filter('only a field of the metadata can be given an index');
    END IF;
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON pgclip.item (pgclip._comparable(%s))', v_name,
        replace(pgclip._at_path(pgclip._path(index_metadata.path)), 'i.metadata', 'metadata'));
    INSERT INTO pgclip.metadata_index VALUES (index_metadata.path, v_name) ON CONFLICT DO NOTHING;
    ANALYZE pgclip.item;
END $$;

-- Drops such an index. Returns whether there was one. Fails after 2 s behind a transaction that
-- reads items for longer (55P03).
CREATE FUNCTION pgclip.drop_metadata_index(path text) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_name text;
BEGIN
    DELETE FROM pgclip.metadata_index m WHERE m.path = drop_metadata_index.path
    RETURNING name INTO v_name;
    IF FOUND THEN
        -- Those who come after it wait with it.
        PERFORM set_config('lock_timeout', '2s', true);
        EXECUTE format('DROP INDEX pgclip.%I', v_name);
    END IF;
    RETURN v_name IS NOT NULL;
END $$;
