-- Whether a satellite may serve browsers (terminals, and ports under `port_host`), and so read what passes.
ALTER TABLE satellites ADD COLUMN web boolean NOT NULL DEFAULT false;
-- Written `*.tokyo.dev.example.com`; null: terminals only.
ALTER TABLE satellites ADD COLUMN port_host text UNIQUE;
