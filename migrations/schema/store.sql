-- Storing a batch: one transaction, fenced by the lease. Whatever is joined to what, rows are found
-- by arrays of their keys: a plan that was made when a table was small would read all of it once
-- it is large.

-- Temporary tables that a worker COPYs its results into before it calls store().
CREATE FUNCTION pgclip.open_results() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT (pgclip._is_staged('staged_vector') AND pgclip._is_staged('staged_label')) THEN
        CREATE TEMPORARY TABLE staged_vector (
            job_id    bigint NOT NULL,
            embedding @vector@.halfvec STORAGE PLAIN NOT NULL  -- no TOAST table to truncate
        ) ON COMMIT DELETE ROWS;
        CREATE TEMPORARY TABLE staged_label (
            job_id   bigint NOT NULL,
            label_id int NOT NULL,
            version  int NOT NULL,
            score    real NOT NULL
        ) ON COMMIT DELETE ROWS;
        PERFORM pgclip._let_caller_insert('staged_vector');
        PERFORM pgclip._let_caller_insert('staged_label');
    END IF;
END $$;

-- Settles jobs of a lease: p_done with the staged vectors and labels and the hashes of what was
-- encoded, p_failed ([{"job_id", "reason", "message"}]) with a failure, or put off if that may pass
-- (_put_off). A job that is no longer under this lease (the item was replaced or deleted, or the
-- worker given up) is passed over, and so is one that a transaction has locked: that transaction
-- is replacing or deleting it.
-- Raises PC007 if label sets have changed since p_label_epoch. Returns the jobs it settled.
CREATE FUNCTION pgclip.store(
    p_lease uuid, p_label_epoch bigint, p_done bigint[], p_hashes bytea[], p_failed jsonb
) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_mine    bigint[];
    v_items   bigint[];
    v_model   smallint;
    v_segment int;
    v_old     bigint[];
    v_epoch   bigint;
    v_labels  int[];
    v_put_off bigint[] := '{}';
