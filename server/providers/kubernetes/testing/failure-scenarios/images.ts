import type { FailureScenario } from './scenario.ts';

/** Images that cannot be pulled. */
export const imageScenarios = (registry: string): FailureScenario[] => [
  {
    name: 'image-not-on-node',
    code: 'image-not-on-node',
    message: /^The image cde-test\/nowhere:1 is not on the node \S+, and must not be pulled\.$/,
    fatal: true,
    container: { image: 'cde-test/nowhere:1', imagePullPolicy: 'Never' },
  },
  {
    name: 'image-invalid-name',
    code: 'image-invalid-name',
    message: /^Team\/Dev:1 is not the name of an image\.$/,
    fatal: true,
    container: { image: 'Team/Dev:1' },
  },
  {
    name: 'image-registry-unreachable',
    code: 'image-registry-unreachable',
    message: /^The image 127\.0\.0\.1:1\/dev:1 cannot be pulled: its registry does not answer\.$/,
    fatal: false,
    container: { image: '127.0.0.1:1/dev:1', imagePullPolicy: 'IfNotPresent' },
  },
  {
    name: 'image-not-found',
    code: 'image-not-found',
    message: /cannot be pulled: the registry has no such image or tag\.$/,
    fatal: true,
    container: { image: `${registry}/dev:1` },
    nodesAreLocal: true,
  },
  {
    name: 'image-no-access',
    code: 'image-no-access',
    message: /cannot be pulled: the registry refuses it: it does not exist, or may not be pulled/,
    fatal: true,
    container: { image: `${registry}/secret:1` },
    nodesAreLocal: true,
  },
  {
    name: 'image-of-init-container',
    code: 'image-not-on-node',
    message: /cde-test\/no-agent:1/,
    fatal: true,
    pod: { initContainers: [{ name: 'deliver', image: 'cde-test/no-agent:1', imagePullPolicy: 'Never' }] },
  },
];
