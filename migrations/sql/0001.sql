-- What holds data. @vector@ stands for the schema that holds the vector extension.

CREATE TYPE pgclip.kind AS ENUM ('image', 'text');
CREATE TYPE pgclip.model_state AS ENUM ('live', 'filling', 'retired');

-- Names this installation, so that two databases may share one Redis without sharing queues.
CREATE TABLE pgclip.installation (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO pgclip.installation DEFAULT VALUES;

-- Functions, views, triggers and types that can be replaced, as they were laid: what they were laid
-- from, and what the catalogs said of them then. Hashes of texts.
CREATE TABLE pgclip.definition (
    name   text PRIMARY KEY,
    source text NOT NULL,
    found  text NOT NULL
);

-- Roles that have been given access, so that they are given it again for what is new.
CREATE TABLE pgclip.access (
    role   text NOT NULL,
    access text NOT NULL CHECK (access IN ('client', 'worker')),
    PRIMARY KEY (role, access)
);

CREATE TABLE pgclip.model (
    id          smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name <> ''),
    state       pgclip.model_state NOT NULL,
    dimension   int CHECK (dimension BETWEEN 1 AND 4000),
    logit_scale real,
    fingerprint jsonb,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX model_one_live ON pgclip.model ((true)) WHERE state = 'live';

-- Segments of a model's vectors; their tables are made as they come (schema/segments.sql).
CREATE TABLE pgclip.segment (
    model_id   smallint NOT NULL REFERENCES pgclip.model,
    number     int NOT NULL,
    -- hot: takes new vectors. closed: takes none, has no index yet. sealed: has its index. copied:
    -- a copy of "sources". built: one from which deletions are made as well, about to take their
    -- place. retired: replaced; dropped a while later.
    state      text NOT NULL
               CHECK (state IN ('hot', 'closed', 'sealed', 'copied', 'built', 'retired')),
    kind       pgclip.kind,  -- of what has an index; NULL: both
    rows       bigint,       -- when its index was built
    sources    int[],
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    PRIMARY KEY (model_id, number)
);
CREATE UNIQUE INDEX segment_one_hot ON pgclip.segment (model_id) WHERE state = 'hot';
CREATE UNIQUE INDEX segment_built ON pgclip.segment (model_id, kind)
    WHERE state IN ('copied', 'built');
CREATE SEQUENCE pgclip.vector_id;

CREATE TABLE pgclip.collection (
    id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What was submitted inline, once per content. The hash is SHA-256 of the bytes (a text's are
-- its UTF-8). Pictures are compressed already, so they are stored out of line as they are. No
-- data: they were dropped once they were encoded.
CREATE TABLE pgclip.content (
    kind pgclip.kind NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    size int NOT NULL,
    data bytea STORAGE EXTERNAL,
    PRIMARY KEY (kind, hash)
);

-- An item has its content inline (content_hash) or elsewhere (source). The generation counts
-- its contents: what belongs to an older one is superseded.
CREATE TABLE pgclip.item (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id int NOT NULL REFERENCES pgclip.collection,
    key           text NOT NULL,
    kind          pgclip.kind NOT NULL,
    content_hash  bytea,
    source        text,
    metadata      jsonb NOT NULL DEFAULT '{}',
    generation    int NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    keep_source   boolean NOT NULL DEFAULT true,
    UNIQUE (collection_id, key),
    FOREIGN KEY (kind, content_hash) REFERENCES pgclip.content,
    CHECK ((content_hash IS NULL) <> (source IS NULL))
);
CREATE INDEX item_content ON pgclip.item (content_hash) WHERE content_hash IS NOT NULL;
CREATE INDEX item_metadata ON pgclip.item USING gin (metadata jsonb_path_ops);
CREATE INDEX item_created ON pgclip.item (created_at);

-- Paths in metadata that have an index of their own, so that ranges of them are found by it.
CREATE TABLE pgclip.metadata_index (
    path text PRIMARY KEY,
    name text NOT NULL
);

-- Contents that an item let go of. The steward deletes those that no item refers to; the
-- foreign key makes that safe beside a submission of the same content.
CREATE TABLE pgclip.content_release (
    kind pgclip.kind NOT NULL,
    hash bytea NOT NULL
);

-- The ledger: which vectors are an item's current ones, and of which label epoch its labels are.
-- The only authority on that. A model with vectors has a segment, which keeps it from being
-- deleted; so there is no foreign key to it, which would be looked up for each item stored.
CREATE TABLE pgclip.embedding_set (
    item_id      bigint NOT NULL REFERENCES pgclip.item ON DELETE CASCADE,
    model_id     smallint NOT NULL,
    generation   int NOT NULL,
    kind         pgclip.kind NOT NULL,
    content_hash bytea NOT NULL,
    vector_ids   bigint[] NOT NULL CHECK (cardinality(vector_ids) > 0),
    stored_at    timestamptz NOT NULL DEFAULT now(),
    label_epoch  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (item_id, model_id)
);
-- Every column that known_embeddings asks by: without statistics the planner takes a primary key
-- that ends in model_id for the better one, and reads all of it.
CREATE INDEX embedding_set_content ON pgclip.embedding_set (content_hash, model_id, item_id);

-- Why an item's generation has no vectors. Goes away when the item is submitted again.
CREATE TABLE pgclip.failure (
    item_id    bigint NOT NULL REFERENCES pgclip.item ON DELETE CASCADE,
    model_id   smallint NOT NULL REFERENCES pgclip.model,
    generation int NOT NULL,
    reason     text NOT NULL,
    message    text NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (item_id, model_id)
);

CREATE TABLE pgclip.worker (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id      smallint NOT NULL REFERENCES pgclip.model,
    host          text NOT NULL,
    pid           int NOT NULL,
    device        text NOT NULL,
    precision     text NOT NULL,
    batch_size    int NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL,
    -- Jobs it held when it was first found dead: only one that was alone is to blame.
    held_at_death int,
    -- What it says of itself, for a person to read.
    trouble       text
) WITH (fillfactor = 50);

-- Work to do: (item, model, generation). No lease: queued. A lease: a worker has it. Gone: the
-- ledger or a failure says how it ended.
CREATE TABLE pgclip.job (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id      bigint NOT NULL REFERENCES pgclip.item ON DELETE CASCADE,
    model_id     smallint NOT NULL REFERENCES pgclip.model,
    generation   int NOT NULL,
    kind         pgclip.kind NOT NULL,
    content_hash bytea,
    -- Order of claiming: time of submission, plus 30 s for each step of priority. Bulk work so
    -- yields to interactive work and is still reached in the end.
    rank         timestamptz NOT NULL,
    -- After a crash: the largest group it may run in, and how often it was alone in one.
    group_limit  smallint,
    strikes      smallint NOT NULL DEFAULT 0,
    worker_id    bigint,
    lease        uuid,
    UNIQUE (item_id, model_id),
    CHECK ((lease IS NULL) = (worker_id IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX job_queue ON pgclip.job (model_id, rank, id) WHERE lease IS NULL;
CREATE INDEX job_leased ON pgclip.job (worker_id, lease) WHERE lease IS NOT NULL;
CREATE INDEX job_leased_content ON pgclip.job (content_hash) WHERE lease IS NOT NULL;

-- Raised by every change of a label set; a store that labelled with an older one is refused.
CREATE TABLE pgclip.label_epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint NOT NULL DEFAULT 1
);
INSERT INTO pgclip.label_epoch DEFAULT VALUES;

-- Zero-shot labels. A label's vector is the normalised mean over the set's prompt templates.
CREATE TABLE pgclip.label_set (
    id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE CHECK (name <> ''),
    templates  text[] NOT NULL CHECK (cardinality(templates) > 0),
    top_k      int NOT NULL CHECK (top_k > 0),
    threshold  real NOT NULL CHECK (threshold >= 0 AND threshold <= 1),
    applies_to text NOT NULL CHECK (applies_to IN ('image', 'text', 'both')),
    active     boolean NOT NULL,
    version    int NOT NULL DEFAULT 1,
    -- In which it was last defined. An item whose labels are of an earlier one lacks them.
    epoch      bigint NOT NULL DEFAULT 0
);
CREATE TABLE pgclip.label (
    id       int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    set_id   int NOT NULL REFERENCES pgclip.label_set ON DELETE CASCADE,
    name     text NOT NULL CHECK (name <> ''),
    position int NOT NULL,
    UNIQUE (set_id, name)
);
CREATE TABLE pgclip.label_vector (
    label_id  int NOT NULL REFERENCES pgclip.label ON DELETE CASCADE,
    model_id  smallint NOT NULL REFERENCES pgclip.model,
    version   int NOT NULL,
    embedding real[] NOT NULL,
    PRIMARY KEY (label_id, model_id)
);
-- Without foreign keys, which would take more than half of a store's time: the store holds on to
-- the labels it writes, and triggers delete what belongs to a deleted label or ledger entry.
CREATE TABLE pgclip.item_label (
    item_id  bigint NOT NULL,
    model_id smallint NOT NULL,
    label_id int NOT NULL,
    version  int NOT NULL,
    score    real NOT NULL,
    PRIMARY KEY (item_id, model_id, label_id)
);
CREATE INDEX item_label_score ON pgclip.item_label (label_id, score);

-- Models whose items workers label anew, and how far they are.
CREATE TABLE pgclip.relabeling (
    model_id     smallint PRIMARY KEY REFERENCES pgclip.model,
    after_item   bigint NOT NULL DEFAULT 0,
    requested_at timestamptz NOT NULL DEFAULT now()
);

-- The sets that ship.
INSERT INTO pgclip.label_set (name, templates, top_k, threshold, applies_to, active, epoch) VALUES
    ('general', ARRAY['a photo of a {}', 'a picture of a {}', 'a drawing of a {}', 'a {}'],
     3, 0.1, 'both', true, 1),
    ('moderation', ARRAY['a photo of a {}', 'a picture of {}', '{}'], 2, 0.2, 'both', true, 1);
INSERT INTO pgclip.label (set_id, name, position)
SELECT s.id, l.name, l.position
FROM pgclip.label_set s CROSS JOIN unnest(CASE s.name
    WHEN 'general' THEN ARRAY[
        'person', 'face', 'animal', 'bird', 'fish', 'insect', 'plant', 'flower', 'fruit', 'meal',
        'drink', 'vehicle', 'boat', 'aircraft', 'building', 'landscape', 'sky',
        'sports equipment', 'musical instrument', 'piece of clothing', 'tool',
        'electronic device', 'document', 'sign', 'piece of furniture', 'toy', 'painting', 'logo']
    ELSE ARRAY[
        'safe everyday scene', 'nude body', 'bloody injury', 'weapon', 'drugs', 'hateful symbol']
    END) WITH ORDINALITY l(name, position)
ORDER BY s.id, l.position;

-- Queries waiting for a vector. Unlogged: whoever asks is still there to ask again.
CREATE UNLOGGED TABLE pgclip.query_request (
    model_id     smallint NOT NULL,
    kind         pgclip.kind NOT NULL,
    hash         bytea NOT NULL,
    data         bytea NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at     timestamptz,
    error        text,
    PRIMARY KEY (model_id, kind, hash)
);
-- Vectors of queries. Logged, so that search works on a read replica.
CREATE TABLE pgclip.query_vector (
    model_id   smallint NOT NULL REFERENCES pgclip.model,
    kind       pgclip.kind NOT NULL,
    hash       bytea NOT NULL,
    embedding  @vector@.halfvec NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model_id, kind, hash)
);
CREATE INDEX query_vector_age ON pgclip.query_vector (created_at);

CREATE TABLE pgclip.calibration (
    model_id   smallint NOT NULL REFERENCES pgclip.model,
    query_kind pgclip.kind NOT NULL,
    item_kind  pgclip.kind NOT NULL,
    midpoint   real NOT NULL,  -- the score of relevance 0.5
    slope      real NOT NULL CHECK (slope > 0),
    mean       real,  -- of unrelated pairs, if it was measured
    deviation  real,
    PRIMARY KEY (model_id, query_kind, item_kind)
);

-- How words are indexed, and the words.
CREATE TABLE pgclip.text_search (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    language regconfig NOT NULL DEFAULT 'pg_catalog.english',
    fields   text[] NOT NULL DEFAULT '{}'
);
INSERT INTO pgclip.text_search DEFAULT VALUES;
CREATE TABLE pgclip.item_text (
    item_id bigint PRIMARY KEY REFERENCES pgclip.item ON DELETE CASCADE,
    words   tsvector NOT NULL
);
CREATE INDEX item_text_words ON pgclip.item_text USING gin (words);
