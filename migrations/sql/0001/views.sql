-- For people. An item's state is never stored: the job, the ledger and the failure tell it.

CREATE VIEW pgclip.items AS
SELECT i.id, c.name AS collection, i.key, i.kind,
       CASE WHEN j.lease IS NOT NULL THEN 'leased'
            WHEN j.id IS NOT NULL THEN 'queued'
            WHEN f.item_id IS NOT NULL THEN 'failed'
            WHEN e.generation = i.generation THEN 'done'
            ELSE 'queued' END AS state,
       f.reason, f.message AS error, i.source, i.metadata, i.generation,
       i.created_at, i.updated_at, e.stored_at
FROM pgclip.item i
JOIN pgclip.collection c ON c.id = i.collection_id
LEFT JOIN pgclip.model m ON m.state = 'live'
LEFT JOIN pgclip.job j ON j.item_id = i.id AND j.model_id = m.id
LEFT JOIN pgclip.embedding_set e ON e.item_id = i.id AND e.model_id = m.id
LEFT JOIN pgclip.failure f ON f.item_id = i.id AND f.model_id = m.id
                          AND f.generation = i.generation AND j.id IS NULL;

-- One row for each label of an item by the live model.
CREATE VIEW pgclip.labels AS
SELECT il.item_id, c.name AS collection, i.key, s.name AS set, l.name AS label, il.score,
       il.version = s.version AS current
FROM pgclip.item_label il
JOIN pgclip.model m ON m.id = il.model_id AND m.state = 'live'
JOIN pgclip.label l ON l.id = il.label_id
JOIN pgclip.label_set s ON s.id = l.set_id
JOIN pgclip.item i ON i.id = il.item_id
JOIN pgclip.collection c ON c.id = i.collection_id;

CREATE VIEW pgclip.queue AS
SELECT m.name AS model, CASE WHEN j.lease IS NULL THEN 'queued' ELSE 'leased' END AS state,
       count(*) AS jobs, min(j.rank) AS oldest
FROM pgclip.job j JOIN pgclip.model m ON m.id = j.model_id
GROUP BY 1, 2;

CREATE VIEW pgclip.workers AS
SELECT w.id, w.host, w.pid, m.name AS model, w.device, w.precision, w.batch_size, w.started_at,
       w.heartbeat_at, w.expires_at > clock_timestamp() AS alive,
       (SELECT count(*) FROM pgclip.job j WHERE j.worker_id = w.id AND j.lease IS NOT NULL) AS jobs
FROM pgclip.worker w JOIN pgclip.model m ON m.id = w.model_id;
