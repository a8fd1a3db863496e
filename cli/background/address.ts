import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { homedir, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from '../command/context.ts';
import { configDir } from '../config/config.ts';

/** The maximum length of a Unix socket path on all systems, less what a temporary name adds. */
const maxAddressBytes = 90;

/** A folder for sockets that only its owner can enter; null if none can be created. */
function folder(env: NodeJS.ProcessEnv): string | null {
  const choices = [
    ...(env.XDG_RUNTIME_DIR ? [join(env.XDG_RUNTIME_DIR, 'cde')] : []),
    join(configDir(env), 'run'),
    join(tmpdir(), `cde-${userInfo().uid}`),
  ];
  for (const path of choices) {
    if (Buffer.byteLength(path) > maxAddressBytes - 24) continue;
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      const { mode, uid } = lstatSync(path);
      // In a folder that others can write to, another user could accept our connections.
      if ((mode & 0o170077) === 0o040000 && uid === process.getuid!()) return path;
    } catch {
      // For example a read-only home: try the next one.
    }
  }
  return null;
}

/**
 * The address of the background process for this cde, configuration, server and login; null if there can be none: on
 * Windows, with `CDE_BACKGROUND=off`, or without a private folder. It changes with a new login or another version of
 * cde.
 */
export function backgroundAddress(context: Pick<Context, 'env' | 'server'>): string | null {
  const { env } = context;
  if (process.platform === 'win32' || env.CDE_BACKGROUND === 'off') return null;
  const { url, token } = context.server();
  if (!token) return null;
  const root = fileURLToPath(new URL('../', import.meta.url));
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const of = [root, version, configDir(env), env.HOME || homedir(), url, token].join('\0');
  const path = folder(env);
  return path && join(path, `${createHash('sha256').update(of).digest('hex').slice(0, 16)}.sock`);
}
