// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TemplateFile } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { formatQuantity, parseDuration, parseQuantity } from '../providers/quantity.ts';
import type { RenderContext } from './language/expressions.ts';
import { checkParameters } from './language/parameters.ts';
import { parseTemplate } from './parse.ts';
import { renderTemplate } from './render.ts';

const context: RenderContext = {
  workspace: { id: '01890000-0000-7000-8000-000000000000', name: 'web', owner: 'ada' },
  owner: { name: 'Ada Lovelace', email: 'ada@example.com' },
};
function template(text: string): TemplateFile {
  const { template, faults } = parseTemplate({ 'template.yaml': `name: demo\nprovider: local\n${text}` });
  expect(faults).toEqual([]);
  return template!;
}
function render(text: string, given: Record<string, unknown> = {}) {
  const parsed = template(text);
  const checked = checkParameters(parsed.parameters, given);
  expect(checked).not.toHaveProperty('issues');
  return renderTemplate(parsed, (checked as { values: ParameterValues }).values, context);
}

test('a string that is one expression keeps its type, mixed text is joined', () => {
  const rendered = render(
    `parameters:
  - {name: gib, type: number, integer: true, default: 2}
  - {name: cpus, type: number, default: 1.5}
  - {name: gpu, type: boolean, default: true}
  - {name: tags, type: list, default: [a, b c]}
env:
  WHO: \${{ workspace.owner }}/\${{ workspace.name }} <\${{ owner.email }}>
  GPU: \${{ parameters.gpu }}
  CPUS: \${{ parameters.cpus }}
  TAGS: \${{ parameters.tags.join(";") }}
  PLAIN: 3
  YES: true
home: {size: "\${{ parameters.gib * 10 }}Gi"}
local:
  memory: \${{ parameters.gib * 1024 * 1024 * 1024 }}
  cpus: \${{ parameters.cpus }}
  processes: "100"
  env: {LOCAL: "\${{ parameters.gpu ? 'yes' : 'no' }}"}
`,
    { gib: 3 },
  );
  expect(rendered).toEqual({
    ok: {
      name: 'demo',
      provider: 'local',
      parameters: { gib: 3, cpus: 1.5, gpu: true, tags: ['a', 'b c'] },
      home: { size: '30Gi' },
      env: {
        WHO: 'ada/web <ada@example.com>',
        GPU: 'true',
        CPUS: '1.5',
        TAGS: 'a;b c',
        PLAIN: '3',
        YES: 'true',
        LOCAL: 'yes',
        CDE_PARAM_GIB: '3',
        CDE_PARAM_CPUS: '1.5',
        CDE_PARAM_GPU: 'true',
        CDE_PARAM_TAGS: 'a\nb c',
        CDE_WORKSPACE_ID: context.workspace.id,
        CDE_WORKSPACE_NAME: 'web',
        CDE_WORKSPACE_OWNER: 'ada',
        CDE_OWNER_NAME: 'Ada Lovelace',
        CDE_OWNER_EMAIL: 'ada@example.com',
      },
      local: { memory: 3 * 2 ** 30, cpus: 1.5, processes: 100, env: { LOCAL: 'yes' } },
    },
  });
});

test('what a developer gives never becomes an expression, a key or a command', () => {
  const evil = '"}}\n  EVIL: x\n${{ owner.email }} $(touch /tmp/x) `id`';
  expect(
    render(
      'parameters: [{name: p, type: string}]\nenv: {A: "<${{ parameters.p }}>", B: "${{ parameters.p }}"}',
      {
        p: evil,
      },
    ),
  ).toMatchObject({ ok: { env: { A: `<${evil}>`, B: evil, CDE_PARAM_P: evil } } });
});

test('any text comes out as it went in', () => {
  const parsed = template('parameters: [{name: p, type: string}]\nenv: {A: "${{ parameters.p }}"}');
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 100 }), (p) => {
      const checked = checkParameters(parsed.parameters, { p });
      if ('issues' in checked) return p.includes('\0');
      const rendered = renderTemplate(parsed, checked.values, context);
      return 'ok' in rendered && rendered.ok.env.A === p;
    }),
  );
});

test('a value that a field cannot take is a fault with its path', () => {
  expect(
    render(
      'parameters: [{name: m, type: string, default: 2Gi}, {name: n, type: number, default: 1}]\nlocal: {memory: "${{ parameters.m }}", cpus: "${{ 1.0 / parameters.n }}"}',
      { m: 'lots', n: 0 },
    ),
  ).toEqual({
    faults: [
      {
        path: 'local.memory',
        message: 'must be a quantity of bytes, not "lots"',
        hint: 'for example 2Gi or 512Mi',
      },
      expect.objectContaining({ path: 'local.cpus' }),
    ],
  });
});

