import {
  type Fault,
  Parameter,
  type ParameterValue,
  type ParameterValues,
  type TemplateFile,
} from '@cde/api/templates.ts';
import { type Compiled, makeScope, type RenderContext, wrongType } from './expressions.ts';
import { acceptedTypes, convert, type Want, wantAt } from './fields.ts';
import { checkFiles, templateFileName } from './files.ts';
import { checkDeclarations } from './parameters.ts';
import { parseDuration } from './quantity.ts';
import { parameterVariable, reservedEnv } from './render.ts';
import { checkShape } from './shape.ts';
import { type Path, readSource, type Source } from './source.ts';
import { nearest } from './suggest.ts';

/** What a render of one template may cost together; see cost.ts for the unit. */
const limits = { faults: 100, expressions: 100, cost: 100_000, trialCost: 200_000, timeoutMs: 24 * 3600_000 };

/**
 * Checks a template's folder: the files as such, the YAML, its shape, the parameters among themselves, and
 * every expression, compiled, typed, bounded, and tried on the parameters' defaults, options and limits.
 * Bounded: takes milliseconds, whatever it is given.
 * @param files relative path to text
 * @returns the template with its defaults filled in, or null; and every fault, in the order of the lines
 */
export function parseTemplate(files: Record<string, string>): {
  template: TemplateFile | null;
  faults: Fault[];
} {
  const faults = checkFiles(files);
  if (!Object.hasOwn(files, templateFileName)) return { template: null, faults };
  const read = readSource(templateFileName, files[templateFileName]!);
  faults.push(...read.faults);
  if (!read.source) return { template: null, faults: inOrder(faults) };

  const { template, faults: shape } = checkShape(read.source);
  faults.push(...shape, ...checkMeaning(read.source, files));
  return { template: faults.length === 0 ? template : null, faults: inOrder(faults) };
}

function inOrder(faults: Fault[]): Fault[] {
  const seen = new Set<string>();
  return faults
    .sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line || a.column - b.column)
    .filter((fault) => {
      const key = JSON.stringify([fault.file, fault.line, fault.column, fault.message]);
      return !seen.has(key) && seen.add(key);
    })
    .slice(0, limits.faults);
}

/** The faults beyond shape. Works on whatever part of the file is well-formed, so that all show at once. */
function checkMeaning(source: Source, files: Record<string, string>): Fault[] {
  const faults: Fault[] = [];
  const root = asMap(source.value);
  const declared: (Partial<Parameter> & { name: string })[] = [];
  const sound: { index: number; parameter: Parameter }[] = [];
  (Array.isArray(root.parameters) ? root.parameters : []).forEach((raw: unknown, index) => {
    const { name } = asMap(raw);
    if (typeof name !== 'string') return;
    if (declared.some((each) => each.name === name)) {
      faults.push(
        source.fault(
          ['parameters', index, 'name'],
          `there are two parameters "${name}"`,
          'give one of them another name',
        ),
      );
      return;
    }
    const parsed = Parameter.safeParse(raw);
    declared.push(parsed.success ? parsed.data : { name, type: asMap(raw).type as Parameter['type'] });
    if (parsed.success) sound.push({ index, parameter: parsed.data });
  });
  const declarations = checkDeclarations(sound);
  faults.push(...declarations.map(({ path, message, hint }) => source.fault(path, message, hint)));

  const canTry = declarations.length === 0 && sound.length === declared.length;
  checkExpressions(source, declared, canTry ? sound.map(({ parameter }) => parameter) : [], faults);
  checkEnv(source, root, faults);
  checkStartup(source, asMap(root.startup), faults);
  if (typeof root.icon === 'string' && /[/.]/.test(root.icon) && !Object.hasOwn(files, root.icon)) {
    const near = nearest(root.icon, Object.keys(files));
    faults.push(
      source.fault(
        ['icon'],
        `the folder has no file "${root.icon}"`,
        near === undefined ? 'an icon is an emoji, or a file of the folder' : `did you mean "${near}"?`,
      ),
    );
  }
  return faults;
}

