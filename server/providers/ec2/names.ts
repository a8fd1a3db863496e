import type { Tag } from '@aws-sdk/client-ec2';
import type { Labels } from '../vm/labels.ts';

/** The keys of the tags of everything that cde creates on EC2. */
export const tags = {
  installation: 'cde:installation',
  role: 'cde:role',
  workspace: 'cde:workspace',
  build: 'cde:build',
  owner: 'cde:owner',
  name: 'cde:workspace-name',
  plan: 'cde:plan',
  attached: 'cde:attached',
  used: 'cde:used',
  retainedAt: 'cde:retained-at',
  purging: 'cde:purging',
  from: 'cde:from',
} as const satisfies Record<keyof Labels, string>;

/** An empty tag is as none: several can be emptied and set with one call, but not deleted and set. */
export const tagOf = (object: { Tags?: Tag[] | undefined }, key: string): string | undefined =>
  object.Tags?.find(({ Key }) => Key === key)?.Value || undefined;

export const toTags = (values: Record<string, string>): Tag[] =>
  Object.entries(values).map(([Key, Value]) => ({ Key, Value }));

export const withTag = (key: string, ...values: string[]) => ({ Name: `tag:${key}`, Values: values });

/** Labels as tags, with the name that the console shows. */
export function tagsFor(labels: Labels): Tag[] {
  const { owner, name, role } = labels;
  const own = (Object.entries(labels) as [keyof Labels, string | undefined][])
    .filter(([, value]) => value !== undefined)
    .map(([key, value]): [string, string] => [tags[key], value!]);
  const called = role === 'instance' ? `${owner}/${name}` : `${owner}/${name} ${role ?? 'home'}`;
  return toTags({
    ...(owner !== undefined && name !== undefined && { Name: called }),
    ...Object.fromEntries(own),
  });
}

export const labelsOf = (object: { Tags?: Tag[] | undefined }): Labels =>
  Object.fromEntries(
    (Object.keys(tags) as (keyof Labels)[])
      .map((key) => [key, tagOf(object, tags[key])] as const)
      .filter(([, value]) => value !== undefined),
  );

/** Filters of this installation's objects with a role. */
export const ours = (installation: string, ...roles: string[]) => [
  withTag(tags.installation, installation),
  withTag(tags.role, ...roles),
];
