import type { Parameter, ParameterValue, ParameterValues } from '@cde/api/template-parameters.ts';
import { describe } from './fields.ts';
import { compilePattern, maxMatchedLength, maxProgramSize } from './pattern.ts';
import type { Path } from './source.ts';
import { isUnstorable } from './storable.ts';
import { didYouMean } from './suggest.ts';

/** Characters of a string parameter without `maxLength`; and of any. */
export const maxStringLength = 1024;
const maxAllowedStringLength = 16_384;
/** Characters of a list's item, items of a list: together they fit into one environment variable. */
export const maxItemLength = 1024;
export const maxItemCount = 100;
const maxOptions = 100;

export interface ParameterFault {
  path: Path;
  message: string;
  hint?: string;
}

/** The faults of declared parameters among themselves: limits, options, patterns and defaults that disagree. */
export function checkDeclarations(
  parameters: readonly { index: number; parameter: Parameter }[],
): ParameterFault[] {
  const faults: ParameterFault[] = [];
  let instructions = 0;
  for (const { index, parameter } of parameters) {
    const fault = (path: Path, message: string, hint?: string) =>
      faults.push({ path: ['parameters', index, ...path], message, hint });
    if (['in', 'true', 'false', 'null', 'constructor'].includes(parameter.name)) {
      fault(['name'], `"${parameter.name}" is a word of the expression language`, 'choose another name');
    }
    checkLimits(parameter, fault);
    if (parameter.type === 'string' && parameter.pattern !== undefined) {
      const compiled = compilePattern(parameter.pattern);
      if ('message' in compiled) fault(['pattern'], `the pattern ${compiled.message}`, compiled.hint);
      else if (parameter.options) {
        fault(['pattern'], 'a parameter with options needs no pattern', 'leave the pattern out');
      } else {
        instructions += compiled.size;
        if (instructions > 2 * maxProgramSize) {
          fault(['pattern'], 'the patterns of the template are too large together', 'use shorter ones');
        }
      }
    }
    if ('options' in parameter && parameter.options) {
      checkOptions(parameter, parameter.options, fault);
    }
    if (parameter.default !== undefined) {
      const issue = checkValue(parameter, parameter.default);
      if (issue) fault(['default'], `the default ${issue.message}`, issue.hint);
    }
  }
  return faults;
}

type Report = (path: Path, message: string, hint?: string) => void;

function checkLimits(parameter: Parameter, fault: Report): void {
  switch (parameter.type) {
    case 'string': {
      const { minLength, maxLength, pattern } = parameter;
      if (maxLength !== undefined && maxLength > maxAllowedStringLength) {
        fault(['maxLength'], `maxLength is ${maxLength}; at most ${maxAllowedStringLength} is allowed`);
      } else if (pattern !== undefined && maxLength !== undefined && maxLength > maxMatchedLength) {
        fault(
          ['maxLength'],
          `with a pattern, maxLength is at most ${maxMatchedLength}`,
          'leave one of them out',
        );
      }
      const most = maxLength ?? (pattern === undefined ? maxStringLength : maxMatchedLength);
      if (minLength !== undefined && minLength > most) {
        fault(
          ['minLength'],
          `minLength ${minLength} is greater than ${maxLength === undefined ? 'the longest allowed' : 'maxLength'} ${most}`,
        );
      }
      return;
    }
    case 'number': {
      const { min, max, integer } = parameter;
      if (min !== undefined && max !== undefined && min > max) {
        fault(['min'], `min ${min} is greater than max ${max}`);
      }
      for (const limit of ['min', 'max'] as const) {
        const value = parameter[limit];
        if (integer && value !== undefined && !Number.isInteger(value)) {
          fault([limit], `${limit} ${value} is not a whole number, as "integer: true" wants`);
        }
      }
      return;
    }
  }
}