function checkExpressions(
  source: Source,
  declared: readonly (Partial<Parameter> & { name: string })[],
  sound: readonly Parameter[],
  faults: Fault[],
): void {
  const scope = makeScope(declared);
  const compiled: { path: Path; want: Want; text: Compiled }[] = [];
  let expressions = 0;
  let cost = 0;
  for (const { path, value } of scalars(source.value, [])) {
    const want = wantAt(path);
    if (typeof value !== 'string' || !value.includes('${{')) {
      if (want === undefined || !['string', 'number', 'boolean'].includes(typeof value)) continue;
      const result = convert(want, value);
      if (!('ok' in result)) {
        faults.push(source.fault(path, `"${String(path.at(-1))}" ${result.message}`, result.hint));
      }
      continue;
    }
    if (want === undefined) {
      const misplaced = misplacedExpression(path, value);
      if (misplaced) faults.push(source.faultInside(path, value.indexOf('${{'), ...misplaced));
      continue;
    }
    if (++expressions > limits.expressions) {
      faults.push(source.fault(path, `there are more than ${limits.expressions} values with expressions`));
      return;
    }
    const text = scope.compile(value);
    if (Array.isArray(text)) {
      for (const { offset, message, hint } of text)
        faults.push(source.faultInside(path, offset, message, hint));
      continue;
    }
    if (!acceptedTypes(want).includes(text.type)) {
      const { message, hint } = wrongType(
        text.type,
        `the value of "${String(path.at(-1))}"`,
        want === 'text',
      );
      faults.push(source.faultInside(path, value.indexOf('${{'), message, hint));
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
      return;
    }
    compiled.push({ path, want, text });
  }
  if (sound.length === declared.length) tryExpressions(source, compiled, sound, faults);
}

/** Message and hint for an expression where none is evaluated; undefined where `${{` is only text. */
function misplacedExpression(path: Path, value: string): [string, string] | undefined {
  if (path[0] === 'startup' && path[1] === 'script') {
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

const tryContext: RenderContext = {
  workspace: { id: '00000000-0000-7000-8000-000000000000', name: 'example', owner: 'someone' },
  owner: { name: 'Some One', email: 'someone@example.com' },
};

/**
 * Evaluates each expression on values that developers may well choose: the defaults, and beside them each
 * option and limit. So "memory of 0Gi" is found here, and not in somebody's build.
 */
function tryExpressions(
  source: Source,
  compiled: readonly { path: Path; want: Want; text: Compiled }[],
  parameters: readonly Parameter[],
  faults: Fault[],
): void {
  const samples = new Map(parameters.map((parameter) => [parameter.name, samplesOf(parameter)]));
  let cost = 0;
  for (const { path, want, text } of compiled) {
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
      cost += trialOverhead + text.cost;
      if (cost > limits.trialCost) return;
      const result = text.evaluate(values, tryContext);
      const checked = 'ok' in result ? convert(want, result.ok) : result;
      if ('ok' in checked) continue;
      const offset = 'offset' in checked ? (checked.offset as number) : 0;
      const what = 'ok' in result ? `"${String(path.at(-1))}" ` : '';
      faults.push(source.faultInside(path, offset, `${what}${checked.message}${when}`, checked.hint));
      break;
    }
  }
}

/** Of setting up one evaluation, in the unit of cost. */
const trialOverhead = 50;

/** Values that the parameter may take, the default first. */
function samplesOf(parameter: Parameter): ParameterValue[] {
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

function checkEnv(source: Source, root: Record<string, unknown>, faults: Fault[]): void {
  for (const path of [['env'], ['local', 'env']]) {
    const env = asMap(path.length === 1 ? root.env : asMap(root.local).env);
    for (const [name, value] of Object.entries(env)) {
      if (reservedEnv.test(name)) {
        faults.push(
          source.faultAtKey([...path, name], `the variable "${name}" is set by us`, 'choose another name'),
        );
      } else if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
        faults.push(
          source.faultAtKey(
            [...path, name],
            `"${name}" is not a name for this`,
            'use letters, digits and underscores, not starting with a digit',
          ),
        );
      }
      const written = source.written([...path, name]);
      // 3.10 is a number to YAML, and would reach the workspace as 3.1.
      if (typeof value === 'number' && written !== undefined && written !== String(value)) {
        faults.push(
          source.fault(
            [...path, name],
            `YAML reads ${written} as the number ${value}`,
            `put it in quotes: "${written}"`,
          ),
        );
      }
    }
  }
}

function checkStartup(source: Source, startup: Record<string, unknown>, faults: Fault[]): void {
  const { script, timeout } = startup;
  if (typeof script === 'string' && script.includes('\0')) {
    faults.push(source.fault(['startup', 'script'], 'the script holds a NUL character'));
  }
  if (typeof timeout !== 'string') return;
  const ms = parseDuration(timeout);
  if (ms !== null && (ms < 1000 || ms > limits.timeoutMs)) {
    faults.push(source.fault(['startup', 'timeout'], `"timeout" must be between 1s and 24h, not ${timeout}`));
  }
}

function asMap(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

function* scalars(value: unknown, path: Path): Generator<{ path: Path; value: unknown }> {
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) yield* scalars(item, [...path, index]);
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) yield* scalars(item, [...path, key]);
  } else yield { path, value };
}
