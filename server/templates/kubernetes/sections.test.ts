// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { TemplateContent } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import { describe, expect, test } from 'vitest';
import { cpuMs } from '../../../tests/kit/cpu-time.ts';
import { checkParameters } from '../language/parameters.ts';
import { parseTemplate } from '../parse.ts';
import { renderTemplate } from '../render.ts';
import { context, parse, render, rendered, told } from './testing.ts';

/** `line:column message` of the faults of a section; lines count from its first. */
const faultsOf = (section: string) =>
  parse(section).faults.map(({ line, column, message }) => `${line - 8}:${column} ${message}`);

test('the section is evaluated into typed values', () => {
  const all = rendered(`home: { size: "\${{ parameters.size * 10 }} GiB" }
env: { A: 1, PORT: 79 }
kubernetes:
  image: team/dev:\${{ parameters.tag }}
  cluster: { labels: { region: "eu-\${{ parameters.free }}" } }
  user: "\${{ parameters.db ? 0 : 1000 }}"
  cpus: \${{ parameters.size }}
  memory: \${{ parameters.size * 2 }}Gi
  requests: { cpus: 0.5, memory: 512Mi }
  storageClass: fast
  env: { PORT: 80, DB: "\${{ parameters.db }}" }
  nodeSelector: { example.com/pool: "p\${{ parameters.size }}" }
  tolerations: [{ key: gpu, value: "\${{ parameters.db }}", effect: NoSchedule, tolerationSeconds: 60 }]
  quota:
    pods: \${{ parameters.size * 5 }}
    cpus: 100
    memory: 100Gi
    storage: 1Ti
  services:
    - name: redis
      image: "redis:7"
      ports: [6379, "\${{ 1000 + parameters.size }}"]
      env: { N: "\${{ parameters.size }}", T: true }
      args: ["--save", "\${{ string(parameters.size) }}"]
      memory: 1Gi
      storage: { path: /data, size: "\${{ parameters.size }}G" }
  builder: { cache: 5GiB, insecureRegistries: ["registry.\${{ workspace.owner }}:5000"] }
`);
  expect(all).toMatchObject({ home: { size: '20Gi' }, env: { A: '1', PORT: '80', DB: 'true' } });
  expect(all.kubernetes).toEqual({
    image: 'team/dev:12',
    cluster: { labels: { region: 'eu-x' } },
    pullSecrets: [],
    user: 0,
    cpus: 2,
    memory: 4 * 2 ** 30,
    requests: { cpus: 0.5, memory: 512 * 2 ** 20 },
    storageClass: 'fast',
    readOnlyRoot: false,
    allowPrivilegeEscalation: false,
    env: { PORT: '80', DB: 'true' },
    services: [
      {
        name: 'redis',
        image: 'redis:7',
        ports: [6379, 1002],
        env: { N: '2', T: 'true' },
        args: ['--save', '2'],
        memory: 2 ** 30,
        storage: { path: '/data', size: '1953125Ki' },
      },
    ],
    nodeSelector: { 'example.com/pool': 'p2' },
    tolerations: [{ key: 'gpu', value: 'true', effect: 'NoSchedule', tolerationSeconds: 60 }],
    podSecurity: 'baseline',
    quota: { pods: 10, cpus: 100, memory: 100 * 2 ** 30, storage: '1Ti' },
    egress: 'all',
    builder: { cache: '5Gi', rootless: true, insecureRegistries: ['registry.ada:5000'] },
  });
  expect(rendered('kubernetes: { image: a, builder: true }\n').kubernetes?.builder).toEqual({
    cache: '20Gi',
    rootless: true,
    insecureRegistries: [],
  });
});

test('a builder: those inside find it, and what may keep it from its work is warned of', () => {
  const { env } = rendered('kubernetes: { image: "a:1", builder: true }\n');
  expect(env.BUILDKIT_HOST).toBe('tcp://builder:1234');
  expect(rendered('kubernetes: { image: "a:1" }\n').env).not.toHaveProperty('BUILDKIT_HOST');
  expect(
    rendered('env: { BUILDKIT_HOST: mine }\nkubernetes: { image: "a:1", builder: true }\n').env.BUILDKIT_HOST,
  ).toBe('mine');

  const warningsOf = (section: string) =>
    parse(section).warnings.map(({ line, column, message }) => `${line - 8}:${column} ${message}`);
  expect(warningsOf('kubernetes: { image: "a:1", builder: { image: b } }\n')).toEqual([
    expect.stringContaining('1:29 a rootless builder makes user namespaces'),
    expect.stringContaining('1:47 the image b has no tag'),
  ]);
  expect(
    warningsOf('kubernetes: { image: "a:1", podSecurity: privileged, egress: namespace, builder: true }\n'),
  ).toEqual([expect.stringContaining('1:73 the builder reaches no registry')]);
  expect(
    warningsOf(
      'kubernetes: { image: "a:1", podSecurity: privileged, builder: { rootless: false, image: "b:1" } }\n',
    ),
  ).toEqual([]);
});

