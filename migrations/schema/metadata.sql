-- Changing what is said of an item, its content left alone.

CREATE FUNCTION pgclip._item_named(p_key text, p_collection text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_item bigint := (SELECT i.id FROM pgclip.item i
                      JOIN pgclip.collection c ON c.id = i.collection_id
                      WHERE c.name = p_collection AND i.key = p_key);
BEGIN
    IF v_item IS NULL THEN
        RAISE EXCEPTION 'there is no item % in collection %', p_key, p_collection
            USING ERRCODE = 'PC002';
    END IF;
    RETURN v_item;
END $$;

-- Sets and removes fields of an item's metadata, at the top level; the others stay. A field that is
-- named in both is set. Returns the metadata as they are then. Raises PC001, PC002.
CREATE FUNCTION pgclip.update_metadata(
    key text, collection text DEFAULT 'default', set jsonb DEFAULT '{}', remove text[] DEFAULT '{}'
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_item     bigint := pgclip._item_named(key, collection);
    v_metadata jsonb;
BEGIN
    PERFORM pgclip._commit_durably();
    IF jsonb_typeof(update_metadata.set) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'what is set must be a JSON object' USING ERRCODE = 'PC001';
    END IF;
    UPDATE pgclip.item i
    SET metadata = (i.metadata - coalesce(remove, '{}')) || update_metadata.set, updated_at = now()
    WHERE i.id = v_item RETURNING i.metadata INTO v_metadata;
    IF octet_length(v_metadata::text) > 65536 THEN
        RAISE EXCEPTION 'the metadata must be at most 65536 bytes of JSON' USING ERRCODE = 'PC001';
    END IF;
    RETURN v_metadata;
END $$;

-- Gives an item another key; all else of it stays. Raises PC001 if another has that, PC002.
CREATE FUNCTION pgclip.rename(key text, new_key text, collection text DEFAULT 'default')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_item bigint := pgclip._item_named(key, collection);
BEGIN
    PERFORM pgclip._commit_durably();
    -- A key's change locks the item against the store of its job; the job first, as deletion does.
    PERFORM FROM pgclip.item i WHERE i.id = v_item FOR NO KEY UPDATE;
    PERFORM FROM pgclip.job j WHERE j.item_id = v_item ORDER BY j.id FOR UPDATE;
    IF octet_length(new_key) BETWEEN 1 AND 1024 IS NOT true THEN
        RAISE EXCEPTION 'the key must have 1 to 1024 bytes' USING ERRCODE = 'PC001';
    END IF;
    UPDATE pgclip.item i SET key = new_key, updated_at = now() WHERE i.id = v_item;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'there is an item % in collection %', new_key, collection
        USING ERRCODE = 'PC001', HINT = 'Delete that one first.';
END $$;

-- Notes that items are files of a host, found below a folder that was indexed there. What is
-- not there any more is passed over.
CREATE FUNCTION pgclip.note_files(host text, collection text, keys text[], paths text[])
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgclip.indexed_file AS old (item_id, host, path)
    SELECT DISTINCT ON (i.id) i.id, note_files.host, f.path
    FROM unnest(keys, paths) f(key, path)
    JOIN pgclip.collection c ON c.name = note_files.collection
    JOIN pgclip.item i ON i.collection_id = c.id AND i.key = f.key
    ORDER BY i.id
    ON CONFLICT (item_id, host) DO UPDATE SET path = excluded.path WHERE old.path <> excluded.path
$$;

-- Takes away files of a host that are gone: what is noted of them, and the items of those that no
-- other host has. Returns how many items.
CREATE FUNCTION pgclip.prune_files(host text, collection text, keys text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_items bigint[] := ARRAY(
        SELECT i.id FROM pgclip.item i
        JOIN pgclip.collection c ON c.id = i.collection_id
        JOIN pgclip.indexed_file f ON f.item_id = i.id AND f.host = prune_files.host
        WHERE c.name = prune_files.collection AND i.key = ANY(keys));
BEGIN
    PERFORM pgclip._lock_items(v_items);
    DELETE FROM pgclip.indexed_file f
    WHERE f.item_id = ANY(v_items) AND f.host = prune_files.host;
    RETURN pgclip._delete_items(ARRAY(
        SELECT id FROM unnest(v_items) id
        WHERE NOT EXISTS (SELECT FROM pgclip.indexed_file f WHERE f.item_id = id)));
END $$;

-- The files of a host below a folder that are items of a collection, by path.
CREATE FUNCTION pgclip.files_below(
    host text, collection text, folder text, after text DEFAULT '', "limit" int DEFAULT 1000,
    OUT path text, OUT key text, OUT content_hash bytea
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.path, i.key, coalesce(i.content_hash, e.content_hash)
    FROM pgclip.indexed_file f
    JOIN pgclip.item i ON i.id = f.item_id
    JOIN pgclip.collection c ON c.id = i.collection_id
    LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = (
        SELECT id FROM pgclip.model WHERE state = 'live')
    WHERE f.host = files_below.host AND c.name = files_below.collection
      AND starts_with(f.path, rtrim(folder, '/') || '/') AND f.path COLLATE "C" > after
    ORDER BY f.path COLLATE "C" LIMIT "limit"
$$;
