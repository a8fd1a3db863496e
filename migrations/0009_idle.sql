-- What is known about the activity of each workspace, and what follows from it. Apart from `workspaces`, because it changes
-- as often as somebody works.
CREATE TABLE workspace_activity (
  workspace_id uuid PRIMARY KEY REFERENCES workspaces ON DELETE CASCADE,
  -- The build whose agent reported the signals.
  build_id uuid,
  run_started_at timestamptz,
  agent_started_at timestamptz,
  -- By signal: { since, at, by }, Unix times in ms. `since`: the begin of the current stretch of activity.
  signals jsonb NOT NULL DEFAULT '{}',
  -- All activity until then is known.
  reported_at timestamptz,
  -- When a person last used it, kept across stops.
  person_at timestamptz,
  -- The last decision of the policy, for those who read: why it is awake, and what stops it.
  decision jsonb,
  stops_at timestamptz,
  -- A stop that waits for the agent's answer: { id, cause, decidedAt, idleSince, ready }.
  pending_stop jsonb,
  held boolean NOT NULL DEFAULT false,
  -- The smallest warning (in ms before the stop) that has been given for `stops_at`.
  warned_ms integer,
  -- When its schedule starts it next, while it is stopped.
  starts_at timestamptz,
  dormant_at timestamptz,
  -- What its owner chose: IdleChoices.
  choices jsonb NOT NULL DEFAULT '{}',
  choices_by text
);
CREATE INDEX workspace_activity_stops ON workspace_activity (stops_at) WHERE stops_at IS NOT NULL;
CREATE INDEX workspace_activity_starts ON workspace_activity (starts_at) WHERE starts_at IS NOT NULL;
CREATE INDEX workspace_activity_held ON workspace_activity (workspace_id) WHERE held;

CREATE TABLE workspace_leases (
  id uuid PRIMARY KEY,
  workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
  by text NOT NULL,
  reason text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);
CREATE INDEX workspace_leases_workspace ON workspace_leases (workspace_id, expires_at);

-- The timeline of a workspace: what kept it awake, and each decision.
CREATE TABLE activity_events (
  id uuid PRIMARY KEY,
  workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
  at timestamptz NOT NULL,
  until timestamptz,
  kind text NOT NULL,
  signal text,
  cause text,
  by text,
  text text NOT NULL
);
CREATE INDEX activity_events_workspace ON activity_events (workspace_id, id DESC);
CREATE INDEX activity_events_kind ON activity_events (kind, at);

-- The bounds that admins set: one row.
CREATE TABLE cleanup_settings (
  id integer PRIMARY KEY DEFAULT 1,
  policy jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT cleanup_settings_id_check CHECK (id = 1)
);

-- How the agent answered the request to prepare for this stop.
ALTER TABLE builds ADD COLUMN shutdown jsonb;
