import { createHash } from 'node:crypto';

/**
 * What cde writes on everything that it creates in a cloud. Each cloud has its own form of it: tags on EC2, labels on
 * Google Compute. An empty value is as none.
 */
export interface Labels {
  /** Which installation it belongs to: several can use one account. */
  installation?: string;
  role?: Role;
  /** Whose it is now. */
  workspace?: string;
  build?: string;
  owner?: string;
  /** The name of the workspace. */
  name?: string;
  /** Of a kept machine: what it was made from. */
  plan?: string;
  /** Of a home: it was attached to a machine, which may have written to it. */
  attached?: string;
  /** Of a home: an agent has run on it, so there is a file system. */
  used?: string;
  /** Of a home: the workspace was deleted, and when (ISO 8601). */
  retainedAt?: string;
  /** Of a home: it is being deleted, so nothing can take it over. */
  purging?: string;
  /** Of a home or snapshot: the volume that it was copied from. */
  from?: string;
}

/**
 * `home-copy`: a home on its way to another zone, until it takes the place of the old one. `old-home`: one whose copy has
 * taken its place. `snapshot`: of a home, for its developer; `move`: of a home on its way.
 */
export type Role = 'instance' | 'home' | 'home-copy' | 'old-home' | 'network' | 'snapshot' | 'move' | 'root';

/** Names the parts together, so that a repeated creation is one and the same. */
export const digest = (...parts: string[]): string =>
  createHash('sha256').update(parts.join('\n')).digest('hex');
