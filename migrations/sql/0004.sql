-- What `pgclip index` found; indexes themselves say how they were built.

LOCK TABLE pgclip.item, pgclip.segment;
ALTER TABLE pgclip.segment DROP COLUMN thorough;

-- Items that are files of a host, put there by `pgclip index`: only those may it take away.
CREATE TABLE pgclip.indexed_file (
    item_id bigint REFERENCES pgclip.item ON DELETE CASCADE,
    host    text,
    path    text COLLATE "C" NOT NULL,
    PRIMARY KEY (item_id, host)
);
CREATE INDEX indexed_file_path ON pgclip.indexed_file (host, path);
