import { spawn } from 'node:child_process';
import { closeSync as closeDescriptor } from 'node:fs';
import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import type { ServerChannel } from 'ssh2';
import { prepareCommand } from './command.ts';
import type { TerminalModes } from './gaps.ts';
import { makeOutput, type Output } from './output.ts';
import type { PipePool } from './pipes.ts';
import { openPty } from './pty.ts';

/** What to run, and in what. */
export interface Job {
  shell: string;
  /** Absent: a login shell. */
  command?: string;
  environment: Record<string, string>;
  folder: string;
}

export interface Terminal {
  columns: number;
  rows: number;
  modes: TerminalModes;
}

/** A job that runs in a channel. */
export interface Running {
  /** To the whole process group, as sshd does: `TERM`, `INT`, …; names unknown to the system do nothing. */
  signal(name: string): void;
  resize(columns: number, rows: number): void;
  /** The client is gone: hangs up the process group and lets go of its streams. */
  hangUp(): void;
  /** Resolves when the channel is closed with the exit status sent, or the client is gone. */
  done: Promise<void>;
}

export function signalGroup(pid: number, name: string): void {
  if (!(`SIG${name}` in constants.signals)) return;
  try {
    process.kill(-pid, `SIG${name}`);
  } catch {
    // The group has ended.
  }
}

export function signalName(number: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
}

/** The signals that SSH can name (RFC 4254, 6.10). */
const sshSignals = /^SIG(ABRT|ALRM|FPE|HUP|ILL|INT|KILL|PIPE|QUIT|SEGV|TERM|USR1|USR2)$/;

/** Tells the client how it ended, after all output, and closes. */
async function finish(
  channel: ServerChannel,
  output: Output,
  exit: { code: number | null; signal: string | null },
): Promise<void> {
  await output.drained();
  finishChannel(channel, exit);
}

/** Sends the exit status and closes. */
export function finishChannel(
  channel: ServerChannel,
  exit: { code: number | null; signal: string | null },
): void {
  if (exit.signal && sshSignals.test(exit.signal)) {
    channel.exit(exit.signal.slice(3), false, '');
  } else if (exit.signal) {
    const number = constants.signals[exit.signal as NodeJS.Signals];
    channel.exit(128 + (number ?? 0));
  } else {
    channel.exit(exit.code ?? 255);
  }
  channel.end();
}

/** Feeds the channel's data to a process; when that reads no more, the rest is thrown away. */
function feed(channel: ServerChannel, stdin: Writable): void {
  channel.pipe(stdin);
  const discard = () => {
    channel.unpipe(stdin);
    channel.resume();
  };
  stdin.on('error', discard);
  stdin.on('close', discard);
}

/** Runs a job with stdin, stdout and stderr as three pipes. */
export function runPiped(channel: ServerChannel, job: Job, pool: PipePool, login: string[]): Running {
  const output = makeOutput(channel);
  let gone = false;
  let pid: number | undefined;
  let release = () => {};

  async function run() {
    const pipes = await pool.take();
    if (gone) {
      for (const stream of [pipes?.stdin, pipes?.stdout, pipes?.stderr]) stream?.destroy();
      for (const descriptor of pipes?.descriptors ?? []) closeDescriptor(descriptor);
      return;
    }
    const { file, args } = prepareCommand(job.shell, job.command === undefined ? login : ['-c', job.command]);
    const child = spawn(file, args, {
      cwd: job.folder,
      env: job.environment,
      detached: true,
      stdio: pipes ? pipes.descriptors : 'pipe',
    });
    for (const descriptor of pipes?.descriptors ?? []) closeDescriptor(descriptor);
    pid = child.pid;
    const stdin = pipes?.stdin ?? child.stdin!;
    const stdout = pipes?.stdout ?? child.stdout!;
    const stderr = pipes?.stderr ?? child.stderr!;
    let alive = true;
    const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
      child.once('error', (error) => {
        output.write(`cde: cannot start ${job.shell}: ${error.message}\n`, 'stderr');
        resolve({ code: 127, signal: null });
      });
    }).finally(() => {
      alive = false;
      stdin.destroy();
    });
    release = () => {
      if (alive && pid !== undefined) signalGroup(pid, 'HUP');
      stdin.destroy();
      stdout.destroy();
      stderr.destroy();
    };
    feed(channel, stdin);
    const carried = [output.carry(stdout, 'stdout'), output.carry(stderr, 'stderr')];
    const exit = await exited;
    pid = undefined;
    // As with sshd, what it left running in the background holds the channel while it holds the output.
    await Promise.all(carried);
    if (!gone) await finish(channel, output, exit);
  }

  return {
    signal(name) {
      if (pid !== undefined) signalGroup(pid, name);
    },
    resize() {},
    hangUp() {
      if (gone) return;
      gone = true;
      output.drop();
      channel.resume();
      release();
    },
    done: run().catch((error: Error) => fail(channel, output, error)),
  };
}

/** Runs a job in a terminal of its own. */
export function runInTerminal(
  channel: ServerChannel,
  job: Job,
  terminal: Terminal,
  login: string[],
): Running {
  const output = makeOutput(channel);
  const { file, args } = prepareCommand(
    job.shell,
    job.command === undefined ? login : ['-c', job.command],
    terminal,
  );
  let gone = false;
  let alive = true;
  let pty: ReturnType<typeof openPty>;
  try {
    pty = openPty({ file, args, environment: job.environment, folder: job.folder, ...terminal });
  } catch (error) {
    return {
      signal() {},
      resize() {},
      hangUp() {},
      done: fail(channel, output, error as Error),
    };
  }

  channel.on('data', (chunk: Buffer) => {
    channel.pause();
    pty.write(chunk, () => channel.resume());
  });

  async function run() {
    const carried = output.carry(pty.output, 'stdout');
    const exit = await pty.exited;
    alive = false;
    // The terminal holds a few kilobytes at most. They are read now whatever the client does, and the
    // kernel then reports the end; a process that still holds the terminal on a system that does not
    // hang it up (macOS) must not keep the session.
    const drain = setInterval(() => pty.output.resume(), 20);
    const giveUp = setTimeout(() => pty.close(), 1000);
    await carried;
    clearInterval(drain);
    clearTimeout(giveUp);
    pty.close();
    if (gone) return;
    await finish(channel, output, {
      code: exit.code,
      signal: exit.signal ? (signalName(exit.signal) ?? null) : null,
    });
  }

  return {
    signal(name) {
      if (alive) signalGroup(pty.pid, name);
    },
    resize: pty.resize,
    hangUp() {
      if (gone) return;
      gone = true;
      output.drop();
      channel.resume();
      // Closing our end hangs up the terminal; the signal is for the case that another process holds it.
      if (alive) signalGroup(pty.pid, 'HUP');
      pty.close();
    },
    done: run().catch((error: Error) => fail(channel, output, error)),
  };
}

async function fail(channel: ServerChannel, output: Output, error: Error): Promise<void> {
  output.write(`cde: cannot run this session: ${error.message}\r\n`, 'stderr');
  await finish(channel, output, { code: 255, signal: null });
}
