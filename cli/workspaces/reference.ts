/** A workspace as a person writes it, `name` or `owner/name`, as a path of the API takes it. */
export function pathRef(reference: string): string {
  return reference.replace('/', '~');
}

const suffix = '.cde';

/** The host that stands for a workspace in ssh: `name.cde`, `owner--name.cde` (names hold no `--`). */
export function sshHost(reference: string): string {
  return `${reference.replace('/', '--')}${suffix}`;
}

/** The workspace that an ssh host stands for; what is no such host is taken as a reference. */
export function fromSshHost(host: string): string {
  if (!host.endsWith(suffix)) return host;
  return host.slice(0, -suffix.length).replace('--', '/');
}

/** How to name a workspace to this user: without the owner where it is theirs. */
export function shortRef(workspace: { owner: string; name: string }, me: string | undefined): string {
  return workspace.owner === me ? workspace.name : `${workspace.owner}/${workspace.name}`;
}