test.each([
  ['', '-6:11 the section "kubernetes" is missing'],
  ['kubernetes:', '1:1 "kubernetes" has no value'],
  ['kubernetes: { image: "not an image" }', '1:22 "image" must be an image, not "not an image"'],
  ['kubernetes: { image: "team/dev:${{ parameters.free }}" }', null],
  ['kubernetes: { image: "Team/dev" }', '1:22 "image" must be an image, not "Team/dev"'],
  ['kubernetes: { image: "${{ parameters.size }}/" }', '1:23 "image" must be an image, not "2/"'],
  ['kubernetes: { image: a, cluster: Nice }', '1:34 "cluster" must be a name of lower-case letters'],
  ['kubernetes: { image: a, cluster: { labels: {} } }', '1:36 "labels" chooses no cluster'],
  ['kubernetes: { image: a, cluster: { label: x } }', '1:36 the key "label" is not known here'],
  ['kubernetes: { image: a }\nlocal: { cpus: 1 }', '2:1 the section "local" is of another provider'],
  ['kubernetes: { image: a }\nlocal: {}', null],
  ['kubernetes: { image: a, podSecurity: restricted, user: 0 }', '1:56 the user is root, which podSecurity'],
  ['kubernetes: { image: a, podSecurity: restricted, user: "0" }', '1:56 the user is root'],
  [
    'kubernetes: { image: a, podSecurity: restricted, user: image }',
    '1:56 the user of the image may be root',
  ],
  ['kubernetes: { image: a, podSecurity: restricted, user: 1000 }', null],
  ['kubernetes: { image: a, podSecurity: restricted, builder: true }', '1:59 a builder sets up namespaces'],
  [
    'kubernetes: { image: a, builder: { rootless: false } }',
    '1:46 a builder that is not rootless is a privileged',
  ],
  ['kubernetes: { image: a, builder: { image: "B" } }', '1:43 "image" must be an image, not "B"'],
  [
    'kubernetes: { image: a, builder: { insecureRegistries: ["http://r"] } }',
    '1:57 "insecureRegistries[0]" must be a host',
  ],
  ['kubernetes: { image: a, builder: { rootles: false } }', '1:36 the key "rootles" is not known here'],
  ['kubernetes: { image: a, podSecurity: privileged, builder: { rootless: false } }', null],
  ['kubernetes: { image: a, user: someone }', '1:31 "user" must be a user\'s number'],
  ['kubernetes: { image: a, quota: { pods: 0.5 } }', '1:40 "pods" must be a whole number'],
  ['kubernetes: { image: a, cpus: 500m }', '1:31 "cpus" must be a number between 0.01 and 1024'],
  ['kubernetes: { image: a, memory: 2 }', '1:33 "memory" is 2 bytes'],
  [
    'kubernetes: { image: a, cpus: 1, requests: { cpus: 2 } }',
    '1:52 2 cores are requested, and at most 1 cores',
  ],
  [
    'kubernetes: { image: a, memory: 4Gi, quota: { memory: 2Gi } }',
    '1:55 the template itself needs 4Gi, and the quota is 2Gi',
  ],
  [
    'home: { size: 10Gi }\nkubernetes: { image: a, quota: { storage: 5Gi } }',
    '2:43 the template itself needs 10Gi',
  ],
  [
    'kubernetes: { image: a, services: [{ name: b, image: b }], quota: { pods: 1 } }',
    '1:75 the template itself needs 2 pods',
  ],
  ['kubernetes: { image: a, services: [{ name: home, image: b }] }', '1:44 the name "home" is taken by us'],
  [
    'kubernetes: { image: a, services: [{ name: x, image: b }, { name: x, image: b }] }',
    '1:67 there are two services "x"',
  ],
  [
    'kubernetes: { image: a, services: [{ name: x, image: b, ports: [80, "80"] }] }',
    '1:69 the port 80 stands here twice',
  ],
  [
    'kubernetes: { image: a, services: [{ name: x, image: b, ports: [70000] }] }',
    '1:65 "ports[0]" must be a whole number',
  ],
  ['kubernetes: { image: a, services: [{ name: x, image: b, ready: {} }] }', '"ready" is either a port'],
  [
    'kubernetes: { image: a, podSecurity: restricted, services: [{ name: x, image: b, user: 0 }] }',
    'the service x may run as root',
  ],
  ['kubernetes: { image: a, startTimeout: soon }', '1:39 "startTimeout" is "soon"'],
  ['kubernetes: { image: a, services: [{ name: "${{ parameters.tag }}", image: b }] }', '1:44 "name" is'],
  ['kubernetes: { image: a, readOnlyRoot: "${{ true }}" }', 'must be true or false'],
  [
    'kubernetes: { image: a, podSecurity: restricted, allowPrivilegeEscalation: true }',
    '1:76 programs that make their user root, which podSecurity: restricted does not permit',
  ],
  ['kubernetes: { imgae: a }', '1:15 the key "imgae" is not known here'],
  ['kubernetes: { image: a, env: { CDE_X: 1 } }', '1:32 the variable "CDE_X" is set by us'],
  ['kubernetes: { image: a, env: { A: 3.10 } }', '1:35 YAML reads 3.10 as the number 3.1'],
  ['kubernetes: { image: a, nodeSelector: { "a b": x } }', '1:41 "a b" is not a name for this'],
  ['kubernetes: { image: a, nodeSelector: { pool: "a b" } }', '1:47 "pool" must be a value of a label'],
  ['kubernetes: { image: a, tolerations: [{ effect: noschedule }] }', '"effect" must be one of NoSchedule'],
  ['kubernetes: { image: a, pullSecrets: [x] }', '"0" is "x"'],
])('%s is refused, or not', (section, message) => {
  const faults = faultsOf(`${section}\n`);
  if (message === null) expect(faults).toEqual([]);
  else expect(faults.join('\n')).toContain(message);
});

