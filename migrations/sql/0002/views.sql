-- For people: "kept" says whether the item can be encoded again by another model.
CREATE OR REPLACE VIEW pgclip.items AS
SELECT i.id, c.name AS collection, i.key, i.kind,
       CASE WHEN j.lease IS NOT NULL THEN 'leased'
            WHEN j.id IS NOT NULL THEN 'queued'
            WHEN f.item_id IS NOT NULL THEN 'failed'
            WHEN e.generation = i.generation THEN 'done'
            ELSE 'queued' END AS state,
       f.reason, f.message AS error, i.source, i.metadata, i.generation,
       i.created_at, i.updated_at, e.stored_at,
       i.source IS NOT NULL OR o.data IS NOT NULL AS kept,
       coalesce(i.content_hash, e.content_hash) AS content_hash
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
LEFT JOIN pgclip.content o ON o.kind = i.kind AND o.hash = i.content_hash
LEFT JOIN pgclip.model m ON m.state = 'live'
LEFT JOIN pgclip.job j ON j.item_id = i.id AND j.model_id = m.id
LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = m.id
LEFT JOIN pgclip.failure f ON f.item_id = i.id AND f.model_id = m.id
                          AND f.generation = i.generation AND j.id IS NULL;

CREATE VIEW pgclip.collections AS
SELECT c.name, count(i.id) AS items,
       count(*) FILTER (WHERE i.kind = 'image') AS images,
       count(*) FILTER (WHERE i.kind = 'text') AS texts,
       count(*) FILTER (WHERE i.state = 'queued') AS queued,
       count(*) FILTER (WHERE i.state = 'leased') AS leased,
       count(*) FILTER (WHERE i.state = 'done') AS done,
       count(*) FILTER (WHERE i.state = 'failed') AS failed,
       max(i.updated_at) AS updated_at
FROM pgclip.collection c LEFT JOIN pgclip.items i ON i.collection = c.name
GROUP BY c.name;

CREATE VIEW pgclip.models AS
SELECT m.name, m.state, m.dimension, m.fingerprint, m.created_at,
       (SELECT count(*) FROM pgclip.embedding_set e WHERE e.model_id = m.id) AS items,
       (SELECT count(*) FROM pgclip.job j WHERE j.model_id = m.id) AS jobs,
       (SELECT count(*) FROM pgclip.failure f WHERE f.model_id = m.id) AS failures
FROM pgclip.model m;
