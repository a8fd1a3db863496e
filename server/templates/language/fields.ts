import { formatQuantity, parseQuantity } from '../../providers/quantity.ts';
import { imageReference } from './image.ts';

/** What a field of a template accepts once its expressions are evaluated. */
export type FieldType =
  | 'text'
  | 'size'
  | 'bytes'
  | 'cpus'
  | 'count'
  | 'pods'
  | 'port'
  | 'user'
  | 'image'
  | 'name'
  | 'label'
  | 'host'
  | 'seconds'
  | 'value';

interface Field {
  path: readonly string[];
  want: FieldType;
}

const inKubernetes: readonly (readonly [string, FieldType])[] = [
  ['cluster', 'name'],
  ['cluster.labels.*', 'label'],
  ['image', 'image'],
  ['user', 'user'],
  ['cpus', 'cpus'],
  ['memory', 'bytes'],
  ['requests.cpus', 'cpus'],
  ['requests.memory', 'bytes'],
  ['storageClass', 'name'],
  ['env.*', 'text'],
  ['services.*.image', 'image'],
  ['services.*.ports.*', 'port'],
  ['services.*.env.*', 'text'],
  ['services.*.command.*', 'text'],
  ['services.*.args.*', 'text'],
  ['services.*.cpus', 'cpus'],
  ['services.*.memory', 'bytes'],
  ['services.*.user', 'user'],
  ['services.*.ready.port', 'port'],
  ['services.*.ready.command.*', 'text'],
  ['services.*.storage.size', 'size'],
  ['nodeSelector.*', 'label'],
  ['tolerations.*.value', 'label'],
  ['tolerations.*.tolerationSeconds', 'seconds'],
  ['quota.cpus', 'cpus'],
  ['quota.memory', 'bytes'],
  ['quota.storage', 'size'],
  ['quota.pods', 'pods'],
  ['builder.image', 'image'],
  ['builder.cpus', 'cpus'],
  ['builder.memory', 'bytes'],
  ['builder.cache', 'size'],
  ['builder.insecureRegistries.*', 'host'],
];

/** The fields whose strings may hold `${{ }}`; `*` stands for any key. In all others it is a fault. */
const expressionFields: readonly Field[] = [
  { path: ['env', '*'], want: 'text' },
  { path: ['home', 'size'], want: 'size' },
  { path: ['local', 'memory'], want: 'bytes' },
  { path: ['local', 'cpus'], want: 'cpus' },
  { path: ['local', 'processes'], want: 'count' },
  { path: ['local', 'env', '*'], want: 'text' },
  { path: ['docker', 'image'], want: 'image' },
  { path: ['docker', 'user'], want: 'user' },
  { path: ['docker', 'cpus'], want: 'cpus' },
  { path: ['docker', 'memory'], want: 'bytes' },
  { path: ['docker', 'processes'], want: 'count' },
  { path: ['docker', 'env', '*'], want: 'text' },
  { path: ['incus', 'image'], want: 'text' },
  { path: ['incus', 'user'], want: 'user' },
  { path: ['incus', 'cpus'], want: 'cpus' },
  { path: ['incus', 'memory'], want: 'bytes' },
  { path: ['incus', 'disk'], want: 'bytes' },
  { path: ['incus', 'processes'], want: 'count' },
  { path: ['incus', 'project'], want: 'name' },
  { path: ['incus', 'network'], want: 'text' },
  { path: ['incus', 'pool'], want: 'text' },
  { path: ['incus', 'target'], want: 'text' },
  { path: ['incus', 'env', '*'], want: 'text' },
  { path: ['ec2', 'image'], want: 'text' },
  { path: ['ec2', 'instanceType'], want: 'name' },
  { path: ['ec2', 'user'], want: 'user' },
  { path: ['ec2', 'zone'], want: 'name' },
  { path: ['ec2', 'disk'], want: 'bytes' },
  { path: ['ec2', 'kmsKey'], want: 'text' },
  { path: ['ec2', 'processes'], want: 'count' },
  { path: ['ec2', 'tags', '*'], want: 'text' },
  { path: ['ec2', 'env', '*'], want: 'text' },
  { path: ['gce', 'image'], want: 'text' },
  { path: ['gce', 'machineType'], want: 'name' },
  { path: ['gce', 'user'], want: 'user' },
  { path: ['gce', 'zones', '*'], want: 'name' },
  { path: ['gce', 'disk'], want: 'bytes' },
  { path: ['gce', 'kmsKey'], want: 'text' },
  { path: ['gce', 'processes'], want: 'count' },
  { path: ['gce', 'labels', '*'], want: 'text' },
  { path: ['gce', 'env', '*'], want: 'text' },
  ...inKubernetes.map(([path, want]) => ({ path: ['kubernetes', ...path.split('.')], want })),
];

/** The want of the field at `path`, or undefined when no expression may stand there. */
export function fieldTypeAt(path: readonly PropertyKey[]): FieldType | undefined {
  return expressionFields.find(
    (field) =>
      field.path.length === path.length &&
      field.path.every((part, index) => part === '*' || part === path[index]),
  )?.want;
}

/** Types of CEL from which `convert` can make what the field wants. */
export function acceptedTypes(want: FieldType): readonly string[] {
  const scalars = ['string', 'int', 'double', 'bool', 'dyn'];
  if (want === 'value') return [...scalars, ...scalars.map((type) => `list<${type}>`)];
  return want === 'text' || want === 'label' ? scalars : scalars.filter((type) => type !== 'bool');
}

