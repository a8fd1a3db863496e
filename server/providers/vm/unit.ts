import { agentEnvironment, tokenOnStdin } from '@cde/api/agent.ts';
import { gatewayServerUrl } from '@cde/tunnel/network/gateway.ts';
import { agentFolder } from '../agent-files.ts';
import type { EnterPlan } from '../prepare/enter-plan.ts';

/** Where the folder of the server's sockets appears. Not below /run, which systemd mounts over. */
export const gatewayInside = '/opt/cde-gateway';
export const unitName = 'cde-agent.service';
export const unitFile = `/etc/systemd/system/${unitName}`;
/** What the agent printed. */
export const agentLog = '/var/log/cde-agent.log';
/** How it ended: systemd's words for it, and whether the machine was shutting down. */
export const agentExit = '/var/log/cde-agent.exit';

export interface UnitPlan {
  enter: EnterPlan & { hostname: string };
  serverUrl: string;
  hasGateway: boolean;
  canBeRoot: boolean;
  processes: number;
  graceSeconds: number;
  /** Certificate authorities, in PEM, that the agent trusts beside the public ones. */
  certificateAuthorities?: string | undefined;
  /** Whether the serial console gets the end of the log and how the agent ended, for platforms that show nothing else. */
  reportsToConsole?: boolean;
}

/** On the serial console: how the agent ended follows. */
export const endedPrefix = 'cde-agent ended: ';

/** Quoted for Environment=, where % is a specifier. */
const setting = (name: string, value: string) =>
  `Environment="${name}=${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%').replaceAll('\n', '\\n')}"`;

const exitReport = '"$$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS $$(systemctl is-system-running)"';
const toConsole = `{ tail -c 6000 ${agentLog}; echo "${endedPrefix}$$(cat ${agentExit})"; } > /dev/console`;

/** Startup scripts need the network, and agents that use a socket do not. At most 5 s, because some never get any. */
const untilRouted =
  'i=0; while [ $$i -lt 50 ] && ls /sys/class/net | grep -qv "^lo" && ! grep -q "[[:space:]]00000000[[:space:]]" /proc/net/route; do sleep 0.1; i=$$((i+1)); done';

/**
 * The unit of the agent, which starts as early as it can. Its token is not in it. When the agent ends, so does the machine: a workspace without an agent is
 * of no use, and the server starts another one.
 */
export function agentUnit(plan: UnitPlan): string {
  const { enter, hasGateway, canBeRoot } = plan;
  const serverUrl = hasGateway ? `${plan.serverUrl},${gatewayServerUrl}` : plan.serverUrl;
  return `[Unit]
Description=cde agent
DefaultDependencies=no
RequiresMountsFor=${enter.home} ${agentFolder}
After=local-fs.target systemd-tmpfiles-setup.service
Before=shutdown.target
Conflicts=shutdown.target
FailureAction=poweroff-force
SuccessAction=poweroff-force

[Service]
ExecStartPre=-+/bin/sh -c 'hostname ${enter.hostname} || echo ${enter.hostname} > /proc/sys/kernel/hostname'
ExecStartPre=-/bin/sh -c '${untilRouted}'
ExecStart=${agentFolder}/node ${agentFolder}/enter.mjs
ExecStopPost=/bin/sh -c 'echo ${exitReport} > ${agentExit}'${plan.reportsToConsole ? `\nExecStopPost=-/bin/sh -c '${toConsole}'` : ''}
${[
  setting('HOME', enter.home),
  setting('CDE_ENTER', JSON.stringify(enter)),
  setting(agentEnvironment.serverUrl, serverUrl),
  setting(agentEnvironment.token, tokenOnStdin),
  ...(hasGateway ? [setting(agentEnvironment.gateway, gatewayInside)] : []),
  ...(plan.certificateAuthorities === undefined
    ? []
    : [setting(agentEnvironment.certificateAuthorities, plan.certificateAuthorities)]),
].join('\n')}
StandardOutput=file:${agentLog}
StandardError=inherit
KillMode=mixed
TimeoutStopSec=${plan.graceSeconds}
TasksMax=${plan.processes}
OOMPolicy=continue
Delegate=yes
${canBeRoot ? '' : 'NoNewPrivileges=yes\nCapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_SETGID CAP_SETUID\n'}
[Install]
WantedBy=multi-user.target
`;
}
