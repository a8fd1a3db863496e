// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written

import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { cpuMs } from '../../tests/kit/cpu-time.ts';
import { parseTemplate } from './parse.ts';

const head = 'name: demo\nprovider: local\n';
const parse = (text: string, more: Record<string, string> = {}) =>
  parseTemplate({ 'template.yaml': text, ...more });
/** `line:column message (hint)` of each fault of head + text; lines count from the text's first. */
const faultsOf = (text: string) =>
  parse(head + text).faults.map(
    ({ line, column, message, hint }) => `${line - 2}:${column} ${message}${hint ? ` (${hint})` : ''}`,
  );

test('the starter template is valid', async () => {
  const folder = new URL('../../templates/local/', import.meta.url);
  const { template, faults } = parse(await readFile(new URL('template.yaml', folder), 'utf8'));
  expect(faults).toEqual([]);
  expect(template).toMatchObject({ name: 'local', provider: 'local', startup: { timeout: '5m' } });
  expect(template?.parameters.map(({ name }) => name)).toEqual(['memory', 'cpus', 'editor', 'dotfiles']);
});

test('a minimal template gets its defaults', () => {
  expect(parse(head)).toEqual({
    template: { name: 'demo', provider: 'local', parameters: [], home: {}, env: {}, local: {} },
    faults: [],
    warnings: [],
  });
});

test.each([
  // Octal to YAML 1.1 and Kubernetes, decimal to YAML 1.2: nobody can tell which is meant.
  [
    'env: { MODE: 0755 }',
    '1:14 0755 is read as the number 755 (write 0o755 for the octal number, 755 for the decimal one, or "0755" for a text)',
  ],
  [
    'parameters: [{ name: mode, type: number, default: 0644 }]',
    '1:51 0644 is read as the number 644 (write 0o644 for the octal number, 644 for the decimal one, or "0644" for a text)',
  ],
  ['env: { ID: 0089 }', '1:12 0089 is read as the number 89 (write 89, or "0089" for a text)'],
  ['env: { V: 1e3 }', '1:11 YAML reads 1e3 as the number 1000 (put it in quotes: "1e3")'],
  ['local: { env: { V: 0x1F } }', '1:20 YAML reads 0x1F as the number 31 (put it in quotes: "0x1F")'],
  [
    'env: { ID: 12345678901234567890 }',
    '1:12 12345678901234567890 is not a number that can be kept (write "12345678901234567890" for a text)',
  ],
])('a number that may mean something else is a fault: %s', (text, fault) => {
  expect(faultsOf(text)).toContain(fault);
});

test.each([
  ['startup: { script: a, timeout: 90 }', '1:32 "timeout" must be a text, not 90 (write a unit: 90s)'],
  ['home: { size: 20 }', '1:15 "size" must be a text, not 20 (write a unit: 20Gi)'],
  ['title: 2024', '1:8 "title" must be a text, not 2024 (put it in quotes: "2024")'],
])('the hint of %s works when it is followed', (text, fault) => {
  expect(faultsOf(text)).toContain(fault);
});

test.each([
  '0s',
  '999ms',
  '25h',
  '86401s',
  '9999999999h',
])('a duration beyond its limit is a fault, not a surprise at the start: %s', (duration) => {
  const said = (field: string) =>
    expect.stringContaining(`"${field}" must be between 1s and 24h, not ${duration}`);
  expect(faultsOf(`startup: { script: a, timeout: ${duration} }`)).toContainEqual(said('timeout'));
  expect(faultsOf(`kubernetes: { image: a, startTimeout: ${duration} }`)).toContainEqual(
    said('startTimeout'),
  );
});

test('idle and shutdown are kept as they are written', () => {
  const text = `idle:
  stopAfter: 2h
  maxRun: 12h
  dormantAfterDays: 30
  schedule: { start: 08:30, stop: 19:00, timeZone: Europe/Vienna }
  startOnConnect: true
shutdown:
  script: make save
`;
  const { template, faults } = parse(head + text);
  expect(faults).toEqual([]);
  expect(template).toMatchObject({
    idle: {
      stopAfter: '2h',
      schedule: { start: '08:30', days: ['mon', 'tue', 'wed', 'thu', 'fri'], timeZone: 'Europe/Vienna' },
    },
    shutdown: { script: 'make save', timeout: '1m' },
  });
  expect(parse(`${head}idle: { stopAfter: never }`).faults).toEqual([]);
});

