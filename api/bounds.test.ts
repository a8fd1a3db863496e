import { expect, test } from 'vitest';
import { z } from 'zod';
import * as events from './events.ts';
import * as satelliteTerminals from './satellite-terminals.ts';
import { TemplateFile } from './template-file.ts';
import { endpoints } from './testing.ts';

/** Everything that a stranger can send has a bound, so that nobody fills memory or the database with one request. */

interface Schema {
  [key: string]: unknown;
  type?: string;
  $ref?: string;
}

/** Where a schema accepts something without a bound. */
function unbounded(schema: z.ZodType, name: string): string[] {
  const root = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Schema;
  const found: string[] = [];
  const seen = new Set<unknown>();
  const visit = (node: Schema | boolean | undefined, at: string): void => {
    if (!node || typeof node !== 'object' || seen.has(node)) return;
    seen.add(node);
    if (node.$ref) {
      const target = node.$ref.split('/').slice(1);
      visit(target.reduce<unknown>((part, key) => (part as Schema)[key], root) as Schema, at);
    }
    for (const kind of ['anyOf', 'oneOf', 'allOf'] as const)
      for (const [index, each] of ((node[kind] as Schema[]) ?? []).entries()) visit(each, `${at}|${index}`);
    if ('const' in node || 'enum' in node) return;
    // What it may be was said by its parts; what is nothing at all may be anything.
    const isParts = ['anyOf', 'oneOf', 'allOf', '$ref', 'not'].some((key) => key in node);
    if (!node.type && !isParts) found.push(`${at}: anything`);
    if (node.type === 'string' && node.maxLength === undefined && node.format !== 'uuid')
      found.push(`${at}: a string without maxLength`);
    if (node.type === 'number' || node.type === 'integer') {
      const [low, high] = [node.minimum ?? node.exclusiveMinimum, node.maximum ?? node.exclusiveMaximum];
      if (low === undefined || high === undefined || Math.abs(Number(high)) === Number.MAX_SAFE_INTEGER)
        found.push(`${at}: a number without minimum and maximum`);
    }
    if (node.type === 'array') {
      if (node.maxItems === undefined) found.push(`${at}: an array without maxItems`);
      visit(node.items as Schema, `${at}[]`);
    }
    if (node.type === 'object') {
      for (const [key, each] of Object.entries((node.properties as Record<string, Schema>) ?? {}))
        visit(each, `${at}.${key}`);
      if (
        node.propertyNames ||
        (typeof node.additionalProperties === 'object' &&
          Object.keys(node.additionalProperties as object).length > 0)
      ) {
        if (node.maxProperties === undefined) found.push(`${at}: a record without maxProperties`);
        visit(node.propertyNames as Schema, `${at}{key}`);
        visit(node.additionalProperties as Schema, `${at}{}`);
      }
    }
  };
  visit(root, name);
  return found;
}

test.each(endpoints.map((one) => [`${one.method} ${one.path}`, one] as const))('%s', (name, one) => {
  expect(
    [one.params, one.query, one.body].flatMap((schema) => (schema ? unbounded(schema, name) : [])),
  ).toEqual([]);
});

test.each([
  ['ClientMessage', events.ClientMessage],
  ['TerminalMessage', events.TerminalMessage],
  ['OpenTerminal', satelliteTerminals.OpenTerminal],
  ['TemplateFile', TemplateFile],
])('%s', (name, schema) => {
  expect(unbounded(schema, name)).toEqual([]);
});

test('the walk finds what has no bound', () => {
  expect(
    unbounded(
      z.object({
        a: z.string(),
        b: z.array(z.boolean()),
        c: z.record(z.string().max(1), z.boolean()),
        d: z.number(),
      }),
      'it',
    ),
  ).toEqual([
    'it.a: a string without maxLength',
    'it.b: an array without maxItems',
    'it.c: a record without maxProperties',
    'it.d: a number without minimum and maximum',
  ]);
});
