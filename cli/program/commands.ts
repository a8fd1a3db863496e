import { activityCommands } from '../activity/commands.ts';
import { auditCommands } from '../audit/commands.ts';
import { backgroundCommands } from '../background/commands.ts';
import { cleanupCommands } from '../cleanup/commands.ts';
import { clusterCommands } from '../clusters/commands.ts';
import type { Command } from '../command/command.ts';
import { completionCommands } from '../completion/commands.ts';
import { copyCommands } from '../copy/commands.ts';
import { diagnosisCommands } from '../diagnosis/commands.ts';
import { healthCommands } from '../health/commands.ts';
import { homeCommands } from '../homes/commands.ts';
import { kubernetesCommands } from '../kubernetes/commands.ts';
import { loginCommands } from '../login/commands.ts';
import { netcheckCommands } from '../netcheck/commands.ts';
import { networkCommands } from '../network/commands.ts';
import { nodeCommands } from '../nodes/commands.ts';
import { portCommands } from '../ports/commands.ts';
import { satelliteCommands } from '../satellites/commands.ts';
import { serverCommands } from '../server/commands.ts';
import { sshCommands } from '../ssh/commands.ts';
import { syncCommands } from '../sync/commands.ts';
import { templateCommands } from '../templates/commands.ts';
import { tokenCommands } from '../tokens/commands.ts';
import { userCommands } from '../users/commands.ts';
import { workspaceCommands } from '../workspaces/commands.ts';

/** Every command, in the order that help lists them. */
export const commands: readonly Command[] = [
  ...workspaceCommands,
  ...activityCommands,
  ...homeCommands,
  ...sshCommands,
  ...portCommands,
  ...copyCommands,
  ...syncCommands,
  ...diagnosisCommands,
  ...netcheckCommands,
  ...backgroundCommands,
  ...kubernetesCommands,
  ...templateCommands,
  ...loginCommands,
  ...tokenCommands,
  ...userCommands,
  ...auditCommands,
  ...serverCommands,
  ...cleanupCommands,
  ...clusterCommands,
  ...nodeCommands,
  ...satelliteCommands,
  ...networkCommands,
  ...healthCommands,
  ...completionCommands,
];

/** The nouns that have verbs of their own. */
export const nouns: Record<string, { summary: string; group: string }> = {
  template: { summary: 'Manage templates', group: 'Templates:' },
  background: { summary: 'Manage the background process that shares sessions', group: 'Connect:' },
  token: { summary: 'Manage API tokens', group: 'Account:' },
  user: { summary: 'Manage users', group: 'Administration:' },
  cleanup: { summary: 'See and bound what stops idle workspaces', group: 'Administration:' },
  cluster: { summary: 'Manage Kubernetes clusters', group: 'Administration:' },
  node: { summary: 'See the nodes that workspaces run on', group: 'Administration:' },
  home: { summary: 'Manage homes of deleted workspaces', group: 'Workspaces:' },
  server: { summary: 'Choose a server or run one', group: 'Account:' },
  network: { summary: 'See how sessions are connected, and what went wrong', group: 'Administration:' },
  satellite: { summary: 'Manage satellites', group: 'Administration:' },
};
