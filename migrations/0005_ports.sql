-- Ports of workspaces that their owners have shared. What is not here is reachable for nobody by the web.

CREATE TABLE port_shares (
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  port integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
  level text NOT NULL CHECK (level IN ('owner', 'signed-in', 'public')),
  shared_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workspace_id, port)
);

-- Codes by which a browser that is signed in to the dashboard gets a cookie of a port's own name: once each,
-- within a minute, and none behind a session that has ended.
CREATE TABLE port_codes (
  code_hash bytea PRIMARY KEY,
  session_id uuid NOT NULL REFERENCES browser_sessions (id) ON DELETE CASCADE,
  host text NOT NULL,
  -- SHA-256 of what only the browser that asked holds.
  state text NOT NULL,
  expires_at timestamptz NOT NULL
);
