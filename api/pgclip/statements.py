"""Every SQL statement of the client."""

SUBMIT_IMAGE = """
    SELECT item_id, item_key, generation, pgclip.ticket_queues()
    FROM pgclip.submit_image(key => %s, image => %s, source => %s, collection => %s,
                             metadata => %s::jsonb, priority => %s, keep_source => %s)
"""
SUBMIT_TEXT = """
    SELECT item_id, item_key, generation, pgclip.ticket_queues()
    FROM pgclip.submit_text(key => %s, body => %s, collection => %s, metadata => %s::jsonb,
                            priority => %s, keep_source => %s)
"""
OPEN_STAGING = "SELECT pgclip.open_staging()"
STAGED = (
    "pg_temp.staged_submission "
    "(place, collection, key, kind, data, source, metadata, priority, keep_source, merge)"
)
SUBMIT_STAGED = "SELECT place, item_id, key, generation, error FROM pgclip.submit_staged()"
# In a transaction of the caller's, on any driver: so no "::", which SQLAlchemy takes for a name.
SUBMIT_BATCH = """
    SELECT b.place, b.item_id, b.key, b.generation, b.error
    FROM pgclip.submit_batch(
        CAST(%s AS text[]), CAST(%s AS text[]), CAST(%s AS bytea[]), CAST(%s AS text[]),
        CAST(%s AS text[]), CAST(%s AS text[]), CAST(%s AS int[]), CAST(%s AS boolean[])) b
"""
MERGE_BATCH = SUBMIT_BATCH.replace("submit_batch", "merge_batch")
TRANSACTION = "SELECT CAST(pg_current_xact_id() AS text), pgclip.ticket_queues()"
# "in progress", "committed", "aborted", or NULL if it is too long ago.
TRANSACTION_STATE = "SELECT pg_xact_status(%s::xid8)"
TICKET_QUEUES = "SELECT pgclip.ticket_queues()"

UPDATE_METADATA = """
    SELECT pgclip.update_metadata(%s, %s, CAST(%s AS jsonb), CAST(%s AS text[]))
"""
RENAME = "SELECT pgclip.rename(%s, %s, %s)"
NOTE_FILES = "SELECT pgclip.note_files(%s, %s, %s, %s)"
PRUNE_FILES = "SELECT pgclip.prune_files(%s, %s, %s)"
FILES_BELOW = "SELECT path, key, content_hash FROM pgclip.files_below(%s, %s, %s, %s, %s)"

WAITING = "SELECT pgclip.waiting(%s)"

DELETE = "SELECT pgclip.delete(%s, %s)"
LIST_ITEMS = """
    SELECT i.id, i.key, i.collection, i.kind, i.state, i.reason, i.error, i.source, i.metadata,
           i.kept, i.content_hash, i.created_at, i.updated_at, d.retry_at
    FROM pgclip.list_items(%s, %s, %s, %s, %s::jsonb, %s::text[], filter => %s::jsonb,
                           after => %s, "limit" => %s) i
    LEFT JOIN pgclip.delayed d ON d.item_id = i.id ORDER BY i.id
"""
FAILURES = "SELECT model, reason, items FROM pgclip.failures ORDER BY items DESC, model, reason"
DELETE_DUPLICATES = "SELECT collection, key FROM pgclip.delete_duplicates(%s::jsonb, %s::jsonb)"
COUNT_ITEMS = """
    SELECT state, items FROM pgclip.count_items(
        collection => %s, kind => %s, state => %s, reason => %s, metadata => %s::jsonb,
        keys => %s::text[])
"""
COLLECTIONS = """
    SELECT name, items, images, texts, queued, leased, done, failed, updated_at
    FROM pgclip.collections ORDER BY name
"""
RETRY = """
    SELECT affected, last_id, pgclip.ticket_queues()
    FROM pgclip.retry(%s, %s, %s, %s::jsonb, %s::text[], after => %s, "limit" => %s)
"""
CANCEL = """
    SELECT affected, last_id
    FROM pgclip.cancel(%s, %s, %s::jsonb, %s::text[], after => %s, "limit" => %s)
"""
DELETE_ITEMS = """
    SELECT affected, last_id
    FROM pgclip.delete_items(%s, %s, %s, %s, %s::jsonb, %s::text[], after => %s, "limit" => %s)
"""
CONTENT = "SELECT pgclip.content_of(%s, %s)"
THUMBNAIL = "SELECT data FROM pgclip.thumbnails WHERE key = %s AND collection = %s"
CONTENT_SIZES = "SELECT item_id, bytes FROM pgclip.content_sizes(%s::bigint[])"
THUMBNAILS = "SELECT item_id, data FROM pgclip.thumbnails_of(%s::bigint[])"

