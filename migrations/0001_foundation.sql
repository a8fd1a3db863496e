-- Users, sign-in, templates, workspaces, builds, agents, audit.
-- Ids are UUIDv7 made by the server. Moments are timestamptz. Nothing secret is stored but as a hash.

CREATE TABLE users (
  id uuid PRIMARY KEY,
  username text NOT NULL UNIQUE,
  name text NOT NULL DEFAULT '',
  email text UNIQUE,
  role text NOT NULL CHECK (role IN ('owner', 'template-admin', 'auditor', 'member')),
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
  password_hash text,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz
);

CREATE TABLE oidc_identities (
  issuer text NOT NULL,
  subject text NOT NULL,
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (issuer, subject)
);

CREATE TABLE browser_sessions (
  id uuid PRIMARY KEY,
  token_hash bytea NOT NULL UNIQUE,
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ip text,
  user_agent text
);
CREATE INDEX browser_sessions_user ON browser_sessions (user_id);

CREATE TABLE api_tokens (
  id uuid PRIMARY KEY,
  token_hash bytea NOT NULL UNIQUE,
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  name text NOT NULL,
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  last_used_at timestamptz
);
CREATE INDEX api_tokens_user ON api_tokens (user_id);

CREATE TABLE one_time_links (
  code_hash bytea PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz
);

CREATE TABLE cli_logins (
  device_code_hash bytea PRIMARY KEY,
  user_code text NOT NULL UNIQUE,
  hostname text NOT NULL,
  ip text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  -- Set when a signed-in user allows it; the token itself is made when the CLI collects it.
  user_id uuid REFERENCES users ON DELETE CASCADE,
  collected_at timestamptz
);

-- State of an OIDC login under way: the state parameter's hash, PKCE verifier and nonce, minutes to live.
CREATE TABLE oidc_logins (
  state_hash bytea PRIMARY KEY,
  code_verifier text NOT NULL,
  nonce text NOT NULL,
  return_to text NOT NULL,
  expires_at timestamptz NOT NULL
);

-- Failed sign-ins, for throttling by username and by address.
CREATE TABLE sign_in_failures (
  id uuid PRIMARY KEY,
  subject text NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sign_in_failures_subject ON sign_in_failures (subject, at);

CREATE TABLE audit (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  actor_id uuid,
  actor text NOT NULL,
  action text NOT NULL,
  target_type text NOT NULL,
  target_id text NOT NULL,
  target_name text NOT NULL,
  before jsonb,
  after jsonb,
  request_id text NOT NULL,
  ip text
);
CREATE INDEX audit_actor ON audit (actor, id DESC);
CREATE INDEX audit_action ON audit (action, id DESC);
CREATE INDEX audit_target ON audit (target_name, id DESC);

CREATE TABLE idempotency_keys (
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  key text NOT NULL,
  request_hash bytea NOT NULL,
  -- Null while the first request with this key is still under way.
  status integer,
  response jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE templates (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  active_version_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE template_versions (
  id uuid PRIMARY KEY,
  template_id uuid NOT NULL REFERENCES templates ON DELETE CASCADE,
  number integer NOT NULL,
  message text NOT NULL DEFAULT '',
  -- The folder as it was published, and the template file parsed from it.
  files jsonb NOT NULL,
  files_hash bytea NOT NULL,
  content jsonb NOT NULL,
  created_by uuid REFERENCES users ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (template_id, number)
);
ALTER TABLE templates ADD FOREIGN KEY (active_version_id) REFERENCES template_versions DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE workspaces (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES users,
  name text NOT NULL,
  template_id uuid NOT NULL REFERENCES templates,
  template_version_id uuid NOT NULL REFERENCES template_versions,
  parameters jsonb NOT NULL DEFAULT '{}',
  provider text NOT NULL,
  desired text NOT NULL CHECK (desired IN ('running', 'stopped', 'deleted')),
  status text NOT NULL CHECK (status IN ('pending', 'starting', 'running', 'stopping', 'stopped', 'failed', 'deleting', 'deleted')),
  reason text,
  isolation text,
  -- What the provider remembers between moves.
  provider_state jsonb NOT NULL DEFAULT '{}',
  current_build_id uuid,
  -- Counts up with every change; a reconcile step writes only if it is still what the step read.
  revision integer NOT NULL DEFAULT 0,
  agent_build_id uuid,
  agent_tls_key text,
  agent_ssh_host_key text,
  agent_version text,
  agent_seen_at timestamptz,
  agent_stats jsonb,
  -- Restarts after the compute ended by itself, to give up on one that keeps dying.
  recoveries integer NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
);
-- A name is free again once its workspace is deleted.
CREATE UNIQUE INDEX workspaces_owner_name ON workspaces (owner_id, name) WHERE status <> 'deleted';
CREATE INDEX workspaces_list ON workspaces (id) WHERE status <> 'deleted';
CREATE INDEX workspaces_template ON workspaces (template_id) WHERE status <> 'deleted';

CREATE TABLE builds (
  id uuid PRIMARY KEY,
  workspace_id uuid NOT NULL REFERENCES workspaces ON DELETE CASCADE,
  number integer NOT NULL,
  transition text NOT NULL CHECK (transition IN ('start', 'stop', 'update', 'delete')),
  status text NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  template_version_id uuid NOT NULL REFERENCES template_versions,
  parameters jsonb NOT NULL,
  -- Of a start: stop what runs before starting. Of a delete: `keep` or `discard` the home.
  options jsonb NOT NULL DEFAULT '{}',
  stages jsonb NOT NULL DEFAULT '[]',
  error jsonb,
  initiator_id uuid,
  initiator text NOT NULL,
  reason text NOT NULL DEFAULT '',
  cancel_requested boolean NOT NULL DEFAULT false,
  agent_token_hash bytea UNIQUE,
  startup jsonb,
  rendered jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  UNIQUE (workspace_id, number)
);
ALTER TABLE workspaces ADD FOREIGN KEY (current_build_id) REFERENCES builds DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX builds_open ON builds (workspace_id) WHERE status IN ('queued', 'running');

CREATE TABLE build_logs (
  build_id uuid NOT NULL REFERENCES builds ON DELETE CASCADE,
  seq integer NOT NULL,
  at timestamptz NOT NULL,
  stage text NOT NULL,
  source text NOT NULL,
  level text NOT NULL,
  text text NOT NULL,
  -- Of an agent's line: which process sent it and its own number, so that a resent batch is stored once.
  agent_process text,
  agent_seq integer,
  PRIMARY KEY (build_id, seq)
);
CREATE UNIQUE INDEX build_logs_agent ON build_logs (build_id, agent_process, agent_seq) WHERE agent_process IS NOT NULL;

-- Live replicas. Each holds the advisory lock of its number for as long as its process lives.
CREATE TABLE replicas (
  number integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  hostname text NOT NULL,
  pid integer NOT NULL,
  version text NOT NULL,
  -- Where agents reach this replica, and the satellite that it carries.
  url text NOT NULL,
  worker_ids text[] NOT NULL DEFAULT '{}',
  started_at timestamptz NOT NULL DEFAULT now()
);

-- One row for each secret the server itself needs, sealed by the key in its data directory or environment.
CREATE TABLE server_keys (
  name text PRIMARY KEY,
  sealed bytea NOT NULL,
  public_key text,
  created_at timestamptz NOT NULL DEFAULT now()
);
