-- Whether all that everything rests on can be done here: not looked up, but tried.

-- One go at a trial's item: submitted (the second time replaced), claimed before all others, and
-- stored.
CREATE FUNCTION pgclip._try_storing(
    p_model smallint, p_collection text, p_text text, p_vector @vector@.halfvec
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_worker bigint := pgclip.sign_on(p_model, 'pgclip doctor', 0, '', '', 1, 60);
    v_lease  uuid := gen_random_uuid();
    v_item   bigint := (SELECT item_id FROM pgclip.submit_text(
                            p_text, key => 'trial', collection => p_collection));
    v_job    record;
BEGIN
    UPDATE pgclip.job SET rank = '-infinity' WHERE item_id = v_item AND model_id = p_model;
    SELECT * INTO v_job FROM pgclip.claim(v_worker, v_lease, 1, 1000000);
    IF v_job.item_id IS DISTINCT FROM v_item THEN
        RAISE EXCEPTION 'the item that was submitted was not claimed';
    END IF;
    PERFORM pgclip.open_results();
    INSERT INTO pg_temp.staged_vector VALUES (v_job.job_id, p_vector);
    INSERT INTO pg_temp.staged_label
    SELECT v_job.job_id, l.id, 1, 0.5 FROM pgclip.label l ORDER BY l.id LIMIT 1;
    IF pgclip.store(v_lease, (SELECT epoch FROM pgclip.label_epoch), ARRAY[v_job.job_id],
                    ARRAY[v_job.content_hash], '[]') <> ARRAY[v_job.job_id] THEN
        RAISE EXCEPTION 'the item that was claimed was not stored';
    END IF;
    PERFORM pgclip.sign_off(v_worker);
END $$;

-- Searches for a trial's item in each way that there is.
CREATE FUNCTION pgclip._try_searching(
    p_model smallint, p_collection text, p_vector @vector@.halfvec
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_query text := 'pgclip doctor ' || gen_random_uuid();
    v_found text[];
BEGIN
    PERFORM pgclip.request_embedding(v_query);
    PERFORM pgclip.answer_query(p_model, 'text', sha256(convert_to(v_query, 'UTF8')),
                                p_vector::real[]);
    v_found := ARRAY[
        (SELECT collection FROM pgclip.search(v_query, k => 1, collection => p_collection)),
        (SELECT collection FROM pgclip.search_vector(p_vector, k => 1)),
        (SELECT collection FROM pgclip.search_vector(p_vector, k => 1, exact => true,
                                                     collection => p_collection)),
        (SELECT collection FROM pgclip.hybrid(v_query, k => 1, collection => p_collection)),
        (SELECT collection FROM pgclip.search_vector(pgclip.weigh(ARRAY[
            pgclip.item_embedding('trial', p_collection)], '{1}'), k => 1))];
    IF p_collection <> ALL(v_found) THEN
        RAISE EXCEPTION 'the item that was stored was not found';
    END IF;
    PERFORM pgclip.similar('trial', k => 1, of_collection => p_collection);
    PERFORM pgclip.duplicates_of('trial', p_collection);
    PERFORM pgclip.labels_of(id) FROM pgclip.items
    WHERE collection = p_collection AND key = 'trial';
END $$;

-- A person's word on a trial's item decides it, by any label that there is.
CREATE FUNCTION pgclip._try_deciding(p_collection text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_label record;
BEGIN
    SELECT s.name AS set, l.name, l.id INTO v_label
    FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
    WHERE NOT l.is_background AND l.archived_at IS NULL ORDER BY l.id LIMIT 1;
    IF FOUND THEN
        PERFORM pgclip.judge(v_label.set, v_label.name, 'trial', true, 'pgclip doctor',
                             p_collection);
        IF pgclip._decision((SELECT i.id FROM pgclip.item i
                             JOIN pgclip.collection c ON c.id = i.collection_id
                             WHERE c.name = p_collection), v_label.id) <> 'yes' THEN
            RAISE EXCEPTION 'the item that was judged was not decided';
        END IF;
    END IF;
END $$;

-- The model that is live; in a database without one, a model of this trial's own.
CREATE FUNCTION pgclip._model_to_try() RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    v_model pgclip.model;
BEGIN
    INSERT INTO pgclip.model (name, state) VALUES ('pgclip doctor', 'live') ON CONFLICT DO NOTHING;
    SELECT * INTO v_model FROM pgclip.model WHERE state = 'live';
    IF v_model.dimension IS NULL THEN
        UPDATE pgclip.model SET dimension = 4 WHERE id = v_model.id;
        PERFORM pgclip._create_segment_table(v_model.id, 1);
        INSERT INTO pgclip.segment (model_id, number, state) VALUES (v_model.id, 1, 'hot');
    END IF;
    RETURN v_model.id;
END $$;

-- Submits an item, has it encoded, replaces it, searches for it, judges it, makes a segment and
-- deletes the item, all with the rights that these functions have; and takes it back. Nobody else's
-- items, jobs or queries are touched. Returns what can't be done, and why; NULL if all can.
CREATE FUNCTION pgclip.try_out() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_collection text := 'pgclip doctor ' || gen_random_uuid();
    v_step       text := 'submitting';
    v_model      smallint;
    v_vector     @vector@.halfvec;
BEGIN
    PERFORM set_config('lock_timeout', '3s', true);
    PERFORM * FROM pgclip.submit_batch('{text}', '{trial}', '{a}', '{NULL}', ARRAY[v_collection],
                                       ARRAY['{}'], '{1}', '{true}');
    v_step := 'storing';
    v_model := pgclip._model_to_try();
    v_vector := (SELECT pgclip.as_vector(array_agg(random() - 0.5))
                 FROM generate_series(1, (SELECT dimension FROM pgclip.model WHERE id = v_model)));
    PERFORM pgclip._try_storing(v_model, v_collection, 'a text', v_vector);
    v_step := 'replacing';
    PERFORM pgclip._try_storing(v_model, v_collection, 'another text', v_vector);
    v_step := 'searching';
    PERFORM pgclip._try_searching(v_model, v_collection, v_vector);
    v_step := 'deciding';
    PERFORM pgclip._try_deciding(v_collection);
    v_step := 'making a segment';
    PERFORM pgclip._create_segment_table(v_model, 0);
    v_step := 'deleting';
    IF NOT pgclip.delete('trial', v_collection) THEN
        RAISE EXCEPTION 'the item that was stored was not deleted';
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PC000';  -- all is well: taken back
EXCEPTION WHEN others THEN
    RETURN CASE WHEN SQLSTATE <> 'PC000' THEN format('%s fails: %s', v_step, SQLERRM) END;
END $$;
