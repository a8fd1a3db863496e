import { Counter, Gauge, Registry } from 'prom-client';
import { hideInterface } from './interfaces.ts';
import type { Change, PassResult } from './reconcile.ts';

export interface Metrics {
  changed(change: Change): void;
  passed(pass: PassResult | null, fault: string | null): void;
  /** In the Prometheus text format. */
  text(): Promise<string>;
}

export function makeMetrics(): Metrics {
  const registers = [new Registry()];
  const ready = new Gauge({
    name: 'cde_noded_profile_ready',
    help: '1: the profile is maintained on this node; 0: it is not, and the annotation of the node says why',
    labelNames: ['profile'],
    registers,
  });
  const changes = new Counter({
    name: 'cde_noded_changes_total',
    help: 'Changes of the kernel: set, repaired (something had changed it), restored, given-up (left to what changed it)',
    labelNames: ['sysctl', 'what'],
    registers,
  });
  const faulty = new Gauge({
    name: 'cde_noded_profiles_faulty',
    help: '1: the newest file of profiles is invalid, and the last valid one stays in force',
    registers,
  });
  const last = new Gauge({
    name: 'cde_noded_last_pass_timestamp_seconds',
    help: 'When the kernel was last checked',
    registers,
  });
  return {
    changed: ({ sysctl, what }) => changes.inc({ sysctl: hideInterface(sysctl), what }),
    passed(pass, fault) {
      ready.reset();
      for (const [profile, { state }] of pass?.states ?? [])
        ready.set({ profile }, state === 'ready' ? 1 : 0);
      faulty.set(fault ? 1 : 0);
      last.setToCurrentTime();
    },
    text: () => registers[0]!.metrics(),
  };
}