const scheduled = (schedule: string) => `idle: { schedule: { ${schedule} } }`;
test.each([
  ['idle: { stopAfter: 1x }', '1:20 "stopAfter" is "1x" (never, or a number and a unit: 90m, 2h)'],
  ['idle: { stopAfter: 90 }', '1:20 "stopAfter" must be a text, not 90 (write a unit: 90s)'],
  ['idle: { stopAfter: 5s }', '1:20 "stopAfter" must be between 1m and 8784h, not 5s'],
  ['idle: { maxRun: 9000h }', '1:17 "maxRun" must be between 1m and 8784h, not 9000h'],
  ['idle: { maxRun: never }', '1:17 "maxRun" is "never" (a number and a unit: 90s, 10m, 2h)'],
  ['idle: { stopafter: 1h }', '1:9 the key "stopafter" is not known here (did you mean "stopAfter"?)'],
  ['idle: { dormantAfterDays: 0 }', '1:27 "dormantAfterDays" must be at least 1'],
  [scheduled('start: "8:30", timeZone: UTC'), '1:28 "start" is "8:30" (write HH:MM, for example 08:30)'],
  [scheduled('stop: "19:00"'), '1:9 "timeZone" is missing (it must be a text)'],
  [scheduled('timeZone: UTC'), '1:9 "schedule" needs a start, a stop or both'],
  [scheduled('start: "09:00", stop: "09:00", timeZone: UTC'), '1:43 "stop" must differ from the start'],
  [
    scheduled('start: "09:00", timeZone: Vienna'),
    '1:47 "timeZone" must be the name of a time zone such as Europe/Vienna (did you mean "Europe/Vienna"?)',
  ],
  [
    scheduled('start: "09:00", timeZone: America/NewYork'),
    '1:47 "timeZone" must be the name of a time zone such as Europe/Vienna (did you mean "America/New_York"?)',
  ],
  [
    scheduled('start: "09:00", timeZone: Europe/Pariss'),
    '1:47 "timeZone" must be the name of a time zone such as Europe/Vienna (did you mean "Europe/Paris"?)',
  ],
  [
    scheduled('start: "09:00", timeZone: "+02:00"'),
    '1:47 "timeZone" must be the name of a time zone such as Europe/Vienna',
  ],
  [
    scheduled('start: "09:00", days: [monday], timeZone: UTC'),
    '1:44 "0" must be one of mon, tue, wed, thu, fri, sat, sun; not "monday"',
  ],
  ['shutdown: { script: a, timeout: 2h }', '1:33 "timeout" must be between 1s and 1h, not 2h'],
  ['shutdown: { timeout: 1m }', '1:1 "script" is missing (it must be a text)'],
  [
    'shutdown: { script: "save ${{ parameters.repo }}" }',
    '1:27 a script holds no expressions: a value put into it could be read as commands (write "$CDE_PARAM_REPO", which every script finds set)',
  ],
  [
    'idle: { stopAfter: "${{ parameters.idle }}" }',
    "1:21 expressions are not evaluated here (they stand in env, home.size and the provider's section)",
  ],
  ['schedule: { stop: "19:00" }', '1:1 the key "schedule" is not known here (write idle: {schedule: …})'],
])('a fault of when it stops is told with what to write: %s', (text, fault) => {
  expect(faultsOf(text)).toContain(fault);
});

