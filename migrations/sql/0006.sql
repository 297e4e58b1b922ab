-- Labels that keep a promise: what was promised of them, the draws that it rests on, scores of
-- items, and changes of what is decided by them.

-- All locks first, in the order in which a query takes them: a view that will change, which a first
-- installation does not have yet, and then what it reads.
DO $$
BEGIN
    IF to_regclass('pgclip.labels') IS NOT NULL THEN
        LOCK TABLE pgclip.labels;
    END IF;
END $$;
LOCK TABLE pgclip.label_set, pgclip.label_teaching, pgclip.judgement, pgclip.label_task;

-- Its labels are decisions: nothing is said of an item before a promise or a person decides.
ALTER TABLE pgclip.label_set ADD COLUMN decides boolean NOT NULL DEFAULT false;
-- The set's version that the teaching has made: heads have that version.
ALTER TABLE pgclip.label_teaching ADD COLUMN version int NOT NULL DEFAULT 0;
UPDATE pgclip.label_teaching t SET version = s.version FROM pgclip.label_set s
WHERE s.id = t.set_id;
-- A field of the metadata by which an evaluation is told for groups of items.
ALTER TABLE pgclip.label_task ADD COLUMN groups text;
CREATE INDEX judgement_content ON pgclip.judgement (content_hash, label_id);

-- What somebody wants to be able to rely on: of items that are called so, a share is (precision);
-- of those that are so, a share is not denied (recall).
CREATE TABLE pgclip.promise (
    id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    label_id   int NOT NULL REFERENCES pgclip.label ON DELETE CASCADE,
    what       text NOT NULL CHECK (what IN ('precision', 'recall')),
    share      float8 NOT NULL CHECK (share > 0 AND share < 1),
    confidence float8 NOT NULL CHECK (confidence > 0 AND confidence < 1),
    opinions   smallint NOT NULL CHECK (opinions BETWEEN 1 AND 9),  -- people asked of each draw
    judgements int NOT NULL,                                        -- of the first look
    asked_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (label_id, what)
);

-- A promise put to the test for one version of a head. Contents have an order that is random, from
-- "start" on and round; the draws for a threshold are the first ones that reach it, and for recall
-- also the first ones that don't.
CREATE TABLE pgclip.campaign (
    id           int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    promise_id   int NOT NULL REFERENCES pgclip.promise ON DELETE CASCADE,
    model_id     smallint NOT NULL REFERENCES pgclip.model,
    head_version int NOT NULL,
    start        bigint NOT NULL,
    last_item    bigint NOT NULL,    -- of those that were there
    contents     int NOT NULL,       -- how many there were
    thresholds   float4[] NOT NULL,  -- candidates, in the order in which they are tried
    above        int[] NOT NULL,     -- contents that reach each
    looks        int[] NOT NULL,     -- numbers of draws after which one looks,
    allowed      int[] NOT NULL,     -- how many may be wrong then,
    doubts       float8[] NOT NULL,  -- and how much of the doubt each look may use
    state        text NOT NULL DEFAULT 'judging'
                 CHECK (state IN ('judging', 'complete', 'exhausted')),
    step         smallint NOT NULL DEFAULT 1,   -- the candidate that is being tried
    look         smallint NOT NULL DEFAULT 1,
    -- How many have been drawn at each candidate; for recall as many on either side.
    drawn_above  int[] NOT NULL DEFAULT '{}',
    -- What has been shown: the threshold, the bound, by how many draws.
    threshold    float4,
    bound        float8,
    judged       int,
    "right"      int,
    decides      int,                -- contents that it decides
    lacking      int,                -- judgements until the next look; NULL: none will help
    begun_at     timestamptz NOT NULL DEFAULT now(),
    kept_at      timestamptz,
    UNIQUE (promise_id, model_id, head_version)
);

-- Contents drawn: judged when as many people as it takes have said something; "right" is NULL where
-- they are not sure or don't agree. One that was shown to a person and is gone counts as that, too.
CREATE TABLE pgclip.campaign_draw (
    campaign_id  int NOT NULL REFERENCES pgclip.campaign ON DELETE CASCADE,
    chance       bigint NOT NULL,
    score        float4 NOT NULL,
    item_id      bigint NOT NULL,
    content_hash bytea NOT NULL,
    shown        boolean NOT NULL DEFAULT false,
    judged       boolean NOT NULL DEFAULT false,
    "right"      boolean,
    PRIMARY KEY (campaign_id, chance)
);

-- What people have before them, so that two don't get the same; or were not sure of.
CREATE TABLE pgclip.review (
    label_id     int NOT NULL REFERENCES pgclip.label ON DELETE CASCADE,
    content_hash bytea NOT NULL,
    judge        text NOT NULL,
    drawn_at     timestamptz NOT NULL DEFAULT now(),
    unsure       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (label_id, content_hash, judge)
);

-- Of labels of which something is promised the score of every item. "chance" is the beginning of
-- the content's hash: a random number, the same for equal contents.
CREATE TABLE pgclip.item_score (
    item_id      bigint NOT NULL,
    model_id     smallint NOT NULL,
    label_id     int NOT NULL,
    head_version int NOT NULL,
    chance       bigint NOT NULL,
    score        float4 NOT NULL,
    PRIMARY KEY (item_id, model_id, label_id)
);
CREATE INDEX item_score_score ON pgclip.item_score (label_id, model_id, score);