LISTEN_SETTLED = "LISTEN pgclip_settled"
UNLISTEN = "UNLISTEN *"
# Those that have not ended, of generations that are waited for.
UNENDED = """
    SELECT w.item_id, w.generation
    FROM unnest(%s::bigint[], %s::int[]) w(item_id, generation)
    JOIN pgclip.items i ON i.id = w.item_id AND i.generation = w.generation
    WHERE i.state IN ('queued', 'leased')
"""

# The state of a submission: its item's, unless a later one has superseded it or it was deleted.
JOB_STATE = """
    SELECT i.state, i.reason, i.error, i.generation FROM pgclip.items i WHERE i.id = %s
"""
# Those of a batch that have not ended, and why those failed that did.
BATCH_STATES = """
    SELECT b.item_id, b.generation, i.state, i.reason, i.error
    FROM unnest(%s::bigint[], %s::int[]) b(item_id, generation)
    JOIN pgclip.items i ON i.id = b.item_id AND i.generation = b.generation
    WHERE i.state <> 'done' ORDER BY b.item_id
"""
GET_ITEM = """
    SELECT pgclip.labels_of(i.id), ARRAY(SELECT v::real[] FROM pgclip.vectors_of(i.id) v),
           i.key, i.collection, i.kind, i.state, i.reason, i.error, i.source, i.metadata,
           i.kept, i.content_hash, i.created_at, i.updated_at, d.retry_at
    FROM pgclip.items i LEFT JOIN pgclip.delayed d ON d.item_id = i.id
    WHERE i.collection = %s AND i.key = %s
"""

REQUEST_EMBEDDING = "SELECT pgclip.request_embedding(query => %s, image => %s, model => %s)"
IS_EMBEDDED = "SELECT pgclip.is_embedded(%s, %s, %s)"
RAISE_UNANSWERED = "SELECT pgclip.raise_unanswered(make_interval(secs => %s), %s)"
FORGET_QUERIES = "SELECT pgclip.forget_queries(%s, %s)"
DROP_COLLECTION = "SELECT pgclip.drop_collection(%s)"
_NARROWED = "k => %s::int, collection => %s, kind => %s, filter => %s::jsonb"
_OPTIONS = f"""{_NARROWED}, min_score => %s::real, min_relevance => %s::real,
    exact => %s::boolean, recall => %s::real, after_score => %s::real, after_item => %s,
    model => %s"""
_COLUMNS = """item_id, collection, key, kind, score, source, metadata, labels, relevance, snippet,
    pgclip.failure_of(item_id)"""
