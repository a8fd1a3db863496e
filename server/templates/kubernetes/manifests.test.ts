// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cpuMs } from '../../../tests/kit/cpu-time.ts';
import { parseTemplate } from '../parse.ts';
import { renderTemplate } from '../render.ts';
import { context, parse, render, rendered, told } from './testing.ts';

describe('manifests', () => {
  const configMap = (name: string, more = '') =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\n${more}`;
  const files = {
    'manifests/b.yml': configMap('b'),
    'manifests/deep/c.yaml': configMap('c'),
    'manifests/README.md': 'no manifest: [',
    'manifests/a.yaml': `# a comment, and nothing else\n---\n${configMap('a', 'data: {owner: "${{ workspace.owner }}!"}')}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: db
  labels: {app: "\${{ workspace.name }}"}
spec:
  replicas: "\${{ parameters.db ? 1 : 0 }}"
  paused: \${{ !parameters.db }}
  ratio: \${{ 1.5 * 2.0 }}
  tags: \${{ parameters.tags }}
  lengths: \${{ parameters.tags.map(t, size(t)) }}
  size: "\${{ parameters.size }}"
  empty: {}
  none:
  text: a\${{ parameters.size }}
---
`,
    'other.yaml': configMap('other'),
  };

  test('are read from the folder, several to a file, and keep the type of an expression', () => {
    expect(rendered('kubernetes: { image: a }\n', files, { db: false }).manifests).toEqual([
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { owner: 'ada!' } },
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'db', labels: { app: 'web' } },
        spec: {
          replicas: 0,
          paused: true,
          ratio: 3,
          tags: ['a', 'b'],
          lengths: [1, 1],
          size: 2,
          empty: {},
          none: null,
          text: 'a2',
        },
      },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'b' } },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'c' } },
    ]);
  });
  test('are those that are named, or none', () => {
    const named = rendered('kubernetes: { image: a, manifests: [other.yaml, manifests/b.yml] }\n', files);
    expect(named.manifests?.map(({ metadata }) => metadata.name)).toEqual(['other', 'b']);
    expect(rendered('kubernetes: { image: a, manifests: [] }\n', files)).not.toHaveProperty('manifests');
    expect(
      told(
        parse(
          'kubernetes: {image: a, manifests: [othr.yaml, template.yaml, manifests/README.md, other.yaml, other.yaml]}\n',
          files,
        ).faults,
      ),
    ).toEqual([
      'template.yaml:9:36 the folder has no file "othr.yaml" (did you mean "other.yaml"?)',
      'template.yaml:9:47 "template.yaml" is no manifest (a manifest is a file that ends in .yaml)',
      'template.yaml:9:62 "manifests/README.md" is no manifest (a manifest is a file that ends in .yaml)',
      'template.yaml:9:95 "other.yaml" is listed twice (keep one of them)',
    ]);
  });

  test('tell each fault in its file, at its place', () => {
    const { faults, template } = parse(
      'kubernetes: { image: a, services: [{name: redis, image: redis}] }\n',
      {
        'manifests/m.yaml': `apiVersion: v1
kind: Namespace
metadata: { name: x }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: same, namespace: kube-system, labels: { cde.dev/managed: "true" } }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: same }
data: { a: "\${{ parameters.nope }}" }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: workspace }
---
apiVersion: v1
kind: Pod
metadata: { name: p, uid: x }
spec:
  hostNetwork: \${{ parameters.db }}
  volumes: [{ name: v, hostPath: { path: / } }]
  containers: [{ name: c, securityContext: { privileged: true } }]
