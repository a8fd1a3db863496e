import { createHash } from 'node:crypto';

/** The limit of Kubernetes for the name of a namespace. */
const maxLength = 63;

/**
 * `cde-OWNER-NAME`. Ends in a hash of the workspace's id when it has to be shortened, and with `withHash`, when
 * another workspace has the plain name.
 */
export function namespaceName(owner: string, name: string, workspaceId: string, withHash = false): string {
  const plain = `cde-${owner}-${name}`.toLowerCase().replace(/[^-a-z0-9]/g, '-');
  if (plain.length <= maxLength && !withHash) return plain;
  const hash = createHash('sha256').update(workspaceId).digest('hex').slice(0, 6);
  return `${plain.slice(0, maxLength - hash.length - 1).replace(/-+$/, '')}-${hash}`;
}
