import { TemplateFile } from '@cde/api/template-file.ts';
import type { Fault } from '@cde/api/templates.ts';
import type { z } from 'zod';
import { describe, fieldTypeAt } from './fields.ts';
import type { Path, Source } from './source.ts';
import { didYouMean } from './suggest.ts';
import { timeZoneHint } from './time-zones.ts';

type Issue = z.core.$ZodIssue;

/** Keys that people bring from other tools, and what serves instead. */
const elsewhere: Record<string, string> = {
  variables: 'parameters',
  inputs: 'parameters',
  environment: 'env',
  script: 'startup: {script: …}',
  startup_script: 'startup: {script: …}',
  shutdown_script: 'shutdown: {script: …}',
  autostop: 'idle: {stopAfter: …}',
  schedule: 'idle: {schedule: …}',
  display_name: 'title',
  mutable: 'immutable (its opposite)',
  validation: 'pattern, min or max, beside the type',
  cpu: 'cpus',
};

/** Checks the file against the schema, and says each fault of shape where it is written. */
export function checkShape(source: Source): { template: TemplateFile | null; faults: Fault[] } {
  const result = TemplateFile.safeParse(source.value);
  if (result.success) return { template: result.data, faults: [] };
  return {
    template: null,
    faults: result.error.issues.flatMap((issue) => toFaults(issue, issue.path, source)),
  };
}

function toFaults(issue: Issue, path: Path, source: Source): Fault[] {
  const value = valueAt(source.value, path);
  const name = path.length === 0 ? 'the file' : `"${String(path.at(-1))}"`;
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => {
        const known = keysAt(path, source.value);
        const hint =
          Object.hasOwn(elsewhere, key) && !known.includes(key)
            ? `write ${elsewhere[key]}`
            : didYouMean(key, known);
        return source.faultAtKey([...path, key], `the key "${key}" is not known here`, hint);
      });
    case 'invalid_type':
    case 'invalid_union': {
      if (issue.code === 'invalid_union' && 'discriminator' in issue && issue.discriminator) {
        const options = ['string', 'number', 'boolean', 'list'];
        // The path may stop at the item or go on to its discriminator.
        const at = path.at(-1) === issue.discriminator ? path : [...path, issue.discriminator];
        const type = valueAt(source.value, at);
        return [
          type === undefined
            ? source.fault(at, `"${issue.discriminator}" is missing`, `one of ${options.join(', ')}`)
            : source.fault(
                at,
                `"${issue.discriminator}" must be one of ${options.join(', ')}; not ${describe(type)}`,
                typeof type === 'string' ? nearOnly(type, options) : undefined,
              ),
        ];
      }
      // Of a union with one kind of map, what that map lacks says more than that it is no text.
      const inMap =
        issue.code === 'invalid_union' && typeof value === 'object' && value !== null
          ? issue.errors.find(
              (errors) => !errors.some((each) => each.path.length === 0 && each.code === 'invalid_type'),
            )
          : undefined;
      if (inMap) return inMap.flatMap((each) => toFaults(each, [...path, ...each.path], source));
      const wanted =
        issue.code === 'invalid_type'
          ? [issue.expected]
          : issue.errors.flatMap((errors) =>
              errors.flatMap((each) =>
                each.code === 'invalid_type' && each.path.length === 0 ? [each.expected] : [],
              ),
            );
      return [typeFault(name, wanted, value, path, source)];
    }
    case 'invalid_value': {
      const options = issue.values.map(String);
      if (value === undefined)
        return [source.fault(path, `${name} is missing`, `one of ${options.join(', ')}`)];
      return [
        source.fault(
          path,
          `${name} must be ${options.length > 1 ? 'one of ' : ''}${options.join(', ')}; not ${describe(value)}`,
          typeof value === 'string' ? nearOnly(value, options) : undefined,
        ),
      ];
    }
    case 'too_big':
    case 'too_small': {
      const limit = issue.code === 'too_big' ? issue.maximum : issue.minimum;
      const unit = issue.origin === 'string' ? ' characters' : issue.origin === 'array' ? ' items' : '';
      return [
        source.fault(
          path,
          `${name} must ${unit ? 'have' : 'be'} at ${issue.code === 'too_big' ? 'most' : 'least'} ${limit}${unit}`,
        ),
      ];
    }
    case 'invalid_format':
      return [source.fault(path, `${name} is ${describe(value)}`, issue.message)];
    case 'invalid_key':
      return [
        source.faultAtKey(
          path,
          `${name} is not a name for this`,
          path.at(-2) === 'env'
            ? 'use letters, digits and underscores, not starting with a digit'
            : issue.issues[0]?.message,
        ),
      ];
    case 'custom':
      return [
        source.fault(
          path,
          `${name} ${issue.message}`,
          path.at(-1) === 'timeZone' ? timeZoneHint(String(value)) : undefined,
        ),
      ];
    default:
      return [source.fault(path, `${name}: ${issue.message}`)];
  }
}

