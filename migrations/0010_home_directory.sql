-- Where the home is inside the workspace, as its provider said when the agent last registered.
ALTER TABLE workspaces ADD COLUMN home_directory text;
