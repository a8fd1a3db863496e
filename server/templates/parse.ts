import { Duration, type TemplateContent } from '@cde/api/template-file.ts';
import { Parameter } from '@cde/api/template-parameters.ts';
import type { Fault } from '@cde/api/templates.ts';
import { parseDuration } from '../providers/quantity.ts';
import { type ManifestSource, readManifests } from './kubernetes/manifests.ts';
import { quotaIssues } from './kubernetes/quota.ts';
import { quotaSamples } from './kubernetes/quota-samples.ts';
import { checkSections } from './kubernetes/sections.ts';
import { templateWarnings } from './kubernetes/warnings.ts';
import { checkExpressions, sampleContext } from './language/check-expressions.ts';
import { makeScope, type Scope } from './language/expressions.ts';
import { fieldTypeAt } from './language/fields.ts';
import { checkFiles, templateFileName } from './language/files.ts';
import { checkDeclarations } from './language/parameters.ts';
import { checkShape } from './language/shape.ts';
import { readSource, type Source } from './language/source.ts';
import { isUnstorable } from './language/storable.ts';
import { nearest } from './language/suggest.ts';
import { asMap, scalars } from './language/tree.ts';
import { evaluateTemplate, type LocatedIssue, reservedEnv } from './render.ts';

const hourMs = 3600_000;
const limits = { faults: 100 };
/** The range of a duration, and how it is written in a fault. */
interface DurationRange {
  minMs: number;
  maxMs: number;
  text: string;
}
const ofScripts: DurationRange = { minMs: 1000, maxMs: 24 * hourMs, text: '1s and 24h' };
/** Somebody waits for the stop. */
const ofShutdown: DurationRange = { minMs: 1000, maxMs: hourMs, text: '1s and 1h' };
const ofIdle: DurationRange = { minMs: 60_000, maxMs: 366 * 24 * hourMs, text: '1m and 8784h' };

/**
 * Checks a template's folder: the files as such, the YAML, its shape, the parameters among themselves, and
 * every expression, compiled, typed, bounded, and tried on the parameters' defaults, options and limits.
 * Bounded: takes milliseconds, whatever it is given.
 * @param files relative path to text
 * @returns the template with its defaults filled in and its manifests, or null; every fault, in the order of the
 *   lines; and what is no fault, but may not be meant
 */
export function parseTemplate(files: Record<string, string>): {
  template: TemplateContent | null;
  faults: Fault[];
  warnings: Fault[];
} {
  const faults = checkFiles(files);
  if (!Object.hasOwn(files, templateFileName)) return { template: null, faults, warnings: [] };
  const read = readSource(templateFileName, files[templateFileName]!);
  faults.push(...read.faults);
  if (!read.source) return { template: null, faults: inOrder(faults), warnings: [] };

  const { source } = read;
  const { template: file, faults: shape } = checkShape(source);
  faults.push(...shape, ...checkSections(source));
  const root = asMap(source.value);
  const manifests =
    root.provider === 'kubernetes'
      ? readManifests(files, asMap(root.kubernetes).manifests, source)
      : { documents: [], faults: [] };
  const { bounded, faults: meaning } = checkMeaning(source, manifests.documents, files);
  faults.push(...manifests.faults, ...meaning);
  const { documents } = manifests;
  const warnings = inOrder(templateWarnings(source, documents, files));
  if (!file) return { template: null, faults: inOrder(faults), warnings };

  const template: TemplateContent = {
    ...file,
    ...(documents.length > 0 && { manifests: documents.map(({ manifest }) => manifest) }),
  };
  if (file.kubernetes && bounded) faults.push(...checkTogether(template, source, documents));
  return { template: faults.length === 0 ? template : null, faults: inOrder(faults), warnings };
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
function checkMeaning(
  source: Source,
  manifests: readonly ManifestSource[],
  files: Record<string, string>,
): { bounded: boolean; faults: Fault[] } {
  const faults: Fault[] = [];
  const root = asMap(source.value);
  const declared: (Partial<Parameter> & { name: string })[] = [];
  const validParameters: { index: number; parameter: Parameter }[] = [];
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
    if (parsed.success) validParameters.push({ index, parameter: parsed.data });
  });
  const declarations = checkDeclarations(validParameters);
  faults.push(...declarations.map(({ path, message, hint }) => source.fault(path, message, hint)));

  const canTry = declarations.length === 0 && validParameters.length === declared.length;
  const bounded = checkExpressions(
    [
      { source, fieldTypeAt: fieldTypeAt },
      // In a manifest, anywhere: where not, its own check says.
      ...manifests.map((each) => ({ source: each.source, fieldTypeAt: () => 'value' as const })),
    ],
    declared,
    canTry ? validParameters.map(({ parameter }) => parameter) : [],
    faults,
  );
  checkStorable(source, faults);
  checkTexts(source, faults);
  checkEnv(source, root, faults);
  checkScript(source, 'startup', root, ofScripts, faults);
  checkScript(source, 'shutdown', root, ofShutdown, faults);
  checkDuration(source, ['kubernetes', 'startTimeout'], ofScripts, faults);
  checkDuration(source, ['idle', 'stopAfter'], ofIdle, faults);
  checkDuration(source, ['idle', 'maxRun'], ofIdle, faults);
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
  return { bounded, faults };
}

