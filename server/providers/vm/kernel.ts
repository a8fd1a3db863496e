import type { KernelSection } from '@cde/api/template-cloud.ts';
import { agentFolder } from '../agent-files.ts';

/** What noded calls the profile of a template in its own machine. */
const profileName = 'template';

/**
 * Nothing else depends on the kernel of a machine that one workspace has to itself, so noded takes what it would ask an admin
 * about on a node.
 */
const allow = ['dev.*', 'fs.*', 'kernel.*', 'net.*', 'user.*', 'vm.*'];

/** Restarted for good: what it has set stays, also while it does not run. */
const unit = `[Unit]
Description=cde noded
DefaultDependencies=no
After=local-fs.target
Before=shutdown.target
Conflicts=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStart=${agentFolder}/node --max-semi-space-size=1 ${agentFolder}/noded.mjs machine
Restart=always
RestartSec=2
`;

/** What a machine needs to maintain the settings of its template. */
export const kernelPlan = (section: KernelSection) => ({
  profiles: JSON.stringify({ allow, profiles: { [profileName]: section } }),
  unit,
});
