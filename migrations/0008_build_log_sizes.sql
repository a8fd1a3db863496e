-- How much of a build's log is kept, and whether it was cut (more came than fits) or removed (the workspace has
-- enough newer builds).
CREATE TABLE build_log_sizes (
  build_id uuid PRIMARY KEY REFERENCES builds ON DELETE CASCADE,
  bytes bigint NOT NULL,
  cut boolean NOT NULL DEFAULT false,
  removed boolean NOT NULL DEFAULT false
);
INSERT INTO build_log_sizes (build_id, bytes)
SELECT build_id, sum(octet_length(text) + 100) FROM build_logs GROUP BY build_id;
-- The builds whose logs are kept, which the sweep ranks by their workspace.
CREATE INDEX build_log_sizes_kept ON build_log_sizes (build_id) WHERE NOT removed;
