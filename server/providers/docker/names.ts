/** Labels of everything that cde creates on an engine. */
export const labels = {
  /** Which installation it belongs to: several can use one engine. */
  installation: 'dev.cde.installation',
  workspace: 'dev.cde.workspace',
  /** What it is: `container`, `network`, `home`, `home-owner`, `retained-home` or `agent`. */
  role: 'dev.cde.role',
  build: 'dev.cde.build',
  owner: 'dev.cde.owner',
  name: 'dev.cde.name',
  /** The volume of the home that the record is about. */
  home: 'dev.cde.home',
  retainedAt: 'dev.cde.retained-at',
} as const;

export const containerName = (workspaceId: string) => `cde-${workspaceId}`;
export const networkName = containerName;
export const homeVolume = (workspaceId: string) => `cde-home-${workspaceId}`;
/** Holds the agent; filled by a container of the name with `-filler`, and complete when a volume with `-complete` exists. */
export const agentVolume = (version: string) => `cde-agent-${version}`;
/** An empty volume whose labels say which volume is the home of the workspace, if it is not `homeVolume`. */
export const ownerRecord = (workspaceId: string) => `cde-home-owner-${workspaceId}`;
/** An empty volume whose labels say that the home of the workspace is retained. */
export const retainedRecord = (workspaceId: string) => `cde-retained-home-${workspaceId}`;

/**
 * `--filter` of the API: objects with all of these labels. Podman takes any of them to be enough for volumes, so what comes back
 * is checked with `hasLabels`.
 */
export const withLabels = (wanted: Record<string, string>) => ({
  label: Object.entries(wanted).map(([name, value]) => `${name}=${value}`),
});

export const hasLabels = (own: Record<string, string> | null | undefined, wanted: Record<string, string>) =>
  Object.entries(wanted).every(([name, value]) => own?.[name] === value);
