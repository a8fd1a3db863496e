// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import { readFile } from 'node:fs/promises';
import { Ec2Section, GceSection } from '@cde/api/template-cloud.ts';
import {
  DockerSection,
  IncusSection,
  KubernetesBuilder,
  KubernetesSection,
  KubernetesService,
  LocalSection,
  TemplateFile,
} from '@cde/api/template-file.ts';
import { expect, test } from 'vitest';
import { expressionFunctions } from './language/cost.ts';
import { parseTemplate } from './parse.ts';

const read = () => readFile(new URL('../../docs/templates.md', import.meta.url), 'utf8');

test('the example of docs/templates.md is a valid template', async () => {
  const example = /```yaml\n([\s\S]*?)```/.exec(await read())![1]!;
  expect(parseTemplate({ 'template.yaml': example }).faults).toEqual([]);
});

test('the expressions of docs/templates.md are as it says', async () => {
  const block = /```\n(\$\{\{[\s\S]*?)```/.exec(await read())![1]!;
  for (const line of block.trim().split('\n')) {
    const text = `name: demo\nprovider: local\nparameters:
  - {name: memory, type: number, default: 2}
  - {name: cpus, type: number, default: 2}
  - {name: gpu, type: boolean}
  - {name: tags, type: list}
  - {name: size, type: string, options: [{value: small}, {value: large}]}
env:\n  A: >-\n    ${line}\n`;
    expect(parseTemplate({ 'template.yaml': text }).faults, line).toEqual([]);
  }
});

test('the example of idle and shutdown is valid in a template', async () => {
  const [, , section] = (await read()).split('```yaml\n').map((part) => part.split('```')[0]!);
  const file = `name: shop\nprovider: local\n${section}`;
  expect(parseTemplate({ 'template.yaml': file })).toMatchObject({
    faults: [],
    template: { idle: { stopAfter: '2h' }, shutdown: { timeout: '1m' } },
  });
});

test.each([
  'local',
  'docker',
  'incus',
  'ec2',
  'gce',
  'kubernetes',
])('what the starter %s has as a comment is valid', async (name) => {
  const file = await readFile(new URL(`../../templates/${name}/template.yaml`, import.meta.url), 'utf8');
  const comment = file.slice(file.indexOf('# idle:'));
  const section = comment.replaceAll(/^# (?=idle:|shutdown:| )/gm, '').replaceAll(/^# .*$/gm, '');
  expect(parseTemplate({ 'template.yaml': `name: x\nprovider: local\n${section}` })).toMatchObject({
    faults: [],
    template: { idle: { schedule: { start: '08:30' } }, shutdown: { timeout: '1m' } },
  });
});

test('the examples for Kubernetes are valid together', async () => {
  const [, , , template, manifest] = (await read()).split('```yaml\n').map((text) => text.split('```')[0]!);
  expect(parseTemplate({ 'template.yaml': template!, 'manifests/broker.yaml': manifest! })).toMatchObject({
    faults: [],
    warnings: [],
    template: { name: 'shop', manifests: [{ kind: 'Deployment' }] },
  });
});

test('docs/templates.md names every key', async () => {
  const docs = await read();
  const shapes = [
    TemplateFile,
    LocalSection,
    DockerSection,
    IncusSection,
    Ec2Section,
    GceSection,
    KubernetesSection,
    KubernetesService,
    KubernetesBuilder,
  ];
  for (const key of shapes.flatMap(({ shape }) => Object.keys(shape))) expect(docs).toContain(`\`${key}\``);
  const kubernetes = docs.slice(docs.indexOf('## Kubernetes'));
  for (const { shape } of shapes.slice(6)) {
    for (const key of Object.keys(shape)) expect(kubernetes).toContain(`\`${key}\``);
  }
});

test('docs/templates.md names every function', async () => {
  const docs = await read();
  for (const name of Object.values(expressionFunctions).flat()) expect(docs).toContain(`\`${name}\``);
});
