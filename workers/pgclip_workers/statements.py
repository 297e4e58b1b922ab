"""Every SQL statement of the worker."""

REGISTER_MODEL = "SELECT pgclip.register_model(%s, %s, %s, %s::jsonb)"
TICKET_QUEUE = "SELECT pgclip._ticket_queue(%s::smallint)"
SIGN_ON = "SELECT pgclip.sign_on(%s::smallint, %s, %s, %s, %s, %s, %s)"
HEARTBEAT = "SELECT pgclip.heartbeat(%s, %s, %s, %s)::text[]"
SIGN_OFF = "SELECT pgclip.sign_off(%s)"

CLAIM = "SELECT * FROM pgclip.claim(%s, %s::uuid, %s, %s, %s)"
RELEASE = "SELECT pgclip.release(%s, %s::uuid[])"
# Fetched by binary COPY, which takes no parameters: the arrays are quoted by the driver.
FETCH = """
    SELECT c.kind::text, c.hash, c.data
    FROM unnest({kinds}::text[], {hashes}::bytea[]) wanted(kind, hash)
    JOIN pgclip.content c ON c.kind = wanted.kind::pgclip.kind AND c.hash = wanted.hash
"""
KNOWN = "SELECT content_hash, embedding FROM pgclip.known_embeddings(%s::smallint, %s, %s::bytea[])"

# Label sets in force, their words, the vectors of these, and what was taught.
LABEL_EPOCH = "SELECT epoch FROM pgclip.label_epoch"
_LABEL_SET = """
    SELECT id, name, version, prompts_version, templates, epoch, top_k, threshold, applies_to,
           exclusive
    FROM pgclip.label_set
"""
LABEL_SET = f"{_LABEL_SET} WHERE id = %s"
LABEL_SETS = f"{_LABEL_SET} WHERE active ORDER BY id"
LABEL_WORDS = """
    SELECT set_id, id, name, forms, is_background FROM pgclip.label
    WHERE set_id = ANY(%s) AND archived_at IS NULL ORDER BY set_id, is_background, position
"""
LABEL_VECTORS = """
    SELECT label_id, embedding FROM pgclip.label_vector
    WHERE model_id = %s AND version >= %s AND label_id = ANY(%s)
"""
LABEL_SCALES = """
    SELECT t.set_id, t.scale
    FROM pgclip.label_teaching t JOIN pgclip.label_set s ON s.id = t.set_id
    WHERE t.model_id = %s AND t.set_id = ANY(%s) AND t.words_version = s.words_version
"""
LABEL_HEADS = """
    SELECT h.label_id, h.embedding, h.intercept, h.background
    FROM pgclip.label_head h JOIN pgclip.label l ON l.id = h.label_id
    JOIN pgclip.label_set s ON s.id = l.set_id
    JOIN pgclip.label_teaching t ON t.set_id = s.id AND t.model_id = h.model_id
    WHERE h.model_id = %s AND s.id = ANY(%s) AND t.words_version = s.words_version
"""
# Labels of which something is promised, with the versions of their heads.
PROMISED_LABELS = """
    SELECT l.id, pgclip._head_version(l.set_id, %s::smallint) FROM pgclip.label l
    WHERE l.id IN (SELECT label_id FROM pgclip.promise)
"""
KEEP_LABEL_VECTOR = "SELECT pgclip.keep_label_vector(%s, %s::smallint, %s, %s::real[])"

# By binary COPY.
LABELS_DUE = """
    SELECT item_id, kind = 'image', label_epoch, embedding
    FROM pgclip.labels_due({model}::smallint, {most})
"""
STORE_LABELS = "SELECT pgclip.store_labels(%s::smallint, %s, %s::bigint[], %s)"
DECIDE_ITEMS = "SELECT pgclip.decide_items(%s)"
IS_BUSY = "SELECT EXISTS (SELECT FROM pgclip.job WHERE model_id = %s AND not_before IS NULL)"

TAKE_LABEL_TASK = "SELECT * FROM pgclip.take_label_task(%s::smallint, %s)"
LABEL_EXAMPLES = """
    SELECT kind::text, content_hash, embedding, to_jsonb(label_ids)::text, to_jsonb("values")::text
    FROM pgclip.label_examples(
        {set}, {model}::smallint, {truth}, {collection}, {sample})
"""
TEACHING_OF = """
    SELECT t.report, t.contents
    FROM pgclip.label_teaching t JOIN pgclip.label_set s ON s.id = t.set_id
    WHERE t.set_id = %s AND t.model_id = %s AND t.words_version = s.words_version
"""
EXAMPLE_GROUPS = "SELECT content_hash, value FROM pgclip.example_groups(%s, %s::bytea[])"
KEEP_TEACHING = """
    SELECT pgclip.keep_teaching(%s, %s, %s::real, %s::jsonb, %s::jsonb, %s::bytea[])
"""
END_LABEL_TASK = "SELECT pgclip.end_label_task(%s, %s::jsonb, %s)"

# What a change of models needs. Pairs and queries by binary COPY.
LIVE_MODEL = """
    SELECT name, fingerprint #>> '{recorded,source}' FROM pgclip.model
    WHERE state = 'live' AND dimension IS NOT NULL
"""
IS_ONE_CLOSED = """
    SELECT EXISTS (SELECT FROM pgclip.segment WHERE model_id = %s AND state = 'closed')
"""
PREPARE_MODEL = "SELECT pgclip.prepare_model(%s::smallint)"
MAP_DUE = "SELECT source, kind::text, filled FROM pgclip.map_due(%s::smallint)"
MAP_PAIRS = """
    SELECT content_hash, old, new
    FROM pgclip.map_pairs({model}::smallint, {source}::smallint, '{kind}', {after}, {most})
"""
MAP_QUERIES = """
    SELECT embedding, asked FROM pgclip.map_queries({model}::smallint, '{kind}', {most})
"""
KEEP_MAP = "SELECT pgclip.keep_map(%s::smallint, %s, %s::real[], %s::real[], %s)"
JUDGE_MAP = "SELECT pgclip.judge_map(%s::smallint, %s::real, %s::jsonb)"

