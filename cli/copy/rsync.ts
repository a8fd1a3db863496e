import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { canAsk } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { serverEnvironment } from '../connection/connection.ts';
import { Failure, usage } from '../failure/failure.ts';
import { self } from '../ssh/client-options.ts';
import { fromSshHost, sshHost } from '../workspaces/reference.ts';
import { requireText } from './operands.ts';

/** A shell's "command not found". */
const commandNotFound = 127;
/** The file in which `ssh-for-rsync` reports this to `cde rsync`, because rsync leaves no other channel open. */
const missingVariable = 'CDE_RSYNC_MISSING';
/** Set if a person has typed `cde rsync`, who can be asked on the terminal. rsync gives `ssh-for-rsync` pipes. */
const askVariable = 'CDE_RSYNC_ASK';

/** Runs this machine's rsync with `cde` as its remote shell. */
export async function rsync(context: Context, { words }: { words: string[] }): Promise<number> {
  for (const word of words) requireText(word);
  // rsync treats a name with a slash before the colon as local.
  const args = words.map((word) =>
    word.replace(/^([a-z0-9][a-z0-9-]*\/[a-z0-9][a-z0-9-]*)(?=::?)/i, (reference) => sshHost(reference)),
  );
  if (!args.some((word) => /^[^-/][^/]*:/.test(word)))
    throw usage(
      'No word names a file in a workspace.',
      'Write WORKSPACE:PATH, as in: cde rsync -a src/ web:src/',
    );
  context.leaveInterrupts();
  const folder = await mkdtemp(join(tmpdir(), 'cde-rsync-'));
  try {
    return await run(context, args, join(folder, 'missing'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The file `missing` is created if the workspace has no rsync. */
async function run(context: Context, args: string[], missing: string): Promise<number> {
  const child = spawn('rsync', args, {
    stdio: 'inherit',
    env: {
      ...context.env,
      [missingVariable]: missing,
      ...(canAsk(context) && { [askVariable]: '1' }),
      RSYNC_RSH: [...self, 'ssh-for-rsync'].map(word).join(' '),
      ...serverEnvironment(context.server()),
    },
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        cause.code === 'ENOENT'
          ? new Failure('rsync-missing', 'There is no rsync on this machine.', {
              hint: 'Install it, or copy with: cde cp -r',
              cause,
            })
          : cause,
      ),
    );
    child.once('exit', (exit, signal) =>
      resolve(exit ?? 128 + (signal ? (constants.signals[signal] ?? 0) : 0)),
    );
  });
  // rsync's own exit code depends on which end notices first.
  if (existsSync(missing))
    throw new Failure('rsync-missing', 'There is no rsync in the workspace.', {
      hint: "Install it there (its template's image should have it), or copy with: cde cp -r",
    });
  return code;
}

/** rsync splits the command at spaces and supports quotes. */
const word = (text: string) =>
  /[\s'"]/.test(text) ? (text.includes('"') ? `'${text}'` : `"${text}"`) : text;

/** The remote shell of rsync, called like ssh: `[-l USER] HOST COMMAND…`. */
export async function sshForRsync(context: Context, { words }: { words: string[] }): Promise<number> {
  const rest = [...words];
  while (rest[0]?.startsWith('-')) {
    // The user is always the workspace's.
    if (rest.shift() === '-l') rest.shift();
  }
  const host = rest.shift();
  if (!host) throw usage('rsync calls this with a host.');
  const { connectSsh } = await import('../ssh/ssh.ts');
  const { askOnTerminal } = await import('../ssh/person.ts');
  const { reference, alias } = fromSshHost(host.replace(/^[^@]*@/, ''));
  const missing = context.env[missingVariable];
  const run = await connectSsh(alias === undefined ? context : context.forServer(alias), {
    workspace: reference,
    command: rest,
    // Without a terminal the answer is no; the hint of `ask: null` names an option that rsync does not have.
    start: {
      ask: async (question) =>
        context.env[askVariable] !== undefined && (await askOnTerminal(question, context.signal)),
    },
    withoutTty: true,
  });
  const code = await run();
  if (code === commandNotFound && missing) await writeFile(missing, '');
  return code;
}
