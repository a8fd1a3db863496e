// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written

import { Manifest } from '@cde/api/template-file.ts';
import type { Fault } from '@cde/api/templates.ts';
import { type Path, readDocuments, type Source } from '../language/source.ts';
import { isUnstorable } from '../language/storable.ts';
import { nearest } from '../language/suggest.ts';
import { asMap } from '../language/tree.ts';
import { isReserved, ownLabel, rejectionReason } from './manifest-rules.ts';

/**
 * Of all manifest files of a template together. Deployments in the wild are 12 levels deep; a token takes about
 * 2 µs, so that what is allowed here holds the event loop for some 80 ms, once, when an admin publishes.
 */
const limits = { documents: 200, bytes: 512 * 1024, tokens: 40_000, depth: 24 } as const;

/** One document of a manifest file. */
export interface ManifestSource {
  source: Source;
  manifest: Manifest;
}

/**
 * Reads the manifest files of a template's folder: those that `named` lists, or all of manifests/. A file may
 * hold several documents. Each is checked as far as it can be without a value for its expressions; the rest is
 * `manifestIssues`, on the rendered ones.
 * @param named the section's `manifests`, of whatever shape
 * @returns those that are manifests, and every fault
 */
export function readManifests(
  files: Record<string, string>,
  named: unknown,
  template: Source,
): { documents: ManifestSource[]; faults: Fault[] } {
  const { names, faults } = manifestFiles(files, named, template);
  const left = { bytes: limits.bytes as number, tokens: limits.tokens as number };
  const sources: Source[] = [];
  for (const file of names) {
    const read = readDocuments(file, files[file]!, { ...left, depth: limits.depth });
    faults.push(...read.faults);
    left.bytes -= Buffer.byteLength(files[file]!);
    left.tokens -= read.tokens;
    sources.push(...read.sources);
    const beyond = sources[limits.documents];
    if (beyond) {
      faults.push(
        beyond.fault(
          [],
          `the template has more than ${limits.documents} manifests`,
          'what makes so many is better installed from the startup script, by Helm or kubectl',
        ),
      );
      return { documents: [], faults };
    }
  }
  const documents: ManifestSource[] = [];
  const seen = new Map<string, Source>();
  for (const source of sources) {
    const form = checkForm(source);
    faults.push(...form, ...checkTexts(source));
    if (form.length > 0) continue;
    const manifest = source.value as Manifest;
    faults.push(...checkIdentity(source, manifest));
    const key = JSON.stringify([groupOf(manifest.apiVersion), manifest.kind, manifest.metadata.name]);
    const first = seen.get(key)?.fault([], '');
    if (first) {
      faults.push(
        source.fault(
          ['metadata', 'name'],
          `there are two manifests of the ${manifest.kind} "${manifest.metadata.name}"`,
          `the first is at ${first.file}:${first.line}; keep one of them`,
        ),
      );
    } else seen.set(key, source);
    documents.push({ source, manifest });
  }
  return { documents, faults };
}

function manifestFiles(
  files: Record<string, string>,
  named: unknown,
  template: Source,
): { names: string[]; faults: Fault[] } {
  const faults: Fault[] = [];
  const isYaml = (name: string) => /\.ya?ml$/i.test(name) && name !== 'template.yaml';
  if (!Array.isArray(named)) {
    const names = Object.keys(files).filter((name) => name.startsWith('manifests/') && isYaml(name));
    return { names: names.sort(), faults };
  }
  const names: string[] = [];
  named.forEach((name: unknown, index) => {
    if (typeof name !== 'string') return;
    const report = (message: string, hint?: string) =>
      faults.push(template.fault(['kubernetes', 'manifests', index], message, hint));
    if (names.includes(name)) report(`"${name}" is listed twice`, 'keep one of them');
    else if (!Object.hasOwn(files, name)) {
      const near = nearest(name, Object.keys(files).filter(isYaml));
      report(
        `the folder has no file "${name}"`,
        near === undefined ? 'write its path within the folder' : `did you mean "${near}"?`,
      );
    } else if (!isYaml(name)) report(`"${name}" is no manifest`, 'a manifest is a file that ends in .yaml');
    else names.push(name);
  });
  return { names, faults };
}

/** The group of `apps/v1` is `apps`, and that of `v1` is none. */
function groupOf(apiVersion: string): string {
  const at = apiVersion.indexOf('/');
  return at === -1 ? '' : apiVersion.slice(0, at);
}

