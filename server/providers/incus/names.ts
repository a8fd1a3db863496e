/** Keys of everything that cde creates on an Incus server. */
export const keys = {
  /** Which installation it belongs to: several can use one server. */
  installation: 'user.cde.installation',
  /** What it is: `instance`, `home` or `agent`. */
  role: 'user.cde.role',
  /** Of a home: whose it is now. */
  workspace: 'user.cde.workspace',
  build: 'user.cde.build',
  owner: 'user.cde.owner',
  name: 'user.cde.name',
  /** Of an instance or the agent's volume: it was created completely. */
  complete: 'user.cde.complete',
  /** Of an instance: the process of Incus that creates it. */
  creator: 'user.cde.creator',
  /** Of a home: the workspace was deleted, and when. */
  retainedAt: 'user.cde.retained-at',
  /** Of a home: it is being deleted, so nothing can take it over. */
  purging: 'user.cde.purging',
} as const;

export const instanceName = (workspaceId: string) => `cde-${workspaceId}`;
export const homeVolume = (workspaceId: string) => `cde-home-${workspaceId}`;

/** The workspace of an instance by its name; null: it is not ours. */
export const workspaceOf = (instance: string): string | null =>
  /^cde-([0-9a-f]{8}-[0-9a-f-]{27})$/.exec(instance)?.[1] ?? null;
