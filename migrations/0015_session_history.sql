-- Windows of ten seconds become windows of a minute and of an hour, which are kept longer.
ALTER TABLE recordings
  -- When the client said that it ended. A client that was killed says nothing.
  ADD COLUMN ended_at timestamptz,
  -- Its last path, and the region of the satellite on it.
  ADD COLUMN path_kind text,
  ADD COLUMN path_via text,
  ADD COLUMN region text,
  -- The last window that is part of a minute. That minute is made again, because more of it may follow.
  ADD COLUMN rolled_until timestamptz,
  -- Windows wait to become minutes. Null: none.
  ADD COLUMN roll_up_at timestamptz;
UPDATE recordings SET roll_up_at = known_until;
CREATE INDEX recordings_roll_up_at ON recordings (roll_up_at) WHERE roll_up_at IS NOT NULL;
CREATE INDEX recordings_user ON recordings (user_id, started_at DESC, id DESC);
CREATE INDEX recordings_started_at ON recordings (started_at DESC, id DESC);
CREATE INDEX incidents_at ON incidents (at);

-- Minutes are partitioned by day, hours by month. Legs and hosts are as in session_windows.
CREATE TABLE session_minutes (
  recording_id uuid NOT NULL,
  at timestamptz NOT NULL,
  -- The time that was recorded, and how much of it was noticeably slow.
  ms integer NOT NULL,
  slow_ms integer NOT NULL,
  path_kind text,
  path_via text,
  region text,
  to_satellite real[],
  satellite_to_agent real[],
  to_agent real[],
  bytes bigint NOT NULL,
  host real[] NOT NULL,
  PRIMARY KEY (recording_id, at)
) PARTITION BY RANGE (at);

CREATE TABLE session_hours (
  recording_id uuid NOT NULL,
  at timestamptz NOT NULL,
  ms integer NOT NULL,
  slow_ms integer NOT NULL,
  path_kind text,
  path_via text,
  region text,
  to_satellite real[],
  satellite_to_agent real[],
  to_agent real[],
  bytes bigint NOT NULL,
  host real[] NOT NULL,
  PRIMARY KEY (recording_id, at)
) PARTITION BY RANGE (at);

-- Samples have no foreign key: creating a partition would lock the sessions. They go with their session all the same.
CREATE FUNCTION delete_samples() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM session_windows USING gone WHERE recording_id = gone.id;
  DELETE FROM session_minutes USING gone WHERE recording_id = gone.id;
  DELETE FROM session_hours USING gone WHERE recording_id = gone.id;
  RETURN NULL;
END $$;
CREATE TRIGGER delete_samples AFTER DELETE ON recordings
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION delete_samples();