test('the section of another provider is refused', () => {
  const { faults } = parseTemplate({ 'template.yaml': 'name: a\nprovider: local\nkubernetes: {image: a}\n' });
  expect(told(faults)).toEqual([
    'template.yaml:3:1 the section "kubernetes" is of another provider (remove it, or write provider: kubernetes)',
  ]);
});

test('a version that was stored before there was Kubernetes still renders', () => {
  const stored = {
    name: 'old',
    provider: 'local',
    parameters: [],
    home: {},
    env: { A: '${{ workspace.name }}' },
    local: {},
  } as unknown as TemplateContent;
  const result = renderTemplate(stored, {}, context);
  expect(result).toMatchObject({ ok: { provider: 'local', env: { A: 'web' } } });
  expect(JSON.stringify(result)).not.toMatch(/kubernetes|manifests/);
});

describe('a quota below what the rendered objects need is refused', () => {
  const pod = (limits: string) =>
    `spec: { containers: [{ name: c, image: "a:1", resources: { limits: ${limits} } }] }`;
  const deployment = (replicas: string, limits: string) =>
    `apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: db }\nspec: { replicas: ${replicas}, selector: { matchLabels: { a: b } }, template: { metadata: { labels: { a: b } }, ${pod(limits)} } }\n`;
  const claim =
    'apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: { name: data }\nspec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 5Gi } } }\n';
  test.each<[string, string, string, string | null]>([
    [
      'a Deployment beside the workspace',
      'cpus: 1, quota: { cpus: 1.5 }',
      deployment('1', '{ cpu: 600m }'),
      'needs 1.6 cores, and the quota is 1.5 cores',
    ],
    [
      'as many replicas as it has',
      'memory: 1Gi, quota: { memory: 2Gi }',
      deployment('3', '{ memory: 512Mi }'),
      'needs 2560Mi, and the quota is 2Gi',
    ],
    [
      'a container without limits, which gets a core',
      'cpus: 1, quota: { cpus: 1.5 }',
      deployment('1', '{ memory: 1Gi }'),
      'needs 2 cores',
    ],
    ['a workspace without limits', 'quota: { cpus: 0.5 }', '', 'needs 1 cores'],
    [
      'init containers larger than the workspace',
      'memory: 64Mi, quota: { memory: 128Mi }',
      '',
      'needs 256Mi',
    ],
    ['volumes of manifests', 'quota: { storage: 12Gi }', claim, 'needs 15Gi, and the quota is 12Gi'],
    [
      'a number of pods',
      'quota: { pods: 3 }',
      deployment('3', '{ cpu: 1 }'),
      'needs 4 pods, and the quota is 3',
    ],
    [
      'only at the largest value of a parameter',
      'cpus: 1, quota: { cpus: 4 }',
      deployment('"${{ parameters.size }}"', '{ cpu: 1 }'),
      'needs 9 cores, and the quota is 4 cores, when parameters.size is 8',
    ],
    [
      'only at a combination',
      'cpus: "${{ parameters.size }}", quota: { cpus: "${{ parameters.size < 8 || parameters.tag == \'12\' ? 20 : 8 }}" }',
      deployment('1', '{ cpu: 1 }'),
      'when parameters.size is 8 and parameters.tag is "13"',
    ],
    [
      'and no quota that has room',
      'cpus: 0.5, memory: 1Gi, quota: { cpus: 1.1, memory: 2Gi, pods: 2, storage: 15Gi }',
      `${deployment('1', '{ cpu: 600m, memory: 1e9 }')}---\n${claim}`,
      null,
    ],
    ['nor what is scaled to nothing', 'cpus: 1, quota: { cpus: 1 }', deployment('0', '{ cpu: 4 }'), null],
  ])('%s', (_, section, manifest, said) => {
    const { faults } = parse(
      `kubernetes: { image: "a:1", ${section} }\n`,
      manifest ? { 'manifests/m.yaml': manifest } : {},
    );
    if (said === null) expect(told(faults)).toEqual([]);
    else expect(told(faults)).toEqual([expect.stringContaining(said)]);
  });

  test('a version from before this rule still starts what it can', () => {
    const manifest = deployment('1', '{ cpu: 4 }');
    const { template } = parse('kubernetes: { image: "a:1", cpus: 1, quota: { cpus: 8 } }\n', {
      'manifests/m.yaml': manifest,
    });
    const stored = { ...template!, kubernetes: { ...template!.kubernetes!, quota: { cpus: 2 } } };
    expect(render(stored as TemplateContent)).toHaveProperty('ok');
  });

  test('trying a template of many parameters and manifests takes no longer than publishing may', () => {
    const parameters = Array.from(
      { length: 12 },
      (_, n) => `  - { name: p${n}, type: number, default: 1, min: 1, max: 2 }`,
    );
    const sum = Array.from({ length: 12 }, (_, n) => `parameters.p${n}`).join(' + ');
    const manifests = Array.from({ length: 150 }, (_, n) =>
      deployment('1', '{ cpu: 1 }').replace('name: db', `name: db${n}`),
    );
    let faults: ReturnType<typeof parseTemplate>['faults'] = [];
    const took = cpuMs(() => {
      ({ faults } = parseTemplate({
        'template.yaml': `name: k8s\nprovider: kubernetes\nparameters:\n${parameters.join('\n')}\nkubernetes: { image: "a:1", cpus: "\${{ ${sum} }}", quota: { cpus: 1 } }\n`,
        'manifests/m.yaml': manifests.join('---\n'),
      }));
    });
    expect(told(faults)).toEqual([expect.stringContaining('needs 162 cores')]);
    expect(took).toBeLessThan(10_000);
  });
});

