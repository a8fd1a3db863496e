import { createHash } from 'node:crypto';
import type { Tag } from '@aws-sdk/client-ec2';

/** Tags of everything that cde creates on EC2. */
export const tags = {
  /** Which installation it belongs to: several can use one account. */
  installation: 'cde:installation',
  /** What it is: see `Role`. */
  role: 'cde:role',
  /** Whose it is now. */
  workspace: 'cde:workspace',
  build: 'cde:build',
  owner: 'cde:owner',
  name: 'cde:workspace-name',
  /** Of a kept instance: what it was made from. */
  plan: 'cde:plan',
  /** Of a home: it was attached to an instance, which may have written to it. */
  attached: 'cde:attached',
  /** Of a home: an agent has run on it, so there is a file system. */
  used: 'cde:used',
  /** Of a home: the workspace was deleted, and when. */
  retainedAt: 'cde:retained-at',
  /** Of a home: it is being deleted, so nothing can take it over. */
  purging: 'cde:purging',
  /** Of a home or snapshot: the volume that it was copied from. */
  from: 'cde:from',
} as const;

/**
 * `home-copy`: a home on its way to another zone, until it takes the place of the old one. `old-home`: one whose copy has
 * taken its place. `snapshot`: of a home, for its developer; `move`: of a home on its way.
 */
export type Role = 'instance' | 'home' | 'home-copy' | 'old-home' | 'network' | 'snapshot' | 'move' | 'root';

/** An empty tag is as none: several can be emptied and set with one call, but not deleted and set. */
export const tagOf = (object: { Tags?: Tag[] | undefined }, key: string): string | undefined =>
  object.Tags?.find(({ Key }) => Key === key)?.Value || undefined;

export const toTags = (values: Record<string, string>): Tag[] =>
  Object.entries(values).map(([Key, Value]) => ({ Key, Value }));

export const withTag = (key: string, ...values: string[]) => ({ Name: `tag:${key}`, Values: values });

/** Makes a creation one and the same if it is repeated. EC2 takes 64 characters. */
export const clientToken = (...parts: string[]): string =>
  createHash('sha256').update(parts.join('\n')).digest('hex');
