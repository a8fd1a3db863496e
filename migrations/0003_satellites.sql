-- Satellites that are programs of their own; the server's embedded ones are not here.

CREATE TABLE satellites (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  region text NOT NULL DEFAULT '',
  token_hash bytea NOT NULL UNIQUE,
  -- What it says of itself; null until it has registered.
  url text,
  version text,
  hostname text,
  condition text CHECK (condition IN ('serving', 'draining', 'drained', 'stopping')),
  load jsonb,
  seen_at timestamptz,
  -- An administrator wants it empty.
  draining boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);
