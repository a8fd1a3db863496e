// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import type { Parameter, ParameterValues } from '@cde/api/template-parameters.ts';
import {
  Environment,
  type EvaluationError,
  type ParseError,
  type TypeError as TypeCheckError,
} from '@marcbachmann/cel-js';
import { type Bound, boundExpression, CostError, expressionFunctions, scalarBound } from './cost.ts';
import { maxItemCount, maxItemLength, maxStringLength } from './parameters.ts';
import { didYouMean } from './suggest.ts';

/** What expressions know beside the parameters. `owner.name` is the display name, `workspace.owner` the username. */
export interface RenderContext {
  workspace: { id: string; name: string; owner: string };
  owner: { name: string; email: string };
}
const variables = {
  workspace: ['id', 'name', 'owner'],
  owner: ['name', 'email'],
} as const;

/** A fault within a text; `offset` counts characters from its start. */
export interface TextFault {
  offset: number;
  message: string;
  hint?: string;
}

type Part = { text: string } | { expression: string; offset: number };

const maxExpressionLength = 2000;

/**
 * Splits `a ${{ b }} c` into its texts and expressions. `}}` within a string of the expression, or closing
 * a map in it, does not end it.
 */
function splitText(text: string): Part[] | TextFault {
  const parts: Part[] = [];
  let at = 0;
  for (;;) {
    const open = text.indexOf('${{', at);
    if (open === -1) break;
    const close = endOfExpression(text, open + 3);
    if (close === null) {
      return {
        offset: open,
        message: 'the expression that begins here has no end',
        hint: 'write ${{ … }}; to have "${{" in the result, write ${{ \'${{\' }}',
      };
    }
    if (open > at) parts.push({ text: text.slice(at, open) });
    parts.push({ expression: text.slice(open + 3, close), offset: open + 3 });
    at = close + 2;
  }
  if (at < text.length) parts.push({ text: text.slice(at) });
  return parts;
}