---
kind: 3
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: "system:r" }
roleRef: { kind: ClusterRole, name: cluster-admin }
---
apiVersion: v1
kind: Service
metadata: { name: redis }
---
apiVersion: v1
kind: "\${{ parameters.tag }}"
metadata: { name: Big }
---
apiVersion: apps/v1
kind: Deployment
metadata: { generateName: d- }
spec: { "\${{ parameters.tag }}": 1, mode: 0644, zip: 08, huge: 123456789012345678901, inf: .inf, nul: "\\0" }
---
- a
`,
        'manifests/n.yaml': 'apiVersion: v1\nkind: List\nmetadata: {name: l}\nitems: []\n---\n{\n',
      },
    );
    expect(template).toBeNull();
    expect(told(faults)).toEqual([
      'manifests/m.yaml:2:7 a Namespace does not belong to a namespace (a template makes what is in its own namespace; create this one on the cluster, once for all)',
      "manifests/m.yaml:7:25 a manifest names no namespace (remove it: everything goes into the workspace's own namespace)",
      'manifests/m.yaml:7:59 "cde.dev/managed" is set by us (choose a prefix of your own)',
      'manifests/m.yaml:11:19 there are two manifests of the ConfigMap "same" (the first is at manifests/m.yaml:5; keep one of them)',
      expect.stringMatching(/^manifests\/m.yaml:12:28 there is no parameter "nope"/),
      'manifests/m.yaml:16:19 the StatefulSet "workspace" is made by us (choose another name)',
      'manifests/m.yaml:20:22 "uid" is of an object that exists already (remove it, as what kubectl get -o yaml adds)',
      'manifests/m.yaml:22:3 "hostNetwork" shares what belongs to the node, which podSecurity: baseline does not permit (remove it, or raise kubernetes.podSecurity)',
      'manifests/m.yaml:23:24 a hostPath volume is a folder of the node, which podSecurity: baseline does not permit (remove it, or raise kubernetes.podSecurity)',
      'manifests/m.yaml:24:46 a privileged container owns its node, which podSecurity: baseline does not permit (remove it, or raise kubernetes.podSecurity)',
      'manifests/m.yaml:26:1 "apiVersion" is missing',
      'manifests/m.yaml:26:1 "metadata" is missing',
      'manifests/m.yaml:26:7 "kind" must be a text',
      'manifests/m.yaml:31:37 a template does not give cluster-admin, which may change its own quota and network policies (bind admin, edit or view)',
      'manifests/m.yaml:35:19 the Service "redis" is that of kubernetes.services (choose another name, or remove that)',
      'manifests/m.yaml:38:7 "kind" cannot hold an expression (write it out)',
      'manifests/m.yaml:39:19 "metadata.name" is "Big" (for example postgres)',
      'manifests/m.yaml:43:1 "metadata.name" is missing (generateName does not serve: every start would make another one)',
      'manifests/m.yaml:44:9 a key cannot hold an expression (expressions stand in values)',
      'manifests/m.yaml:44:43 0644 is read as the number 644 (write 0o644 for the octal number, 644 for the decimal one, or "0644" for a text)',
      'manifests/m.yaml:44:54 08 is read as the number 8 (write 8, or "08" for a text)',
      'manifests/m.yaml:44:64 123456789012345678901 is not a number that can be kept (write "123456789012345678901" for a text)',
      'manifests/m.yaml:44:92 .inf is not a number that can be kept (write ".inf" for a text)',
      'manifests/m.yaml:44:103 the text holds a NUL character or half a character',
      'manifests/m.yaml:46:1 a manifest is a map with apiVersion, kind and metadata',
      expect.stringMatching(/^manifests\/n.yaml:\d+:\d+ this is not YAML/),
    ]);
  });

  test('are checked again on what a developer gives', () => {
    const { template } = parse('kubernetes: { image: a }\n', {
      'manifests/p.yaml':
        'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostPID: ${{ parameters.size > 4 }}\n  x: ${{ parameters.tags[1] }}\n',
    });
    expect(template).toBeNull();
    const { template: other } = parse('kubernetes: { image: a }\n', {
      'manifests/p.yaml':
        'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostPID: ${{ parameters.size > 4 }}\n',
    });
    expect(render(other!, { size: 3 })).toHaveProperty('ok');
    expect(render(other!, { size: 5 })).toEqual({
      faults: [
        {
          path: 'Pod/p: spec.hostPID',
          message: '"hostPID" shares what belongs to the node, which podSecurity: baseline does not permit',
          hint: 'remove it, or raise kubernetes.podSecurity',
        },
      ],
    });
  });

  test('cannot grow without bounds by what a developer gives', () => {
    const { template } = parse('kubernetes: { image: a }\n', {
      'manifests/m.yaml': Array.from({ length: 100 }, (_, i) =>
        configMap(`m${i}`, `data: {a: "${'${{ parameters.tags.join() }}'.repeat(4)}"}\n`),
      ).join('---\n'),
    });
    expect(template).toBeNull();
    const { template: small } = parse('kubernetes: { image: a }\n', {
      'manifests/m.yaml': Array.from({ length: 60 }, (_, i) =>
        configMap(`m${i}`, 'data: {a: "${{ parameters.tags.join() }}"}\n'),
      ).join('---\n'),
    });
    const long = { tags: Array.from({ length: 20 }, () => 'x'.repeat(1000)) };
    expect(render(small!, long)).toMatchObject({
      faults: [{ path: 'kubernetes.manifests', message: expect.stringContaining('once rendered') }],
    });
  });

  test('keep what a developer gives a value', () => {
    const evil = 'x"\n---\nkind: Namespace\n${{ owner.email }}: {a: b}';
    const { template } = parseTemplate({
      'template.yaml':
        'name: a\nprovider: kubernetes\nparameters: [{name: p, type: string}]\nkubernetes: {image: a}\n',
      'manifests/m.yaml': configMap('m', 'data: {a: "${{ parameters.p }}", b: "<${{ parameters.p }}>"}'),
    });
    expect(renderTemplate(template!, { p: evil }, context)).toMatchObject({
      ok: { manifests: [{ data: { a: evil, b: `<${evil}>` } }] },
    });
  });
});

test('what may not be meant is told, and is no fault', () => {
  const { template, faults, warnings } = parse(
    'kubernetes: { image: "registry:5000/dev", manifests: [other.yaml], services: [{name: a, image: "b:latest"}, {name: c, image: "c:1"}] }\n',
    {
      'other.yaml':
        'apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{image: d}, {image: "d@sha256:x"}, {image: "${{ parameters.free }}"}]}}}}}\n',
      'manifests/x.yaml': '',
    },
  );
  expect(told(faults)).toEqual([]);
  expect(template).not.toBeNull();
  expect(told(warnings)).toEqual([
    'other.yaml:4:68 the image d has no tag, which means latest (with a tag of its own, every start gets the same one)',
    'template.yaml:9:22 the image registry:5000/dev has no tag, which means latest (with a tag of its own, every start gets the same one)',
    'template.yaml:9:43 manifests/x.yaml is not applied, as it is not listed here (list it, or leave "manifests" out: all of manifests/ is applied then)',
    'template.yaml:9:96 the image b:latest is whatever is latest (with a tag of its own, every start gets the same one)',
  ]);
});

describe('podSecurity', () => {
  const deployment = (pod: string) =>
    `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    spec: ${pod}\n`;
  const messages = (level: string, pod: string) =>
    parse(`kubernetes: { image: a, podSecurity: ${level} }\n`, {
      'manifests/d.yaml': deployment(pod),
    }).faults.map(
      ({ path, message }) => `${path.slice('spec.template.spec.'.length)}: ${message.split(', which')[0]}`,
    );
  const right =
    '{securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: c, image: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}], volumes: [{name: v, emptyDir: {}}]}';

  test('restricted wants what Kubernetes wants', () => {
    expect(messages('restricted', right)).toEqual([]);
    expect(messages('restricted', '{containers: [{name: c}], volumes: [{name: v, nfs: {}}]}')).toEqual([
      'containers[0].securityContext: podSecurity: restricted wants allowPrivilegeEscalation: false',
      'containers[0].securityContext: podSecurity: restricted wants all capabilities dropped',
      'containers[0].securityContext: podSecurity: restricted wants runAsNonRoot: true',
      'containers[0].securityContext: podSecurity: restricted wants a seccomp profile',
      'volumes[0].nfs: the volume is of the type nfs',
    ]);
    expect(
      messages('restricted', right.replace('runAsNonRoot: true', 'runAsNonRoot: true, runAsUser: 0')),
    ).toEqual(['securityContext.runAsUser: the user is root']);
    // What is not known yet is not refused yet.
    expect(messages('restricted', right.replace('drop: [ALL]', 'drop: ["${{ parameters.free }}"]'))).toEqual(
      [],
    );
  });
  test('baseline refuses what reaches the node', () => {
    expect(messages('baseline', '{containers: [{name: c, securityContext: {runAsUser: 0}}]}')).toEqual([]);
    expect(
      messages(
        'baseline',
        `{hostIPC: true, securityContext: {sysctls: [{name: kernel.msgmax, value: "1"}, {name: net.ipv4.tcp_rmem, value: "1"}], seccompProfile: {type: Unconfined}},
      initContainers: [{name: i, ports: [{containerPort: 1, hostPort: 1}], securityContext: {capabilities: {add: [CHOWN, SYS_ADMIN]}, procMount: Unmasked}}],
      containers: []}`,
      ),
    ).toEqual([
      'hostIPC: "hostIPC" shares what belongs to the node',
      'securityContext.sysctls[0].name: the sysctl kernel.msgmax reaches beyond the pod',
      'securityContext.seccompProfile.type: seccompProfile is Unconfined',
      'initContainers[0].ports[0].hostPort: a hostPort is a port of the node',
      'initContainers[0].securityContext.capabilities.add[1]: the capability SYS_ADMIN is added',
      'initContainers[0].securityContext.procMount: procMount is Unmasked',
    ]);
  });
  test('privileged refuses nothing', () => {
    expect(messages('privileged', '{hostNetwork: true, volumes: [{hostPath: {path: /}}]}')).toEqual([]);
  });
});

test('whatever is written into a manifest, its faults have places, and what has none renders', () => {
  const right = `apiVersion: apps/v1
