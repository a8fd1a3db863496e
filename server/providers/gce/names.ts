import { digest, type Labels } from '../vm/labels.ts';

/** The keys of the labels of everything that cde creates on Google Compute. */
const keys = {
  installation: 'cde-installation',
  role: 'cde-role',
  workspace: 'cde-workspace',
  build: 'cde-build',
  owner: 'cde-owner',
  name: 'cde-workspace-name',
  plan: 'cde-plan',
  attached: 'cde-attached',
  used: 'cde-used',
  retainedAt: 'cde-retained-at',
  purging: 'cde-purging',
  from: 'cde-from',
} as const satisfies Record<keyof Labels, string>;

const maxLength = 63;

/** Labels hold lower-case letters, digits, `-` and `_` only. */
function encode(key: keyof Labels, value: string): string {
  if (value === '') return '';
  if (key === 'retainedAt') return String(Date.parse(value));
  // Volumes are ZONE/NAME.
  if (key === 'from') return value.replace('/', '_');
  return value
    .toLowerCase()
    .replaceAll(/[^\p{Ll}\p{Lo}\d_-]/gu, '-')
    .slice(0, maxLength);
}

function decode(key: keyof Labels, value: string): string {
  if (key === 'retainedAt') return new Date(Number(value)).toISOString();
  return key === 'from' ? value.replace('_', '/') : value;
}

export const toLabels = (labels: Labels): Record<string, string> =>
  Object.fromEntries(
    (Object.entries(labels) as [keyof Labels, string | undefined][])
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [keys[key], encode(key, value!)]),
  );

export const fromLabels = (labels: Record<string, string> = {}): Labels =>
  Object.fromEntries(
    (Object.keys(keys) as (keyof Labels)[])
      .filter((key) => labels[keys[key]])
      .map((key) => [key, decode(key, labels[keys[key]]!)]),
  );

/** A filter of lists for objects with these labels. */
export const withLabels = (labels: Labels): string =>
  Object.entries(toLabels(labels))
    .map(([key, value]) => `(labels.${key} = "${value}")`)
    .join(' ');

const slug = (text: string, length: number) =>
  text
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]/g, '-')
    .slice(0, length);

/** Of what belongs to a workspace: for people, and unique. */
export const objectName = (
  { owner, name }: { owner?: string | undefined; name?: string | undefined },
  kind: string,
  ...key: string[]
): string =>
  `cde-${slug(owner ?? '', 14)}-${slug(name ?? '', 18)}-${kind}${kind && '-'}${digest(...key).slice(0, 14)}`;

/** The network tag of the machines that accept no connections, and the name of the rule that says so. */
export const networkTag = (installation: string) => `cde-${slug(installation, 40)}`;
