-- What people say of items' labels: judgements, each of one content, by one person.

-- Every judgement. One counts as long as its item has the content that was judged.
CREATE VIEW pgclip.judgements AS
SELECT s.name AS set, l.name AS label, c.name AS collection, i.key, i.kind, j.value, j.judge,
       j.judged_at, j.content_hash,
       EXISTS (SELECT FROM pgclip.embedding_set e JOIN pgclip.model m ON m.id = e.model_id
               WHERE e.item_id = j.item_id AND e.content_hash = j.content_hash
                 AND m.state = 'live') AS counts,
       l.archived_at IS NOT NULL AS is_archived
FROM pgclip.judgement j
JOIN pgclip.label l ON l.id = j.label_id
JOIN pgclip.label_set s ON s.id = l.set_id
JOIN pgclip.item i ON i.id = j.item_id
JOIN pgclip.collection c ON c.id = i.collection_id;

-- Says whether a label is right for an item as it is now: what the live model has encoded. A
-- person's later word on the same content takes the place of an earlier one; NULL takes it back.
-- content_hash: of the content that was judged, if that was some time ago. Raises PC001; PC002 if
-- there is no such set, label or item; PC003 if it has not been encoded, or has other content.
CREATE FUNCTION pgclip.judge(
    label_set text, label text, key text, value boolean DEFAULT true, judge text DEFAULT NULL,
    collection text DEFAULT 'default', judged_at timestamptz DEFAULT now(),
    content_hash bytea DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_label int := pgclip._note_judgement(label_set, label, key, value, judge, collection,
                                          judged_at, content_hash);
BEGIN
    PERFORM pgclip._advance(id, false) FROM pgclip._campaigns_of(ARRAY[v_label]) id;
END $$;

-- Notes it, and returns the label's number: promises are looked at when all is noted.
CREATE FUNCTION pgclip._note_judgement(
    p_set text, p_label text, p_key text, p_value boolean, p_judge text, p_collection text,
    p_judged_at timestamptz, p_hash bytea
) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    v_judge text := coalesce(p_judge, pgclip._caller());
    v_label int := pgclip._label(p_set, p_label);
    v_item  bigint := (SELECT i.id FROM pgclip.item i
                       JOIN pgclip.collection c ON c.id = i.collection_id
                       WHERE i.key = p_key AND c.name = p_collection);
    v_hash  bytea := (SELECT e.content_hash FROM pgclip.embedding_set e
                      WHERE e.item_id = v_item AND e.model_id = pgclip._live_model());
BEGIN
    PERFORM pgclip._hold_label(v_label, p_set, p_label);
    IF v_item IS NULL THEN
        RAISE EXCEPTION 'there is no item % in collection %', p_key, p_collection
            USING ERRCODE = 'PC002';
    ELSIF pgclip._is_blank(v_judge) OR length(v_judge) > 200 THEN
        RAISE EXCEPTION 'a judge has a name of at most 200 characters' USING ERRCODE = 'PC001';
    ELSIF (p_judged_at BETWEEN '1970-01-01' AND clock_timestamp()) IS NOT TRUE THEN
        RAISE EXCEPTION 'a judgement was made in the past, not at %', p_judged_at
            USING ERRCODE = 'PC001';
    ELSIF v_hash IS NULL THEN
        RAISE EXCEPTION 'item % has no vector yet', p_key USING ERRCODE = 'PC003';
    ELSIF v_hash <> p_hash THEN
        RAISE EXCEPTION 'item % has other content than that which was judged', p_key
            USING ERRCODE = 'PC003';
    END IF;
    IF p_value IS NULL THEN
        DELETE FROM pgclip.judgement j WHERE j.label_id = v_label
                                         AND j.content_hash = v_hash AND j.judge = v_judge;
    ELSE
        INSERT INTO pgclip.judgement AS old
               (label_id, item_id, content_hash, judge, value, judged_at)
        VALUES (v_label, v_item, v_hash, v_judge, p_value, p_judged_at)
        ON CONFLICT ON CONSTRAINT judgement_pkey DO UPDATE SET value = excluded.value,
            judged_at = excluded.judged_at WHERE old.judged_at <= excluded.judged_at;
    END IF;
    DELETE FROM pgclip.review r
    WHERE r.label_id = v_label AND r.content_hash = v_hash AND r.judge = v_judge;
    RETURN v_label;
END $$;

-- Judges many: [{"set", "label", "key", "value", "judge", "collection", "judged_at",
-- "content_hash" in hex}], the last four as they may be left out of judge(). Each for itself:
-- returns those that were refused, by their place from 1, and why.
CREATE FUNCTION pgclip.judge_many(judgements jsonb, OUT place int, OUT refused text)
RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_one    jsonb;
    v_labels int[];
BEGIN
    IF jsonb_typeof(judgements) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'judgements are a list of objects' USING ERRCODE = 'PC001';
    END IF;
    v_labels := ARRAY(  -- in the order in which one who drops a set takes them
        SELECT id FROM pgclip.label
        WHERE id IN (SELECT l.id FROM jsonb_array_elements(judgements) j
                     JOIN pgclip.label_set s ON s.name = j ->> 'set'
                     JOIN pgclip.label l ON l.set_id = s.id AND l.name = j ->> 'label'
                     WHERE jsonb_typeof(j) = 'object')
        ORDER BY id FOR KEY SHARE);
    FOR v_one, place IN
        SELECT j.one, j.place FROM jsonb_array_elements(judgements) WITH ORDINALITY j(one, place)
    LOOP
        BEGIN
            IF jsonb_typeof(v_one) <> 'object' OR NOT v_one ?& ARRAY['set', 'label', 'key', 'value']
            THEN
                RAISE EXCEPTION 'a judgement has set, label, key and value';
            END IF;
            PERFORM pgclip._note_judgement(
                v_one ->> 'set', v_one ->> 'label', v_one ->> 'key', (v_one ->> 'value')::boolean,
                v_one ->> 'judge', coalesce(v_one ->> 'collection', 'default'),
                coalesce((v_one ->> 'judged_at')::timestamptz, now()),
                decode(v_one ->> 'content_hash', 'hex'));
        EXCEPTION WHEN foreign_key_violation OR data_exception OR raise_exception
                    OR SQLSTATE 'PC001' OR SQLSTATE 'PC002' OR SQLSTATE 'PC003' THEN
            refused := SQLERRM;
            RETURN NEXT;
        END;
    END LOOP;
    PERFORM pgclip._advance(id, false) FROM pgclip._campaigns_of(v_labels) id;
END $$;
