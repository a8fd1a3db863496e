import type { ChosenServer } from '../connection/connection.ts';

/** A workspace as a person writes it, `name` or `owner/name`, as a path of the API takes it. */
export function pathRef(reference: string): string {
  return reference.replace('/', '~');
}

const suffix = '.cde';

/**
 * The host that stands for a workspace in ssh: `name.cde`, `owner--name.cde` (names hold no `--`), and with the alias of
 * a server `name.alias.cde`.
 */
export function sshHost(reference: string, alias?: string): string {
  return `${reference.replace('/', '--')}${alias === undefined ? '' : `.${alias}`}${suffix}`;
}

/** The host of a workspace of the server that a command talks to: with the alias, unless it is the current server. */
export function hostOn(server: Pick<ChosenServer, 'login' | 'isDefaultForSsh'>, reference: string): string {
  return sshHost(reference, server.isDefaultForSsh ? undefined : server.login?.alias);
}

/**
 * The workspace that an ssh host stands for, and the alias of its server; what is no such host is taken as a reference.
 * Host names have no case, names of workspaces and servers are in lower case.
 */
export function fromSshHost(given: string): { reference: string; alias: string | undefined } {
  const host = given.toLowerCase();
  if (!host.endsWith(suffix)) return { reference: given, alias: undefined };
  const [name = '', ...alias] = host.slice(0, -suffix.length).split('.');
  return {
    reference: name.replace('--', '/'),
    alias: alias.length === 0 ? undefined : alias.join('.'),
  };
}

/** How to name a workspace to this user: without the owner where it is theirs. */
export function shortRef(workspace: { owner: string; name: string }, me: string | undefined): string {
  return workspace.owner === me ? workspace.name : `${workspace.owner}/${workspace.name}`;
}
