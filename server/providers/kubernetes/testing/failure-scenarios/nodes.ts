import type { FailureScenario } from './scenario.ts';

/** Pods that fit on no node. */
export const nodeScenarios: FailureScenario[] = [
  {
    name: 'no-node-memory',
    code: 'no-node-fits',
    message: /^No node fits: .*too little memory free \(4Ti requested\).*\.$/,
    fatal: false,
    container: { resources: { requests: { cpu: '10m', memory: '4Ti' } } },
  },
  {
    name: 'no-node-cpu',
    code: 'no-node-fits',
    message: /^No node fits: .*too little CPU free \(900 requested\).*\.$/,
    fatal: false,
    container: { resources: { requests: { cpu: '900' } } },
  },
  {
    name: 'no-node-selector',
    code: 'no-node-fits',
    message: /not the requested labels \(cde\.dev\/disk=gold\)/,
    fatal: false,
    pod: { nodeSelector: { 'cde.dev/disk': 'gold' } },
  },
];