describe('checkParameters', () => {
  const { parameters } = template(`parameters:
  - {name: repo, type: string, pattern: "https://.+"}
  - {name: size, type: string, default: small, options: [{value: small}, {value: large}]}
  - {name: cpus, type: number, default: 2, min: 1, max: 8}
  - {name: count, type: number, integer: true, default: 1, immutable: true}
  - {name: gpu, type: boolean, default: false}
  - {name: tags, type: list, default: [], maxItems: 2}
`);
  const ok = { repo: 'https://a' };
  const defaults = { ...ok, size: 'small', cpus: 2, count: 1, gpu: false, tags: [] };

  test('fills in defaults', () => {
    expect(checkParameters(parameters, ok)).toEqual({ values: defaults });
  });
  test.each([
    [{ cpus: '2.5' }, { cpus: 2.5 }],
    [{ count: '3' }, { count: 3 }],
    [{ gpu: 'true' }, { gpu: true }],
    [{ tags: '["a,b","c"]' }, { tags: ['a,b', 'c'] }],
    [{ tags: 'a' }, { tags: ['a'] }],
    [{ tags: '' }, { tags: [] }],
    [{ gpu: null }, { gpu: false }],
  ])('reads %j where nothing is lost', (given, expected) => {
    expect(checkParameters(parameters, { ...ok, ...given })).toEqual({
      values: { ...defaults, ...expected },
    });
  });
  test.each([
    [{ repo: undefined }, 'repo', 'a value is required: the parameter has no default'],
    [{ repo: 'http://a' }, 'repo', 'does not match the pattern https://.+: "http://a"'],
    [{ repo: 'x https://a' }, 'repo', 'does not match the pattern https://.+: "x https://a"'],
    [{ size: 'smal' }, 'size', 'must be one of small, large; not "smal"; did you mean "small"?'],
    [{ size: 3 }, 'size', 'must be a text, not 3'],
    [{ cpus: 9 }, 'cpus', 'must be between 1 and 8, not 9'],
    [{ cpus: '1e9' }, 'cpus', 'must be a number, not "1e9"'],
    [{ cpus: Number.NaN }, 'cpus', 'must be a number, not null'],
    [{ count: 1.5 }, 'count', 'must be a whole number, not 1.5'],
    [{ count: '12345678901234567890' }, 'count', 'must be a number, not "12345678901234567890"'],
    [{ gpu: 'yes' }, 'gpu', 'must be true or false, not "yes"'],
    [{ gpu: {} }, 'gpu', 'must be true or false, not a map'],
    [{ tags: 'a,b' }, 'tags', 'must be a list, not "a,b"; write a JSON list: ["one", "two"]'],
    [{ tags: ['a', 'b', 'c'] }, 'tags', 'must have at most 2 items, not 3'],
    [{ tags: ['a\nb'] }, 'tags', 'has an item that must not hold a line break or NUL character'],
    [{ tags: '[1]' }, 'tags', 'has an item that must be a text, not 1'],
    [{ cpsu: 1 }, 'cpsu', 'there is no parameter "cpsu"; did you mean "cpus"?'],
    [{ toString: 1 }, 'toString', expect.stringContaining('there is no parameter "toString"')],
  ])('refuses %j', (given, path, message) => {
    expect(checkParameters(parameters, { ...ok, ...given })).toEqual({ issues: [{ path, message }] });
  });
  test('tells every issue', () => {
    const checked = checkParameters(parameters, { cpus: 0, gpu: 1, other: 1 });
    expect('issues' in checked && checked.issues.map(({ path }) => path)).toEqual([
      'other',
      'repo',
      'cpus',
      'gpu',
    ]);
  });

  describe('of a workspace that has values already', () => {
    const previous = { ...defaults, cpus: 4, count: 5, gone: 'x' };
    test('keeps them, and drops what the template no longer has', () => {
      expect(checkParameters(parameters, { gpu: true }, { previous })).toEqual({
        values: { ...defaults, cpus: 4, count: 5, gpu: true },
      });
    });
    test('holds immutable ones fast', () => {
      expect(checkParameters(parameters, { count: 5 }, { previous })).toHaveProperty('values');
      expect(checkParameters(parameters, { count: 6 }, { previous })).toEqual({
        issues: [{ path: 'count', message: 'can only be set when the workspace is created; it is 5' }],
      });
    });
    describe('an immutable one that a newer version no longer allows', () => {
      const newer = template(`parameters:
  - {name: zone, type: string, default: b, immutable: true, options: [{value: b}, {value: c}]}
  - {name: disk, type: number, default: 10, max: 20, immutable: true}
  - {name: team, type: string, default: web, pattern: "[a-z]+", immutable: true}
  - {name: tags, type: list, default: [], maxItems: 1, immutable: true}
`).parameters;
      const kept = { zone: 'a', disk: 40, team: 'web-1', tags: ['x', 'y'] };
      test('is kept', () => {
        expect(checkParameters(newer, {}, { previous: kept })).toEqual({ values: kept });
        expect(checkParameters(newer, kept, { previous: kept })).toEqual({ values: kept });
      });
      test('may be replaced by one that is allowed, once', () => {
        const replaced = checkParameters(newer, { zone: 'b', disk: 20 }, { previous: kept });
        expect(replaced).toEqual({ values: { ...kept, zone: 'b', disk: 20 } });
        expect(checkParameters(newer, { zone: 'c' }, { previous: { ...kept, zone: 'b' } })).toEqual({
          issues: [{ path: 'zone', message: 'can only be set when the workspace is created; it is "b"' }],
        });
      });
      test('may not be replaced by another that is not allowed', () => {
        expect(checkParameters(newer, { zone: 'd' }, { previous: kept })).toHaveProperty('issues');
      });
      test('is asked for if its type has changed, since expressions cannot use it', () => {
        const previous = { ...kept, disk: 'large' };
        expect(checkParameters(newer, {}, { previous })).toEqual({
          issues: [
            {
              path: 'disk',
              message: 'the value from before no longer fits: it must be a number, not "large"',
            },
          ],
        });
        expect(checkParameters(newer, { disk: 5 }, { previous })).toEqual({ values: { ...kept, disk: 5 } });
      });
    });
    test('asks again for one that no longer fits', () => {
      expect(checkParameters(parameters, {}, { previous: { ...previous, size: 'huge' } })).toEqual({
        issues: [
          {
            path: 'size',
            message: 'the value from before no longer fits: it must be one of small, large; not "huge"',
          },
        ],
      });
    });
  });
});

