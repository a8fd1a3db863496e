-- The pool of the node on which the workspace last ran, as its provider said; and for each start and stop, because a workspace
-- can run elsewhere the next time.
ALTER TABLE workspaces ADD COLUMN node_pool text;
ALTER TABLE activity_events ADD COLUMN node_pool text;

-- The report of cleanup for days (UTC) that are over: from the events alone, a report of 400 days takes longer than a request may.
CREATE TABLE cleanup_days (
  day date NOT NULL,
  template_id uuid NOT NULL,
  owner_id uuid NOT NULL,
  cluster text NOT NULL,
  node_pool text NOT NULL,
  running_hours double precision NOT NULL,
  stopped_hours double precision NOT NULL,
  stops integer NOT NULL,
  PRIMARY KEY (day, template_id, owner_id, cluster, node_pool)
);
-- All days before are in it.
ALTER TABLE cleanup_state ADD COLUMN days_until date, ALTER COLUMN unused_checked_at DROP NOT NULL;
