-- What happens to workspaces that no person uses, after they are dormant.
ALTER TABLE workspace_activity
  ADD COLUMN archived_at timestamptz,
  -- The announced moment of its deletion. It never moves to an earlier one.
  ADD COLUMN deletes_at timestamptz;
CREATE INDEX workspace_activity_dormant ON workspace_activity (workspace_id) WHERE dormant_at IS NOT NULL;

-- When unused workspaces were last looked at, in one row: no notice is given while no server runs.
CREATE TABLE cleanup_state (
  id integer PRIMARY KEY DEFAULT 1,
  unused_checked_at timestamptz NOT NULL,
  CONSTRAINT cleanup_state_id_check CHECK (id = 1)
);
