import { readFileSync } from 'node:fs';
import type { Parameter, ParameterValue, ParameterValues } from '@cde/api/templates.ts';
import { usage } from '../failure.ts';

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
