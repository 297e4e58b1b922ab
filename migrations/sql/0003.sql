-- Models that come and go while everything runs.

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