_HIT = f"{_COLUMNS}, pgclip.is_mapped(item_id)"
_HIT_OF_MODEL = f"{_COLUMNS}, pgclip.is_mapped(item_id, %s)"
SEARCH_TEXT = f"SELECT {_HIT_OF_MODEL} FROM pgclip.search(%s, {_OPTIONS})"
SEARCH_IMAGE = f"SELECT {_HIT_OF_MODEL} FROM pgclip.search_image(%s, {_OPTIONS})"
SIMILAR = f"SELECT {_HIT_OF_MODEL} FROM pgclip.similar(%s, of_collection => %s, {_OPTIONS})"
SEARCH_VECTOR = f"""
    SELECT {_HIT_OF_MODEL}
    FROM pgclip.search_vector(pgclip.as_vector(%s), {_OPTIONS}, query_kind => %s)
"""
TEXT_EMBEDDING = "pgclip.query_embedding(%s, model => %s)"
IMAGE_EMBEDDING = "pgclip.query_embedding(image => %s, model => %s)"
ITEM_EMBEDDING = "pgclip.item_embedding(%s, %s, %s)"
SEARCH_WEIGHTED = f"""
    SELECT {_HIT_OF_MODEL}
    FROM pgclip.search_vector(pgclip.weigh(ARRAY[{{}}], %s), {_OPTIONS}, query_kind => %s)
"""
HYBRID = f"""
    SELECT {_HIT}, vector_rank, text_rank, fused
    FROM pgclip.hybrid(%s, {_NARROWED}, depth => %s::int)
"""
DUPLICATES_OF = """
    SELECT item_id, collection, key, kind, tier, score
    FROM pgclip.duplicates_of(%s, %s, %s, %s::real, %s::real, %s::int)
"""
DUPLICATE_GROUPS = """
    SELECT "group", item_id, item_collection, key, item_kind, tier, score
    FROM pgclip.duplicate_groups(%s, %s, %s::real, %s::real, %s::int)
"""
CALIBRATE = "SELECT pgclip.calibrate(%s::int)"
SET_CALIBRATION = "SELECT pgclip.set_calibration(%s, %s, %s::real, %s::real)"
CALIBRATIONS = """
    SELECT model, query_kind, item_kind, midpoint, slope, mean, deviation
    FROM pgclip.calibrations ORDER BY model, query_kind, item_kind
"""
INDEX_METADATA = "SELECT pgclip.index_metadata(%s)"
DROP_METADATA_INDEX = "SELECT pgclip.drop_metadata_index(%s)"
CONFIGURE_TEXT_SEARCH = "SELECT pgclip.configure_text_search(%s::regconfig, %s::text[])"
# Milliseconds, for the transaction.
LOCAL_TIMEOUT = "SELECT set_config('statement_timeout', %s, true)"
DEFINE_LABEL_SET = """
    SELECT pgclip.define_label_set(
        %s, %s, coalesce(%s, ARRAY['a photo of a {}']), %s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s,
        %s)
"""
LABEL_SETS = """
    SELECT s.name, array_agg(l.name ORDER BY l.position) FILTER (WHERE NOT l.is_background),
           s.templates, s.top_k, s.threshold, s.applies_to, s.active, s.version, s.exclusive,
           coalesce(array_agg(l.name ORDER BY l.position) FILTER (WHERE l.is_background), '{}'),
           coalesce(jsonb_object_agg(l.name, l.forms) FILTER (WHERE l.forms <> '{}'), '{}'),
           s.collections, s.relabels, s.teaching, s.decides
    FROM pgclip.label_set s JOIN pgclip.label l ON l.set_id = s.id AND l.archived_at IS NULL
    GROUP BY s.id ORDER BY s.name
"""
LABEL_TEMPLATES = "SELECT pgclip.label_templates(%s)"
BACKGROUND_WORDS = "SELECT pgclip.background_words()"
RELABEL = "SELECT pgclip.relabel(%s, %s)"
JUDGE = "SELECT pgclip.judge(%s, %s, %s, %s, %s, %s, content_hash => %s)"
JUDGE_MANY = "SELECT place, refused FROM pgclip.judge_many(%s::jsonb)"
JUDGEMENTS = """
    SELECT set, label, collection, key, kind, value, judge, judged_at,
           encode(content_hash, 'hex'), counts, is_archived
    FROM pgclip.judgements
    WHERE (%s::text IS NULL OR set = %s) ORDER BY judged_at, set, label, collection, key, judge
"""
REQUEST_TEACHING = "SELECT pgclip.request_teaching(%s, %s, %s, %s)"
REQUEST_EVALUATION = "SELECT pgclip.request_evaluation(%s, %s, %s, %s, %s, %s)"
_PROMISE = """
    set, label, what, share, confidence, opinions, state, model, head_version, threshold, bound,
    judged, "right", decides, contents, coverage, lacking, begun_at, kept_at
"""
PROMISE = f"""
    SELECT {_PROMISE} FROM pgclip.promise(
        %s, %s, %s, %s, confidence => %s, opinions => %s, judgements => %s)
"""
PROMISES = f"""
    SELECT {_PROMISE} FROM pgclip.promises
    WHERE (%s::text IS NULL OR set = %s) AND (%s::text IS NULL OR label = %s)
    ORDER BY set, label, what
"""
IS_LABEL = """
    SELECT EXISTS (SELECT FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
                   WHERE s.name = %s AND (%s::text IS NULL OR l.name = %s))
"""
WITHDRAW_PROMISE = "SELECT pgclip.withdraw_promise(%s, %s, %s)"
REVIEW = """
    SELECT item_id, collection, key, kind::text, label, purpose, score, content_hash
    FROM pgclip.review(%s, %s, %s, %s, %s)
"""
LEAVE_UNSURE = "SELECT pgclip.leave_unsure(%s, %s, %s, %s, %s, %s)"
DECISIONS = """
    SELECT item_id, collection, key, kind::text, set, label, decision, score, rests_on, share,
           confidence, threshold, head_version, decided_at
    FROM pgclip.decisions(%s, %s, %s, %s, %s, %s, %s)
"""
JUDGEMENTS_OF = """
    SELECT set, label, collection, key, kind, value, judge, judged_at,
           encode(content_hash, 'hex'), counts, is_archived
    FROM pgclip.judgements
    WHERE key = %s AND collection = %s AND counts AND NOT is_archived ORDER BY set, label, judge
"""
DECISIONS_OF = """
    SELECT item_id, collection, key, kind::text, set, label, decision, score, rests_on, share,
           confidence, threshold, head_version, decided_at
    FROM pgclip.decisions WHERE key = %s AND collection = %s ORDER BY set, label
"""
DECISION_CHANGES = """
    SELECT position, item_id, collection, key, set, label, was, now, changed_at
    FROM pgclip.decision_changes(%s, %s)
"""
LABEL_RESULT = "SELECT pgclip.label_result(%s)"
DROP_LABEL_SET = "SELECT pgclip.drop_label_set(%s)"
KEYS = "SELECT id, key FROM pgclip.item WHERE id = ANY(%s)"

