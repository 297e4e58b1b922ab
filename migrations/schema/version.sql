-- The oldest version of clients and workers that these definitions answer. A number of
-- migrations/versions.
CREATE FUNCTION pgclip.serves() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '0001' $$;
