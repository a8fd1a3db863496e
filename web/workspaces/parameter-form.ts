import type { ApiError } from '@cde/api/errors.ts';
import type { Parameter, ParameterValue, ParameterValues } from '@cde/api/template-parameters.ts';

/** The state of the form's controls by parameter: typed text, a switch, or chosen items. */
export type Draft = Record<string, string | boolean | string[]>;
/** Error messages by parameter. */
export type Problems = Record<string, string>;

/** A list with more options than this is a select instead of radio buttons. */
export const maxRadios = 6;

/** The initial state of the form: the given values, else the defaults. */
export function startDraft(parameters: readonly Parameter[], values: ParameterValues = {}): Draft {
  return Object.fromEntries(
    parameters.map((parameter) => [
      parameter.name,
      toDraft(parameter, Object.hasOwn(values, parameter.name) ? values[parameter.name] : parameter.default),
    ]),
  );
}

function toDraft(parameter: Parameter, value: ParameterValue | undefined): Draft[string] {
  switch (parameter.type) {
    case 'boolean':
      return value === true;
    case 'list': {
      const items = Array.isArray(value) ? value : [];
      return parameter.options ? items : items.join('\n');
    }
    default:
      return value === undefined ? '' : String(value);
  }
}

/**
 * Reads the form: a typed value or an error message for each parameter. The server validates again and has the last
 * word.
 */
export function readDraft(
  parameters: readonly Parameter[],
  draft: Draft,
): { values: ParameterValues; problems: Problems } {
  const values: ParameterValues = {};
  const problems: Problems = {};
  for (const parameter of parameters) {
    const read = readOne(parameter, draft[parameter.name]);
    if ('problem' in read) problems[parameter.name] = read.problem;
    else if (read.value !== undefined) values[parameter.name] = read.value;
  }
  return { values, problems };
}

/**
 * Whether a parameter can be changed in an existing workspace. An immutable one can be replaced only if the template
 * version no longer allows its value.
 */
export function immutableState(
  parameter: Parameter,
  values: ParameterValues,
): 'mutable' | 'fixed' | 'replaceable' {
  if (!parameter.immutable || !Object.hasOwn(values, parameter.name)) return 'mutable';
  return isAllowed(parameter, values[parameter.name]!) ? 'fixed' : 'replaceable';
}

function isAllowed(parameter: Parameter, value: ParameterValue): boolean {
  if ('problem' in readOne(parameter, toDraft(parameter, value))) return false;
  if (!('options' in parameter) || !parameter.options) return true;
  const allowed: readonly (string | number)[] = parameter.options.map((option) => option.value);
  return (Array.isArray(value) ? value : [value as string | number]).every((one) => allowed.includes(one));
}

type Read = { value: ParameterValue | undefined } | { problem: string };

function readOne(parameter: Parameter, held: Draft[string] | undefined): Read {
  switch (parameter.type) {
    case 'boolean':
      return { value: held === true };
    case 'list': {
      const items = Array.isArray(held) ? held : lines(String(held ?? ''));
      if (items.length > parameter.maxItems)
        return { problem: `At most ${parameter.maxItems} items; there are ${items.length}.` };
      return { value: items };
    }
    case 'number':
      return readNumber(parameter, String(held ?? '').trim());
    case 'string':
      return readString(parameter, String(held ?? ''));
  }
}

function lines(text: string): string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function readNumber(parameter: Extract<Parameter, { type: 'number' }>, text: string): Read {
  if (text === '')
    return parameter.default === undefined ? { problem: 'A number is required.' } : { value: undefined };
  const value = Number(text);
  if (!Number.isFinite(value)) return { problem: `“${text}” is not a number.` };
  if (parameter.integer && !Number.isSafeInteger(value)) return { problem: 'Enter a whole number.' };
  const { min, max } = parameter;
  if ((min !== undefined && value < min) || (max !== undefined && value > max))
    return { problem: `Must be ${limits(min, max).toLowerCase()}.` };
  return { value };
}

function readString(parameter: Extract<Parameter, { type: 'string' }>, text: string): Read {
  if (text === '' && parameter.default === undefined) return { problem: 'A value is required.' };
  const { minLength, maxLength } = parameter;
  if (
    (minLength !== undefined && text.length < minLength) ||
    (maxLength !== undefined && text.length > maxLength)
  )
    return {
      problem: `Must have ${limits(minLength, maxLength).toLowerCase()} characters; it has ${text.length}.`,
    };
  if (parameter.pattern !== undefined && !matches(parameter.pattern, text))
    return { problem: `It does not match the pattern ${parameter.pattern}` };
  return { value: text };
}

/** `From 1 to 8`, `At least 1`, `At most 8`. */
export function limits(min: number | undefined, max: number | undefined): string {
  if (min === undefined) return `At most ${max}`;
  if (max === undefined) return `At least ${min}`;
  return `From ${min} to ${max}`;
}

// The browser's patterns backtrack and the server's run in linear time, so long values are left to the server.
const longestMatched = 120;

function matches(pattern: string, text: string): boolean {
  if (text.length > longestMatched) return true;
  try {
    return new RegExp(`^(?:${pattern})$`, 'u').test(text);
  } catch {
    return true; // RE2 allows syntax that JavaScript does not.
  }
}

/** Assigns the server's issues to fields; `rest` are the others. */
export function placeIssues(
  parameters: readonly Parameter[],
  issues: ApiError['issues'],
): { problems: Problems; rest: string[] } {
  const problems: Problems = {};
  const rest: string[] = [];
  for (const { path, message } of issues ?? []) {
    const name = /^(?:parameters[.[]"?)?([a-z][a-z0-9_]*)/.exec(path)?.[1] ?? path;
    if (parameters.some((parameter) => parameter.name === name)) problems[name] ??= message;
    else rest.push(path ? `${path}: ${message}` : message);
  }
  return { problems, rest };
}
