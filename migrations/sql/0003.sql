-- Models that come and go while everything runs; equal and nearly equal vectors as one point of an
-- index.

LOCK TABLE pgclip.segment;
DO $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN  -- all locks first
        SELECT format('pgclip.embedding_%s_%s', model_id, number)::regclass FROM pgclip.segment
    LOOP
        EXECUTE format('LOCK TABLE %s', v_table);
    END LOOP;
    FOR v_table IN
        SELECT format('pgclip.embedding_%s_%s', model_id, number)::regclass FROM pgclip.segment
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN twins bigint, ADD COLUMN cluster bigint,
                                       ADD COLUMN leads boolean NOT NULL DEFAULT true', v_table);
    END LOOP;
END $$;

-- Whether points of its index stand for equal vectors, whether for nearly equal ones, and whether
-- it was built at leisure.
ALTER TABLE pgclip.segment
    ADD COLUMN has_twins boolean NOT NULL DEFAULT false,
    ADD COLUMN has_clusters boolean NOT NULL DEFAULT false,
    ADD COLUMN thorough boolean NOT NULL DEFAULT false;

-- Models whose items are gone through, page by page: for one that takes work they get jobs, of one
-- that is retired they lose all they have (schema/walks.sql).
CREATE TABLE pgclip.model_walk (
    model_id   smallint PRIMARY KEY REFERENCES pgclip.model,
    after_item bigint NOT NULL DEFAULT 0,
    -- Transactions from this one on know what has become of the model. NULL: not looked at yet.
    known_from xid8,
    -- Whether all others had ended when this walk began: what it has passed stays as it is.
    is_last    boolean NOT NULL DEFAULT false
);

-- The transaction that last brought a model: read past snapshots, which a sequence is.
CREATE SEQUENCE pgclip.model_change MINVALUE 0;
