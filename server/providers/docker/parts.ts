import type { Log } from '@cde/tunnel/log.ts';
import type Dockerode from 'dockerode';
import type { BackgroundWork } from '../background.ts';
import type { AgentVolumes } from './agent-volume.ts';
import type { Homes } from './homes.ts';
import type { Images } from './images.ts';

/** What the steps of the provider share, once the engine has answered. */
export interface DockerParts {
  engine: Dockerode;
  /** Such as `Docker 28.2.2` or `Podman 4.3.1`. */
  version: string;
  hasInit: boolean;
  installation: string;
  homes: Homes;
  images: Images;
  agentVolumes: AgentVolumes;
  /** The folder with the server's sockets, if the engine is on this machine. */
  gatewayFolder: string | null;
  background: BackgroundWork;
  graceSeconds: number;
  log: Log;
  now: () => Date;
}
