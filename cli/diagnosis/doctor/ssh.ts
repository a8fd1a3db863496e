import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Check } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import type { Context } from '../../command/context.ts';
import { hostsContent } from '../../ssh/config-ssh.ts';
import { modeOf, readText } from './files.ts';
import { makeFinding } from './finding.ts';

const sshTimeoutMs = 10_000;

/** Whether `ssh NAME.cde` would find its way, by what ssh itself makes of its configuration. */
export function sshCheck(context: Context): Check {
  return { name: 'ssh', dependsOn: ['configuration'], run: () => checkSsh(context) };
}

async function checkSsh(context: Context): Promise<Finding[]> {
  const config = join(homedir(), '.ssh', 'config');
  const mode = modeOf(config);
  const { error, stdout, stderr } = await runSsh(context, mode === null ? [] : ['-F', config]);
  if (error?.code === 'ENOENT')
    return [
      makeFinding('error', 'ssh-missing', 'There is no OpenSSH client on the PATH.', {
        hint: 'Install it (openssh-client). cde ssh and editors need it.',
      }),
    ];
  if (mode !== null && (mode & 0o022) !== 0)
    return [
      makeFinding('error', 'ssh-config-permissions', `Others can write to ${config}, so ssh refuses it.`, {
        hint: `Run: chmod 600 ${config}`,
      }),
    ];
  if (error)
    return [
      makeFinding('error', 'ssh-config-invalid', `ssh rejects its configuration, ${config}.`, {
        detail: stderr.trim() || error.message,
        hint: 'Fix the line that it names.',
      }),
    ];
  const proxyCommand = /^proxycommand (.*)$/m.exec(stdout)?.[1] ?? '';
  if (!proxyCommand.includes(' ssh --stdio '))
    return [
      makeFinding('warning', 'ssh-not-configured', 'ssh does not know the hosts NAME.cde yet.', {
        ...(proxyCommand && { detail: `Another ProxyCommand comes first: ${proxyCommand}` }),
        hint: 'For ssh, scp, rsync and editors: cde config-ssh   (cde ssh works without)',
      }),
    ];
  return outdatedFindings(context);
}

/** `-G` prints the configuration for a host, and connects to nothing. */
function runSsh(
  context: Context,
  words: string[],
): Promise<{ error: NodeJS.ErrnoException | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const settings = { env: context.env, timeout: sshTimeoutMs, maxBuffer: 1024 * 1024 };
    execFile('ssh', [...words, '-G', 'workspace.cde'], settings, (error, stdout, stderr) =>
      resolve({ error: error as NodeJS.ErrnoException | null, stdout, stderr }),
    );
  });
}

/** The hosts as another cde wrote them, or this one for other servers. */
function outdatedFindings(context: Context): Finding[] {
  const file = join(homedir(), '.ssh', 'cde', 'config');
  const text = readText(file);
  // Included from elsewhere: config-ssh --ssh-config.
  if (text === null) return [];
  const now = [undefined, 'relay', 'direct-tcp', 'direct-udp'].map((path) => hostsContent(context, path));
  if (now.includes(text)) return [];
  const program = /ProxyCommand (?:env (?:\S+=\S+ )*)?(\S+)/.exec(text)?.[1];
  const isGone = program?.startsWith('/') && !existsSync(program);
  return [
    makeFinding(
      isGone ? 'error' : 'warning',
      'ssh-config-outdated',
      isGone
        ? `ssh is configured for a cde that is no longer there: ${program}`
        : 'The hosts of ssh were written by another cde, or before you signed in to a server.',
      { hint: 'Run: cde config-ssh' },
    ),
  ];
}
