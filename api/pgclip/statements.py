"""Every SQL statement of the client."""

SUBMIT_IMAGE = """
    SELECT item_id, item_key, generation, pgclip.ticket_queues()
    FROM pgclip.submit_image(key => %s, image => %s, source => %s, collection => %s,
                             metadata => %s::jsonb)
"""
SUBMIT_TEXT = """
    SELECT item_id, item_key, generation, pgclip.ticket_queues()
    FROM pgclip.submit_text(key => %s, body => %s, collection => %s, metadata => %s::jsonb)
"""
OPEN_STAGING = "SELECT pgclip.open_staging()"
STAGED = "pg_temp.staged_submission (place, collection, key, kind, data, source, metadata)"
SUBMIT_STAGED = "SELECT place, item_id, key, generation, error FROM pgclip.submit_staged()"
TICKET_QUEUES = "SELECT pgclip.ticket_queues()"

DELETE = "SELECT pgclip.delete(%s, %s)"

# The state of a submission: its item's, unless a later one has superseded it or it was deleted.
JOB_STATE = """
    SELECT i.state, i.reason, i.error, i.generation FROM pgclip.items i WHERE i.id = %s
"""
# Those of a batch that have not ended, and why those failed that did.
BATCH_STATES = """
    SELECT b.item_id, i.state, i.reason, i.error
    FROM unnest(%s::bigint[], %s::int[]) b(item_id, generation)
    JOIN pgclip.items i ON i.id = b.item_id AND i.generation = b.generation
    WHERE i.state <> 'done'
"""
GET_ITEM = """
    SELECT pgclip.labels_of(i.id), ARRAY(SELECT v::real[] FROM pgclip.vectors_of(i.id) v),
           i.key, i.collection, i.kind, i.state, i.reason, i.error, i.source, i.metadata,
           i.created_at, i.updated_at
    FROM pgclip.items i WHERE i.collection = %s AND i.key = %s
"""

EMBED_TEXT = "CALL pgclip.embed(query => %s, timeout => make_interval(secs => %s))"
EMBED_IMAGE = "CALL pgclip.embed(image => %s, timeout => make_interval(secs => %s))"
SEARCH_TEXT = "SELECT * FROM pgclip.search(%s, %s, %s, %s)"
SEARCH_IMAGE = "SELECT * FROM pgclip.search_image(%s, %s, %s, %s)"
SIMILAR = """
    SELECT * FROM pgclip.similar(%s, %s, of_collection => %s, collection => %s, kind => %s)
"""
DEFINE_LABEL_SET = """
    SELECT pgclip.define_label_set(%s, %s, coalesce(%s, ARRAY['a photo of a {}']), %s, %s, %s, %s)
"""
DROP_LABEL_SET = "SELECT pgclip.drop_label_set(%s)"
KEYS = "SELECT id, key FROM pgclip.item WHERE id = ANY(%s)"
