import type { Parameter, ParameterValues } from '@cde/api/template-parameters.ts';
import { samplesOf } from '../language/check-expressions.ts';
import type { Path } from '../language/source.ts';
import { scalars } from '../language/tree.ts';

/** Keys of a manifest on which it depends what the object needs. */
const needKeys = new Set(['replicas', 'parallelism', 'suspend', 'resources', 'restartPolicy']);
/** A template that is tried on its parameters is rendered so often at most, and larger ones less often. */
const maxTrials = 128;
const maxTriedScalars = 40_000;

/** Values for the parameters to try a template on, and in words what is not the default. */
export interface QuotaSample {
  values: ParameterValues;
  when: string;
}

/**
 * The values on which what a template needs, and its quota, may come out largest and smallest: the defaults, then each
 * limit and option alone, then together, as many as are affordable.
 */
export function quotaSamples(template: {
  parameters: readonly Parameter[];
  home: unknown;
  kubernetes?: unknown;
  manifests?: unknown;
}): QuotaSample[] {
  const texts: string[] = [];
  let size = 0;
  const look = (value: unknown, counts: (path: Path) => boolean) => {
    for (const { path, value: each } of scalars(value)) {
      size++;
      if (typeof each === 'string' && each.includes('${{') && counts(path)) texts.push(each);
    }
  };
  look(template.home, () => true);
  look(template.kubernetes, () => true);
  look(template.manifests, (path) => path.some((part) => needKeys.has(String(part))));
  const samples = template.parameters.flatMap((parameter) => {
    const values = [...new Set(samplesOf(parameter))];
    return values.length > 0 ? [{ name: parameter.name, values }] : [];
  });
  const defaults: ParameterValues = Object.fromEntries(samples.map(({ name, values }) => [name, values[0]!]));
  const varied = samples.filter(
    ({ name, values }) => values.length > 1 && texts.some((text) => text.includes(name)),
  );
  const trials = new Map<string, QuotaSample>();
  const max = Math.max(4, Math.min(maxTrials, Math.floor(maxTriedScalars / Math.max(1, size))));
  const add = (more: ParameterValues) => {
    const changed = Object.entries(more).filter(([name, value]) => value !== defaults[name]);
    const when = changed
      .map(([name, value]) => `parameters.${name} is ${JSON.stringify(value)}`)
      .join(' and ');
    const key = JSON.stringify(changed);
    if (trials.size < max && !trials.has(key)) trials.set(key, { values: { ...defaults, ...more }, when });
  };
  add({});
  for (const { name, values } of varied) for (const value of values) add({ [name]: value });
  const combine = (index: number, chosen: ParameterValues): void => {
    if (trials.size >= max) return;
    const parameter = varied[index];
    if (!parameter) add(chosen);
    else for (const value of parameter.values) combine(index + 1, { ...chosen, [parameter.name]: value });
  };
  combine(0, {});
  return [...trials.values()];
}