# For `pgclip up`, `status` and `doctor`.
WORKER_ALIVE = "SELECT EXISTS (SELECT FROM pgclip.workers WHERE pid = %s AND alive)"
STATUS_RELABELINGS = "SELECT model, labelled, share FROM pgclip.relabelings ORDER BY model"
STATUS_QUEUE = """
    SELECT model, state, jobs, greatest(0, extract(epoch FROM now() - oldest))::float
    FROM pgclip.queue ORDER BY model, state
"""
# The age of the oldest change is in seconds.
STATUS_TABLES = """
    SELECT relation::text, collection, state, rows, items, waiting, changes,
           extract(epoch FROM clock_timestamp() - oldest_change)::float, failed, filled::float,
           trouble
    FROM pgclip.tables ORDER BY relation::text, collection
"""
STATUS_WORKERS = """
    SELECT id, host, pid, model, device, precision, batch_size, alive, jobs,
           extract(epoch FROM clock_timestamp() - heartbeat_at)::float, trouble
    FROM pgclip.workers ORDER BY id
"""
# Of a host, and of one process there if it is named; the one that lives longest comes first.
WORKERS_OF = """
    SELECT id, pid, alive, extract(epoch FROM clock_timestamp() - started_at)::float,
           extract(epoch FROM clock_timestamp() - heartbeat_at)::float, jobs, trouble
    FROM pgclip.workers WHERE host = %s AND (%s::int IS NULL OR pid = %s)
    ORDER BY heartbeat_at DESC, id DESC
"""

MISSING = """
    SELECT m.item_id, m.collection, m.key, m.kind, m.model, m.label_set, m.reason, m.error
    FROM pgclip.missing m WHERE %s::text IS NULL OR m.collection = %s
    ORDER BY m.item_id, m.model, m.label_set NULLS FIRST LIMIT %s
"""
HEALABLE = "SELECT vectors, labels FROM pgclip.healable()"
HEAL = """
    SELECT jobs, relabeled, last_id, pgclip.ticket_queues()
    FROM pgclip.heal(after => %s, "limit" => %s)
"""
# The rate is of items a second that its workers have stored of late.
STATUS_MODELS = """
    SELECT name, state::text, dimension, items, jobs, failures, coalesce(rate, 0)::float
    FROM pgclip.models
"""
STATUS_SEGMENTS = """
    SELECT model, (sum(vectors) FILTER (WHERE state IN ('hot', 'closed')))::bigint,
           count(*) FILTER (WHERE state = 'sealed')
    FROM pgclip.segments GROUP BY model
"""
# Those whose segments are kept in order, as workers do for their own.
MODELS_WITH_SEGMENTS = """
    SELECT id FROM pgclip.model WHERE state <> 'retired' AND dimension IS NOT NULL ORDER BY id
"""
SERVER = """
    SELECT current_setting('server_version_num')::int, current_setting('server_version'),
           pg_is_in_recovery(),
           (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
           (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
"""
# Vectors of items, one row each, in a form that all drivers read.
EXPORT = """
    SELECT i.id, i.key, i.collection, i.kind::text, i.source, i.metadata, pgclip.labels_of(i.id),
           ARRAY(SELECT v::real[] FROM pgclip.vectors_of(i.id) v)
    FROM pgclip.list_items(%s, %s, 'done', NULL, %s::jsonb, after => %s, "limit" => %s) i
"""