test('all faults are reported at once, each with its position', () => {
  const { template, faults } = parse(`name: Demo
titel: x
provider: locl
env:
  A: \${{ parameters.memroy }}
  B: 3.10
  CDE_X: a
parameters:
  - name: memory
    type: number
    min: 5
    max: 2
  - name: memory
    type: string
  - name: zone
    type: strng
  - name: size
    type: string
    options: [{value: b}, {value: 1}]
    mutable: true
startup:
  timeout: 10x
local:
  memory: 2
  cpu: 1
home:
`);
  expect(template).toBeNull();
  expect(faults.map((f) => `${f.line}:${f.column} ${f.path} — ${f.message}; ${f.hint ?? ''}`)).toEqual([
    '1:7 name — "name" is "Demo"; use 1 to 32 lower-case letters, digits and hyphens, starting with a letter, ending with a letter or digit',
    '2:1 titel — the key "titel" is not known here; did you mean "title"?',
    '3:11 provider — "provider" must be one of local, docker, incus, ec2, gce, kubernetes; not "locl"; did you mean "local"?',
    '5:21 env.A — there is no parameter "memroy"; did you mean "memory"?',
    '6:6 env.B — YAML reads 3.10 as the number 3.1; put it in quotes: "3.10"',
    '7:3 env.CDE_X — the variable "CDE_X" is set by us; choose another name',
    '11:10 parameters[0].min — min 5 is greater than max 2; ',
    '13:11 parameters[1].name — there are two parameters "memory"; give one of them another name',
    '16:11 parameters[2].type — "type" must be one of string, number, boolean, list; not "strng"; did you mean "string"?',
    '19:35 parameters[3].options[1].value — "value" must be a text, not 1; put it in quotes: "1"',
    '20:5 parameters[3].mutable — the key "mutable" is not known here; write immutable (its opposite)',
    '21:1 startup.script — "script" is missing; it must be a text',
    '22:12 startup.timeout — "timeout" is "10x"; a number and a unit: 90s, 10m, 2h',
    '24:11 local.memory — "memory" is 2 bytes; it must be between 32Mi and 64Ti; write a unit: 2Gi',
    '25:3 local.cpu — the key "cpu" is not known here; write cpus',
    '26:1 home — "home" has no value; give it one (a map), or remove the key',
  ]);
});

describe('the folder', () => {
  test('without template.yaml', () => {
    expect(parseTemplate({}).faults).toMatchObject([{ file: 'template.yaml', line: 1, column: 1 }]);
    expect(parseTemplate({ 'template.yml': head }).faults[0]?.hint).toContain('rename "template.yml"');
  });
  test.each(['../x', '/etc/x', 'a\\b', 'a//b', './a', 'a/../b', ''])('with a file %j', (name) => {
    expect(parse(head, { [name]: '' }).faults).toMatchObject([{ file: name }]);
  });
  test('with too many or too large files, or bytes that are no text', () => {
    const many = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`f${i}`, '']));
    expect(parse(head, many).faults[0]?.message).toContain('65 files; at most 64');
    const large = 'x'.repeat(262_144);
    expect(parse(head, { a: large, b: large }).faults[0]?.message).toContain('at most 512 KiB');
    expect(parse(head, { a: 'x\0' }).faults[0]?.message).toContain('not text');
  });
  test('an icon must be there', () => {
    expect(faultsOf('icon: icon.svgg')).toEqual([
      '1:7 the folder has no file "icon.svgg" (an icon is an emoji, or a file of the folder)',
    ]);
    expect(parse(`${head}icon: icon.svg`, { 'icon.svg': '<svg/>' }).faults).toEqual([]);
    expect(parse(`${head}icon: 🏠`).faults).toEqual([]);
  });
});

describe('YAML', () => {
  test.each([
    ['env: [1', /not YAML/],
    ['\tenv: 1', /1:1 this is not YAML.*\(indent with spaces\)/],
    ['env:\n  A: ${{ 1 < 2 ? "a" : "b" }}', /2:6 .*": " stands within.*in quotes\)/],
    [
      'env: &a {A: x}\nlocal: {env: *a}',
      /2:14 YAML aliases are not allowed \(write the value of "\*a" out\)/,
    ],
    ['env: {A: !!binary aGk=}', /tags such as "tag:yaml.org,2002:binary" are not allowed/],
    ['env: {A: !foo x}', /tags such as "!foo" are not allowed/],
    ['title: a\ntitle: b', /2:1 the key "title" stands here twice \(the first is on line 3; keep one/],
    ['env: {__proto__: x}', /the key "__proto__" is not allowed/],
    ['---\nname: b', /more than one YAML document/],
    ['? [a]\n: b', /not YAML: a key is not a plain name/],
  ])('%j', (text, expected) => {
    expect(faultsOf(text).join('\n')).toMatch(expected);
  });
  test('is not a map', () => {
    expect(parse('- a').faults[0]?.message).toBe('the file must be a map, not a list');
    expect(parse('').faults[0]?.message).toBe('the file has no value');
  });
  test('in Windows line ends keeps its places', () => {
    expect(parse(`${head}env:\r\n  A: |\r\n    x\r\n    \${{ foo }}\r\n`).faults).toMatchObject([
      { line: 6, column: 9 },
    ]);
  });
});

