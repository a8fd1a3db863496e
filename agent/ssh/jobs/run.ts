import { isUtf8 } from 'node:buffer';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync as closeDescriptor } from 'node:fs';
import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import type { ServerChannel } from 'ssh2';
import type { TerminalModes } from '../protocol/requests.ts';
import { prepareCommand } from './command.ts';
import { makeOutput, type Output } from './output.ts';
import type { PipePool } from './pipes.ts';
import { openPty } from './pty.ts';

/** What to run, and in what. */
export interface Job {
  shell: string;
  /** Absent: a login shell. */
  command?: Buffer;
  environment: Record<string, string>;
  /** Variables whose values are not UTF-8. */
  rawEnvironment: Record<string, Buffer>;
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
  /** The client reads no more output: whoever writes more is told so, by SIGPIPE or by the terminal's end. */
  closeOutput(): void;
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

class ZeroByte extends Error {}

/** What starts a job's shell: with its command, or as a login shell. */
function jobCommand(job: Job, login: string[], terminal?: Terminal): { file: string; args: string[] } {
  const { command } = job;
  if (command?.includes(0)) throw new ZeroByte();
  const raw = {
    environment: job.rawEnvironment,
    ...(command && !isUtf8(command) ? { command } : {}),
  };
  return prepareCommand(job.shell, command ? ['-c', command.toString()] : login, terminal, raw);
}

/** Runs a job with stdin, stdout and stderr as three pipes. */
export function runPiped(channel: ServerChannel, job: Job, pool: PipePool, login: string[]): Running {
  const output = makeOutput(channel);
  let gone = false;
  let pid: number | undefined;
  let release = () => {};
  let outputClosed = false;
  let closeStdout = () => {};

  async function run() {
    const pipes = await pool.take();
    if (gone) {
      for (const stream of [pipes?.stdin, pipes?.stdout, pipes?.stderr]) stream?.destroy();
      for (const descriptor of pipes?.descriptors ?? []) closeDescriptor(descriptor);
      return;
    }
    const { file, args } = jobCommand(job, login);
    let child: ChildProcess;
    try {
      child = spawn(file, args, {
        cwd: job.folder,
        env: job.environment,
        detached: true,
        stdio: pipes ? pipes.descriptors : 'pipe',
      });
    } catch (error) {
      for (const stream of [pipes?.stdin, pipes?.stdout, pipes?.stderr]) stream?.destroy();
      throw error;
    } finally {
      for (const descriptor of pipes?.descriptors ?? []) closeDescriptor(descriptor);
    }
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
    closeStdout = () => stdout.destroy();
    if (outputClosed) closeStdout();
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
    closeOutput() {
      outputClosed = true;
      output.dropStdout();
      closeStdout();
    },
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
  let gone = false;
  let alive = true;
  let pty: ReturnType<typeof openPty>;
  try {
    const { file, args } = jobCommand(job, login, terminal);
    pty = openPty({ file, args, environment: job.environment, folder: job.folder, ...terminal });
  } catch (error) {
    return {
      signal() {},
      resize() {},
      closeOutput() {},
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
    closeOutput() {
      output.dropStdout();
      // A terminal has no end that a program could meet when it writes: it is hung up.
      if (alive) signalGroup(pty.pid, 'HUP');
      pty.close();
    },
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
  const [reason, code] = startFailure(error);
  output.write(`cde: ${reason}\r\n`, 'stderr');
  await finish(channel, output, { code, signal: null });
}

/** Why a session did not start, and its exit code: that of a shell that cannot run a command, where it is the command. */
function startFailure(error: Error): [reason: string, code: number] {
  if (error instanceof ZeroByte) return ['the command holds a zero byte, which no program can be given', 126];
  switch ((error as NodeJS.ErrnoException).code) {
    case 'E2BIG':
      return [
        'the command is too long for this system; put it into a file, or send it as input of a shell',
        126,
      ];
    default:
      return [`cannot run this session: ${error.message}`, 255];
  }
}
