import { readFileSync } from 'node:fs';
import type { Parameter, ParameterValue, ParameterValues } from '@cde/api/template-parameters.ts';
import { askText, canAsk, choose } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';

/**
 * Parameters as the command line gives them (`cpus=4`), typed as the template declares them. A list is
 * given by repeating it, or with commas. Limits and options are the server's to check.
 */
export async function readParameters(
  declared: readonly Parameter[],
  given: { param: readonly string[]; paramFile: string | undefined },
): Promise<ParameterValues> {
  const values: ParameterValues = given.paramFile === undefined ? {} : await readFile(given.paramFile);
  const lists = new Set<string>();
  for (const text of given.param) {
    const at = text.indexOf('=');
    if (at < 1) throw usage(`--param takes NAME=VALUE, not ${JSON.stringify(text)}.`);
    const name = text.slice(0, at);
    const parameter = declared.find((one) => one.name === name);
    if (!parameter)
      throw usage(
        `The template has no parameter ${JSON.stringify(name)}.`,
        declared.length === 0
          ? 'It has none at all.'
          : `It has: ${declared.map((one) => one.name).join(', ')}.`,
      );
    const value = typed(parameter, text.slice(at + 1));
    if (Array.isArray(value) && lists.has(name)) values[name] = [...(values[name] as string[]), ...value];
    else values[name] = value;
    if (Array.isArray(value)) lists.add(name);
  }
  return values;
}

/**
 * Asks for each parameter that has no default and no value, at a terminal; elsewhere throws a usage error that names them
 * with what they allow. Resolves to the answers only.
 */
export async function askForMissing(
  context: Context,
  declared: readonly Parameter[],
  values: ParameterValues,
): Promise<ParameterValues> {
  const missing = declared.filter(({ name, default: initial }) => initial === undefined && !(name in values));
  if (missing.length === 0) return {};
  if (!canAsk(context)) {
    const names = missing.map(({ name }) => name).join(', ');
    throw usage(
      missing.length === 1
        ? `The template needs a value for the parameter ${names}.`
        : `The template needs values for the parameters ${names}.`,
      missing.map((each) => `Add --param ${each.name}=VALUE${allowedHint(each)}`).join('\n'),
    );
  }
  const answers: ParameterValues = {};
  for (const parameter of missing) answers[parameter.name] = await askForValue(context, parameter);
  return answers;
}

async function askForValue(context: Context, parameter: Parameter): Promise<ParameterValue> {
  const question = clean(parameter.title ?? parameter.name);
  if (parameter.description) context.out.note(context.out.noteColors.dim(clean(parameter.description)));
  if (parameter.type === 'boolean') {
    const yesOrNo = [
      { value: 'yes', label: '' },
      { value: 'no', label: '' },
    ] as const;
    return (await choose(context, question, yesOrNo)) === 'yes';
  }
  if (parameter.type !== 'list' && parameter.options) {
    const options = parameter.options.map(({ value, title }) => ({
      value: String(value),
      label: clean(title ?? ''),
    }));
    return typed(parameter, await choose(context, question, options));
  }
  const answer = await askText(context, `${question}${allowedHint(parameter)}`, (text) => {
    if (text === '' && parameter.type !== 'list') return 'It needs a value.';
    try {
      typed(parameter, text);
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  });
  return typed(parameter, answer);
}

/** What a parameter allows, in brackets. */
function allowedHint(parameter: Parameter): string {
  if ('options' in parameter && parameter.options)
    return ` (one of ${parameter.options.map(({ value }) => clean(String(value))).join(', ')})`;
  if (parameter.type === 'boolean') return ' (true or false)';
  if (parameter.type === 'list') return ' (separated by commas)';
  if (parameter.type === 'number' && (parameter.min !== undefined || parameter.max !== undefined))
    return ` (${parameter.min ?? ''}..${parameter.max ?? ''})`;
  return '';
}

function typed(parameter: Parameter, text: string): ParameterValue {
  switch (parameter.type) {
    case 'string':
      return text;
    case 'number': {
      const value = Number(text);
      if (text.trim() === '' || !Number.isFinite(value))
        throw usage(`The parameter ${parameter.name} is a number, not ${JSON.stringify(text)}.`);
      return value;
    }
    case 'boolean':
      if (/^(true|yes|on|1)$/i.test(text)) return true;
      if (/^(false|no|off|0)$/i.test(text)) return false;
      throw usage(`The parameter ${parameter.name} is true or false, not ${JSON.stringify(text)}.`);
    case 'list':
      return text === '' ? [] : text.split(',');
  }
}

async function readFile(path: string): Promise<ParameterValues> {
  const text = readFileSync(path, 'utf8');
  const { parse } = await import('yaml');
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    throw usage(`${path} is neither YAML nor JSON: ${(error as Error).message}`);
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw usage(`${path} does not hold parameters.`, 'Write one NAME: VALUE to a line.');
  return content as ParameterValues;
}