# Models, and changing them.
MODELS = """
    SELECT name, state, dimension, items, lacking, jobs, failures, paused, pace, workers, rate,
           bytes, recall, mapped, created_at, replaced_at, kept_until
    FROM pgclip.models ORDER BY created_at, name
"""
PLAN_MODEL = """
    SELECT items, images, texts, not_kept, bytes, rate, seconds FROM pgclip.plan_model(%s)
"""
# Where Postgres keeps its data, if that is on this machine and the role may know.
DATA_FOLDER = """
    SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                 AND (inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8'
                      OR inet_server_addr() = '::1')
                THEN current_setting('data_directory') END
"""
ADD_MODEL = "SELECT pgclip.add_model(%s, %s::real, %s, %s::real)"
READINESS = "SELECT what, is_ready, detail FROM pgclip.readiness(%s, %s::real)"
PROMOTE_MODEL = "SELECT pgclip.promote_model(%s, %s::real, %s::interval, %s)"
ROLLBACK_MODEL = "SELECT model, lacking FROM pgclip.rollback_model(%s, %s::interval)"
RETIRE_MODEL = "SELECT pgclip.retire_model(%s, %s)"
DROP_MODEL = "SELECT pgclip.drop_model(%s, %s)"
CANCEL_MODEL = "SELECT pgclip.cancel_model(%s)"
PAUSE_MODEL = "SELECT pgclip.pause_model(%s)"
RESUME_MODEL = "SELECT pgclip.resume_model(%s)"
PACE_MODEL = "SELECT pgclip.pace_model(%s, %s::real)"
MODEL_MAPS = """
    SELECT model, source, state, why, query_kind::text, kind::text, filled, contents, queries,
           asked, recall, bound, judged_at
    FROM pgclip.model_maps ORDER BY model, judged_at, query_kind, kind
"""
COMPARE_MODELS = """
    SELECT asked, query_kind::text, collection, query, overlap, old_items, old_keys, old_scores,
           old_seconds, new_items, new_keys, new_scores, new_seconds
    FROM pgclip.compare_models(%s, %s, %s, %s, %s, %s) ORDER BY nth
"""
LIVE_MODEL = "SELECT name FROM pgclip.model WHERE state = 'live'"
JUDGED_SETS = "SELECT DISTINCT set FROM pgclip.judgements WHERE counts ORDER BY set"

