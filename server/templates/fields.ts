import { formatQuantity, parseQuantity } from './quantity.ts';

/** What a field of a template accepts once its expressions are evaluated. */
export type Want = 'text' | 'size' | 'bytes' | 'cpus' | 'count';

interface Field {
  path: readonly string[];
  want: Want;
}

/** The fields whose strings may hold `${{ }}`; `*` stands for any key. In all others it is a fault. */
export const expressionFields: readonly Field[] = [
  { path: ['env', '*'], want: 'text' },
  { path: ['home', 'size'], want: 'size' },
  { path: ['local', 'memory'], want: 'bytes' },
  { path: ['local', 'cpus'], want: 'cpus' },
  { path: ['local', 'processes'], want: 'count' },
  { path: ['local', 'env', '*'], want: 'text' },
];

/** The want of the field at `path`, or undefined when no expression may stand there. */
export function wantAt(path: readonly PropertyKey[]): Want | undefined {
  return expressionFields.find(
    (field) =>
      field.path.length === path.length &&
      field.path.every((part, index) => part === '*' || part === path[index]),
  )?.want;
}

/** Types of CEL from which `convert` can make what the field wants. */
export function acceptedTypes(want: Want): readonly string[] {
  return want === 'text' ? ['string', 'int', 'double', 'bool', 'dyn'] : ['string', 'int', 'double', 'dyn'];
}

const bytesPerMi = 2 ** 20;
const ranges = {
  bytes: { min: 32 * bytesPerMi, max: 64 * 2 ** 40 },
  size: { min: bytesPerMi, max: 1024 * 2 ** 40 },
  cpus: { min: 0.01, max: 1024 },
  count: { min: 16, max: 4_194_304 },
} as const;
const longestText = 32_768;

export type Converted<T> = { ok: T } | { message: string; hint?: string };

/**
 * Turns an evaluated value into what the field wants: `bytes` a number of bytes, `size` the quantity as
 * text, `cpus` a number, `count` a whole number, `text` a string.
 */
export function convert(want: Want, value: unknown): Converted<string | number> {
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
    return { message: `must be a text or a number, not ${describe(value)}` };
  }
  switch (want) {
    case 'text': {
      const text = String(value);
      if (text.includes('\0')) return { message: 'must not hold a NUL character' };
      if (text.length > longestText) {
        return { message: `is ${text.length} characters long; at most ${longestText} are allowed` };
      }
      return { ok: text };
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
      return { ok: want === 'bytes' ? bytes : String(value) };
    }
    case 'cpus':
    case 'count': {
      const text = String(value).trim();
      const number = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
      const { min, max } = ranges[want];
      if (!(number >= min && number <= max) || (want === 'count' && !Number.isInteger(number))) {
        return {
          message: `must be a ${want === 'count' ? 'whole ' : ''}number between ${min} and ${max}, not ${describe(value)}`,
          hint: /^\d+m$/.test(text) ? `write ${Number.parseInt(text, 10) / 1000} for ${text}` : undefined,
        };
      }
      return { ok: number };
    }
  }
}

/** A value as a sentence names it. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…"` : text;
}
