import type { Log } from '@cde/tunnel/log.ts';
import type { Ec2Client } from './client.ts';
import type { Homes } from './homes.ts';
import type { InstanceView } from './instances.ts';
import type { Surroundings } from './surroundings.ts';

/** What the steps of the provider share. */
export interface Ec2Parts {
  client: Ec2Client;
  installation: string;
  region: string;
  view: InstanceView;
  homes: Homes;
  surroundings: Surroundings;
  /** Whether the agent of a build has registered with a server. */
  hasRegistered: (buildId: string) => Promise<boolean>;
  certificateAuthorities: string | null;
  graceSeconds: number;
  maxBootMs: number;
  /** How long a step waits before the next look at what takes seconds. */
  retryMs: number;
  log: Log;
  now: () => Date;
}
