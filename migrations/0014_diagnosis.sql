-- What clients see of their sessions: one row per session.
CREATE TABLE recordings (
  id uuid PRIMARY KEY,
  workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  client_version text NOT NULL,
  platform text NOT NULL,
  started_at timestamptz NOT NULL,
  -- Everything until then is known.
  known_until timestamptz NOT NULL,
  last_batch integer NOT NULL,
  -- When the last window began, and how many events were stored: a client cannot store more than happens in the time.
  last_window_at timestamptz NOT NULL,
  event_count integer NOT NULL,
  -- Its incidents are explained again then, when agents and satellites have reported too.
  explain_at timestamptz
);
CREATE INDEX recordings_workspace ON recordings (workspace_id, user_id);
CREATE INDEX recordings_known_until ON recordings (known_until);
CREATE INDEX recordings_explain_at ON recordings (explain_at) WHERE explain_at IS NOT NULL;

CREATE TABLE session_events (
  recording_id uuid NOT NULL REFERENCES recordings ON DELETE CASCADE,
  at timestamptz NOT NULL,
  event jsonb NOT NULL
);
CREATE INDEX session_events_recording ON session_events (recording_id, at);

-- The two tables of samples are partitioned by day; the server creates a partition when it is needed, and drops old ones.
-- A leg is { p50, p95, max, count, unanswered }; a host { loop delay, CPU wait, throttled, memory }.
CREATE TABLE session_windows (
  recording_id uuid NOT NULL,
  at timestamptz NOT NULL,
  ms integer NOT NULL,
  path_kind text,
  path_via text,
  to_satellite real[],
  satellite_to_agent real[],
  to_agent real[],
  bytes bigint NOT NULL,
  host real[] NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX session_windows_recording ON session_windows (recording_id, at);

CREATE TABLE workspace_windows (
  workspace_id uuid NOT NULL,
  at timestamptz NOT NULL,
  ms integer NOT NULL,
  out_of_memory_kills integer NOT NULL,
  host real[] NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX workspace_windows_workspace ON workspace_windows (workspace_id, at);

-- The last batch of each agent process, so that one that is sent twice is stored once.
CREATE TABLE agent_batches (
  workspace_id uuid PRIMARY KEY REFERENCES workspaces ON DELETE CASCADE,
  process text NOT NULL,
  last_batch integer NOT NULL,
  last_window_at timestamptz NOT NULL
);

CREATE TABLE satellite_windows (
  satellite text NOT NULL,
  at timestamptz NOT NULL,
  ms integer NOT NULL,
  loop_delay_ms real NOT NULL
);
CREATE INDEX satellite_windows_satellite ON satellite_windows (satellite, at);
CREATE INDEX satellite_windows_at ON satellite_windows (at);

-- What happens to agents and satellites, for those who want to know why a connection was lost.
CREATE TABLE connection_events (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL,
  kind text NOT NULL,
  workspace_id uuid REFERENCES workspaces ON DELETE CASCADE,
  satellite text,
  CONSTRAINT connection_events_kind_check CHECK (kind IN ('agent-started', 'satellite-started', 'satellite-draining'))
);
CREATE INDEX connection_events_at ON connection_events (at);
CREATE INDEX connection_events_workspace ON connection_events (workspace_id, at) WHERE workspace_id IS NOT NULL;

CREATE TABLE incidents (
  id uuid PRIMARY KEY,
  recording_id uuid NOT NULL REFERENCES recordings ON DELETE CASCADE,
  workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  at timestamptz NOT NULL,
  ended_at timestamptz,
  kind text NOT NULL,
  cause text NOT NULL,
  segment text NOT NULL,
  confidence real NOT NULL,
  path text,
  summary text NOT NULL,
  evidence jsonb NOT NULL,
  ruled_out jsonb NOT NULL,
  advice text,
  UNIQUE (recording_id, kind, at)
);
CREATE INDEX incidents_user ON incidents (user_id, at DESC, id DESC);
CREATE INDEX incidents_workspace ON incidents (workspace_id);