BEGIN
    IF p_done <> '{}' THEN
        PERFORM pgclip._is_staged('staged_vector'), pgclip._is_staged('staged_label');
    END IF;
    -- Not locked: a set that changes from here on changes after this batch.
    SELECT epoch INTO v_epoch FROM pgclip.label_epoch;
    IF v_epoch <> p_label_epoch THEN
        RAISE EXCEPTION 'label sets have changed' USING ERRCODE = 'PC007';
    ELSIF NOT pgclip._gives_scores() THEN
        v_epoch := 0;  -- another worker gives these items theirs
    END IF;
    SELECT coalesce(array_agg(j.id), '{}'), min(j.model_id),
           array_agg(j.item_id) FILTER (WHERE j.id = ANY(p_done))
    INTO v_mine, v_model, v_items
    FROM (SELECT id, item_id, model_id FROM pgclip.job
          WHERE lease = p_lease AND id = ANY(p_done || ARRAY(
                SELECT f.job_id FROM jsonb_to_recordset(p_failed) AS f(job_id bigint)))
          ORDER BY id FOR UPDATE SKIP LOCKED) j;

    IF v_items IS NOT NULL THEN
        IF EXISTS (SELECT FROM pgclip.label_set WHERE active AND collections IS NOT NULL) THEN
            PERFORM pgclip._keep_to_collections(array_agg(id), array_agg(item_id))
            FROM pgclip.job WHERE id = ANY(v_mine);
        END IF;
        -- Before any row of an item's labels, as one who drops a label does.
        v_labels := ARRAY(
            SELECT id FROM pgclip.label WHERE id IN (
                SELECT label_id FROM pg_temp.staged_label
                UNION ALL
                SELECT label_id FROM pgclip.item_label
                WHERE item_id = ANY(v_items) AND model_id = v_model)
            ORDER BY id FOR KEY SHARE);
        -- Locked, as one who labels them anew does before a label is touched.
        SELECT array_agg(v.id) INTO v_old
        FROM (SELECT vector_ids FROM pgclip.embedding_set
              WHERE item_id = ANY(v_items) AND model_id = v_model
              ORDER BY item_id FOR NO KEY UPDATE) e
        CROSS JOIN unnest(e.vector_ids) v(id);
        IF v_old IS NOT NULL THEN
            PERFORM pgclip._delete_vectors(v_model, v_old);
            DELETE FROM pgclip.item_label WHERE item_id = ANY(v_items) AND model_id = v_model;
        END IF;
        PERFORM pgclip._hold_segments(v_model);
        SELECT number INTO STRICT v_segment FROM pgclip.segment
        WHERE model_id = v_model AND state = 'hot';
        EXECUTE format($q$
            WITH done AS MATERIALIZED (
                SELECT j.id, j.item_id, j.generation, j.kind, i.collection_id, d.hash
                FROM unnest($1, $2) d(id, hash)
                JOIN pgclip.job j ON j.id = d.id
                JOIN pgclip.item i ON i.id = j.item_id
                WHERE j.id = ANY($3) AND i.id = ANY($4)
            ), fresh AS (
                INSERT INTO %2$s (item_id, collection_id, kind, embedding)
                SELECT d.item_id, d.collection_id, d.kind, v.embedding
                FROM pg_temp.staged_vector v JOIN done d ON d.id = v.job_id
                ORDER BY v.ctid  -- as staged: the windows of a text in their order
                RETURNING id, item_id
            )
            INSERT INTO pgclip.embedding_set
                   (item_id, model_id, generation, kind, content_hash, vector_ids, label_epoch)
            SELECT d.item_id, %1$s, d.generation, d.kind, d.hash, array_agg(f.id ORDER BY f.id), $5
            FROM done d JOIN fresh f USING (item_id)
            GROUP BY d.item_id, d.generation, d.kind, d.hash
            ORDER BY d.item_id
            ON CONFLICT (item_id, model_id) DO UPDATE SET generation = excluded.generation,
                kind = excluded.kind, content_hash = excluded.content_hash,
                vector_ids = excluded.vector_ids, label_epoch = excluded.label_epoch,
                stored_at = now()
        $q$, v_model, pgclip._segment_table(v_model, v_segment))
        USING p_done, p_hashes, v_mine, v_items, v_epoch;
        INSERT INTO pgclip.item_label (item_id, model_id, label_id, version, score)
        SELECT j.item_id, j.model_id, l.label_id, l.version, l.score
        FROM pg_temp.staged_label l JOIN pgclip.job j ON j.id = l.job_id
        WHERE j.id = ANY(v_mine) AND l.label_id = ANY(v_labels);
        PERFORM pgclip._store_scores(v_model, array_agg(id), array_agg(item_id), NULL)
        FROM pgclip.job WHERE id = ANY(v_mine) AND id = ANY(p_done);
        -- A failure that another store recorded while the item was being submitted again.
        DELETE FROM pgclip.failure WHERE item_id = ANY(v_items) AND model_id = v_model;
    END IF;

    PERFORM pgclip._touch_items(v_model, array_agg(item_id))
    FROM pgclip.job WHERE id = ANY(v_mine);
    IF p_failed <> '[]' THEN
        v_put_off := pgclip._put_off(v_mine, p_failed);
    END IF;
    INSERT INTO pgclip.failure (item_id, model_id, generation, reason, message)
    SELECT j.item_id, j.model_id, j.generation, f.reason, f.message
    FROM jsonb_to_recordset(p_failed) AS f(job_id bigint, reason text, message text)
    JOIN pgclip.job j ON j.id = f.job_id
    WHERE j.id = ANY(v_mine) AND j.id <> ALL(v_put_off)
    ON CONFLICT (item_id, model_id) DO UPDATE SET generation = excluded.generation,
        reason = excluded.reason, message = excluded.message, failed_at = now();
    DELETE FROM pgclip.job WHERE id = ANY(v_mine) AND id <> ALL(v_put_off);
    RETURN ARRAY(SELECT id FROM unnest(v_mine) id WHERE id <> ALL(v_put_off));
END $$;

-- Embeddings that are stored already for these contents: they are copied, not encoded again.
CREATE FUNCTION pgclip.known_embeddings(
    p_model smallint, p_kind pgclip.kind, p_hashes bytea[]
) RETURNS TABLE (content_hash bytea, embedding real[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT s.content_hash, e.embedding::real[]
        FROM (SELECT DISTINCT ON (content_hash) content_hash, vector_ids
              FROM pgclip.embedding_set
              WHERE content_hash = ANY($1) AND kind = $2 AND model_id = %1$s
              ORDER BY content_hash, item_id) s
        CROSS JOIN LATERAL unnest(s.vector_ids) WITH ORDINALITY v(id, nth)
        -- OFFSET 0: one look by id for each vector, rather than a join with all there are
        CROSS JOIN LATERAL (SELECT x.embedding FROM %2$s x WHERE x.id = v.id OFFSET 0) e
        ORDER BY s.content_hash, v.nth
    $q$, p_model, pgclip._vectors(p_model)) USING p_hashes, p_kind;
END $$;

-- Tells whoever waits that items have ended. Workers call it after the store's commit and not
-- within, since a notification takes a lock on the whole server until its commit is on disk.
CREATE FUNCTION pgclip.notify_settled(p_items bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- A payload has less than 8000 bytes, an id at most 19.
    FOR i IN 1 .. cardinality(p_items) BY 350 LOOP
        PERFORM pg_notify('pgclip_settled', array_to_string(p_items[i : i + 349], ' '));
    END LOOP;
END $$;