const bytesPerMi = 2 ** 20;
const ranges = {
  bytes: { min: 32 * bytesPerMi, max: 64 * 2 ** 40 },
  size: { min: bytesPerMi, max: 1024 * 2 ** 40 },
  cpus: { min: 0.01, max: 1024 },
  count: { min: 16, max: 4_194_304 },
  pods: { min: 1, max: 10_000 },
  port: { min: 1, max: 65_535 },
  seconds: { min: 0, max: 2 ** 31 - 1 },
} as const;
/** Of an environment variable; of a text in a manifest, which may be a whole file in a ConfigMap. */
const longestText = 32_768;
const longestValue = 262_144;

/** Texts of a fixed form. A text that is too long is not tried, so that no pattern can be slow. */
const forms = {
  image: {
    pattern: imageReference,
    longest: 512,
    what: 'an image',
    example: 'registry.example.com/team/dev:1.2',
  },
  name: {
    pattern: /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/,
    longest: 253,
    what: 'a name of lower-case letters, digits, "-" and "."',
    example: 'standard',
  },
  label: {
    pattern: /^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/,
    longest: 63,
    what: 'a value of a label, at most 63 letters, digits, "-", "_" and "."',
    example: 'eu-west-1',
  },
  host: {
    pattern: /^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d{1,5})?$/,
    longest: 260,
    what: 'a host, with its port where it has one',
    example: 'registry.example.com:5000',
  },
} as const;

export type Converted<T> = { ok: T } | { message: string; hint?: string };

/** What an expression of a manifest may make. */
export type PlainValue = string | number | boolean | (string | number | boolean)[];

/**
 * Turns an evaluated value into what the field wants: `bytes` a number of bytes, `size` a quantity as Kubernetes
 * writes it, `cpus` a number of cores, `user` a whole number or `image`, `count`, `pods`, `port` and `seconds` a
 * whole number, `value` what JSON has; the others a text.
 */
export function convert(want: Exclude<FieldType, 'value'>, value: unknown): Converted<string | number>;
export function convert(want: FieldType, value: unknown): Converted<PlainValue>;
export function convert(want: FieldType, value: unknown): Converted<PlainValue> {
  if (want === 'value') return convertValue(value);
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
    return { message: `must be a text or a number, not ${describe(value)}` };
  }
  switch (want) {
    case 'text': {
      const text = String(value);
      return checkText(text, longestText);
    }
    case 'image':
    case 'name':
    case 'label':
    case 'host': {
      const text = String(value);
      const { pattern, longest, what, example } = forms[want];
      if (text.length <= longest && pattern.test(text)) return { ok: text };
      return { message: `must be ${what}, not ${describe(value)}`, hint: `for example ${example}` };
    }
    case 'user': {
      const uid = String(value);
      if (uid === 'image') return { ok: uid };
      return /^\d{1,9}$/.test(uid)
        ? { ok: Number(uid) }
        : {
            message: `must be a user's number, not ${describe(value)}`,
            hint: "1000, or `image` for the image's own",
          };
    }
    case 'bytes':
    case 'size': {
      const bytes = typeof value === 'boolean' ? null : parseQuantity(value);
      if (bytes === null) {
        return {
          message: `must be a quantity of bytes, not ${describe(value)}`,
          hint: 'for example 2Gi or 512Mi',
        };
      }
      const { min, max } = ranges[want];
      if (bytes < min || bytes > max) {
        return {
          message: `is ${formatQuantity(bytes)} bytes; it must be between ${formatQuantity(min)} and ${formatQuantity(max)}`,
          hint: bytes < 4096 ? `write a unit: ${bytes || 2}Gi` : undefined,
        };
      }
      return { ok: want === 'bytes' ? bytes : formatQuantity(bytes) };
    }
    case 'cpus':
    case 'pods':
    case 'port':
    case 'seconds':
    case 'count': {
      const text = String(value).trim();
      const number = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
      const { min, max } = ranges[want];
      if (!(number >= min && number <= max) || (want !== 'cpus' && !Number.isInteger(number))) {
        return {
          message: `must be a ${want === 'cpus' ? '' : 'whole '}number between ${min} and ${max}, not ${describe(value)}`,
          hint: /^\d+m$/.test(text) ? `write ${Number.parseInt(text, 10) / 1000} for ${text}` : undefined,
        };
      }
      // 0.1 + 0.2 cores: finer than a thousandth, Kubernetes knows none.
      return { ok: want === 'cpus' ? Math.round(number * 1000) / 1000 : number };
    }
  }
}

/** A value of a manifest, as JSON has it: what it is to be is for Kubernetes to say. */
function convertValue(value: unknown): Converted<PlainValue> {
  if (Array.isArray(value)) {
    const items: (string | number | boolean)[] = [];
    for (const item of value) {
      const one = Array.isArray(item) ? { message: 'is a list within a list' } : convertValue(item);
      if (!('ok' in one)) return { message: `has an item that ${one.message}` };
      items.push(one.ok as string);
    }
    return { ok: items };
  }
  if (typeof value === 'boolean') return { ok: value };
  if (typeof value === 'number') {
    if (Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value)))
      return { ok: value };
    return { message: `is no number that can be kept: ${value}` };
  }
  if (typeof value !== 'string')
    return { message: `must be a text, a number, a boolean or a list, not ${describe(value)}` };
  return checkText(value, longestValue);
}

function checkText(text: string, longest: number): Converted<string> {
  if (text.includes('\0')) return { message: 'must not hold a NUL character' };
  if (!text.isWellFormed()) return { message: 'must not hold half a character' };
  if (text.length > longest) {
    return { message: `is ${text.length} characters long; at most ${longest} are allowed` };
  }
  return { ok: text };
}

/** A value as a sentence names it. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…"` : text;
}
