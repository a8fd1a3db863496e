// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written

import type { Parameter, ParameterValue, ParameterValues } from '@cde/api/template-parameters.ts';
import type { Fault } from '@cde/api/templates.ts';
import { type Compiled, makeScope, type RenderContext, wrongType } from './expressions.ts';
import { acceptedTypes, convert, type FieldType } from './fields.ts';
import { parameterVariable } from './parameters.ts';
import type { Path, Source } from './source.ts';
import { scalars } from './tree.ts';

/** What a render of one template may cost together; see cost.ts for the unit. */
const limits = { expressions: 500, cost: 100_000, sampleCost: 200_000, faults: 100 };

/** A file whose values may hold expressions, and what is wanted where. */
export interface ExpressionSource {
  source: Source;
  fieldTypeAt: (path: Path) => FieldType | undefined;
}

/**
 * Compiles every expression, compares its type with what its field takes, bounds what all can cost, and tries
 * them on values that developers may well choose. Values without an expression are checked as well.
 * @param declared the parameters as far as they are known
 * @param validParameters those that are without fault; where some are not, nothing is tried
 * @returns whether evaluating all of them takes no longer than it may
 */
export function checkExpressions(
  sources: readonly ExpressionSource[],
  declared: readonly (Partial<Parameter> & { name: string })[],
  validParameters: readonly Parameter[],
  faults: Fault[],
): boolean {
  const scope = makeScope(declared);
  const compiled: CompiledField[] = [];
  let expressions = 0;
  let cost = 0;
  for (const { source, fieldTypeAt, path, value } of everyScalar(sources)) {
    if (faults.length > limits.faults) return false;
    const want = fieldTypeAt(path);
    if (typeof value !== 'string' || !value.includes('${{')) {
      // What a manifest says without an expression was checked as it was read.
      if (want === undefined || want === 'value' || !isPlain(value)) continue;
      const result = convert(want, value);
      if (!('ok' in result)) {
        faults.push(source.fault(path, `${fieldName(path)} ${result.message}`, result.hint));
      }
      continue;
    }
    if (want === undefined) {
      const misplaced = misplacedExpression(path, value);
      if (misplaced) faults.push(source.faultInside(path, value.indexOf('${{'), ...misplaced));
      continue;
    }
    expressions += value.split('${{').length - 1;
    if (expressions > limits.expressions) {
      faults.push(source.fault(path, `the template has more than ${limits.expressions} expressions`));
      return false;
    }
    const text = scope.compile(value);
    if (Array.isArray(text)) {
      for (const { offset, message, hint } of text)
        faults.push(source.faultInside(path, offset, message, hint));
      continue;
    }
    cost += text.cost;
    if (cost > limits.cost) {
      faults.push(
        source.faultInside(
          path,
          value.indexOf('${{'),
          'the expressions of the template could take too long together',
          'give the parameters a maxLength and maxItems, or use fewer loops',
        ),
      );
      return false;
    }
    if (!acceptedTypes(want).includes(text.type)) {
      const { message, hint } = wrongType(
        text.type,
        `the value of ${fieldName(path)}`,
        want === 'text' || want === 'label',
      );
      faults.push(source.faultInside(path, value.indexOf('${{'), message, hint));
      continue;
    }
    compiled.push({ source, path, want, text });
  }
  if (validParameters.length === declared.length) evaluateSamples(compiled, validParameters, faults);
  return true;
}

/** `"memory"`, and of a list's item `"ports[0]"`. */
function fieldName(path: Path): string {
  const last = path.at(-1);
  return typeof last === 'number' ? `"${String(path.at(-2) ?? '')}[${last}]"` : `"${String(last)}"`;
}

const isPlain = (value: unknown) => ['string', 'number', 'boolean'].includes(typeof value);

function* everyScalar(sources: readonly ExpressionSource[]) {
  for (const each of sources) for (const scalar of scalars(each.source.value)) yield { ...each, ...scalar };
}

/** Message and hint for an expression where none is evaluated; undefined where `${{` is only text. */
function misplacedExpression(path: Path, value: string): [string, string] | undefined {
  if ((path[0] === 'startup' || path[0] === 'shutdown') && path[1] === 'script') {
    const name = /\$\{\{\s*parameters\.([a-z][a-z0-9_]*)\s*\}\}/.exec(value)?.[1];
    return [
      'a script holds no expressions: a value put into it could be read as commands',
      name === undefined
        ? 'give the value a name in env, and read it in the script: "$NAME"'
        : `write "$${parameterVariable(name)}", which every script finds set`,
    ];
  }
  if (path.at(-1) === 'description' || path[0] === 'title') return undefined;
  return ['expressions are not evaluated here', "they stand in env, home.size and the provider's section"];
}

interface CompiledField {
  source: Source;
  path: Path;
  want: FieldType;
  text: Compiled;
}

/** Who a template is tried as. */
export const sampleContext: RenderContext = {
  workspace: { id: '00000000-0000-7000-8000-000000000000', name: 'example', owner: 'someone' },
  owner: { name: 'Some One', email: 'someone@example.com' },
};

/**
 * Evaluates each expression on values that developers may well choose: the defaults, and beside them each
 * option and limit. So "memory of 0Gi" is found here, and not in somebody's build.
 */
function evaluateSamples(
  compiled: readonly CompiledField[],
  parameters: readonly Parameter[],
  faults: Fault[],
): void {
  const samples = new Map(parameters.map((parameter) => [parameter.name, samplesOf(parameter)]));
  let cost = 0;
  for (const { source, path, want, text } of compiled) {
    const names = [...text.parameters].filter((name) => samples.has(name));
    // Nothing is known that the developer could give for one of them (a pattern without a default).
    if (names.some((name) => samples.get(name)!.length === 0)) continue;
    const base: ParameterValues = Object.fromEntries(names.map((name) => [name, samples.get(name)![0]!]));
    const trials: { values: ParameterValues; when: string }[] = [{ values: base, when: '' }];
    for (const name of names) {
      for (const value of samples.get(name)!.slice(1)) {
        trials.push({
          values: { ...base, [name]: value },
          when: ` when parameters.${name} is ${JSON.stringify(value)}`,
        });
      }
    }
    for (const { values, when } of trials) {
      cost += sampleOverhead + text.cost;
      if (cost > limits.sampleCost) return;
      const result = text.evaluate(values, sampleContext);
      const checked = 'ok' in result ? convert(want, result.ok) : result;
      if ('ok' in checked) continue;
      const offset = 'offset' in checked ? (checked.offset as number) : 0;
      const what = 'ok' in result ? `${fieldName(path)} ` : '';
      faults.push(source.faultInside(path, offset, `${what}${checked.message}${when}`, checked.hint));
      break;
    }
  }
}

/** Of setting up one evaluation, in the unit of cost. */
const sampleOverhead = 50;

/** Values that the parameter may take, the default first. */
export function samplesOf(parameter: Parameter): ParameterValue[] {
  const samples: ParameterValue[] = parameter.default === undefined ? [] : [parameter.default];
  switch (parameter.type) {
    case 'boolean':
      samples.push(true, false);
      break;
    case 'number':
      if (parameter.options) samples.push(...parameter.options.map(({ value }) => value));
      else for (const limit of [parameter.min, parameter.max]) if (limit !== undefined) samples.push(limit);
      break;
    case 'string':
      if (parameter.options) samples.push(...parameter.options.map(({ value }) => value));
      break;
    case 'list':
      samples.push([]);
      break;
  }
  return samples;
}