describe('the folders in templates/', () => {
  const folder = fileURLToPath(new URL('../../../templates', import.meta.url));
  const names = readdirSync(folder);
  test('are these', () =>
    expect(names.sort()).toEqual(['docker', 'ec2', 'gce', 'incus', 'kubernetes', 'local']));
  test.each(
    names,
  )('%s is valid, is called as its folder, and renders with its defaults and limits', (name) => {
    const files = Object.fromEntries(
      readdirSync(`${folder}/${name}`, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => {
          const path = `${entry.parentPath}/${entry.name}`;
          return [path.slice(`${folder}/${name}/`.length), readFileSync(path, 'utf8')];
        }),
    );
    expect(files).toHaveProperty(['README.md']);
    const { template, faults } = parseTemplate(files);
    expect(told(faults)).toEqual([]);
    expect(template!.name).toBe(name);
    const trials = template!.parameters.flatMap((parameter): Record<string, unknown>[] => {
      if (parameter.type === 'boolean') return [{ [parameter.name]: true }, { [parameter.name]: false }];
      if (parameter.type === 'number')
        return [{ [parameter.name]: parameter.min }, { [parameter.name]: parameter.max }];
      return [];
    });
    for (const given of [{}, ...trials]) {
      const checked = checkParameters(template!.parameters, given);
      expect(checked).toHaveProperty('values');
      expect(
        renderTemplate(template!, (checked as { values: ParameterValues }).values, context),
      ).toHaveProperty('ok');
    }
  });
});