/**
 * What values have together, once they have values: the template is rendered as it would be for the default, the limits and
 * the options of its parameters, alone and together. Faults of single values are told elsewhere.
 */
function checkTogether(
  template: TemplateContent,
  source: Source,
  documents: readonly ManifestSource[],
): Fault[] {
  const scope = makeScope(template.parameters);
  const compiled = new Map<string, ReturnType<Scope['compile']>>();
  const compile: Scope['compile'] = (text) => {
    if (!compiled.has(text)) compiled.set(text, scope.compile(text));
    return compiled.get(text)!;
  };
  const found: Fault[] = [];
  const told = new Set<string>();
  for (const { values, when } of quotaSamples(template)) {
    const { rendered, faults, issues } = evaluateTemplate(template, values, sampleContext, { compile });
    const all: LocatedIssue[] = [...issues, ...(faults.length === 0 ? quotaIssues(rendered) : [])];
    const keyOf = ({ manifest, path }: LocatedIssue) => JSON.stringify([manifest, path]);
    // What is at fault already is not told again for other values.
    const added = all.filter((issue) => !told.has(keyOf(issue)));
    for (const issue of added) {
      const { manifest, path, message, hint, onKey } = issue;
      const at = manifest === undefined ? source : documents[manifest]!.source;
      const said = when ? `${message}, when ${when}` : message;
      found.push(onKey ? at.faultAtKey(path, said, hint) : at.fault(path, said, hint));
      told.add(keyOf(issue));
    }
  }
  return found;
}

/** Texts that are not evaluated reach the database as they are. */
function checkStorable(source: Source, faults: Fault[]): void {
  for (const { path, value } of scalars(source.value)) {
    if (typeof value !== 'string' || !isUnstorable(value)) continue;
    // These say so themselves.
    if (fieldTypeAt(path) !== undefined || path.at(-1) === 'script' || path.at(-1) === 'default') continue;
    faults.push(source.fault(path, 'the text holds a NUL character or half a character'));
  }
}

/** Numbers where a text is wanted: 3.10 is the number 3.1 to YAML, and would reach the workspace as such. */
function checkTexts(source: Source, faults: Fault[]): void {
  for (const { path, value } of scalars(source.value)) {
    const want = fieldTypeAt(path);
    // What cannot be kept at all is a fault of its own.
    if (typeof value !== 'number' || !Number.isFinite(value) || (want !== 'text' && want !== 'label'))
      continue;
    const written = source.written(path);
    // A leading zero is a fault of its own.
    if (written === undefined || written === String(value) || /^[-+]?0\d/.test(written)) continue;
    faults.push(
      source.fault(path, `YAML reads ${written} as the number ${value}`, `put it in quotes: "${written}"`),
    );
  }
}

function checkEnv(source: Source, root: Record<string, unknown>, faults: Fault[]): void {
  for (const path of [
    ['env'],
    ['local', 'env'],
    ['docker', 'env'],
    ['incus', 'env'],
    ['ec2', 'env'],
    ['gce', 'env'],
    ['kubernetes', 'env'],
  ]) {
    const env = asMap(path.length === 1 ? root.env : asMap(root[path[0]!]).env);
    for (const name of Object.keys(env)) {
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
    }
  }
}

function checkScript(
  source: Source,
  section: 'startup' | 'shutdown',
  root: Record<string, unknown>,
  timeout: DurationRange,
  faults: Fault[],
): void {
  const { script } = asMap(root[section]);
  if (typeof script === 'string' && isUnstorable(script)) {
    faults.push(source.fault([section, 'script'], 'the script holds a NUL character or half a character'));
  }
  checkDuration(source, [section, 'timeout'], timeout, faults);
}

/** A duration that is no text of its form is the schema's fault to find. */
function checkDuration(
  source: Source,
  path: [section: string, key: string],
  range: DurationRange,
  faults: Fault[],
): void {
  const value = asMap(asMap(source.value)[path[0]])[path[1]];
  if (typeof value !== 'string' || !Duration.safeParse(value).success) return;
  // Null: more digits than any duration within the limit has.
  const ms = parseDuration(value);
  if (ms !== null && ms >= range.minMs && ms <= range.maxMs) return;
  faults.push(source.fault(path, `"${path[1]}" must be between ${range.text}, not ${value}`));
}
