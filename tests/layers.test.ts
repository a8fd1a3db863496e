import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

/** The import rule of the design, between parts and between the server's nouns: each imports only what is below it. */
const parts: Record<string, readonly string[]> = {
  api: [],
  diagnosis: ['api'],
  tunnel: ['api'],
  filesync: ['api'],
  satellite: ['api', 'tunnel'],
  server: ['api', 'diagnosis', 'tunnel', 'satellite'],
  agent: ['api', 'tunnel', 'filesync'],
  cli: ['api', 'diagnosis', 'tunnel', 'filesync'],
  web: ['api'],
  noded: ['api'],
};
/** The server's folders from the ground up; each may import those before it (and the files at the server's top that are no composition). */
const nouns = [
  'providers',
  'database',
  'http',
  'boots',
  'events',
  'identity',
  'idle',
  'telemetry',
  'templates',
  'satellites',
  'workspaces',
  'orphans',
  'nodes',
  'kubernetes',
  'connections',
  'diagnosis',
  'ports',
  'health',
];
const composition = [
  'server/base.ts',
  'server/compose.ts',
  'server/control-plane.ts',
  'server/main.ts',
  'server/program.ts',
  'server/readiness.ts',
  'server/testing.ts',
  'server/testing-setup.ts',
];

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const skip = new Set(['node_modules', 'dist']);
const isTest = (file: string) => /\.test\.tsx?$|^server\/testing/.test(file);
/** Only tests and their fixtures use the test kit. */
const usesTestKit = (file: string) =>
  isTest(file) || /\/(testing|fixture)[^/]*\.ts$|\/(testing|conformance)\//.test(file);

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skip.has(entry.name) ? [] : sources(path);
    return /\.(ts|tsx|mjs)$/.test(entry.name) && !entry.name.endsWith('.d.ts') ? [path] : [];
  });
}

function imports(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
  return found.flatMap((target) => {
    if (target.startsWith('@cde/')) return [target.slice(5)];
    if (target.startsWith('.')) return [normalize(join(dirname(file), target))];
    return [];
  });
}

const files = Object.keys(parts).flatMap(sources);
const graph = new Map(files.map((file) => [file, imports(file)]));

test('a part imports only the parts below it', () => {
  expect(files.length).toBeGreaterThan(100);
  const against = [...graph].flatMap(([file, targets]) => {
    const part = file.split('/')[0]!;
    return targets
      .filter(
        (target) =>
          target.split('/')[0] !== part &&
          !parts[part]!.includes(target.split('/')[0]!) &&
          !(target.startsWith('tests/kit/') && usesTestKit(file)) &&
          !target.startsWith('package.json'),
      )
      .map((target) => `${file} → ${target}`);
  });
  expect(against).toEqual([]);
});

test("each of the server's nouns imports only those below it", () => {
  const level = (file: string) => nouns.indexOf(file.split('/')[1]!);
  const against = [...graph].flatMap(([file, targets]) => {
    if (!file.startsWith('server/') || isTest(file) || composition.includes(file)) return [];
    return targets
      .filter(
        (target) =>
          composition.includes(target) || (level(target) > level(file) && target.startsWith('server/')),
      )
      .map((target) => `${file} → ${target}`);
  });
  expect(against).toEqual([]);
});

test('every folder of the server has its level', () => {
  const folders = new Set(
    files.filter((file) => /^server\/[^/]+\//.test(file)).map((file) => file.split('/')[1]!),
  );
  expect([...folders].filter((folder) => !nouns.includes(folder))).toEqual([]);
});

test('no files import each other in a circle', () => {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, path: string[]) => {
    const at = path.indexOf(file);
    if (at >= 0) return void circles.push([...path.slice(at), file].join(' → '));
    if (done.has(file)) return;
    for (const target of graph.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  expect(circles).toEqual([]);
});

test('no folder is called utils, helpers or common', () => {
  expect(files.filter((file) => /(^|\/)(utils|helpers|common)\//.test(relative('.', file)))).toEqual([]);
});

test('outside server/providers and server/kubernetes nothing imports Kubernetes internals', () => {
  const isInside = (file: string) => /^server\/(providers|kubernetes)\//.test(file);
  const imported = [...graph].flatMap(([file, targets]) =>
    targets
      .filter((target) => target.startsWith('server/providers/kubernetes') && !isInside(file))
      .map((target) => `${file} → ${target}`),
  );
  expect(imported).toEqual([]);
});

test('a part declares the packages that it imports', () => {
  const packageOf = (target: string) =>
    target
      .split('/')
      .slice(0, target.startsWith('@') ? 2 : 1)
      .join('/');
  const missing = Object.keys(parts).flatMap((part) => {
    const manifest = JSON.parse(readFileSync(join(root, part, 'package.json'), 'utf8'));
    const declared = { ...manifest.dependencies, ...manifest.devDependencies, [manifest.name]: '' };
    return files
      .filter((file) => file.startsWith(`${part}/`) && !usesTestKit(file))
      .flatMap((file) => {
        const text = readFileSync(join(root, file), 'utf8');
        return [...text.matchAll(/^(?:import|export)[^'";]*?from '([^'.][^']*)'|^import '([^'.][^']*)'/gm)]
          .map((match) => packageOf(match[1] ?? match[2]!))
          .filter((name) => !name.startsWith('node:') && !(name in declared))
          .map((name) => `${file} → ${name}`);
      });
  });
  expect(missing).toEqual([]);
});

test('an image has every part that its program imports', () => {
  const dockerfile = readFileSync(join(root, 'docker/Dockerfile'), 'utf8');
  const stages = new Map(
    dockerfile
      .split(/^(?=FROM )/m)
      .slice(1)
      .map((stage) => [stage.match(/ AS (\S+)/)![1]!, stage]),
  );
  const closure = (part: string, found = new Set<string>()): Set<string> => {
    if (found.has(part)) return found;
    found.add(part);
    const { dependencies } = JSON.parse(readFileSync(join(root, part, 'package.json'), 'utf8'));
    for (const name of Object.keys(dependencies))
      if (name.startsWith('@cde/')) closure(name.slice('@cde/'.length), found);
    return found;
  };
  for (const [stage, programs] of Object.entries({
    server: ['server', 'cli'],
    satellite: ['satellite'],
    noded: ['noded'],
  })) {
    const copied = [...stages.get(stage)!.matchAll(/^COPY (\w+) \1$/gm)].map((match) => match[1]!);
    const needed = [...new Set(programs.flatMap((program) => [...closure(program)]))];
    expect(copied, stage).toEqual(expect.arrayContaining(needed));
  }
});
