-- What the provider needs to restore the home of a dormant workspace: its state after the removal.
ALTER TABLE workspaces ADD COLUMN dormant_state jsonb;

-- Nobody knows when a person last used the workspaces that exist already: it counts from now.
INSERT INTO workspace_activity (workspace_id, person_at) SELECT id, now() FROM workspaces WHERE status <> 'deleted'
ON CONFLICT (workspace_id) DO UPDATE SET person_at = now() WHERE workspace_activity.person_at IS NULL;
