import type { Path } from './source.ts';

/** What is wrong with a value of a tree; `onKey`: it is best shown at the key. */
export interface Issue {
  path: Path;
  message: string;
  hint?: string;
  onKey?: boolean;
}

/** The value if it is a map, else an empty one. */
export function asMap(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

/** The value if it is a list, else an empty one. */
export function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** All texts, numbers, booleans and nulls within, each with its path. */
export function* scalars(value: unknown, path: Path = []): Generator<{ path: Path; value: unknown }> {
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) yield* scalars(item, [...path, index]);
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) yield* scalars(item, [...path, key]);
  } else yield { path, value };
}

/** The same tree with each scalar replaced. Keys stay as they are. */
export function mapScalars(
  value: unknown,
  map: (value: unknown, path: Path) => unknown,
  path: Path = [],
): unknown {
  if (Array.isArray(value)) return value.map((item, index) => mapScalars(item, map, [...path, index]));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, mapScalars(item, map, [...path, key])]),
    );
  }
  return map(value, path);
}
