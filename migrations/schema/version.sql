-- The oldest version of clients and workers that these definitions answer. A number of
-- migrations/versions.
CREATE FUNCTION pgclip.serves() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '0001' $$;

-- Gives a copy of a database (restored, or promoted from a replica) an installation of its own, so
-- that it shares no queue of tickets with the original. What workers of the original were at goes
-- back to the queue here. Workers have to be started anew. Returns the new id.
CREATE FUNCTION pgclip.renew_installation() RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid;
BEGIN
    PERFORM pgclip.sign_off(id) FROM pgclip.worker;
    UPDATE pgclip.installation SET id = gen_random_uuid(), created_at = now()
    RETURNING id INTO v_id;
    RETURN v_id;
END $$;