/** CEL's strings (raw ones know no escapes) and comments, a brace, or any other character. */
const token =
  /[rR](?:"""[\s\S]*?"""|'''[\s\S]*?'''|"[^"\n]*"|'[^'\n]*')|"""(?:\\[\s\S]|[^\\])*?"""|'''(?:\\[\s\S]|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\/\/[^\n]*|\w+|[\s\S]/y;

function endOfExpression(text: string, start: number): number | null {
  let depth = 0;
  token.lastIndex = start;
  while (token.lastIndex < text.length) {
    const at = token.lastIndex;
    const match = token.exec(text)?.[0];
    if (match === undefined) return null;
    if (match === '{') depth++;
    else if (match === '}') {
      if (depth === 0) return text[at + 1] === '}' ? at : null;
      depth--;
    }
  }
  return null;
}

/** What the expressions of one template are compiled in: its parameters, with their types and bounds. */
export interface Scope {
  compile(text: string): Compiled | TextFault[];
}

export interface Compiled {
  /** CEL's type of a text that is one expression; `string` of any other. */
  type: string;
  /** Of a text without expressions, itself. */
  constant: string | undefined;
  /** Upper bound, in interpreter steps. */
  cost: number;
  /** Names of the parameters that its value depends on. */
  parameters: ReadonlySet<string>;
  /** The value: numbers as JavaScript has them. A message where an expression fails on these values. */
  evaluate(values: ParameterValues, context: RenderContext): { ok: unknown } | TextFault;
}

// Setting up CEL's own functions takes a while; clones share them.
const base = new Environment({
  limits: { maxAstNodes: 500, maxDepth: 32, maxListElements: 100, maxMapEntries: 100 },
});

/** How CEL types a parameter; what is not known (its declaration is at fault) takes part in anything. */
function celType(parameter: Partial<Parameter>): string {
  switch (parameter.type) {
    case 'string':
      return 'string';
    case 'number':
      return (parameter as { integer?: unknown }).integer === true ? 'int' : 'double';
    case 'boolean':
      return 'bool';
    case 'list':
      return 'list<string>';
    default:
      return 'dyn';
  }
}

function boundOf(parameter: Partial<Parameter>): Bound {
  if (parameter.type === 'list') {
    return {
      length: Math.min(Number(parameter.maxItems ?? maxItemCount), maxItemCount),
      item: { length: maxItemLength },
    };
  }
  if (parameter.type !== 'string') return scalarBound;
  if (parameter.options) return { length: Math.max(...parameter.options.map(({ value }) => value.length)) };
  return { length: Number(parameter.maxLength ?? maxStringLength) };
}

/** Makes the scope of a template's parameters. Incomplete ones (at fault elsewhere) may be among them. */
export function makeScope(parameters: readonly (Partial<Parameter> & { name: string })[]): Scope {
  const types = Object.fromEntries(parameters.map((each) => [each.name, celType(each)]));
  const environment = base.clone().registerVariable({ name: 'parameters', schema: types });
  const bounds: Record<string, Bound> = {
    parameters: {
      length: 0,
      fields: Object.fromEntries(parameters.map((each) => [each.name, boundOf(each)])),
    },
  };
  for (const [name, fields] of Object.entries(variables)) {
    environment.registerVariable({
      name,
      schema: Object.fromEntries(fields.map((field) => [field, 'string'])),
    });
    bounds[name] = { length: 0, fields: Object.fromEntries(fields.map((field) => [field, { length: 320 }])) };
  }
  const known: Record<string, readonly string[]> = { ...variables, parameters: Object.keys(types) };

  function compileExpression(source: string) {
    if (source.trim() === '') {
      return { offset: 0, message: 'the expression is empty', hint: 'for example ${{ workspace.name }}' };
    }
    if (source.length > maxExpressionLength) {
      return { offset: 0, message: `the expression is longer than ${maxExpressionLength} characters` };
    }
    try {
      const run = environment.parse(source);
      const checked = run.check();
      if (!checked.valid) return explain(checked.error!, source, known);
      const { cost } = boundExpression(run.ast, bounds);
      return { run, type: checked.type ?? 'dyn', cost };
    } catch (error) {
      if (error instanceof CostError) {
        return { offset: error.offset, message: error.message, hint: error.hint };
      }
      return explain(error as ParseError, source, known);
    }
  }

  function compile(text: string): Compiled | TextFault[] {
    const parts = splitText(text);
    if (!Array.isArray(parts)) return [parts];
    const faults: TextFault[] = [];
    const used = new Set<string>();
    let cost = 0;
    let onlyType = 'string';
    const whole = parts.length === 1;
    const compiled = parts.map((part) => {
      if ('text' in part) return part.text;
      const result = compileExpression(part.expression);
      if (!('run' in result)) {
        faults.push({ ...result, offset: part.offset + result.offset });
        return '';
      }
      cost += result.cost;
      for (const name of Object.keys(types)) {
        if (part.expression.includes(name)) used.add(name);
      }
      if (whole) onlyType = result.type;
      else if (!['string', 'int', 'double', 'bool', 'dyn'].includes(result.type)) {
        faults.push({ offset: part.offset, ...wrongType(result.type, 'part of a text') });
      }
      return { ...part, run: result.run };
    });
    if (faults.length > 0) return faults;
    return {
      type: onlyType,
      constant: compiled.every((part) => typeof part === 'string') ? text : undefined,
      cost,
      parameters: used,
      evaluate(values, context) {
        const input = { ...context, parameters: toCel(values, types) };
        const results: unknown[] = [];
        for (const part of compiled) {
          if (typeof part === 'string') {
            results.push(part);
            continue;
          }
          try {
            results.push(fromCel(part.run(input)));
          } catch (error) {
            const fault = explain(error as EvaluationError, part.expression, known);
            return { ...fault, offset: part.offset + fault.offset };
          }
        }
        return { ok: whole ? results[0] : results.map(String).join('') };
      },
    };
  }
  return { compile };
}

/** The fault of an expression whose result is of no use where it stands. */
export function wrongType(type: string, where: string, wantsText = true): { message: string; hint?: string } {
  const names: Record<string, string> = {
    bool: 'a boolean',
    null: 'null',
    double: 'a number',
    int: 'a whole number',
  };
  const named = type.startsWith('list')
    ? 'a list'
    : type.startsWith('map') || type.startsWith('$')
      ? 'a map'
      : (names[type] ?? `of type ${type}`);
  return {
    message: `the expression is ${named}, which cannot be ${where}`,
    hint:
      type.startsWith('list') && wantsText
        ? 'join it into one text: .join(",")'
        : type.startsWith('$')
          ? 'name one of its fields, as in parameters.memory or workspace.name'
          : type === 'bool'
            ? 'choose a value by it: ${{ condition ? "one" : "other" }}'
            : undefined,
  };
}

/** CEL's integers are bigints, its doubles numbers. */
function toCel(values: ParameterValues, types: Record<string, string>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      types[name] === 'int' && typeof value === 'number' ? BigInt(value) : value,
    ]),
  );
}

function fromCel(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(fromCel);
  return typeof value === 'bigint' ? Number(value) : value;
}

function explain(
  error: ParseError | TypeCheckError | EvaluationError,
  source: string,
  known: Record<string, readonly string[]>,
): TextFault {
  const summary = error.summary ?? error.message;
  const offset = Math.min(error.range?.start ?? 0, source.length);
  const subject = /'?([\w.()<>, ]+?)'?$/.exec(summary)?.[1] ?? '';
  switch (error.code) {
    case 'unknown_variable': {
      const name = subject.trim();
      const parameter = known.parameters?.includes(name);
      return {
        offset,
        message: `there is no variable "${name}"`,
        hint: parameter ? `write parameters.${name}` : didYouMean(name, Object.keys(known)),
      };
    }
    case 'no_such_key': {
      const root = /(\w+)\s*(?:\.\s*|\[\s*["'])$/.exec(source.slice(0, offset))?.[1] ?? '';
      const key = summary.replace(/^No such key: /, '');
      if (root !== 'parameters' && !Object.hasOwn(known, root)) {
        return { offset, message: `the map has no key "${key}"` };
      }
      const names = known[root] ?? [];
      return {
        offset,
        message: root === 'parameters' ? `there is no parameter "${key}"` : `${root} has no field "${key}"`,
        hint:
          names.length === 0
            ? `declare it: parameters: [{name: ${key}, type: string}]`
            : didYouMean(key, names),
      };
    }
    case 'index_out_of_bounds':
      return { offset, message: `the list has no item ${/index (-?\d+)/.exec(summary)?.[1] ?? ''}`.trim() };
    case 'no_such_overload': {
      const mixesNumbers = /double.*\bint\b|\bint\b.*double/.test(summary);
      const mixesText = summary.includes('string');
      return {
        offset,
        message: `the types do not fit: ${summary.replace('no such overload: ', '')}`,
        hint: mixesNumbers
          ? 'write 2.0 for 2, or set "integer: true" on the parameter'
          : mixesText
            ? 'convert the other one first: string(…)'
            : undefined,
      };
    }
    case 'no_matching_overload': {
      const name = /'(?:.*\.)?(\w+)\(/.exec(summary)?.[1] ?? '';
      const functions = [
        ...expressionFunctions.global,
        ...expressionFunctions.method,
        ...expressionFunctions.macro,
      ];
      const exists = (functions as string[]).includes(name);
      return {
        offset,
        message: exists
          ? `the function does not take these types: ${subject}`
          : `there is no function "${name}" for this`,
        hint: exists ? undefined : didYouMean(name, [...new Set<string>(functions)]),
      };
    }
    default:
      return {
        offset,
        message: summary
          .replace('Unexpected token: EOF', 'the expression ends too early')
          .replace('EOF', 'its end'),
      };
  }
}
