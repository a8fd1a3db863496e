-- A browser session has two secrets: the cookie, and a key that the dashboard keeps in the storage of its own origin.
-- Sessions from before have no key, and their users sign in again.
DELETE FROM browser_sessions;
ALTER TABLE browser_sessions ADD COLUMN key_hash bytea NOT NULL UNIQUE;

-- The key of an OIDC login is in the browser's storage as well. Logins in progress start again.
-- link_user_id: the signed-in user who links an identity of the provider to their account.
DELETE FROM oidc_logins;
ALTER TABLE oidc_logins ADD COLUMN link_user_id uuid REFERENCES users ON DELETE CASCADE;
