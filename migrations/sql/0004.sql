-- Jobs that wait for a time; what `pgclip index` found; indexes themselves say how they were built.

-- All locks first, in the order in which a query takes them: views that will change, which a first
-- installation does not have yet, and then what they read.
DO $$
DECLARE
    v_view regclass;
BEGIN
    FOR v_view IN
        SELECT to_regclass('pgclip.' || name)
        FROM unnest(ARRAY['collections', 'items', 'missing', 'queue', 'segments']) name
        WHERE to_regclass('pgclip.' || name) IS NOT NULL
    LOOP
        EXECUTE format('LOCK TABLE %s', v_view);
    END LOOP;
END $$;
LOCK TABLE pgclip.item, pgclip.job, pgclip.segment;
ALTER TABLE pgclip.segment DROP COLUMN thorough;

-- Items that are files of a host, put there by `pgclip index`: only those may it take away.
CREATE TABLE pgclip.indexed_file (
    item_id bigint REFERENCES pgclip.item ON DELETE CASCADE,
    host    text,
    path    text COLLATE "C" NOT NULL,
    PRIMARY KEY (item_id, host)
);
CREATE INDEX indexed_file_path ON pgclip.indexed_file (host, path);

-- A job whose source could not be had is tried again later, and is in no claim's way until then.
-- Since when that is so, how often it was tried, and why it was not had the last time.
ALTER TABLE pgclip.job
    ADD COLUMN not_before timestamptz,
    ADD COLUMN delayed_since timestamptz,
    ADD COLUMN tries smallint NOT NULL DEFAULT 0,
    ADD COLUMN reason text,
    ADD COLUMN message text;
DROP INDEX pgclip.job_queue;
CREATE INDEX job_queue ON pgclip.job (model_id, rank, id)
    WHERE lease IS NULL AND not_before IS NULL;
CREATE INDEX job_delayed ON pgclip.job (not_before) WHERE not_before IS NOT NULL;

-- From which item on words are indexed anew, which are now read from texts in another way; no row
-- if from none.
CREATE TABLE pgclip.words_anew (from_item bigint PRIMARY KEY);
INSERT INTO pgclip.words_anew SELECT 0 WHERE EXISTS (SELECT FROM pgclip.item);

-- Who may index tables, which pgclip's owner then reads.
ALTER TABLE pgclip.access
    DROP CONSTRAINT access_access_check,
    ADD CONSTRAINT access_access_check CHECK (access IN ('client', 'worker', 'indexer'));

-- Tables of applications whose rows are kept in step as items. Expressions have "@3@" for the third
-- column of the table, whatever that is called meanwhile.
CREATE TABLE pgclip.indexed_table (
    id             int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- By its number, in the database called home; in a restored one by its triggers, or its name.
    relation       oid NOT NULL,
    name           text NOT NULL,
    home           text NOT NULL,
    collection     text NOT NULL UNIQUE,
    -- For each part of a row: label, kind, type of the expression, the expression.
    parts          jsonb NOT NULL,
    columns        smallint[] NOT NULL,        -- that expressions and the condition read
    metadata       jsonb NOT NULL,             -- field: number of the column
    retired_fields text[] NOT NULL DEFAULT '{}',
    condition      text NOT NULL,
    priority       smallint NOT NULL,
    replicated     boolean NOT NULL,
    -- What the trigger's function was made from, and where the rows lie.
    names          text,
    place          text,
    looked_at      timestamptz NOT NULL DEFAULT '-infinity',
    -- What is being gone through, and how far: the table's rows, then the items of it.
    walk           text CHECK (walk IN ('rows', 'items')),
    after_key      text,
    walked         bigint NOT NULL DEFAULT 0,
    is_leaving     boolean NOT NULL DEFAULT false,
    trouble        text,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX indexed_table_relation ON pgclip.indexed_table (relation);

-- Which item is of which row. A row's key is its primary key as text; of several columns a JSON
-- array.
CREATE TABLE pgclip.table_item (
    item_id  bigint PRIMARY KEY REFERENCES pgclip.item ON DELETE CASCADE,
    table_id int NOT NULL REFERENCES pgclip.indexed_table,
    row_key  text COLLATE "C" NOT NULL,
    part     text NOT NULL
);
CREATE INDEX table_item_row ON pgclip.table_item (table_id, row_key);

-- Rows that have changed and have not been looked at since: those of one statement, in portions. No
-- keys: any row may have. key_columns: the primary key of which the keys are.
CREATE TABLE pgclip.row_change (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    table_id    int NOT NULL,
    row_keys    text[],
    key_columns smallint[],
    noted_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_id, id)
);

-- What a row has that can't become an item.
CREATE TABLE pgclip.row_failure (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_id  int NOT NULL REFERENCES pgclip.indexed_table ON DELETE CASCADE,
    row_key   text COLLATE "C" NOT NULL,
    part      text NOT NULL,
    reason    text NOT NULL,
    message   text NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now()
);
-- A key may be longer than an entry of an index.
CREATE UNIQUE INDEX row_failure_row ON pgclip.row_failure (table_id, md5(row_key), part);
