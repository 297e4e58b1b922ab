-- Searches what submit.sql submitted.
--
--   psql "$PGCLIP_DATABASE_URL" -v ON_ERROR_STOP=1 -v query='something to eat' -f search.sql

\if :{?query}
\else
    \set query 'something to eat'
\endif
\pset footer off

-- A worker encodes the query. Outside a transaction, which psql is unless \set AUTOCOMMIT off.
CALL pgclip.embed(:'query', timeout => '10 s');

\echo 'Nearest to' :'query'
SELECT round(score::numeric, 2) AS score, kind, key, metadata
FROM pgclip.search(:'query', k => 5, collection => 'psql');

-- A search joins like any table. The filter is applied to the k nearest, so k is larger here.
\echo 'The same among notes, with their authors'
SELECT round(h.score::numeric, 2) AS score, n.author, n.body
FROM pgclip.search(:'query', k => 100, collection => 'psql', kind => 'text') h
JOIN note n ON n.id = (h.metadata ->> 'note')::bigint
WHERE n.author <> 'eve'
ORDER BY h.score DESC
LIMIT 5;

-- The neighbours of an item that is there: no query to encode. Here, of the newest picture.
SELECT key AS picture FROM pgclip.items
WHERE collection = 'psql' AND kind = 'image' AND state = 'done'
ORDER BY updated_at DESC LIMIT 1
\gset
\if :{?picture}
    \echo 'Texts nearest to' :'picture'
    SELECT round(score::numeric, 2) AS score, key
    FROM pgclip.similar(:'picture', k => 5, of_collection => 'psql', collection => 'psql',
                        kind => 'text');

    \echo 'Labels of' :'picture'
    SELECT set, label, round(score::numeric, 2) AS score, decision
    FROM pgclip.labels
    WHERE collection = 'psql' AND key = :'picture'
    ORDER BY set, score DESC;
\endif
