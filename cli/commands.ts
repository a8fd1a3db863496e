import { auditCommands } from './audit/commands.ts';
import { backgroundCommands } from './background/commands.ts';
import { clusterCommands } from './clusters/commands.ts';
import type { Command } from './command.ts';
import { completionCommands } from './completion/commands.ts';
import { copyCommands } from './copy/commands.ts';
import { homeCommands } from './homes/commands.ts';
import { kubernetesCommands } from './kubernetes/commands.ts';
import { loginCommands } from './login/commands.ts';
import { netcheckCommands } from './netcheck/commands.ts';
import { portCommands } from './ports/commands.ts';
import { satelliteCommands } from './satellites/commands.ts';
import { serverCommands } from './server/commands.ts';
import { sshCommands } from './ssh/commands.ts';
import { syncCommands } from './sync/commands.ts';
import { templateCommands } from './templates/commands.ts';
import { tokenCommands } from './tokens/commands.ts';
import { userCommands } from './users/commands.ts';
import { workspaceCommands } from './workspaces/commands.ts';

/** Every command, in the order that help lists them. */
export const commands: readonly Command[] = [
  ...workspaceCommands,
  ...homeCommands,
  ...sshCommands,
  ...portCommands,
  ...copyCommands,
  ...syncCommands,
  ...netcheckCommands,
  ...backgroundCommands,
  ...kubernetesCommands,
  ...templateCommands,
  ...loginCommands,
  ...tokenCommands,
  ...userCommands,
  ...auditCommands,
  ...serverCommands,
  ...clusterCommands,
  ...satelliteCommands,
  ...completionCommands,
];

/** The nouns that have verbs of their own. */
export const nouns: Record<string, { summary: string; group: string }> = {
  template: { summary: 'Publish and look at templates', group: 'Templates:' },
  background: { summary: 'The process that commands share sessions in', group: 'Connect:' },
  token: { summary: 'Tokens for programs', group: 'Account:' },
  user: { summary: 'Administer users', group: 'Administration:' },
  cluster: { summary: 'Kubernetes clusters that workspaces run on', group: 'Administration:' },
  home: { summary: 'Homes of deleted workspaces', group: 'Workspaces:' },
  server: { summary: 'Choose between servers, or run one', group: 'Account:' },
  satellite: { summary: 'Relays in other regions', group: 'Administration:' },
};
