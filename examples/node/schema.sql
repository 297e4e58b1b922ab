-- The service's own table, in the database that has schema pgclip.
CREATE TABLE IF NOT EXISTS article (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    body  text NOT NULL
);
