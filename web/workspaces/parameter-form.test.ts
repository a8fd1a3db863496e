import { Parameter } from '@cde/api/template-parameters.ts';
import { expect, test } from 'vitest';
import { immutableState, placeIssues, readDraft, startDraft } from './parameter-form.ts';

const parameters = [
  { name: 'shell', type: 'string', default: 'bash', options: [{ value: 'bash' }, { value: 'zsh' }] },
  { name: 'repo', type: 'string', pattern: 'https://.+', maxLength: 30 },
  { name: 'cpus', type: 'number', min: 1, max: 8, integer: true, default: 2 },
  { name: 'ratio', type: 'number' },
  { name: 'gpu', type: 'boolean', default: true },
  { name: 'packages', type: 'list', maxItems: 3, default: ['git'] },
  { name: 'tools', type: 'list', options: [{ value: 'go' }, { value: 'rust' }] },
].map((parameter) => Parameter.parse(parameter));

test('starts from defaults, or from the values of a workspace', () => {
  expect(startDraft(parameters)).toEqual({
    shell: 'bash',
    repo: '',
    cpus: '2',
    ratio: '',
    gpu: true,
    packages: 'git',
    tools: [],
  });
  expect(startDraft(parameters, { gpu: false, cpus: 4, packages: ['a', 'b'], tools: ['go'] })).toMatchObject({
    shell: 'bash',
    gpu: false,
    cpus: '4',
    packages: 'a\nb',
    tools: ['go'],
  });
});

test('a name of Object.prototype is a parameter like any other', () => {
  const odd = [Parameter.parse({ name: 'constructor', type: 'string' })];
  expect(startDraft(odd, {})).toEqual({ constructor: '' });
});

test('returns typed values for valid input', () => {
  const draft = {
    ...startDraft(parameters),
    repo: 'https://example.com/x',
    cpus: ' 8 ',
    ratio: '0.5',
    packages: ' git \n\n ripgrep\r\n',
    tools: ['rust'],
  };
  expect(readDraft(parameters, draft)).toEqual({
    values: {
      shell: 'bash',
      repo: 'https://example.com/x',
      cpus: 8,
      ratio: 0.5,
      gpu: true,
      packages: ['git', 'ripgrep'],
      tools: ['rust'],
    },
    problems: {},
  });
});

test('leaves an empty number with a default to the server', () => {
  const { values, problems } = readDraft(parameters, { ...startDraft(parameters), cpus: '' });
  expect(problems.cpus).toBeUndefined();
  expect(values).not.toHaveProperty('cpus');
});

test.each([
  ['repo', '', 'A value is required.'],
  ['repo', 'ftp://x', 'It does not match the pattern https://.+'],
  ['repo', `https://${'x'.repeat(40)}`, 'Must have at most 30 characters; it has 48.'],
  ['ratio', '', 'A number is required.'],
  ['ratio', 'many', '“many” is not a number.'],
  ['ratio', 'Infinity', '“Infinity” is not a number.'],
  ['cpus', '1.5', 'Enter a whole number.'],
  ['cpus', '9', 'Must be from 1 to 8.'],
  ['packages', 'a\nb\nc\nd', 'At most 3 items; there are 4.'],
])('%s %j: %s', (name, value, problem) => {
  const good = { ...startDraft(parameters), repo: 'https://x', ratio: '1' };
  expect(readDraft(parameters, { ...good, [name]: value }).problems).toEqual({ [name]: problem });
});

test('a pattern that JavaScript does not support is left to the server', () => {
  const odd = [Parameter.parse({ name: 'x', type: 'string', pattern: '(?i)abc' })];
  expect(readDraft(odd, { x: 'ABC' })).toEqual({ values: { x: 'ABC' }, problems: {} });
});

test("assigns the server's issues to their fields", () => {
  expect(
    placeIssues(parameters, [
      { path: 'cpus', message: 'must be at most 4' },
      { path: 'parameters.repo', message: 'is not reachable' },
      { path: 'colour', message: 'there is no parameter "colour"' },
    ]),
  ).toEqual({
    problems: { cpus: 'must be at most 4', repo: 'is not reachable' },
    rest: ['colour: there is no parameter "colour"'],
  });
});

test('an immutable value is fixed, unless the template version no longer allows it', () => {
  const zone = Parameter.parse({ name: 'zone', type: 'string', immutable: true, options: [{ value: 'b' }] });
  const disk = Parameter.parse({ name: 'disk', type: 'number', immutable: true, integer: true, max: 20 });
  expect(immutableState(zone, { zone: 'b' })).toBe('fixed');
  expect(immutableState(zone, { zone: 'a' })).toBe('replaceable');
  expect(immutableState(disk, { disk: 20 })).toBe('fixed');
  expect(immutableState(disk, { disk: 21 })).toBe('replaceable');
  expect(immutableState(zone, {})).toBe('mutable');
  expect(immutableState({ ...zone, immutable: false }, { zone: 'a' })).toBe('mutable');
});
