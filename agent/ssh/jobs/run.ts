import { isUtf8 } from 'node:buffer';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync as closeDescriptor } from 'node:fs';
import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import type { ServerChannel } from 'ssh2';
import type { JobActivity } from '../../activity/job-activity.ts';
import type { OpenTerminal } from '../../activity/open-terminals.ts';
import type { TerminalModes } from '../protocol/requests.ts';
import { prepareCommand } from './command.ts';
import { makeOutput, type Output } from './output.ts';
import type { PipePool } from './pipes.ts';
import { openPty } from './pty.ts';

/** What to run, and where. */
export interface Job {
  shell: string;
  /** Absent: a login shell. */
  command?: Buffer;
  environment: Record<string, string>;
  /** Variables whose values are not UTF-8. */
  rawEnvironment: Record<string, Buffer>;
  folder: string;
  /** Observes what goes in and out. `terminal` is there for jobs in a terminal. */
  observe: (terminal?: OpenTerminal) => JobActivity;
  /** Lets warnings be shown in the job's terminal. */
  openTerminal: (write: (text: string) => void) => OpenTerminal;
}

export interface Terminal {
  columns: number;
  rows: number;
  modes: TerminalModes;
}

/** A job that runs in a channel. */
export interface Running {
  /** Signals the whole process group, as sshd does: `TERM`, `INT`, … Unknown names are ignored. */
  signal(name: string): void;
  resize(columns: number, rows: number): void;
  /** The client does not read output any longer: writers get SIGPIPE, or the terminal is hung up. */
  closeOutput(): void;
  /** The client has disconnected: hangs up the process group and closes its streams. */
  hangUp(): void;
  /** Resolves when the exit status was sent and the channel closed, or the client has disconnected. */
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

/** Sends the exit status after all output, and closes. */
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

/** Pipes the channel to a process's stdin; the rest is discarded when that closes. */
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

/** The program that runs a job: the shell with its command, or a login shell. */
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
    const activity = job.observe();
    channel.on('data', activity.input);
    for (const stream of [stdout, stderr]) stream.on('data', activity.output);
    feed(channel, stdin);
    const carried = [output.carry(stdout, 'stdout'), output.carry(stderr, 'stderr')];
    const exit = await exited;
    pid = undefined;
    // As with sshd, background processes that hold the output keep the channel open.
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

  const shown = job.openTerminal((text) => output.write(text, 'stdout'));
  const activity = job.observe(shown);
  channel.on('data', (chunk: Buffer) => {
    activity.input(chunk);
    channel.pause();
    pty.write(chunk, () => channel.resume());
  });
  pty.output.on('data', (chunk: Buffer) => {
    shown.output(chunk);
    activity.output(chunk);
  });

  async function run() {
    const carried = output.carry(pty.output, 'stdout');
    const exit = await pty.exited;
    alive = false;
    shown.close();
    // The terminal buffers a few kilobytes at most, which are read even if the client is slow; the kernel then reports the
    // end. On macOS a background process can hold the terminal open, which must not keep the session.
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
      // Writing to a terminal cannot fail with EPIPE, so it is hung up.
      if (alive) signalGroup(pty.pid, 'HUP');
      pty.close();
    },
    hangUp() {
      if (gone) return;
      gone = true;
      shown.close();
      output.drop();
      channel.resume();
      // Closing the master hangs up the terminal; the signal is needed if another process holds it open.
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

/** Why a session did not start, and its exit code: 126, as a shell's, if the command cannot be run. */
function startFailure(error: Error): [reason: string, code: number] {
  if (error instanceof ZeroByte) return ['the command contains a zero byte', 126];
  switch ((error as NodeJS.ErrnoException).code) {
    case 'E2BIG':
      return ['the command is too long for this system; put it into a file or pipe it to a shell', 126];
    default:
      return [`cannot run this session: ${error.message}`, 255];
  }
}
