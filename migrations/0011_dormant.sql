-- What the provider needs to restore the home of a dormant workspace: its state after the removal.
ALTER TABLE workspaces ADD COLUMN dormant_state jsonb;