describe('an expression points into its scalar, however that is written', () => {
  test.each([
    ['plain', 'env:\n  A: x${{ foo }}', '2:11'],
    ['quoted', 'env:\n  A: "esc \\" \\t \\u0041 ${{ foo }}"', '2:28'],
    ['single-quoted', "env:\n  A: 'it''s ${{ foo }}'", '2:17'],
    ['literal', 'env:\n  A: |\n    one\n\n      two ${{ foo }}', '5:15'],
    ['literal, chomped', 'env:\n  A: |2-\n      one ${{ foo }}', '3:15'],
    ['folded', 'env:\n  A: >-\n    one\n    two ${{ foo }}\n', '4:13'],
    ['plain over lines', 'env:\n  A: one\n    two\n    ${{ foo }}', '4:9'],
    ['quoted over lines', 'env:\n  A: "one \\\n    two ${{ foo }}"', '3:13'],
    ['over lines itself', 'env:\n  A: |\n    ${{ 1 +\n    foo }}', '4:5'],
    ['second', 'env:\n  A: ${{ workspace.name }}-${{ foo }}', '2:32'],
  ])('%s', (_, text, place) => {
    expect(faultsOf(text)).toEqual([
      expect.stringMatching(new RegExp(`^${place} there is no variable "foo"`)),
    ]);
  });
});

