import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  bwrapCommand,
  bwrapOptions,
  type Enclosed,
  enterScript,
  plainCommand,
  type Tools,
  unshareCommand,
} from './commands.ts';
import { findProgram, planEnclosure } from './enclosure.ts';
import { detectNetwork, type Network, type NetworkKind } from './network.ts';
import { seccompFilter } from './seccomp.ts';
import { trialUid } from './uids.ts';

const run = promisify(execFile);

export type Level = 'bwrap' | 'unshare' | 'none';

/** How workspaces are isolated from this machine, determined by trying it. */
export interface Isolation {
  level: Level;
  /** False: the requested level does not work here. */
  available: boolean;
  /** As root: each workspace runs as its own host uid. */
  ownUid: boolean;
  /** Whether a user namespace maps the user inside to 1000. */
  userNamespace: boolean;
  /** The seccomp filter of every process in a workspace; null for none. */
  seccompFilter: Uint8Array | null;
  tools: Tools;
  network: Network;
  /** One sentence for the status. */
  sentence: string;
  /** Why the better levels are not used. */
  refused: string[];
}

export const workspacePath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The whole command for a level. `runDir` is where the bwrap level keeps its options and filter, the unshare level its script and empty root. */
export async function enclose(
  level: Level,
  enclosed: Enclosed,
  runDir: string,
  command: string[],
): Promise<string[]> {
  if (level === 'none') return plainCommand(enclosed.tools, command);
  // Two servers may write it at once, with the same content and atomically.
  const write = async (name: string, content: string | Uint8Array) => {
    const path = join(runDir, name);
    const staged = `${path}.${randomUUID()}`;
    await writeFile(staged, content);
    await rename(staged, path);
    return path;
  };
  if (level === 'bwrap') {
    const options = bwrapOptions(enclosed).map((word) => `${word}\0`);
    const files = {
      options: await write('bwrap.options', options.join('')),
      filter: enclosed.seccompFilter && (await write('seccomp.bpf', enclosed.seccompFilter)),
    };
    return bwrapCommand(enclosed, files, command);
  }
  const root = join(runDir, 'root');
  await mkdir(root, { recursive: true });
  return unshareCommand(enclosed, await write('enter.sh', enterScript(enclosed, root)), command);
}

/** Tries the level by writing a file in a home under it. Returns the reason if that fails. */
async function attempt(
  level: 'bwrap' | 'unshare',
  userNamespace: boolean,
  filter: Uint8Array | null,
  tools: Tools,
  dataDir: string,
): Promise<string | null> {
  if (!tools[level]) return `${level} is not installed`;
  const uid = trialUid();
  if (process.getuid?.() === 0 && uid === null) return 'this root may not give files to other users';
  if ((level === 'unshare' || uid !== null) && !tools.setpriv) return 'setpriv is not installed';
  if ((level === 'unshare' || uid !== null) && userNamespace && !tools.unshare)
    return 'unshare is not installed';
  const folder = await mkdtemp(join(dataDir, 'run', 'trial-'));
  try {
    const home = join(folder, 'home');
    await mkdir(home, { mode: 0o700 });
    if (uid !== null) await chown(home, uid, uid);
    const enclosed: Enclosed = {
      mounts: planEnclosure({ home: { from: home, to: '/home/trial' }, etc: {}, readOnlyPaths: [], dataDir }),
      home: '/home/trial',
      hostname: 'trial',
      hostUid: uid,
      userNamespace,
      seccompFilter: filter,
      tools,
    };
    const words = await enclose(level, enclosed, folder, [
      '/bin/sh',
      '-c',
      'echo fine > /home/trial/trial && echo > /dev/null && [ -e /proc/self/stat ]',
    ]);
    await run(words[0]!, words.slice(1), {
      env: { PATH: workspacePath },
      timeout: 10_000,
      killSignal: 'SIGKILL',
    });
    return (await readFile(join(home, 'trial'), 'utf8')) === 'fine\n' ? null : 'the home was not written';
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    return stderr?.trim().split('\n').at(-1) || message.split('\n')[0]!;
  } finally {
    await chmod(folder, 0o700).catch(() => {});
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Returns the best level that works here. If `asked` is neither auto nor none, returns that level even if it does not
 * work; `refused` then says why.
 */
export async function detectIsolation(
  asked: 'auto' | Level,
  dataDir: string,
  find: (program: string) => string | null = findProgram,
  askedNetwork: 'auto' | NetworkKind = 'auto',
): Promise<Isolation> {
  const linux = process.platform === 'linux';
  const tools: Tools = {
    bwrap: linux ? find('bwrap') : null,
    unshare: linux ? find('unshare') : null,
    setpriv: linux ? find('setpriv') : null,
  };
  const root = process.getuid?.() === 0;
  const refused: string[] = [];
  if (linux && asked !== 'none') await mkdir(join(dataDir, 'run'), { recursive: true, mode: 0o700 });
  for (const level of ['bwrap', 'unshare'] as const) {
    if (!linux || (asked !== 'auto' && asked !== level)) continue;
    // As root the uid alone already separates workspaces; without root, everything else requires a user namespace.
    for (const userNamespace of root ? [true, false] : [true]) {
      let filter = level === 'bwrap' ? seccompFilter() : null;
      let reason = await attempt(level, userNamespace, filter, tools, dataDir);
      if (filter && reason?.includes('PR_SET_SECCOMP')) {
        // The kernel has no seccomp; everything else may work.
        refused.push(`seccomp filter: ${reason}`);
        filter = null;
        reason = await attempt(level, userNamespace, filter, tools, dataDir);
      }
      if (reason === null) {
        const namespaces = `its own mount, PID, IPC${userNamespace ? ', UTS and user' : ' and UTS'} namespaces`;
        const who = root ? 'its own unprivileged host user' : "the server's user";
        const network = await detectNetwork(askedNetwork, true, find);
        const calls = filter ? 'with' : 'without';
        const sentence = `${level}: ${namespaces}; runs as ${who}, without capabilities and ${calls} a seccomp filter. ${network.sentence}`;
        return {
          ...{ level, available: true, ownUid: root, userNamespace, seccompFilter: filter },
          ...{ tools, network, sentence, refused },
        };
      }
      if (!refused.includes(`${level}: ${reason}`)) refused.push(`${level}: ${reason}`);
    }
  }
  const level = asked === 'auto' ? 'none' : asked;
  const why = !linux
    ? `${process.platform} has none of the namespaces it takes`
    : asked === 'none'
      ? 'the configuration says so'
      : refused.join('; ');
  const sentence = `none: a plain process tree as ${root ? 'root' : "the server's user"}, which can read and write everything that this user can (${why}).`;
  return {
    level,
    available: level === 'none',
    ownUid: false,
    userNamespace: false,
    seccompFilter: null,
    tools,
    network: await detectNetwork('shared', false, find),
    sentence,
    refused,
  };
}

export const shellOf = (): string => (existsSync('/bin/bash') ? '/bin/bash' : '/bin/sh');
