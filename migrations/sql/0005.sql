-- Label sets whose labels exclude each other or stand alone, with words that are never given; heads
-- that were taught by what people said of contents; items are labelled anew by themselves.

-- All locks first, in the order in which a query takes them: views that will change, which a first
-- installation does not have yet, and then what they read.
DO $$
DECLARE
    v_view regclass;
BEGIN
    FOR v_view IN
        SELECT to_regclass('pgclip.' || name) FROM unnest(ARRAY['labels', 'missing']) name
        WHERE to_regclass('pgclip.' || name) IS NOT NULL
    LOOP
        EXECUTE format('LOCK TABLE %s', v_view);
    END LOOP;
END $$;
LOCK TABLE pgclip.label_set, pgclip.label, pgclip.relabeling;

ALTER TABLE pgclip.label_set
    ADD COLUMN exclusive boolean NOT NULL DEFAULT true,
    ADD COLUMN collections text[],                      -- NULL: all
    ADD COLUMN relabels boolean NOT NULL DEFAULT true,  -- whether a change labels items anew
    -- The version in which prompts changed last: label vectors of an older one are made anew.
    ADD COLUMN prompts_version int NOT NULL DEFAULT 1,
    -- The version in which labels, background, prompts or whether they exclude each other changed
    -- last: a teaching of an older one counts no more.
    ADD COLUMN words_version int NOT NULL DEFAULT 1,
    -- How often it was to be taught, and by what: {"truth", "collection", "sample"}.
    ADD COLUMN teaching int NOT NULL DEFAULT 0,
    ADD COLUMN lessons jsonb;
ALTER TABLE pgclip.label_set DISABLE TRIGGER USER;  -- nothing that labels items changes
UPDATE pgclip.label_set SET prompts_version = version, words_version = version;
ALTER TABLE pgclip.label_set ENABLE TRIGGER USER;

-- Archived: left out of its set, and kept with what people said of it.
ALTER TABLE pgclip.label
    ADD COLUMN forms text[] NOT NULL DEFAULT '{}',
    ADD COLUMN is_background boolean NOT NULL DEFAULT false,
    ADD COLUMN archived_at timestamptz;

-- Items whose labels are of an epoch before this one are labelled anew.
ALTER TABLE pgclip.relabeling
    ADD COLUMN epoch bigint NOT NULL DEFAULT 9223372036854775807,
    ADD COLUMN labelled bigint NOT NULL DEFAULT 0;

-- What a teaching has made of a set, by model: the scale of its logits, what it says of itself, and
-- the contents that it learnt from (kind and hash).
CREATE TABLE pgclip.label_teaching (
    set_id        int NOT NULL REFERENCES pgclip.label_set ON DELETE CASCADE,
    model_id      smallint NOT NULL REFERENCES pgclip.model,
    teaching      int NOT NULL,
    words_version int NOT NULL,
    scale         real NOT NULL,
    report        jsonb NOT NULL,
    contents      bytea[] NOT NULL,
    taught_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (set_id, model_id)
);

-- What decides for a label, or a word of the background, in the place of its prompts: a logit is
-- the inner product, times the teaching's scale, and the intercept. Of labels that don't exclude
-- each other the background's counts as often as "background" says.
CREATE TABLE pgclip.label_head (
    label_id   int NOT NULL REFERENCES pgclip.label ON DELETE CASCADE,
    model_id   smallint NOT NULL REFERENCES pgclip.model,
    embedding  real[] NOT NULL,
    intercept  real NOT NULL,
    background real NOT NULL DEFAULT 1,
    PRIMARY KEY (label_id, model_id)
);

-- What people said of contents: whether a label is right.
CREATE TABLE pgclip.judgement (
    label_id     int NOT NULL REFERENCES pgclip.label ON DELETE CASCADE,
    item_id      bigint NOT NULL REFERENCES pgclip.item ON DELETE CASCADE,
    content_hash bytea NOT NULL,
    judge        text NOT NULL,
    value        boolean NOT NULL,
    judged_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (label_id, item_id, content_hash, judge)
);
CREATE INDEX judgement_item ON pgclip.judgement (item_id);

-- Teaching and checking that somebody asked for; a worker of the model does it.
CREATE TABLE pgclip.label_task (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    set_id       int NOT NULL REFERENCES pgclip.label_set ON DELETE CASCADE,
    model_id     smallint NOT NULL REFERENCES pgclip.model,
    what         text NOT NULL CHECK (what IN ('teach', 'evaluate')),
    teaching     int,                          -- which of the set's
    truth        text,
    collection   text,
    sample       int NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    worker_id    bigint,
    attempts     smallint NOT NULL DEFAULT 0,
    done_at      timestamptz,
    result       jsonb,
    error        text,
    UNIQUE (set_id, model_id, teaching),
    CHECK ((what = 'teach') = (teaching IS NOT NULL))
);
