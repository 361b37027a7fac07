-- Editions: while a sync is swapped to another model there are two sets of its vectors, each kept fresh by a
-- queue, triggers and a target of its own. The sync's view shows one of them.

CREATE TABLE freshvec.edition (
  name text PRIMARY KEY,                -- what it is called in freshvec.sync and in the names of its objects
  sync text NOT NULL,                   -- the sync as it is declared
  number int NOT NULL,
  declared jsonb NOT NULL,              -- its model, text and the type of its vectors
  target text,                          -- its table; NULL for the first, whose table the file names
  file jsonb NOT NULL,                  -- what the file declared when the swap began
  view text[] NOT NULL,                 -- schema and name of the sync's view
  is_shown boolean NOT NULL,            -- whether that view shows it
  is_leaving boolean NOT NULL DEFAULT false,  -- it is kept no more, and taken away as soon as nobody owns it
  kept_until timestamptz,               -- when it may leave, since another is shown
  shown_at timestamptz,
  begun_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (sync, number)
);
CREATE UNIQUE INDEX edition_shown ON freshvec.edition (sync) WHERE is_shown;

-- The name in freshvec.sync of what a sync's view shows. Whoever asks for a row's freshness needs it.
CREATE FUNCTION freshvec.shown(sync text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT e.name FROM freshvec.edition AS e WHERE e.sync = $1 AND e.is_shown), $1)
$$;
