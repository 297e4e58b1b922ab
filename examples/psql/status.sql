-- What has become of the submissions; failed ones are queued again if -v retry=1 is given.
--
--   psql "$PGCLIP_DATABASE_URL" -v ON_ERROR_STOP=1 -f status.sql

\pset footer off

SELECT state, items FROM pgclip.count_items(collection => 'psql') ORDER BY state;

\echo 'Failed:'
SELECT key, reason, error
FROM pgclip.list_items(collection => 'psql', state => 'failed', "limit" => 20);

\if :{?retry}
SELECT affected AS queued_again FROM pgclip.retry(collection => 'psql');
\endif

\echo 'Queue and workers:'
SELECT model, state, jobs FROM pgclip.queue;
SELECT host, pid, model, device, alive, jobs FROM pgclip.workers ORDER BY started_at;