describe('expressions', () => {
  const parameters = `parameters:
  - {name: memory, type: number, integer: true, default: 2}
  - {name: cpus, type: number, default: 1.5}
  - {name: repo, type: string, default: ""}
  - {name: gpu, type: boolean, default: false}
  - {name: tags, type: list, default: []}
`;
  const faultOf = (expression: string) =>
    parse(`${head}${parameters}env:\n  A: |-\n    \${{ ${expression} }}\n`).faults.map(
      ({ message, hint }) => message + (hint ? ` (${hint})` : ''),
    );

  test.each([
    'parameters.repo',
    'parameters["repo"]',
    'parameters.memory * 2 + 1',
    'parameters.cpus * 2.0',
    'parameters.gpu ? "a" : "b"',
    'parameters.tags.filter(t, t != "x").map(t, t + "!").join(",")',
    'parameters.tags.exists(t, t.startsWith("go")) ? 1 : 0',
    '{"small": "2Gi", "large": {"x": "}}"}["x"]}[parameters.gpu ? "large" : "small"]',
    'workspace.owner + "/" + workspace.name + workspace.id + owner.name + owner.email',
    'string(parameters.cpus) + "}}" + \'${{\'',
    'size(parameters.repo)',
    '"a" in parameters.tags || !parameters.gpu',
    'int(parameters.cpus) - -1',
  ])('%s', (expression) => {
    expect(faultOf(expression)).toEqual([]);
  });

  test.each([
    ['', 'the expression is empty (for example ${{ workspace.name }})'],
    ['1 +', 'the expression ends too early'],
    ['parameters.memroy', 'there is no parameter "memroy" (did you mean "memory"?)'],
    ['memory', 'there is no variable "memory" (write parameters.memory)'],
    ['workspce.name', 'there is no variable "workspce" (did you mean "workspace"?)'],
    ['owner.mail', 'owner has no field "mail" (did you mean "email"?)'],
    [
      'parameters.cpus * 2',
      'the types do not fit: double * int (write 2.0 for 2, or set "integer: true" on the parameter)',
    ],
    [
      'parameters.repo + parameters.memory',
      'the types do not fit: string + int (convert the other one first: string(…))',
    ],
    [
      'parameters.repo.startWith("a")',
      'there is no function "startWith" for this (did you mean "startsWith"?)',
    ],
    ['parameters.gpu ? 1 : "a"', "Ternary branches must have the same type, got 'int' and 'string'"],
    [
      'parameters.tags',
      'the expression is a list, which cannot be the value of "A" (join it into one text: .join(","))',
    ],
    [
      'parameters',
      'the expression is a map, which cannot be the value of "A" (name one of its fields, as in parameters.memory or workspace.name)',
    ],
    ['null', 'the expression is null, which cannot be the value of "A"'],
    [
      'timestamp("2024-01-01T00:00:00Z").getFullYear()',
      expect.stringContaining('the function "timestamp" is not available here'),
    ],
    [
      'parameters.repo.matches("(a+)+$")',
      expect.stringContaining('the function "matches" is not available here'),
    ],
    ['cel.bind(x, "a", x + x)', expect.stringContaining('is not available here')],
    ['b"aa".size()', 'bytes are not available here'],
  ])('%s is a fault', (expression, expected) => {
    expect(faultOf(expression)).toEqual([expected]);
  });

  test('that never end, or grow without end, are refused before they run', () => {
    const ten = '[1,2,3,4,5,6,7,8,9,0]';
    const loops = (depth: number): string =>
      depth === 0 ? '1' : `${ten}.map(x${depth}, ${loops(depth - 1)}).size()`;
    expect(faultOf(loops(3))).toEqual([]);
    expect(faultOf(loops(6))[0]).toMatch(/could take too long/);
    const squared = 'parameters.repo.split("").map(x, parameters.repo).join(parameters.repo)';
    expect(faultOf(`${squared}.split("").map(x, ${squared}).join()`)[0]).toMatch(/could take too long/);
    expect(faultOf(`${'('.repeat(100)}1${')'.repeat(100)}`)[0]).toMatch(/depth/i);
    expect(faultOf(Array(600).fill('1').join('+'))[0]).toMatch(/nodes/i);
    expect(faultOf(`"${'x'.repeat(3000)}"`)[0]).toMatch(/longer than 2000/);
  });

  test('without an end', () => {
    expect(faultsOf('env:\n  A: a ${{ "}}"')).toEqual([
      expect.stringContaining('2:8 the expression that begins here has no end'),
    ]);
  });

  test('stand in a script or a default only by mistake', () => {
    const text = `${parameters}  - {name: x, type: string, default: "\${{ workspace.name }}"}\nstartup:\n  script: |\n    echo \${{ parameters.repo }}\n`;
    expect(faultsOf(text)).toEqual([
      "7:39 expressions are not evaluated here (they stand in env, home.size and the provider's section)",
      '10:10 a script holds no expressions: a value put into it could be read as commands (write "$CDE_PARAM_REPO", which every script finds set)',
    ]);
    expect(faultsOf('description: write ${{ parameters.x }}')).toEqual([]);
  });

  test('are tried on defaults, options and limits', () => {
    expect(
      faultsOf(`parameters:
  - {name: gib, type: number, integer: true, default: 2, min: 0}
  - {name: size, type: string, options: [{value: 2Gi}, {value: 4Gb}]}
  - {name: tags, type: list, default: [a]}
  - {name: free, type: string, pattern: "[a-z]+"}
env:
  FIRST: \${{ parameters.tags[0] }}
  DIV: \${{ 100 / parameters.gib }}
  FREE: \${{ parameters.free.substring(3) }}
local:
  memory: \${{ parameters.gib }}Gi
home:
  size: \${{ parameters.size }}
`),
    ).toEqual([
      '7:14 the list has no item 0 when parameters.tags is []',
      '8:12 division by zero when parameters.gib is 0',
      '11:11 "memory" is 0 bytes; it must be between 32Mi and 64Ti when parameters.gib is 0 (write a unit: 2Gi)',
      '13:9 "size" must be a quantity of bytes, not "4Gb" when parameters.size is "4Gb" (for example 2Gi or 512Mi)',
    ]);
  });
});