kind: Deployment
metadata: { name: a, labels: { app: "\${{ workspace.name }}" } }
spec:
  replicas: "\${{ parameters.db ? 1 : 0 }}"
  template:
    spec:
      securityContext: { runAsUser: 1000 }
      containers: [{ name: c, image: "a:\${{ parameters.tag }}", args: "\${{ parameters.tags }}" }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: b }
data:
  text: |
    one \${{ parameters.free }}
`;
  const bits = [
    ...[
      '${{',
      '}}',
      '"',
      "'",
      '{',
      '}',
      '[',
      ']',
      ': ',
      '- ',
      '? ',
      '\n',
      '\n  ',
      '---\n',
      '...\n',
      '|',
      '>',
      '#',
      '\t',
    ],
    ...[
      '&a ',
      '*a',
      '!!x ',
      '<<: ',
      '~',
      '0',
      '0644',
      '.nan',
      '1e999',
      '"\\0"',
      '"\\ud800"',
      '%YAML 1.1\n',
      '\ufeff',
      '\r',
    ],
    ...[
      '__proto__',
      'constructor',
      'apiVersion',
      'kind',
      'metadata',
      'name',
      'spec',
      'hostNetwork: true',
      '${{ parameters.x }}',
    ],
    ...[
      '${{ [[1]] }}',
      '${{ null }}',
      '${{ {"a": 1} }}',
      '${{ 1.0 / 0.0 }}',
      '${{ 9223372036854775807 }}',
      '${{ "\\u0000" }}',
    ],
  ];
  const edit = fc.record({ at: fc.nat(right.length), drop: fc.nat(8), add: fc.constantFrom('', ...bits) });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      const text = edits.reduce(
        (all, { at, drop, add }) => all.slice(0, at) + add + all.slice(at + drop),
        right,
      );
      const lines = text.split('\n').length;
      const { template, faults } = parse('kubernetes: { image: a }\n', { 'manifests/x.yaml': text });
      expect(template === null).toBe(faults.length > 0);
      for (const fault of faults) {
        expect(fault).toMatchObject({
          file: 'manifests/x.yaml',
          message: expect.not.stringMatching(/undefined|NaN/),
        });
        expect(fault.line).toBeGreaterThan(0);
        expect(fault.line).toBeLessThanOrEqual(lines);
        expect(fault.column).toBeGreaterThan(0);
      }
      if (!template) return;
      // As it is stored.
      const stored = JSON.parse(JSON.stringify(template));
      expect(stored).toEqual(JSON.parse(JSON.stringify(stored)));
      JSON.stringify(stored, (key, value) => {
        for (const each of [key, value]) {
          expect(typeof each !== 'string' || (each.isWellFormed() && !each.includes('\0'))).toBe(true);
        }
        return value;
      });
      expect(render(stored)).toHaveProperty('ok');
    }),
    {
      numRuns: 500,
      examples: [
        [[{ at: 380, drop: 3, add: '${{ "\\u0000" }}' }]],
        [[{ at: 12, drop: 0, add: '${{' }]],
        [[{ at: 12, drop: 7, add: '${{ 1 }}' }]],
      ],
    },
  );
});

test('names that every JavaScript object has are names like others', () => {
  for (const name of ['constructor', 'toString', 'valueOf', 'hasOwnProperty', '__defineGetter__']) {
    const lower = name.toLowerCase().replace(/_/g, '');
    const object = (more: string) =>
      parse(`kubernetes: { image: a }\n`, {
        'manifests/x.yaml': `apiVersion: ${lower}/v1\nkind: ${name.replace(/_/g, '')}\nmetadata: {name: ${lower}, labels: {${name}: a}}\n${more}`,
      });
    expect(told(object('').faults)).toEqual([]);
    expect(object(`spec: {${name}: {${name}: 1}}\n`).template?.manifests).toMatchObject([
      { metadata: { labels: { [name]: 'a' } }, spec: { [name]: { [name]: 1 } } },
    ]);
    expect(
      told(parse(`${name}: 1\nkubernetes: { image: a, ${name}: 1, builder: { ${name}: 1 } }\n`).faults),
    ).toEqual([
      expect.stringMatching(/is not known here \(known here: name, /),
      expect.stringMatching(/is not known here \(known here: cluster, /),
      expect.stringMatching(/is not known here \(known here: image, /),
    ]);
    expect(parse(`env: { A: "\${{ parameters.${name} }}" }\nkubernetes: { image: a }\n`).faults).toHaveLength(
      1,
    );
  }
});

test('hostile manifests are refused in bounded time', () => {
  const object = 'apiVersion: v1\nkind: A\nmetadata: { name: a }\n';
  const hostile: Record<string, string> = {
    'laughing aliases': `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
      .split('')
      .map((key, i) => `${key}: &${key} [${Array(9).fill(`*${'abcdefgh'[i]}`)}]`)
      .join('\n')}`,
    brackets: '[[[['.repeat(50_000),
    dashes: '- '.repeat(100_000),
    'empty documents': '---\n'.repeat(65_000),
    'many documents': `${object}---\n`.repeat(3000),
    'many names': Array.from({ length: 900 }, (_, i) => object.replace('name: a', `name: a${i}`)).join(
      '---\n',
    ),
    prototype: `apiVersion: v1\nkind: A\nmetadata: { name: a, __proto__: { x: 1 } }\n`,
    'the same key': `${object}${'x: 1\n'.repeat(7000)}`,
    'long keys': `${object}${'k'.repeat(200_000)}: [${'1,'.repeat(15_000)}1]\n`,
    'long keys, nested': `${object}${Array.from({ length: 20 }, (_, i) => `${' '.repeat(i)}${'k'.repeat(500)}:\n`).join('')}${' '.repeat(20)}[${'1,'.repeat(15_000)}1]\n`,
    'expressions in one text': `${object}x: "${'${{ 1 }}'.repeat(30_000)}"\n`,
    'expressions in many': `${object}x:\n${'- ${{ [1,2,3,4,5,6,7,8].map(x, [1,2,3,4,5,6,7,8].map(y, x*y)).size() }}\n'.repeat(3000)}`,
    'expressions with faults': `${object}x:\n${'- ${{ nope }}\n'.repeat(9000)}`,
    unterminated: `${object}x: '${'${{ ('.repeat(50_000)}'\n`,
    'wrong numbers': `${object}x:\n${'- 0644\n'.repeat(9000)}`,
    'a long line of errors': `${object}x: ${'} '.repeat(15_000)}${'y'.repeat(200_000)}`,
    'anchors without aliases': `${object}x: [${'&a 1, '.repeat(7000)}]\n&a &a`,
    tags: `${object}x: [${'!!binary x, '.repeat(7000)}]\n`,
    merge: `${object}x: &b {y: 1}\nz: {<<: *b}\n`,
  };
  const slow: string[] = [];
  // Once to warm up.
  for (let round = 0; round < 2; round++) {
    slow.length = 0;
    for (const [name, text] of Object.entries(hostile)) {
      let parsed: ReturnType<typeof parse>;
      const took = cpuMs(() => {
        parsed = parse('kubernetes: { image: a }\n', { 'manifests/x.yaml': text });
      });
      expect(parsed!.faults.length, name).toBeLessThanOrEqual(100);
      if (name !== 'empty documents') expect(parsed!.template, name).toBeNull();
      if (took > 5_000) slow.push(`${name}: ${took.toFixed()} ms`);
    }
  }
  expect(slow).toEqual([]);
  expect(({} as { x?: unknown }).x).toBeUndefined();
});
