-- What a worker says of itself, with its heartbeat.

ALTER TABLE pgclip.worker ADD COLUMN trouble text;

-- As the one without it, which stays for workers of before; p_trouble is for a person to read,
-- NULL if there is none.
CREATE FUNCTION pgclip.heartbeat(p_worker bigint, p_lease_seconds double precision, p_trouble text)
RETURNS uuid[]
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE pgclip.worker SET heartbeat_at = clock_timestamp(), held_at_death = NULL,
           expires_at = clock_timestamp() + make_interval(secs => p_lease_seconds),
           trouble = p_trouble
    WHERE id = p_worker;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(SELECT DISTINCT lease FROM pgclip.job
                 WHERE worker_id = p_worker AND lease IS NOT NULL);
END $$;

CREATE OR REPLACE VIEW pgclip.workers AS
SELECT w.id, w.host, w.pid, m.name AS model, w.device, w.precision, w.batch_size, w.started_at,
       w.heartbeat_at, w.expires_at > clock_timestamp() AS alive,
       (SELECT count(*) FROM pgclip.job j WHERE j.worker_id = w.id AND j.lease IS NOT NULL) AS jobs,
       w.trouble
FROM pgclip.worker w JOIN pgclip.model m ON m.id = w.model_id;
