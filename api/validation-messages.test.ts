import { expect, test } from 'vitest';
import { z } from 'zod';
import { TemplateFile } from './template-file.ts';
import { endpoints } from './testing.ts';
import './validation-messages.ts';

const messages = (schema: z.ZodType, value: unknown) =>
  schema.safeParse(value).error?.issues.map((issue) => issue.message);

test.each<[string, z.ZodType, unknown, string]>([
  ['too_big', z.number().max(365), 900, 'must be at most 365'],
  ['too_big, exclusive', z.number().lt(1), 1, 'must be less than 1'],
  ['too_big, text', z.string().max(3), 'four', 'must have at most 3 characters'],
  ['too_big, list', z.array(z.string()).max(1), ['a', 'b'], 'must have at most 1 item'],
  ['too_big, exact', z.string().length(2), 'abc', 'must have exactly 2 characters'],
  ['too_small', z.number().min(1), 0, 'must be at least 1'],
  ['too_small, exclusive', z.number().gt(0), 0, 'must be more than 0'],
  ['too_small, empty text', z.string().min(1), '', 'must not be empty'],
  ['too_small, empty list', z.array(z.string()).min(1), [], 'must not be empty'],
  ['invalid_type', z.string(), 1, 'must be text'],
  ['invalid_type, missing', z.string(), undefined, 'is required'],
  ['invalid_type, integer', z.number().int(), 1.5, 'must be a whole number'],
  ['invalid_type, coerced', z.coerce.number(), 'many', 'must be a number'],
  ['invalid_value', z.enum(['read', 'all']), 'write', 'must be one of "read", "all"'],
  ['invalid_value, literal', z.literal(true), false, 'must be true'],
  ['invalid_value, missing', z.enum(['read', 'all']), undefined, 'is required'],
  ['invalid_format', z.email(), 'ada', 'must be an email address'],
  ['invalid_format, uuid', z.uuid(), 'x', 'must be a UUID'],
  [
    'invalid_format, datetime',
    z.iso.datetime(),
    'today',
    'must be a date and time such as 2026-01-31T12:00:00Z',
  ],
  ['invalid_format, prefix', z.string().startsWith('cde_'), 'x', 'must start with "cde_"'],
  ['invalid_format, regex', z.string().regex(/^a+$/), 'b', 'must match /^a+$/'],
  ['unrecognized_keys', z.strictObject({}), { a: 1 }, 'has an unknown field: "a"'],
  ['unrecognized_keys, several', z.strictObject({}), { a: 1, b: 2 }, 'has unknown fields: "a", "b"'],
  ['invalid_union of types', z.union([z.string(), z.number()]), true, 'must be text or a number'],
  [
    'invalid_union, one type fits',
    z.union([z.string().max(2), z.array(z.string())]),
    'abc',
    'must have at most 2 characters',
  ],
  [
    'invalid_union, inside an object',
    z.union([z.null(), z.object({ port: z.number().max(65535) })]),
    { port: 'x' },
    'port must be a number',
  ],
  [
    'invalid_union, discriminator',
    z.discriminatedUnion('type', [z.object({ type: z.literal('a') }), z.object({ type: z.literal('b') })]),
    { type: 'c' },
    'must be "a" or "b"',
  ],
  ['not_multiple_of', z.number().multipleOf(5), 7, 'must be a multiple of 5'],
  [
    'invalid_key',
    z.record(z.string().max(1), z.number()),
    { ab: 1 },
    'has an invalid key: must have at most 1 character',
  ],
  ["a schema's own message", z.string().regex(/^a$/, 'write an a'), 'b', 'write an a'],
])('%s', (_code, schema, value, message) => {
  expect(messages(schema, value)).toEqual([message]);
});

/** What zod itself says: its sentences begin with a capital letter, and name its types. */
const zodWords = /^[A-Z]|Invalid|Too (big|small)|expected|received|Unrecognized|[<>]=|\bNaN\b|undefined/;

/** Values of every kind, at the top and in every field that the schema names. */
function wrongValues(schema: z.ZodType): unknown[] {
  const wrong = [
    undefined,
    null,
    '',
    'x'.repeat(5_000),
    -1,
    1e12,
    1.5,
    Number.NaN,
    true,
    [],
    [{}],
    {},
    { a: 1 },
  ];
  const { properties = {} } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as {
    properties?: Record<string, unknown>;
  };
  const keys = Object.keys(properties);
  return [...wrong, ...wrong.map((value) => Object.fromEntries(keys.map((key) => [key, value])))];
}

test('no request to the API is answered in the words of zod', () => {
  let count = 0;
  const schemas = [
    ...endpoints.flatMap(({ params, query, body }) => [params, query, body]),
    TemplateFile as z.ZodType,
  ].filter((schema) => schema !== undefined);
  for (const schema of schemas)
    for (const value of wrongValues(schema))
      for (const message of messages(schema, value) ?? []) {
        expect(message).not.toMatch(zodWords);
        count++;
      }
  expect(count).toBeGreaterThan(1_000);
});
