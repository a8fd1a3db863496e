import { expect, test } from 'vitest';
import { makeMetrics } from './metrics.ts';

test('changes are counted by sysctl, those of all interfaces together', async () => {
  const metrics = makeMetrics();
  for (const one of ['veth1', 'eth0/100', 'all'])
    metrics.changed({ what: 'set', sysctl: `net.ipv4.conf.${one}.rp_filter`, from: '0', to: '1' });
  metrics.changed({ what: 'repaired', sysctl: 'net.ipv4.tcp_rmem', from: '0', to: '1' });
  const counts = (await metrics.text()).split('\n').filter((line) => line.startsWith('cde_noded_changes'));
  expect(counts).toEqual([
    'cde_noded_changes_total{sysctl="net.ipv4.conf.*.rp_filter",what="set"} 2',
    'cde_noded_changes_total{sysctl="net.ipv4.conf.all.rp_filter",what="set"} 1',
    'cde_noded_changes_total{sysctl="net.ipv4.tcp_rmem",what="repaired"} 1',
  ]);
});
