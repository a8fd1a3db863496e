-- What is wrong with the installation, since when, and whether it was announced. Rows go some minutes after it is over.
CREATE TABLE health_findings (
  key text PRIMARY KEY,
  finding jsonb NOT NULL,
  since timestamptz NOT NULL,
  seen_at timestamptz NOT NULL,
  announced_at timestamptz
);