-- Items and contents of which something else may be decided now, until it has been told. Of a
-- content, is_seen: once more when those have ended who did not know of it yet.
CREATE TABLE pgclip.decision_touch (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id      bigint,
    content_hash bytea,
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    is_seen      boolean NOT NULL DEFAULT false
);

-- Changes of decisions; NULL is to be reviewed. is_last: of its item and label.
CREATE TABLE pgclip.decision_change (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id    bigint NOT NULL REFERENCES pgclip.item ON DELETE CASCADE,
    label_id   int NOT NULL REFERENCES pgclip.label ON DELETE CASCADE,
    was        boolean,
    now        boolean,
    is_last    boolean NOT NULL DEFAULT true,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX decision_change_item ON pgclip.decision_change (item_id, label_id);
CREATE INDEX decision_change_label ON pgclip.decision_change (label_id, item_id) WHERE is_last;
CREATE INDEX decision_change_old ON pgclip.decision_change (changed_at)
    WHERE NOT is_last OR now IS NULL;

-- Labels of which decisions were told: what these rested on, and up to which item it is being told
-- anew.
CREATE TABLE pgclip.decision_walk (
    label_id   int PRIMARY KEY REFERENCES pgclip.label ON DELETE CASCADE,
    known      text NOT NULL,
    after_item bigint
);

-- What people have said already is told.
INSERT INTO pgclip.decision_touch (content_hash)
SELECT DISTINCT content_hash FROM pgclip.judgement;

-- The sets that ship say less now: against a background, and "moderation", of pictures alone, only
-- that somebody has to look. Sets that somebody has changed stay as they are.
ALTER TABLE pgclip.label_set DISABLE TRIGGER USER;
WITH shipped AS (
    SELECT id, name FROM pgclip.label_set
    WHERE name IN ('general', 'moderation') AND version = 1 AND teaching = 0
), epoch AS (
    UPDATE pgclip.label_epoch SET epoch = epoch + 1 WHERE EXISTS (SELECT FROM shipped)
    RETURNING epoch
), archived AS (
    UPDATE pgclip.label l SET archived_at = now() FROM shipped s
    WHERE l.set_id = s.id AND s.name = 'moderation' AND l.name = 'safe everyday scene'
), background AS (
    INSERT INTO pgclip.label (set_id, name, position, is_background)
    SELECT s.id, w.word, 100 + w.nth, true
    FROM shipped s
    CROSS JOIN LATERAL string_to_array(CASE s.name
        WHEN 'general' THEN
            'thing object scene pattern shape colour texture text letter number symbol heart ' ||
            'star arrow room street money clock flag key body hand eye fire water card game ' ||
            'ball box'
        ELSE
            'air area art back body book business car case child city company country day ' ||
            'door end eye fact family father force friend game girl government group hand ' ||
            'head health history home hour house idea information job law level life line man ' ||
            'minute money month morning mother name night number office parent part party ' ||
            'people person place point policy power president problem program question reason ' ||
            'result room school service side state story student study system teacher team ' ||
            'thing time war water way week woman word work world year apple ball bag bank bed ' ||
            'bird boat bottle box bread bridge bus cake camera candle cat chair cheese church ' ||
            'clock cloud coat coin computer cow cup desk dog dress duck egg elephant farm ' ||
            'fish flag flower fork fox frog garden glass goat grass hat horse ice insect ' ||
            'island key king kitchen knife lamp leaf letter lion map meat milk mirror monkey ' ||
            'moon mountain mouse mouth music nail needle nose nut onion orange oven paint ' ||
            'paper pencil phone pig plane plant plate pocket potato queen radio rain ring ' ||
            'river road rock roof rope rose salt sea sheep ship shirt shoe shop sky snake ' ||
            'snow soap sock spider spoon star stone street sugar sun table tail tea tiger toe ' ||
            'tomato tooth tower toy train tree truck umbrella vegetable village wall watch ' ||
            'wheel whale wind window wing wolf worm arrow heart smile finger face baby doctor ' ||
            'farmer police singer pilot animal landscape building vehicle tool document sign ' ||
            'logo symbol scene object picture text pattern shape colour'
        END, ' ') words(list)
    CROSS JOIN unnest(words.list) WITH ORDINALITY w(word, nth)
    WHERE w.word NOT IN (SELECT l.name FROM pgclip.label l WHERE l.set_id = s.id)
), relabelled AS (
    INSERT INTO pgclip.relabeling AS old (model_id, epoch)
    SELECT m.id, e.epoch FROM pgclip.model m CROSS JOIN epoch e
    WHERE m.state <> 'retired' AND m.dimension IS NOT NULL
      AND EXISTS (SELECT FROM pgclip.embedding_set s WHERE s.model_id = m.id)
    ON CONFLICT (model_id) DO UPDATE SET epoch = excluded.epoch, after_item = 0, labelled = 0
)
UPDATE pgclip.label_set s SET templates = ARRAY['a photo of a {}'], version = 2,
    prompts_version = 2, words_version = 2, epoch = e.epoch, exclusive = true,
    decides = s.name = 'moderation', top_k = CASE s.name WHEN 'moderation' THEN 2 ELSE 3 END,
    threshold = CASE s.name WHEN 'moderation' THEN 0.3 ELSE 0.5 END,
    applies_to = CASE s.name WHEN 'moderation' THEN 'image' ELSE 'both' END
FROM epoch e WHERE s.id IN (SELECT id FROM shipped);
ALTER TABLE pgclip.label_set ENABLE TRIGGER USER;
