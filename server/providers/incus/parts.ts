import type { Log } from '@cde/tunnel/log.ts';
import type { BackgroundWork } from '../background.ts';
import type { AgentVolumes } from './agent-volume.ts';
import type { IncusClient } from './client.ts';
import type { Homes } from './homes.ts';
import type { Kind } from './instance.ts';

/** What the server says about itself. */
export interface About {
  version: string;
  /** `x86_64`, `aarch64`. */
  architectures: string[];
  kinds: Kind[];
  isClustered: boolean;
  /** Names the process, so that what it left half-way is recognised after it was killed. */
  process: string;
}

/** What the steps of the provider share, once the server has answered. */
export interface IncusParts {
  client: IncusClient;
  about: About;
  installation: string;
  homes: Homes;
  agentVolumes: AgentVolumes;
  /** The folder with the server's sockets, if Incus is on this machine. */
  gatewayFolder: string | null;
  background: BackgroundWork;
  /** Takes the workspace's next step now, because work in the background has ended. */
  wake(workspaceId: string): void;
  /** What creations say about themselves, by the name of the instance. */
  progress: Map<string, string>;
  graceSeconds: number;
  log: Log;
  now: () => Date;
}
