import { z } from 'zod';
import './validation-messages.ts';

/** UUIDv7. */
export const Id = z.uuid();

/** A point in time, ISO 8601 in UTC. */
export const Moment = z.iso.datetime().max(40);

/** The largest number that fits PostgreSQL's `integer`. */
export const maxInteger = 2 ** 31 - 1;
export const Count = z.number().int().min(0).max(maxInteger);

/** A record of at most `max` entries. */
export const boundedRecord = <Key extends z.core.$ZodRecordKey, Value extends z.ZodType>(
  key: Key,
  value: Value,
  max: number,
) =>
  z
    .record(key, value)
    .refine((record) => Object.keys(record).length <= max, `at most ${max} entries`)
    .meta({ maxProperties: max });

/**
 * One line of text without control characters. Not a `pattern`, because few tools that read the API's description know
 * Unicode's categories.
 */
export const plainText = (maxLength: number) =>
  z
    .string()
    .max(maxLength)
    .refine((text) => !/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u.test(text), 'must not contain control characters');

export const usernamePattern = /^[a-z][a-z0-9-]{0,30}[a-z0-9]$|^[a-z]$/;
export const Username = z
  .string()
  .max(32)
  .regex(
    usernamePattern,
    'use 1 to 32 lower-case letters, digits and hyphens, starting with a letter, ending with a letter or digit',
  )
  .refine((name) => !name.includes('--'), 'no two hyphens in a row');

export const workspaceNamePattern = /^[a-z][a-z0-9-]{0,30}[a-z0-9]$|^[a-z]$/;
export const WorkspaceName = z
  .string()
  .max(32)
  .regex(
    workspaceNamePattern,
    'use 1 to 32 lower-case letters, digits and hyphens, starting with a letter, ending with a letter or digit',
  )
  .refine((name) => !name.includes('--'), 'no two hyphens in a row');

export const TemplateName = z
  .string()
  .max(32)
  .regex(
    workspaceNamePattern,
    'use 1 to 32 lower-case letters, digits and hyphens, starting with a letter, ending with a letter or digit',
  );

/** A wildcard name of DNS: `*.dev.example.com`. */
export const WildcardName = z
  .string()
  .max(200)
  // ASCII only: `toLowerCase` turns the Kelvin sign into `k`.
  .overwrite((name) => name.replace(/[A-Z]/g, (letter) => letter.toLowerCase()))
  .regex(
    /^\*(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$/,
    'write a wildcard name, for example *.dev.example.com',
  );

/** `name` of your own workspace, `owner/name`, or the id of a workspace. */
export const WorkspaceRef = z
  .string()
  .min(1)
  .max(80)
  .describe('A workspace: `name`, `owner/name` (written `owner~name` in a path) or its id');

/** A page of a list. */
export const PageQuery = z.object({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  after: z.string().max(400).optional().describe('`next` of the previous page'),
});
export function page<T extends z.ZodType>(item: T) {
  return z.object({
    items: z.array(item),
    next: z.string().nullable().describe('Pass it as `after` to get the next page. Null on the last page'),
  });
}

export const HostPort = z
  .string()
  .max(300)
  .regex(
    /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/,
    'write HOST:PORT, for example node1.example.com:30100',
  );