function checkOptions(
  parameter: Parameter,
  options: readonly { value: string | number }[],
  fault: Report,
): void {
  if (options.length > maxOptions) {
    fault(['options'], `there are ${options.length} options; at most ${maxOptions} are allowed`);
    return;
  }
  const seen = new Set<string | number>();
  options.forEach(({ value }, index) => {
    const path = ['options', index, 'value'];
    if (seen.has(value)) fault(path, `the option ${describe(value)} stands here twice`, 'keep one of them');
    seen.add(value);
    const issue =
      parameter.type === 'list'
        ? checkItem(value as string)
        : checkValue({ ...parameter, options: undefined, pattern: undefined } as Parameter, value);
    if (issue) fault(path, `the option ${issue.message}`, issue.hint);
  });
}

export interface Issue {
  message: string;
  hint?: string;
}

/** Why a value of the right kind does not fit the parameter; null when it does. */
function checkValue(parameter: Parameter, value: ParameterValue): Issue | null {
  switch (parameter.type) {
    case 'string': {
      if (typeof value !== 'string') return { message: `must be a text, not ${describe(value)}` };
      if (isUnstorable(value)) return { message: 'must not hold a NUL character or half a character' };
      const { minLength = 0, pattern, options } = parameter;
      const maxLength = parameter.maxLength ?? (pattern === undefined ? maxStringLength : maxMatchedLength);
      if (value.length < minLength || value.length > Math.min(maxLength, maxAllowedStringLength)) {
        return {
          message: `must be ${minLength > 0 ? `${minLength} to` : 'at most'} ${maxLength} characters long, not ${value.length}`,
        };
      }
      const option = options && checkOption(options, value);
      if (option) return option;
      if (pattern !== undefined) {
        const compiled = compilePattern(pattern);
        // A pattern that does not compile is a fault of its own.
        if ('matches' in compiled && !compiled.matches(value)) {
          return { message: `does not match the pattern ${pattern}: ${describe(value)}` };
        }
      }
      return null;
    }
    case 'number': {
      if (typeof value !== 'number' || !Number.isFinite(value)) {
        return { message: `must be a number, not ${describe(value)}` };
      }
      const { min, max, integer, options } = parameter;
      if (integer && !Number.isSafeInteger(value)) return { message: `must be a whole number, not ${value}` };
      if ((min !== undefined && value < min) || (max !== undefined && value > max)) {
        return {
          message: `must be ${
            min === undefined
              ? `at most ${max}`
              : max === undefined
                ? `at least ${min}`
                : `between ${min} and ${max}`
          }, not ${value}`,
        };
      }
      return options ? checkOption(options, value) : null;
    }
    case 'boolean':
      return typeof value === 'boolean' ? null : { message: `must be true or false, not ${describe(value)}` };
    case 'list': {
      if (!Array.isArray(value)) return { message: `must be a list, not ${describe(value)}` };
      if (value.length > parameter.maxItems) {
        return { message: `must have at most ${parameter.maxItems} items, not ${value.length}` };
      }
      for (const item of value) {
        const issue = checkItem(item) ?? (parameter.options ? checkOption(parameter.options, item) : null);
        if (issue) return { ...issue, message: `has an item that ${issue.message}` };
      }
      return null;
    }
  }
}

/** Items reach the startup script one a line, so none may hold a line break. */
function checkItem(item: unknown): Issue | null {
  if (typeof item !== 'string') return { message: `must be a text, not ${describe(item)}` };
  if (/[\0\r\n]/.test(item) || !item.isWellFormed())
    return { message: 'must not hold a line break or NUL character' };
  if (item.length > maxItemLength) {
    return { message: `must be at most ${maxItemLength} characters long, not ${item.length}` };
  }
  return null;
}

function checkOption(options: readonly { value: string | number }[], value: string | number): Issue | null {
  if (options.some((option) => option.value === value)) return null;
  const values = options.map((option) => String(option.value));
  const shown = values.slice(0, 12).join(', ') + (values.length > 12 ? ', …' : '');
  const hint = didYouMean(String(value), values);
  return {
    message: `must be one of ${shown}; not ${describe(value)}`,
    hint: hint?.startsWith('did you mean') ? hint : undefined,
  };
}

/**
 * A given value in the parameter's own type where nothing is lost by it: a command line or a form knows
 * texts only. Any other value is returned as it is, for `checkValue` to refuse.
 */
