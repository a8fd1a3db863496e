/** The limit of Kubernetes for label values. */
const maxLabelLength = 63;

/** A label's value may not hold everything that a username may. */
export const labelValue = (text: string): string =>
  text.replace(/[^-A-Za-z0-9_.]/g, '_').slice(0, maxLabelLength);

export const labels = {
  managed: 'cde.dev/managed',
  installation: 'cde.dev/installation',
  workspace: 'cde.dev/workspace',
  owner: 'cde.dev/owner',
  name: 'cde.dev/name',
  role: 'cde.dev/role',
  /** On a volume: `used`, or `kept` once its workspace was deleted. */
  home: 'cde.dev/home',
  copy: 'cde.dev/copy',
  /** On namespaces and volumes: the service account of the server that may change them. */
  server: 'cde.dev/server',
} as const;

/** The label of a node on which noded applies the profile. */
export const kernelProfileLabel = (profile: string) => `cde.dev/kernel-profile.${profile}`;

/** The label's value of a service account; the chart's templates make the same. */
export const serverLabel = (namespace: string, name: string): string =>
  `${namespace}.${name}`.slice(0, maxLabelLength).replace(/[-.]+$/, '');

export const annotations = {
  build: 'cde.dev/build-id',
  keptAt: 'cde.dev/kept-at',
  /** What a workload was scaled to before the stop. */
  size: 'cde.dev/size-before-stop',
  /** A hash of what a pod reads only when it starts. */
  settings: 'cde.dev/settings',
  /** On the builder: the secret in its namespace that its pushes use. */
  registrySecret: 'cde.dev/registry-secret',
} as const;
