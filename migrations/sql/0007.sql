-- Changing the model while everything runs.

DO $$
DECLARE
    v_view regclass;
BEGIN
    FOR v_view IN
        SELECT to_regclass('pgclip.' || name) FROM unnest(ARRAY['missing', 'models']) name
        WHERE to_regclass('pgclip.' || name) IS NOT NULL
    LOOP
        EXECUTE format('LOCK TABLE %s', v_view);
    END LOOP;
END $$;
LOCK TABLE pgclip.model, pgclip.worker, pgclip.model_walk;

ALTER TABLE pgclip.model
    -- The newest item when it was added, or replaced: what it has to have for a promotion.
    ADD COLUMN last_item bigint NOT NULL DEFAULT 0,
    -- Nobody works for it, and no more is queued for what was there before; for one not live.
    ADD COLUMN is_paused boolean NOT NULL DEFAULT false,
    -- Items a second that are queued of what was there before; NULL: as many as workers take.
    ADD COLUMN pace real CHECK (pace > 0),
    -- When another was promoted in its place, and until when it is kept to be gone back to.
    ADD COLUMN replaced_at timestamptz,
    ADD COLUMN kept_until timestamptz,
    -- Replaced, and no worker serves it: nothing is queued for it until one comes.
    ADD COLUMN is_unattended boolean NOT NULL DEFAULT false,
    -- Contents of each kind that are encoded first, to learn a map; 0: none. And the share of the
    -- ten nearest that mapped answers have to find.
    ADD COLUMN calibrated_at timestamptz,  -- when that was tried before it was live
    ADD COLUMN map_sample int NOT NULL DEFAULT 20000 CHECK (map_sample >= 0),
    ADD COLUMN map_bound real NOT NULL DEFAULT 0.9 CHECK (map_bound > 0 AND map_bound <= 1);

UPDATE pgclip.model SET last_item = coalesce((SELECT max(id) FROM pgclip.item), 0)
WHERE state = 'filling';

ALTER TABLE pgclip.worker
    ADD COLUMN stored bigint NOT NULL DEFAULT 0,  -- items, since it started
    ADD COLUMN rate real,                         -- items a second, of late
    ADD COLUMN fastest real;                      -- its highest rate

ALTER TABLE pgclip.model_walk
    ADD COLUMN paced_to timestamptz,              -- until when its pace has been used
    ADD COLUMN with_model boolean NOT NULL DEFAULT true;  -- of one that goes: its row, too

-- How far the contents are drawn that a map of a kind is learnt from, in the order of their hashes.
CREATE TABLE pgclip.model_sample (
    model_id  smallint NOT NULL REFERENCES pgclip.model,
    kind      pgclip.kind NOT NULL,
    contents  int NOT NULL DEFAULT 0,
    last_hash bytea NOT NULL DEFAULT '',
    drawn_at  timestamptz,  -- when all were
    PRIMARY KEY (model_id, kind)
);

-- What becomes of a model's maps. waits: for the sample. answers: for what is not filled. refused:
-- it finds less than the bound. impossible: why says why.
CREATE TABLE pgclip.model_mapping (
    model_id  smallint PRIMARY KEY REFERENCES pgclip.model,
    source_id smallint NOT NULL REFERENCES pgclip.model,
    state     text NOT NULL CHECK (state IN ('waits', 'answers', 'refused', 'impossible')),
    why       text,
    filled    real NOT NULL DEFAULT 0,  -- the share that was when it was judged last
    look_at   timestamptz NOT NULL DEFAULT '-infinity'  -- how far it is, not before
);
-- A map of a kind's vectors from the space of the source into that of the model: x becomes
-- M x + shift, where the columns of M are the axes.
CREATE TABLE pgclip.model_map (
    model_id  smallint NOT NULL REFERENCES pgclip.model_mapping ON DELETE CASCADE,
    kind      pgclip.kind NOT NULL,
    shift     @vector@.halfvec NOT NULL,
    pairs     int NOT NULL,
    fitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model_id, kind)
);
CREATE TABLE pgclip.model_map_axis (
    model_id smallint NOT NULL,
    kind     pgclip.kind NOT NULL,
    nth      int NOT NULL,
    axis     @vector@.halfvec NOT NULL,
    PRIMARY KEY (model_id, kind, nth),
    FOREIGN KEY (model_id, kind) REFERENCES pgclip.model_map ON DELETE CASCADE
);
ALTER TABLE pgclip.model_map_axis ALTER COLUMN axis SET STORAGE PLAIN;
-- What mapped answers were found to find of the ten nearest, each time they were judged.
CREATE TABLE pgclip.model_map_judgement (
    model_id   smallint NOT NULL REFERENCES pgclip.model_mapping ON DELETE CASCADE,
    query_kind pgclip.kind NOT NULL,
    kind       pgclip.kind NOT NULL,
    filled     real NOT NULL,
    contents   int NOT NULL,
    queries    int NOT NULL,
    asked      int NOT NULL,
    recall     real NOT NULL,
    judged_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model_id, query_kind, kind, judged_at)
);
