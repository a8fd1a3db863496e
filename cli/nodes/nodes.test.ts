import { getNode, listNodes } from '@cde/api/nodes.ts';
import pc from 'picocolors';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Context } from '../command/context.ts';
import type { Format } from '../command/result.ts';
import { type FakeServer, makeFakeServer, makeTestHome, type TestHome } from '../testing/cli.ts';
import { node } from '../testing/objects.ts';
import { list } from './nodes.ts';

let home: TestHome;
let server: FakeServer;
let queries: unknown[] = [];
let asked = '';
const drift = {
  at: '2026-01-01T00:00:00.000Z',
  sysctl: 'vm.swappiness',
  from: '30',
  to: '1',
  by: '/etc/sysctl.d/9.conf line 2 sets it to 30',
};
const contested = {
  name: 'scylla',
  state: 'not-ready' as const,
  reason: 'contested',
  message: 'Something sets vm.swappiness to 30.',
  since: '2026-01-01T00:01:00.000Z',
  lastDrift: drift,
};
const id = '01990000-0000-7000-8000-000000000001';

beforeAll(async () => {
  home = await makeTestHome();
  server = await makeFakeServer();
  home.env.CDE_SERVER = server.url;
  home.env.CDE_TOKEN = 'cde_x';
  server.on(listNodes, ({ query }) => {
    queries.push(query);
    return query.after === undefined
      ? {
          items: [
            node({ name: 'host', cluster: null, provider: 'local', workspaces: 3 }),
            node({ kernelProfiles: [contested], schedulable: false }),
          ],
          next: 'more',
          unseen: [],
        }
      : {
          items: [node({ name: 'last' })],
          next: null,
          unseen: [{ name: 'us', reason: 'It does not answer.' }],
        };
  });
  server.on(getNode, ({ params }) => {
    asked = params.node ?? '';
    return {
      ...node({ kernelProfiles: [contested], workspaces: 1 }),
      onNode: [{ id, owner: 'ada', name: 'web', status: 'running' as const }],
    };
  });
});
afterAll(async () => {
  await server.close();
  await home.remove();
});

test('node list reads all pages, and says what it could not see', async () => {
  queries = [];
  const ran = await home.run(['node', 'list', '--problems', '--cluster', 'eu', '--workspace', 'web']);
  const rows = ran.stdout
    .split('\n')
    .slice(0, -1)
    .map((row) => row.split('\t'));
  expect(rows).toEqual([
    ['NAME', 'CLUSTER', 'STATE', 'CPUS', 'MEMORY', 'WORKSPACES', 'KERNEL PROFILES', 'LAST DRIFT'],
    ['host', '(local)', 'ready', '3.92 of 4', '16.0 GiB', '3', '', ''],
    ['pool.a-1', 'eu', 'ready, cordoned', '3.92 of 4', '16.0 GiB', '0', 'scylla contested', drift.at],
    ['last', 'eu', 'ready', '3.92 of 4', '16.0 GiB', '0', '', ''],
  ]);
  expect(ran.stderr).toContain('The nodes of us may be missing or out of date: It does not answer.');
  expect(queries).toMatchObject([
    { show: 'problems', cluster: 'eu', workspace: 'web' },
    { show: 'problems', after: 'more' },
  ]);
});

test.each([
  { more: {}, says: 'cde start idle' },
  { more: { problems: true }, says: 'No nodes match.' },
])('node list says what to do if a workspace has no node, not if other options exclude it: $says', async ({
  more,
  says,
}) => {
  const client = { call: async () => ({ items: [], next: null, unseen: [] }) };
  const context = { client: async () => client } as unknown as Context;
  const input = { cluster: undefined, workspace: 'idle', profile: undefined, problems: false, ...more };
  const { view } = await list(context, input);
  const format = { colors: pc.createColors(false), moment: (at: string | null) => at } as Format;
  expect(JSON.stringify(await view(format))).toContain(says);
});

test('node show takes CLUSTER/NODE and says why a profile is not ready, and what undid it', async () => {
  const ran = await home.run(['node', 'show', 'eu/pool.a-1']);
  expect(asked).toBe('eu~pool.a-1');
  expect(ran.stdout).toContain('kernel profile scylla: contested, since 2026-01-01T00:01:00.000Z');
  expect(ran.stdout).toContain('  Something sets vm.swappiness to 30.');
  expect(ran.stdout).toContain(
    '  last drift 2026-01-01T00:00:00.000Z: vm.swappiness was changed from 1 to 30 (/etc/sysctl.d/9.conf line 2 sets it to 30)',
  );
  expect(ran.stdout).toContain('ada/web\trunning');
  expect((await home.json(['node', 'show', 'pool.a-1'])).onNode).toHaveLength(1);
});
