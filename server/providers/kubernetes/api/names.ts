/** The limit of Kubernetes for label values. */
const maxLabelLength = 63;

/** Label values allow fewer characters than usernames. */
export const labelValue = (text: string): string =>
  text.replace(/[^-A-Za-z0-9_.]/g, '_').slice(0, maxLabelLength);

export const labels = {
  managed: 'cde.dev/managed',
  installation: 'cde.dev/installation',
  workspace: 'cde.dev/workspace',
  owner: 'cde.dev/owner',
  name: 'cde.dev/name',
  role: 'cde.dev/role',
  /** On a volume: `used`; `kept` once its workspace was deleted; `given-up` when it is to be deleted. */
  home: 'cde.dev/home',
  copy: 'cde.dev/copy',
  /** On namespaces and volumes: the service account of the server that is allowed to change them. */
  server: 'cde.dev/server',
} as const;

/** The label of a node on which noded applies the profile. */
export const kernelProfileLabel = (profile: string) => `cde.dev/kernel-profile.${profile}`;

/** The value of `labels.server` for a service account; the chart's templates compute the same. */
export const serverLabel = (namespace: string, name: string): string =>
  `${namespace}.${name}`.slice(0, maxLabelLength).replace(/[-.]+$/, '');

export const annotations = {
  build: 'cde.dev/build-id',
  keptAt: 'cde.dev/kept-at',
  /** The size of a workload before the stop. */
  size: 'cde.dev/size-before-stop',
  /** Hash of the settings that a pod reads only when it starts, so that a change replaces it. */
  settings: 'cde.dev/settings',
  /** On the builder: the secret in its namespace with the credentials of its pushes. */
  registrySecret: 'cde.dev/registry-secret',
} as const;
