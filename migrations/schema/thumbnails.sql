-- Small pictures of pictures, for pages. Workers make them where a picture is decoded anyway; they
-- belong to a content, stay while an item has it whose bytes are kept (or any item, where that was
-- asked for), and go as contents go.

-- The thumbnail of what was found: of the picture that an item had when it was encoded.
CREATE VIEW pgclip.thumbnails AS
SELECT i.id AS item_id, c.name AS collection, i.key, t.hash AS content_hash, t.width, t.height,
       t.data
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.kind = 'image'
     AND e.model_id = (SELECT m.id FROM pgclip.model m WHERE m.state = 'live')
JOIN pgclip.thumbnail t ON t.hash = coalesce(
         e.content_hash, CASE WHEN i.kind = 'image' THEN i.content_hash END)
WHERE t.data IS NOT NULL;

-- Thumbnails of items, as far as there are any.
CREATE FUNCTION pgclip.thumbnails_of(items bigint[])
RETURNS TABLE (item_id bigint, width smallint, height smallint, data bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.item_id, t.width, t.height, t.data
    FROM unnest(items) i(id) CROSS JOIN LATERAL (
        SELECT * FROM pgclip.thumbnails n WHERE n.item_id = i.id OFFSET 0) t
$$;

-- Jobs, of these, whose pictures should get one. Of one behind a source only its content tells
-- whether there is one already.
CREATE FUNCTION pgclip.thumbnails_due(p_jobs bigint[], p_of_unkept boolean) RETURNS bigint[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT j.id FROM pgclip.job j
        CROSS JOIN LATERAL (
            SELECT keep_source FROM pgclip.item WHERE id = j.item_id OFFSET 0) i
        WHERE j.id = ANY(p_jobs) AND j.kind = 'image' AND (p_of_unkept OR i.keep_source)
          AND NOT EXISTS (SELECT FROM pgclip.thumbnail t
                          WHERE t.hash = j.content_hash AND t.data IS NOT NULL OFFSET 0))
$$;

-- A temporary table that a worker COPYs thumbnails into before it calls keep_thumbnails().
CREATE FUNCTION pgclip.open_thumbnails() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pgclip._is_staged('staged_thumbnail') THEN
        CREATE TEMPORARY TABLE staged_thumbnail (
            hash   bytea NOT NULL,
            width  smallint,
            height smallint,
            data   bytea STORAGE EXTERNAL  -- JPEG gets no smaller
        ) ON COMMIT DELETE ROWS;
        PERFORM pgclip._let_caller_insert('staged_thumbnail');
    END IF;
END $$;

-- Keeps those of the staged thumbnails whose content an item has that lets it be kept. Such an item
-- is held until the end of the transaction: who deletes it, or wants its bytes kept no more, finds
-- the thumbnail afterwards. One that somebody is just changing does not count, and nobody is waited
-- for but others who keep the same. One without data tells that none can be made.
CREATE FUNCTION pgclip.keep_thumbnails(p_of_unkept boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_needed bytea[];
BEGIN
    PERFORM pgclip._is_staged('staged_thumbnail');
    v_needed := ARRAY(
        SELECT s.hash FROM pg_temp.staged_thumbnail s CROSS JOIN LATERAL (
            SELECT FROM pgclip.embedding_set e CROSS JOIN LATERAL (
                SELECT FROM pgclip.item WHERE id = e.item_id AND (keep_source OR p_of_unkept)
                FOR SHARE SKIP LOCKED) i
            WHERE e.content_hash = s.hash AND e.kind = 'image' LIMIT 1) held);
    INSERT INTO pgclip.thumbnail AS old (hash, width, height, data, of_unkept)
    SELECT s.hash, s.width, s.height, s.data, p_of_unkept FROM pg_temp.staged_thumbnail s
    WHERE s.hash = ANY(v_needed) ORDER BY s.hash
    ON CONFLICT (hash) DO UPDATE SET
        width = coalesce(old.width, excluded.width),
        height = coalesce(old.height, excluded.height),
        data = coalesce(old.data, excluded.data), of_unkept = old.of_unkept OR excluded.of_unkept;
END $$;

-- For heal: workers go through all items whose picture has no thumbnail, those included of which
-- none could be made.
CREATE FUNCTION pgclip._begin_thumbnail_walk() RETURNS void
LANGUAGE sql AS $$
    DELETE FROM pgclip.thumbnail WHERE hash IN (
        SELECT hash FROM pgclip.thumbnail WHERE data IS NULL FOR UPDATE SKIP LOCKED);
    DELETE FROM pgclip.thumbnail_walk;
    INSERT INTO pgclip.thumbnail_walk DEFAULT VALUES ON CONFLICT DO NOTHING
$$;

-- The next contents that lack a thumbnail, of at most p_items items, with the source of each, or
-- its size where its bytes are here; NULL if nobody asks, or another worker is at it. What did not
-- come, from a site that is away or by a worker that died, is given again in another round; after
-- the sixth, some minutes later, what is lacking still is left for the next heal.
CREATE FUNCTION pgclip.next_thumbnails(
    p_items int, p_of_unkept boolean, OUT hashes bytea[], OUT sources text[], OUT sizes int[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_walk pgclip.thumbnail_walk;
    v_page bigint[];
BEGIN
    SELECT * INTO v_walk FROM pgclip.thumbnail_walk WHERE not_before <= clock_timestamp()
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_page := ARRAY(SELECT id FROM pgclip.item WHERE id > v_walk.after_item ORDER BY id
                    LIMIT p_items);
    IF v_page = '{}' AND (v_walk.is_clean OR v_walk.rounds = 5) THEN
        DELETE FROM pgclip.thumbnail_walk;
        RETURN;
    ELSIF v_page = '{}' THEN
        UPDATE pgclip.thumbnail_walk SET after_item = 0, is_clean = true, rounds = rounds + 1,
            not_before = clock_timestamp() + rounds * rounds * interval '10 s';
        hashes := '{}';
        sources := '{}';
        sizes := '{}';
        RETURN;
    END IF;
    SELECT coalesce(array_agg(l.hash), '{}'), coalesce(array_agg(l.source), '{}'),
           coalesce(array_agg(l.size), '{}')
    INTO hashes, sources, sizes
    FROM (SELECT DISTINCT ON (e.content_hash) e.content_hash AS hash, i.source, o.size
          FROM unnest(v_page) p(id)
          CROSS JOIN LATERAL (SELECT * FROM pgclip.item n WHERE n.id = p.id OFFSET 0) i
          CROSS JOIN LATERAL (
              SELECT s.content_hash FROM pgclip.embedding_set s
              WHERE s.item_id = i.id AND s.model_id = pgclip._live_model() AND s.kind = 'image'
                AND s.generation = i.generation OFFSET 0) e
          LEFT JOIN LATERAL (
              SELECT c.size FROM pgclip.content c
              WHERE c.kind = 'image' AND c.hash = i.content_hash AND c.data IS NOT NULL
              OFFSET 0) o ON true
          WHERE i.kind = 'image' AND (p_of_unkept OR i.keep_source)
            AND (i.source IS NOT NULL OR o.size IS NOT NULL)
            -- That one could not be made of a source says nothing of bytes that are here.
            AND NOT EXISTS (SELECT FROM pgclip.thumbnail t WHERE t.hash = e.content_hash
                            AND (t.data IS NOT NULL OR i.source IS NOT NULL) OFFSET 0)
          ORDER BY e.content_hash, o.size, random()) l;
    UPDATE pgclip.thumbnail_walk SET after_item = v_page[cardinality(v_page)],
                                     is_clean = v_walk.is_clean AND hashes = '{}';
END $$;

-- Whether an item has this content and lets its thumbnail be kept.
CREATE FUNCTION pgclip._needs_thumbnail(p_thumbnail pgclip.thumbnail) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pgclip.item i
                   WHERE i.content_hash = p_thumbnail.hash AND i.kind = 'image'
                     AND (i.keep_source OR p_thumbnail.of_unkept))
        OR EXISTS (SELECT FROM pgclip.embedding_set e JOIN pgclip.item i ON i.id = e.item_id
                   WHERE e.content_hash = p_thumbnail.hash AND e.kind = 'image'
                     AND (i.keep_source OR p_thumbnail.of_unkept))
$$;

-- Deletes those of these thumbnails that nothing needs any more. What a store is just keeping is
-- locked by it; it is returned, for another time. Once we hold one, a second look is final.
CREATE FUNCTION pgclip._collect_thumbnails(p_hashes bytea[]) RETURNS bytea[]
LANGUAGE plpgsql AS $$
DECLARE
    v_free bytea[] := ARRAY(SELECT t.hash FROM pgclip.thumbnail t WHERE t.hash = ANY(p_hashes)
                            ORDER BY t.hash FOR UPDATE SKIP LOCKED);
BEGIN
    DELETE FROM pgclip.thumbnail t WHERE t.hash = ANY(v_free) AND NOT pgclip._needs_thumbnail(t);
    RETURN ARRAY(SELECT t.hash FROM pgclip.thumbnail t
                 WHERE t.hash = ANY(p_hashes) AND t.hash <> ALL(v_free));
END $$;

-- What the ledger refers to no longer may be collected; under an old snapshot also what it can't
-- see.
CREATE FUNCTION pgclip._release_thumbnails() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_old boolean := current_setting('transaction_isolation') <> 'read committed';
BEGIN
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT DISTINCT 'image'::pgclip.kind, g.content_hash FROM gone g
    WHERE g.kind = 'image' AND (v_old OR EXISTS (
        SELECT FROM pgclip.thumbnail t WHERE t.hash = g.content_hash OFFSET 0));
    RETURN NULL;
END $$;

CREATE TRIGGER thumbnails_released AFTER DELETE ON pgclip.embedding_set
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgclip._release_thumbnails();

CREATE FUNCTION pgclip._release_thumbnail() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT 'image', t.hash FROM pgclip.thumbnail t WHERE t.hash = OLD.content_hash;
    RETURN NULL;
END $$;

CREATE TRIGGER thumbnail_replaced AFTER UPDATE OF content_hash ON pgclip.embedding_set FOR EACH ROW
    WHEN (OLD.kind = 'image' AND OLD.content_hash <> NEW.content_hash)
    EXECUTE FUNCTION pgclip._release_thumbnail();

-- Of pictures behind a source; the release of those that are here is told of by item_unkept.
CREATE FUNCTION pgclip._release_unkept_thumbnail() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgclip.content_release (kind, hash)
    SELECT DISTINCT 'image'::pgclip.kind, t.hash FROM pgclip.embedding_set e
    JOIN pgclip.thumbnail t ON t.hash = e.content_hash
    WHERE e.item_id = NEW.id AND e.kind = 'image';
    RETURN NULL;
END $$;

CREATE TRIGGER item_unkept_elsewhere AFTER UPDATE OF keep_source ON pgclip.item FOR EACH ROW
    WHEN (OLD.keep_source AND NOT NEW.keep_source AND NEW.content_hash IS NULL)
    EXECUTE FUNCTION pgclip._release_unkept_thumbnail();