/** Whether it is a manifest at all. */
function checkForm(source: Source): Fault[] {
  const { value } = source;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return [source.fault([], 'a manifest is a map with apiVersion, kind and metadata')];
  }
  const parsed = Manifest.safeParse(value);
  if (parsed.success) return [];
  return parsed.error.issues.map(({ path }) => {
    const at = path.reduce<unknown>((in_, part) => asMap(in_)[part as string], value);
    const name = path.join('.');
    const hint =
      name === 'metadata.name' && asMap(asMap(value).metadata).generateName !== undefined
        ? 'generateName does not serve: every start would make another one'
        : undefined;
    return source.fault(
      path,
      at === undefined
        ? `"${name}" is missing`
        : `"${name}" must be ${name === 'metadata' ? 'a map' : 'a text'}`,
      hint,
    );
  });
}

/** What kind of object it is, what it is called, and whether a template may have one. */
function checkIdentity(source: Source, manifest: Manifest): Fault[] {
  const { apiVersion, kind, metadata } = manifest;
  const fixed: [Path, string, RegExp, string][] = [
    [['apiVersion'], apiVersion, /^([a-z0-9][-a-z0-9.]{0,252}\/)?[a-z][-a-z0-9]{0,62}$/, 'v1 or apps/v1'],
    [['kind'], kind, /^[A-Za-z][A-Za-z0-9]{0,62}$/, 'Deployment'],
    [
      ['metadata', 'name'],
      metadata.name,
      // Roles and their bindings may have a ":" and capitals besides.
      groupOf(apiVersion) === 'rbac.authorization.k8s.io'
        ? /^[A-Za-z0-9][-A-Za-z0-9.:_]{0,252}$/
        : /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/,
      'postgres',
    ],
  ];
  const faults = fixed.flatMap(([path, text, pattern, example]) =>
    pattern.test(text)
      ? []
      : [
          text.includes('${{')
            ? source.fault(path, `"${path.join('.')}" cannot hold an expression`, 'write it out')
            : source.fault(path, `"${path.join('.')}" is ${show(text)}`, `for example ${example}`),
        ],
  );
  if (faults.length > 0) return faults;
  if (metadata.namespace !== undefined) {
    faults.push(
      source.faultAtKey(
        ['metadata', 'namespace'],
        'a manifest names no namespace',
        "remove it: everything goes into the workspace's own namespace",
      ),
    );
  }
  const reason = rejectionReason(groupOf(apiVersion), kind);
  if (reason) faults.push(source.fault(['kind'], reason.message, reason.hint));
  if (isReserved(kind, metadata.name)) {
    faults.push(
      source.fault(
        ['metadata', 'name'],
        `the ${kind} "${metadata.name}" is made by us`,
        'choose another name',
      ),
    );
  }
  for (const part of ['labels', 'annotations']) {
    for (const key of Object.keys(asMap(metadata[part]))) {
      if (!ownLabel.test(key)) continue;
      faults.push(
        source.faultAtKey(['metadata', part, key], `"${key}" is set by us`, 'choose a prefix of your own'),
      );
    }
  }
  for (const part of ['ownerReferences', 'finalizers', 'managedFields', 'uid', 'resourceVersion']) {
    if (!Object.hasOwn(metadata, part)) continue;
    faults.push(
      source.faultAtKey(
        ['metadata', part],
        `"${part}" is of an object that exists already`,
        'remove it, as what kubectl get -o yaml adds',
      ),
    );
  }
  return faults;
}

const show = (text: string) => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text);

/** Keys and values that YAML or JSON would not hand on as they are meant. */
function checkTexts(source: Source): Fault[] {
  const faults: Fault[] = [];
  const visit = (value: unknown, path: Path): void => {
    if (faults.length >= maxFaults) return;
    if (Array.isArray(value)) {
      for (const [index, item] of value.entries()) visit(item, [...path, index]);
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, item] of Object.entries(value)) {
        if (key.includes('${{')) {
          faults.push(
            source.faultAtKey(
              [...path, key],
              'a key cannot hold an expression',
              'expressions stand in values',
            ),
          );
        } else if (isUnstorable(key)) {
          faults.push(source.faultAtKey([...path, key], 'the key holds a NUL character or half a character'));
        }
        visit(item, [...path, key]);
      }
    } else if (typeof value === 'string' && isUnstorable(value)) {
      faults.push(source.fault(path, 'the text holds a NUL character or half a character'));
    }
  };
  visit(source.value, []);
  return faults;
}

/** Nobody reads more of one manifest. */
const maxFaults = 100;