test.each([
  ['2Gi', 2 ** 31],
  ['512Mi', 2 ** 29],
  ['1.5G', 1.5e9],
  ['1k', 1000],
  ['4GiB', 2 ** 32],
  ['4GB', 4e9],
  ['4 Gi', 2 ** 32],
  [1024, 1024],
  ['0.1Ki', 102],
  ['2gi', null],
  ['-1', null],
  ['', null],
  ['Gi', null],
  ['1e9', null],
  ['99999999Ti', null],
  [Number.NaN, null],
])('the quantity %j is %j bytes', (quantity, bytes) => {
  expect(parseQuantity(quantity)).toBe(bytes);
  if (bytes !== null) expect(parseQuantity(formatQuantity(bytes))).toBe(bytes);
});

test.each([
  ['90s', 90_000],
  ['10m', 600_000],
  ['2h', 7_200_000],
  ['5ms', 5],
  ['2d', null],
  ['m', null],
])('the duration %s is %j ms', (duration, ms) => {
  expect(parseDuration(duration)).toBe(ms);
});

describe('the starter template', () => {
  const starter = async () =>
    parseTemplate({
      'template.yaml': await readFile(
        new URL('../../templates/local/template.yaml', import.meta.url),
        'utf8',
      ),
    }).template!;

  test('renders its limits', async () => {
    const parsed = await starter();
    const checked = checkParameters(parsed.parameters, { memory: '8' });
    expect('values' in checked && renderTemplate(parsed, checked.values, context)).toMatchObject({
      ok: { local: { memory: 8 * 2 ** 30, cpus: 2 }, env: { EDITOR: 'vi' } },
    });
  });

  test('starts twice in a bare home, and leaves what the developer changed', async () => {
    const parsed = await starter();
    const home = await mkdtemp(join(tmpdir(), 'cde-starter-'));
    onTestFinished(() => rm(home, { recursive: true }));
    const run = promisify(execFile);
    const git = (...args: string[]) =>
      run('git', ['-C', join(home, 'origin'), '-c', 'user.name=a', '-c', 'user.email=a@b', ...args]);
    await run('git', ['init', '--quiet', join(home, 'origin')]);
    await writeFile(join(home, 'origin', 'install.sh'), '#!/bin/sh\ntouch ~/installed\n', { mode: 0o755 });
    await git('add', '.');
    await git('commit', '--quiet', '--message', 'x');

    const start = async (dotfiles: string) => {
      const checked = checkParameters(parsed.parameters, { dotfiles });
      const rendered = renderTemplate(parsed, (checked as { values: ParameterValues }).values, context);
      if (!('ok' in rendered)) throw new Error(JSON.stringify(rendered));
      return run('sh', ['-c', rendered.ok.startup!.script], {
        env: { PATH: process.env.PATH, HOME: home, ...(rendered.ok.env as Record<string, string>) },
      });
    };
    const unreachable = await start('file:///nowhere/;touch\tpwned');
    expect(unreachable.stderr).toContain('the next start tries again');
    expect(await readFile(join(home, 'welcome.txt'), 'utf8')).toContain('Welcome to ada/web.');
    await writeFile(join(home, 'welcome.txt'), 'mine');
    expect((await start(`file://${home}/origin`)).stdout).toBe('cloned the dotfiles\n');
    expect((await start(`file://${home}/origin`)).stdout).toBe('');
    expect(await readFile(join(home, 'welcome.txt'), 'utf8')).toBe('mine');
    await readFile(join(home, 'installed'));
    await expect(readFile(join(home, 'pwned'))).rejects.toThrow('ENOENT');
  });
});
