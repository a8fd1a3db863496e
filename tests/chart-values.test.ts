// What helm/values.schema.json and helm/templates know of the server and of noded, beside what these say themselves.
import { readFileSync } from 'node:fs';
import { checkSysctl, sysctlPatterns } from '@cde/noded/allowed.ts';
import { describeSettings } from '@cde/server/config.ts';
import { expect, test } from 'vitest';

const read = (path: string) => readFileSync(new URL(`../helm/${path}`, import.meta.url), 'utf8');

/** Set by the chart from values of their own. */
const byChart = [
  'CDE_LISTEN',
  'CDE_ACCESS_URL',
  'CDE_REPLICA_URL',
  'CDE_DATA_DIR',
  'CDE_SECRET_KEY',
  'CDE_CLUSTER',
  'CDE_CLUSTER_PUBLIC_ENDPOINT',
  'CDE_AGENT_CA',
  'CDE_AGENT_IMAGE',
  'CDE_PORT_HOST',
];

test('server.settings of the chart takes the settings that there are, and no others', () => {
  const schema = JSON.parse(read('values.schema.json'));
  const { settings } = schema.properties.server.properties;
  const all = [...describeSettings().matchAll(/^ +--[a-z0-9-]+ +([A-Z0-9_]+)/gm)].map((match) => match[1]!);
  const wanted = all.filter((name) => name.startsWith('CDE_') && !byChart.includes(name));
  expect(settings.additionalProperties).toBe(false);
  expect(Object.keys(settings.properties).sort()).toEqual(wanted.sort());
});

test('noded.profiles of the chart takes the sysctls that noded keeps, and no others', () => {
  const text = read('templates/_names.tpl');
  const pattern = (name: string) =>
    new RegExp(new RegExp(`define "cde.${name}" -}}\\n(.*)\\n`).exec(text)![1]!);
  const [never, ofPods, kept] = ['sysctlsNever', 'sysctlsOfPods', 'sysctlsKept'].map(pattern);
  const takes = (name: string) => !never!.test(name) && !ofPods!.test(name) && kept!.test(name);
  const names = Object.values(sysctlPatterns)
    .flat()
    .flatMap((each) => [
      each.replace('*', 'x'),
      `${each.replace('*', 'x.y')}`,
      `a.${each.replace('*', 'x')}`,
    ]);
  for (const name of [...names, 'kernel.hostname', 'vm.laptop_mode', 'fs.suid_dumpable'])
    expect({ name, takes: takes(name) }).toEqual({ name, takes: checkSysctl(name, []) === null });
});