test.each([
  ['{type: string, minLength: 5, maxLength: 2}', 'minLength 5 is greater than maxLength 2'],
  ['{type: string, maxLength: 20000}', 'maxLength is 20000; at most 16384 is allowed'],
  ['{type: string, default: abc, maxLength: 2}', 'the default must be at most 2 characters long, not 3'],
  ['{type: string, default: abc, pattern: "[0-9]+"}', 'the default does not match the pattern [0-9]+: "abc"'],
  ['{type: string, default: ab1, pattern: "[a-z]+"}', 'the default does not match the pattern [a-z]+: "ab1"'],
  [
    '{type: string, default: small, options: [{value: smal}]}',
    'the default must be one of smal; not "small"',
  ],
  ['{type: string, options: [{value: a}, {value: a}]}', 'the option "a" stands here twice'],
  [
    '{type: string, pattern: "("}',
    'the pattern is not a regular expression that can be used here: missing closing ): `(`',
  ],
  ['{type: string, pattern: "(?=a)b"}', expect.stringContaining('invalid or unsupported Perl syntax')],
  ['{type: string, pattern: "((a{30}){30}){30}"}', 'the pattern is too large a regular expression'],
  ['{type: string, pattern: "(x{1000})*"}', 'the pattern is too large a regular expression'],
  ['{type: string, pattern: a, options: [{value: a}]}', 'a parameter with options needs no pattern'],
  ['{type: number, min: 3, max: 1}', 'min 3 is greater than max 1'],
  ['{type: number, min: 3, default: 1}', 'the default must be at least 3, not 1'],
  ['{type: number, integer: true, default: 1.5}', 'the default must be a whole number, not 1.5'],
  ['{type: number, integer: true, min: 1.5}', 'min 1.5 is not a whole number, as "integer: true" wants'],
  ['{type: number, max: 4, options: [{value: 5}]}', 'the option must be at most 4, not 5'],
  ['{type: number, default: "3"}', '"default" must be a number, not "3"'],
  ['{type: boolean, default: yes}', '"default" must be true or false, not "yes"'],
  ['{type: list, default: [a, b], maxItems: 1}', 'the default must have at most 1 items, not 2'],
  [
    '{type: list, default: [a], options: [{value: b}]}',
    'the default has an item that must be one of b; not "a"',
  ],
  ['{type: list, default: a}', '"default" must be a list, not "a"'],
])('the parameter %s is a fault', (parameter, expected) => {
  const { faults } = parse(`${head}parameters:\n  - ${parameter.replace('{', '{name: x, ')}\n`);
  expect(faults.map(({ message }) => message)).toEqual([expected]);
  expect(faults[0]!.line).toBe(4);
});

test('a parameter cannot have a word of CEL as its name', () => {
  expect(faultsOf('parameters: [{name: in, type: string}]')).toEqual([
    expect.stringContaining('"in" is a word of the expression language'),
  ]);
});

test('hostile files are refused in bounded CPU time', () => {
  const kib = 1024;
  const hostile: Record<string, string> = {
    brackets: `name: ${'['.repeat(100 * kib)}`,
    keys: Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join('\n'),
    deep: '- '.repeat(50 * kib),
    'deep within the limit': `name: ${'['.repeat(3500)}`,
    large: `name: ${'x'.repeat(200 * kib)}`,
    'laughing aliases': `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
      .split('')
      .map((key, i) => `${key}: &${key} [${Array(9).fill(`*${'abcdefgh'[i]}`)}]`)
      .join('\n')}`,
    patterns: `${head}parameters:\n${Array.from({ length: 50 }, (_, i) => `- {name: p${i}, type: string, default: ${'a'.repeat(500)}, pattern: "((a?){14}){14}[${i}]"}`).join('\n')}`,
    expressions: `${head}env:\n${Array.from({ length: 1000 }, (_, i) => `  E${i}: \${{ [1,2,3,4,5,6,7,8].map(x, [1,2,3,4,5,6,7,8].map(y, x*y+${i})).size() }}`).join('\n')}`,
    unterminated: `${head}env: {A: '${'${{ ('.repeat(10 * kib)}'}`,
  };
  parse(hostile.keys!);
  const slow: string[] = [];
  for (const [name, text] of Object.entries(hostile)) {
    let parsed: ReturnType<typeof parse>;
    const took = cpuMs(() => {
      parsed = parse(text);
    });
    expect(parsed!.template, name).toBeNull();
    expect(parsed!.faults.length, name).toBeLessThanOrEqual(100);
    // Generous: the code is not yet warm.
    if (took > 5_000) slow.push(`${name}: ${took.toFixed()} ms`);
  }
  expect(slow).toEqual([]);
});
