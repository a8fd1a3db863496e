import { adoptOrphan, listOrphans, type Orphan } from '@cde/api/clusters.ts';
import { expect, test } from 'vitest';
import { startFakeServer } from '../testing/cli.ts';

const { home, server, env } = await startFakeServer();

const orphan = (provider: string, cluster: string | null): Orphan => ({
  kind: 'home',
  provider,
  cluster,
  name: 'cde-home-7',
  workspaceId: null,
  since: null,
  reason: 'The home of a workspace that is not in the database.',
  action: 'keep',
});

test('a home whose name is on several platforms is chosen by its cluster or its provider', async () => {
  const asked: unknown[] = [];
  server.on(listOrphans, () => ({
    items: [orphan('kubernetes', 'eu'), orphan('docker', null), orphan('incus', null)],
    unseen: [],
  }));
  server.on(adoptOrphan, ({ body }: { body: unknown }) => {
    asked.push(body);
    return { items: [] };
  });
  const adopt = (...words: string[]) =>
    home.run(['cluster', 'adopt', 'cde-home-7', '--yes', ...words], { env });
  const unclear = await adopt();
  expect(unclear.code).not.toBe(0);
  expect(unclear.stderr).toContain('There are several orphaned homes cde-home-7.');
  expect(unclear.stderr).toContain('Choose one: --cluster eu, --provider docker, --provider incus');
  expect((await adopt('--provider', 'incus')).code).toBe(0);
  expect((await adopt('--cluster', 'eu')).code).toBe(0);
  expect(asked).toEqual([
    { provider: 'incus', name: 'cde-home-7' },
    { cluster: 'eu', name: 'cde-home-7' },
  ]);
});