# What searches find. One process at a time, for as long as it takes; the number is arbitrary.
MEASURE_RECALL = """
    SELECT pgclip.measure_recall(%s::smallint, %s::real)
    WHERE pg_try_advisory_xact_lock(731199449, 1)
"""
RECALL = """
    SELECT model, query_kind, kind, share::float, queries, asked, recall, met_nothing, effort,
           promise, looked_at
    FROM pgclip.recall WHERE queries > 0 ORDER BY model, query_kind, kind, share DESC
"""
# Asking about one thing: an item by key and collection, a text, or a picture.
# Those that are not there yet; asked for in an order that all keep, or two who ask for the same
# would wait for each other.
REQUEST_EMBEDDINGS = """
    SELECT q
    FROM (SELECT q, pgclip.request_embedding(q) AS is_there
          FROM (SELECT DISTINCT q FROM unnest(%s::text[]) q ORDER BY q) ordered OFFSET 0) asked
    WHERE NOT is_there
"""
PROMPTS = "SELECT pgclip.prompts(%s::text[], %s)"
QUESTION_PROMPTS = "SELECT pgclip.question_prompts(answers => %s::text[], question => %s)"
SIMILARITY = """
    SELECT score, relevance FROM pgclip.similarity(
        key => %s, collection => %s, query => %s, image => %s,
        with_key => %s, with_collection => %s, with_query => %s, with_image => %s)
"""
CLASSIFY = """
    SELECT probabilities FROM pgclip.classify(
        key => %s, collection => %s, query => %s, image => %s, labels => %s::text[],
        template => %s)
"""
CLASSIFY_ITEMS = """
    SELECT item_id, collection, key, label, probability, probabilities FROM pgclip.classify(
        labels => %s::text[], template => %s, collection => %s, kind => %s, filter => %s::jsonb,
        after => %s, "limit" => %s)
"""
ANSWER = """
    SELECT answer, probability FROM pgclip.answer(
        key => %s, collection => %s, query => %s, image => %s, question => %s,
        answers => %s::text[])
"""
CAPTIONS = f"""
    SELECT {_HIT} FROM pgclip.captions(
        key => %s, collection => %s, k => %s, image => %s, of_collection => %s)
"""

# Tables that are kept in step.
INDEX_TABLE = """
    SELECT pgclip.index_table(CAST(%s AS regclass), images => CAST(%s AS text[]),
        texts => CAST(%s AS text[]), metadata => CAST(%s AS text[]),
        condition => CAST(%s AS text), collection => CAST(%s AS text), priority => %s,
        replicated => %s)
"""
UNINDEX_TABLE = "SELECT pgclip.unindex_table(%s::regclass, %s, %s)"
TABLES = """
    SELECT relation::text, collection, columns, state, rows, items, waiting, changes,
           oldest_change, failed, filled, trouble
    FROM pgclip.tables ORDER BY relation::text, collection
"""
MISSING_ROWS = """
    SELECT in_collection, key, part, reason, place::text
    FROM pgclip._missing_page(%s::regclass, %s, %s::jsonb)
"""
TABLE_NAMED = "SELECT to_regclass(%s)::text"
SEARCH_ROWS = f"""
    SELECT (r.hit).*, r.score, r.relevance, r.part, r.key
    FROM pgclip.search_rows(NULL::{{table}}, {{given}} => %s, {_NARROWED},
        min_score => %s::real, min_relevance => %s::real, recall => %s::real) r
"""

# Segments of vectors. One process at a time for each model; the number is arbitrary.
SEGMENTS_LOCK = "SELECT pg_try_advisory_xact_lock(731199448, %s)"
CLOSE_SEGMENT = "SELECT pgclip.close_segment(%s::smallint, %s)"
NEXT_BUILD = "SELECT pgclip.next_build(%s::smallint, %s, %s, %s, %s)"
# Whether nobody waits for it: all have an index, and fewer than the most that there may be.
BUILDS_AT_LEISURE = """
    WITH own AS (SELECT number, state FROM pgclip.segment WHERE model_id = %s)
    SELECT count(*) FILTER (WHERE state = 'sealed') < %s
       AND bool_and(state = 'sealed') FILTER (WHERE number = ANY(%s)) FROM own
"""
BUILD_SEGMENT = "SELECT pgclip.build_segment(%s::smallint, %s, %s, %s)"
ANNOUNCE_SEGMENTS = "SELECT pgclip.announce_segments(%s::smallint)"
EXCHANGE_SEGMENTS = "SELECT pgclip.exchange_segments(%s::smallint)"
DROP_RETIRED = "SELECT pgclip.drop_retired(%s::smallint, make_interval(secs => %s))"
UNINDEXED = "SELECT pgclip.unindexed(%s::smallint)"
# Bytes that searches read: indexes of sealed segments, tables of the others; and shared buffers.
SEARCHED_BYTES = """
    SELECT coalesce(sum(CASE state WHEN 'sealed' THEN index_bytes ELSE table_bytes END), 0)::bigint,
           pg_size_bytes(current_setting('shared_buffers'))
    FROM pgclip.segments WHERE state <> 'retired'
"""
SEGMENTS = """
    SELECT model, number, state, kind, vectors, table_bytes, index_bytes, created_at, retired_at
    FROM pgclip.segments ORDER BY model, number
"""
