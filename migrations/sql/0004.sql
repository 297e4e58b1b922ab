-- Indexes themselves say how they were built.

LOCK TABLE pgclip.segment;
ALTER TABLE pgclip.segment DROP COLUMN thorough;
