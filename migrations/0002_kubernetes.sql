-- Clusters, and homes that outlive their workspace.

CREATE TABLE clusters (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  region text NOT NULL DEFAULT '',
  labels jsonb NOT NULL DEFAULT '{}',
  is_default boolean NOT NULL DEFAULT false,
  credentials text NOT NULL CHECK (credentials IN ('kubeconfig', 'in-cluster')),
  -- The kubeconfig, sealed by the server's secret key; null for in-cluster.
  sealed_kubeconfig bytea,
  endpoint text NOT NULL DEFAULT '',
  public_endpoint text,
  state text NOT NULL DEFAULT 'connecting' CHECK (state IN ('connecting', 'ready', 'away')),
  reason text,
  version text,
  seen_at timestamptz,
  -- Counts up when credentials change, so that every replica connects anew.
  revision integer NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX clusters_default ON clusters (is_default) WHERE is_default;

-- Which cluster a workspace lies on, and its namespace there; null for other providers.
ALTER TABLE workspaces ADD COLUMN cluster text;
ALTER TABLE workspaces ADD COLUMN namespace text;
CREATE INDEX workspaces_cluster ON workspaces (cluster) WHERE status <> 'deleted';
-- Of a deleted workspace: its home is kept until then; null when there is none (any more).
ALTER TABLE workspaces ADD COLUMN home_kept_until timestamptz;
CREATE INDEX workspaces_kept_homes ON workspaces (home_kept_until) WHERE home_kept_until IS NOT NULL;
-- The deleted workspace whose kept home this one takes over at its first start.
ALTER TABLE workspaces ADD COLUMN restore_from uuid REFERENCES workspaces;
-- What is amiss although it runs, or why it cannot be seen: one sentence.
ALTER TABLE workspaces ADD COLUMN unseen_since timestamptz;