function coerce(parameter: Parameter, value: unknown): ParameterValue {
  if (typeof value === 'string') {
    const text = value.trim();
    if (parameter.type === 'number' && /^-?\d{1,15}(\.\d{1,15})?$/.test(text)) return Number(text);
    if (parameter.type === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
    if (parameter.type === 'list') {
      if (text === '') return [];
      if (text.startsWith('[')) {
        try {
          const list: unknown = JSON.parse(text);
          if (Array.isArray(list)) return list as string[];
        } catch {
          // Not JSON: refused below, as any text.
        }
      } else if (!text.includes(',')) return [value];
    }
  }
  return value as ParameterValue;
}

function wantedForm(parameter: Parameter): string | undefined {
  return parameter.type === 'list' ? 'write a JSON list: ["one", "two"]' : undefined;
}

/**
 * Checks what a developer gives for a template's parameters, and fills in the rest.
 * @param previous the values of the workspace's last build: they are kept where nothing is given. Those that the
 *   template no longer has are dropped. An immutable value is kept even if a newer version no longer allows it
 *   (an option was removed, a limit lowered); such a value, and no other, may then be replaced by one that is allowed.
 * @returns a value for every parameter, or one issue for each that does not fit (`path` is its name)
 */
export function checkParameters(
  parameters: readonly Parameter[],
  given: Record<string, unknown>,
  options: { previous?: ParameterValues } = {},
): { values: ParameterValues } | { issues: { path: string; message: string }[] } {
  const issues: { path: string; message: string }[] = [];
  const previous = options.previous ?? {};
  const names = parameters.map(({ name }) => name);
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    const hint = names.length === 0 ? 'the template has no parameters' : didYouMean(name, names);
    issues.push({ path: name, message: `there is no parameter "${name}"; ${hint}` });
  }
  const values: ParameterValues = {};
  for (const parameter of parameters) {
    const { name } = parameter;
    const before = Object.hasOwn(previous, name) ? previous[name] : undefined;
    const isGiven = Object.hasOwn(given, name) && given[name] !== undefined && given[name] !== null;
    const value = isGiven ? coerce(parameter, given[name]) : (before ?? parameter.default);
    if (
      parameter.immutable &&
      before !== undefined &&
      sameValue(before, value) &&
      hasType(parameter, before)
    ) {
      values[name] = before;
      continue;
    }
    if (value === undefined) {
      issues.push({ path: name, message: 'a value is required: the parameter has no default' });
      continue;
    }
    const issue = checkValue(parameter, value);
    if (issue) {
      const hint = issue.hint ?? (Array.isArray(value) ? undefined : wantedForm(parameter));
      const kept = !isGiven && before !== undefined ? 'the value from before no longer fits: it ' : '';
      issues.push({ path: name, message: `${kept}${issue.message}${hint ? `; ${hint}` : ''}` });
      continue;
    }
    if (parameter.immutable && before !== undefined && checkValue(parameter, before) === null) {
      issues.push({
        path: name,
        message: `can only be set when the workspace is created; it is ${JSON.stringify(before)}`,
      });
      continue;
    }
    values[name] = value;
  }
  return issues.length > 0 ? { issues } : { values };
}

/** Whether expressions can work with the value: its type is the parameter's, whatever the constraints say. */
function hasType(parameter: Parameter, value: ParameterValue): boolean {
  switch (parameter.type) {
    case 'list':
      return Array.isArray(value);
    case 'number':
      return typeof value === 'number' && (!parameter.integer || Number.isSafeInteger(value));
    default:
      return typeof value === parameter.type;
  }
}

function sameValue(a: ParameterValue, b: ParameterValue | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** The variable in which the workspace's processes find a parameter: `CDE_PARAM_REPO`. */
export function parameterVariable(name: string): string {
  return `CDE_PARAM_${name.toUpperCase()}`;
}

/** A parameter's value as text: a list is one item a line. */
export function parameterText(value: ParameterValue): string {
  return Array.isArray(value) ? value.join('\n') : String(value);
}
