import { z } from 'zod';

type RawIssue = z.core.$ZodRawIssue;
type Issue = z.core.$ZodIssue;

/**
 * Words zod's issues for people: each completes "FIELD …". A schema's own message takes precedence. Imported for its
 * effect by every module that declares schemas from which people see errors.
 */
z.config({ customError: (issue) => validationMessage(issue) });

const typeNames: Record<string, string> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  bigint: 'a whole number',
  boolean: 'true or false',
  date: 'a date',
  array: 'a list',
  tuple: 'a list',
  set: 'a list',
  object: 'an object',
  record: 'an object',
  map: 'an object',
  null: 'null',
};

const formatNames: Record<string, string> = {
  email: 'an email address',
  url: 'a URL',
  uuid: 'a UUID',
  guid: 'a UUID',
  datetime: 'a date and time such as 2026-01-31T12:00:00Z',
  date: 'a date such as 2026-01-31',
  time: 'a time such as 12:00:00',
  duration: 'an ISO 8601 duration',
  ipv4: 'an IPv4 address',
  ipv6: 'an IPv6 address',
  mac: 'a MAC address',
  cidrv4: 'an IPv4 network such as 10.0.0.0/8',
  cidrv6: 'an IPv6 network such as fd00::/8',
  base64: 'base64',
  base64url: 'base64url',
  json_string: 'JSON',
  jwt: 'a JSON Web Token',
  safeint: 'a whole number',
  int32: 'a whole number',
  uint32: 'a whole number',
};

const sizes: Record<string, [one: string, many: string]> = {
  string: ['character', 'characters'],
  array: ['item', 'items'],
  set: ['item', 'items'],
  map: ['entry', 'entries'],
  record: ['entry', 'entries'],
  file: ['byte', 'bytes'],
};

const quoted = (value: unknown) => (typeof value === 'string' ? JSON.stringify(value) : String(value));

/** `a, b or c`. */
function oneOf(words: readonly string[]): string {
  return words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

function bound(
  issue: { origin: string; inclusive?: boolean; exact?: boolean },
  limit: number | bigint,
  isMax: boolean,
) {
  const size = sizes[issue.origin];
  const verb = size ? 'must have' : 'must be';
  const value = issue.origin === 'date' ? new Date(Number(limit)).toISOString() : String(limit);
  const what = size ? `${value} ${size[limit === 1 || limit === 1n ? 0 : 1]}` : value;
  if (size && !isMax && !issue.exact && Number(limit) === 1) return 'must not be empty';
  if (issue.exact) return `${verb} exactly ${what}`;
  if (issue.inclusive === false) return `${verb} ${isMax ? 'less' : 'more'} than ${what}`;
  return `${verb} at ${isMax ? 'most' : 'least'} ${what}`;
}

function formatMessage(issue: Record<string, unknown>): string {
  switch (issue.format) {
    case 'starts_with':
      return `must start with ${quoted(issue.prefix)}`;
    case 'ends_with':
      return `must end with ${quoted(issue.suffix)}`;
    case 'includes':
      return `must contain ${quoted(issue.includes)}`;
    case 'regex':
    case 'template_literal':
      return issue.pattern ? `must match ${issue.pattern}` : 'has the wrong format';
    case 'lowercase':
      return 'must be lower-case';
    case 'uppercase':
      return 'must be upper-case';
    default: {
      const name = formatNames[String(issue.format)];
      return name ? `must be ${name}` : 'has the wrong format';
    }
  }
}

/** The issues of the option that the value was most likely meant for: one whose type fits, with the fewest issues. */
function unionMessage(errors: readonly (readonly Issue[])[]): string {
  const isOfOtherType = (issues: readonly Issue[]) =>
    issues.some(
      ({ path, code }) => path.length === 0 && (code === 'invalid_type' || code === 'invalid_value'),
    );
  const meant = errors.filter((issues) => issues.length > 0 && !isOfOtherType(issues));
  const closest = meant.toSorted((a, b) => a.length - b.length)[0]?.[0];
  if (closest)
    return closest.path.length > 0 ? `${closest.path.join('.')} ${closest.message}` : closest.message;
  const wanted = errors.flat().flatMap((issue) => {
    if (issue.path.length > 0) return [];
    if (issue.code === 'invalid_type') return [typeNames[issue.expected] ?? issue.expected];
    return issue.code === 'invalid_value' ? issue.values.map(quoted) : [];
  });
  return wanted.length > 0 ? `must be ${oneOf([...new Set(wanted)])}` : 'has none of the allowed forms';
}

/** Undefined for issues that a schema words itself (`custom`). */
function validationMessage(issue: RawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type': {
      if (issue.input === undefined) return 'is required';
      if (issue.expected === 'never') return 'is not allowed here';
      const name = typeNames[issue.expected as string] ?? formatNames[issue.expected as string];
      return name ? `must be ${name}` : 'has the wrong type';
    }
    case 'invalid_value': {
      if (issue.input === undefined) return 'is required';
      const options = (issue.values as unknown[]).map(quoted);
      return options.length === 1 ? `must be ${options[0]}` : `must be one of ${options.join(', ')}`;
    }
    case 'too_big':
      return bound(issue as never, issue.maximum as number, true);
    case 'too_small':
      return bound(issue as never, issue.minimum as number, false);
    case 'invalid_format':
      return formatMessage(issue);
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}`;
    case 'unrecognized_keys': {
      const keys = (issue.keys as string[]).slice(0, 10).map(quoted);
      return `has ${keys.length > 1 ? 'unknown fields' : 'an unknown field'}: ${keys.join(', ')}`;
    }
    case 'invalid_key':
      return `has an invalid key: ${(issue.issues as Issue[])[0]?.message ?? 'it has the wrong form'}`;
    case 'invalid_element':
      return `has an invalid item: ${(issue.issues as Issue[])[0]?.message ?? 'it has the wrong form'}`;
    case 'invalid_union': {
      if (issue.inclusive === false) return 'fits more than one of the allowed forms';
      // Its path is that of the discriminator, its input the object.
      if (typeof issue.discriminator === 'string') {
        const options = ((issue.options as unknown[] | undefined) ?? []).map(quoted);
        return options.length > 0 ? `must be ${oneOf(options)}` : 'has an unknown value';
      }
      return unionMessage(issue.errors as Issue[][]);
    }
    default:
      return undefined;
  }
}