OPEN_RESULTS = "SELECT pgclip.open_results()"
STAGED_VECTORS = "pg_temp.staged_vector (job_id, embedding)"
STAGED_LABELS = "pg_temp.staged_label (job_id, label_id, version, score)"
OPEN_SCORES = "SELECT pgclip.open_scores()"
STAGED_SCORES = "pg_temp.staged_score (job_id, label_id, head_version, score)"
STORE = "SELECT pgclip.store(%s::uuid, %s, %s::bigint[], %s::bytea[], %s::jsonb)"

THUMBNAILS_DUE = "SELECT pgclip.thumbnails_due(%s::bigint[], %s)"
OPEN_THUMBNAILS = "SELECT pgclip.open_thumbnails()"
STAGED_THUMBNAILS = "pg_temp.staged_thumbnail (hash, width, height, data)"
KEEP_THUMBNAILS = "SELECT pgclip.keep_thumbnails(%s)"
NEXT_THUMBNAILS = "SELECT hashes, sources, sizes FROM pgclip.next_thumbnails(%s, %s)"

NOTIFY_SETTLED = "SELECT pgclip.notify_settled(%s::bigint[])"

# One steward at a time; an xact lock, because a session's would survive a frozen process. The
# condition is looked at before a function is called.
_ALONE = "WHERE pg_try_advisory_xact_lock(7311994463)"
SWEEP = f"SELECT pgclip.sweep(%s) {_ALONE}"
WAKE_JOBS = f"SELECT pgclip.wake_jobs(%s) {_ALONE}"
WALK_MODELS = f"SELECT pgclip.walk_models(%s, %s) {_ALONE}"
INDEX_WORDS_ANEW = f"SELECT pgclip.index_words_anew(%s) {_ALONE}"
COLLECT_CONTENTS = f"SELECT pgclip.collect_contents(%s) {_ALONE}"
EXPIRE_QUERIES = f"SELECT pgclip.expire_queries(%s, %s, %s) {_ALONE}"
ADD_UP_TALLIES = f"SELECT pgclip.add_up_tallies(%s) {_ALONE}"
RETIRED_QUEUES = f"SELECT pgclip.retired_queues() {_ALONE}"
IS_NO_LEISURE = """
    SELECT coalesce(bool_or(queued >= most), false) OR EXISTS (
        SELECT FROM pgclip.model m JOIN pgclip.model_walk w ON w.model_id = m.id
        WHERE m.state = 'retired')
    FROM (SELECT %s::int) AS given (most), pgclip.backlog(most)
"""
BACKLOG = f"SELECT queue, queued, workers FROM pgclip.backlog(%s) {_ALONE}"

# One at a time too, but not the steward's turn: pages of a table take long. The lock is had before
# the function is called, and that is called once.
FOLLOW_TABLES = """
    SELECT (f).tables, (f).did, (f).submitted, (f).queues
    FROM (SELECT pgclip.follow_tables() AS f
          WHERE pg_try_advisory_xact_lock(7311994465) OFFSET 0) followed
"""

# For metrics: every model's jobs by state, those that wait counted up to a limit, and the age of
# the oldest. A rank may lie in the future.
QUEUE = """
    SELECT m.name, q.state, q.jobs,
           coalesce(greatest(0, extract(epoch FROM clock_timestamp() - q.oldest)), 0)::float
    FROM pgclip.model m CROSS JOIN LATERAL (
        SELECT 'queued' AS state,
               (SELECT count(*) FROM (SELECT FROM pgclip.job j WHERE j.model_id = m.id
                                      AND j.lease IS NULL AND j.not_before IS NULL
                                      LIMIT %(most)s) counted) AS jobs,
               (SELECT min(j.rank) FROM pgclip.job j
                WHERE j.model_id = m.id AND j.lease IS NULL
                  AND j.not_before IS NULL) AS oldest
        UNION ALL
        SELECT 'leased', count(*), min(j.rank) FROM pgclip.job j
        WHERE j.model_id = m.id AND j.lease IS NOT NULL
        UNION ALL
        SELECT 'delayed', (SELECT count(*) FROM (
                   SELECT FROM pgclip.job j WHERE j.model_id = m.id
                   AND j.not_before IS NOT NULL LIMIT %(most)s) counted), NULL
    ) q WHERE m.state <> 'retired'
"""

# For metrics: segments by state, and the vectors that have no index yet.
SEGMENTS = """
    SELECT m.name, pgclip.unindexed(m.id),
           (SELECT count(*) FROM pgclip.segment s WHERE s.model_id = m.id AND s.state = 'sealed')
    FROM pgclip.model m WHERE m.state <> 'retired' AND m.dimension IS NOT NULL
"""

LISTEN_QUERIES = "LISTEN pgclip_query"
QUERY_WAITS = "SELECT pgclip.query_waits(%s::smallint)"
TAKE_QUERIES = "SELECT kind, hash, data FROM pgclip.take_queries(%s::smallint, %s)"
ANSWER_QUERY = "SELECT pgclip.answer_query(%s::smallint, %s, %s, %s, %s)"
REFUSE_QUERY = "SELECT pgclip.refuse_query(%s::smallint, %s, %s, %s)"