const typeNames: Record<string, string> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map',
  record: 'a map',
};

function typeFault(name: string, wanted: string[], value: unknown, path: Path, source: Source): Fault {
  const types = [...new Set(wanted.map((type) => typeNames[type] ?? type))].join(' or ');
  if (value === undefined) return source.fault(path, `${name} is missing`, `it must be ${types}`);
  if (value === null) {
    return source.fault(path, `${name} has no value`, `give it one (${types}), or remove the key`);
  }
  const written = source.written(path);
  let hint: string | undefined;
  if (wanted.includes('string') && written !== undefined) hint = textHint(written, path, source);
  else if (typeof value === 'string' && value.includes('${{')) {
    hint = "expressions stand in env, home.size and the provider's section only";
  } else if (wanted.includes('number') && typeof value === 'string' && /^-?[\d.]+$/.test(value)) {
    hint = 'remove the quotes';
  } else if (wanted.includes('boolean') && typeof value === 'string' && /^(yes|no|on|off)$/i.test(value)) {
    hint = 'YAML 1.2 knows true and false only';
  } else if (wanted.includes('array')) hint = 'begin each item with "- "';
  return source.fault(path, `${name} must be ${types}, not ${describe(value)}`, hint);
}

/** What to write where a text is wanted: the same in quotes, unless that is refused too. */
function textHint(written: string, path: Path, source: Source): string {
  const want = fieldTypeAt(path);
  if (want === 'bytes' || want === 'size') return `write a unit: ${written}Gi`;
  const schema = schemaAt(path, source.value) as z.ZodType | undefined;
  if (schema === undefined || schema.safeParse(written).success) return `put it in quotes: "${written}"`;
  if (schema.safeParse(`${written}s`).success) return `write a unit: ${written}s`;
  return schema.safeParse(written).error?.issues[0]?.message ?? `put it in quotes: "${written}"`;
}

function nearOnly(word: string, options: string[]): string | undefined {
  const hint = didYouMean(word, options);
  return hint?.startsWith('did you mean') ? hint : undefined;
}

function valueAt(value: unknown, path: Path): unknown {
  let at = value;
  for (const part of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Record<PropertyKey, unknown>)[part];
  }
  return at;
}

/** The keys that the schema knows in the map at `path`. */
function keysAt(path: Path, root: unknown): string[] {
  return [...new Set(schemasAt(path, root).flatMap(shapeKeys))];
}

/** The one schema of the value at `path`; undefined if there is none, or several. */
function schemaAt(path: Path, root: unknown): z.core.$ZodType | undefined {
  const schemas = schemasAt(path, root);
  return schemas.length === 1 ? schemas[0] : undefined;
}

function schemasAt(path: Path, root: unknown): z.core.$ZodType[] {
  let schemas: z.core.$ZodType[] = [TemplateFile];
  for (let depth = 0; ; depth++) {
    const value = valueAt(root, path.slice(0, depth));
    schemas = schemas.flatMap((schema) => alternatives(schema, value));
    if (depth === path.length) return schemas;
    schemas = schemas.flatMap((schema) => child(schema, path[depth]!));
  }
}

/** A schema without its defaults, and of a union what the value's `type` selects. */
function alternatives(schema: z.core.$ZodType, value: unknown): z.core.$ZodType[] {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type === 'default' || def.type === 'optional') return alternatives(def.innerType, value);
  if (def.type !== 'union') return [schema];
  const type = valueAt(value, ['type']);
  const all = def.options.flatMap((option) => alternatives(option, value));
  const chosen = all.filter((option) => {
    const literal = child(option, 'type')[0] as z.core.$ZodTypes | undefined;
    return literal?._zod.def.type === 'literal' && literal._zod.def.values.includes(type as string);
  });
  return chosen.length > 0 ? chosen : all;
}

function child(schema: z.core.$ZodType, key: PropertyKey): z.core.$ZodType[] {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type === 'object') {
    return Object.hasOwn(def.shape, key) ? [def.shape[key as string]!] : [];
  }
  if (def.type === 'array') return [def.element];
  if (def.type === 'record') return [def.valueType];
  return [];
}

function shapeKeys(schema: z.core.$ZodType): string[] {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  return def.type === 'object' ? Object.keys(def.shape) : [];
}
