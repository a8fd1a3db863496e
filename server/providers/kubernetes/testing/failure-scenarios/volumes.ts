import { claimOf, type FailureScenario, object } from './scenario.ts';

/** Volumes that cannot be mounted or made. */
export const volumeScenarios = (unique: string): FailureScenario[] => [
  {
    name: 'configmap-missing',
    code: 'volume-source-missing',
    message: /^The configmap settings that the workspace mounts does not exist\.$/,
    fatal: false,
    pod: { volumes: [{ name: 'settings', configMap: { name: 'settings' } }] },
    container: { volumeMounts: [{ name: 'settings', mountPath: '/settings' }] },
  },
  {
    name: 'storage-class-missing',
    code: 'storage-class-missing',
    message: /^The cluster has no storage class cde-nowhere, which the claim home asks for\.$/,
    fatal: true,
    claim: claimOf('cde-nowhere'),
  },
  {
    name: 'storage-class-none',
    code: 'storage-class-missing',
    message: /^No volume is free for the claim home, and its storage class is turned off\.$/,
    fatal: false,
    claim: claimOf(''),
  },
  {
    name: 'provisioner-silent',
    code: 'volume-pending',
    message: /^The claim home is waiting for a volume from cde\.dev\/nobody\.$/,
    fatal: false,
    before: [
      object(
        'storage.k8s.io/v1',
        'StorageClass',
        `${unique}-silent`,
        { provisioner: 'cde.dev/nobody', volumeBindingMode: 'Immediate' },
        true,
      ),
    ],
    claim: claimOf(`${unique}-silent`),
  },
  {
    name: 'waits-for-consumer-that-fits-nowhere',
    code: 'no-node-fits',
    message: /too little memory free \(4Ti requested\)/,
    fatal: false,
    before: [
      object(
        'storage.k8s.io/v1',
        'StorageClass',
        `${unique}-first`,
        { provisioner: 'cde.dev/nobody', volumeBindingMode: 'WaitForFirstConsumer' },
        true,
      ),
    ],
    claim: claimOf(`${unique}-first`),
    container: { resources: { requests: { memory: '4Ti' } } },
  },
];
