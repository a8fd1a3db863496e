import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { Agent } from 'node:http';
import { Duplex, type Readable, type Writable } from 'node:stream';
import type { EngineAddress } from '../../engine-address.ts';

/** The code of the errors of this file: the engine gave no answer. */
export const sshErrorCode = 'ERR_DOCKER_SSH';

/** A call on a connection that is kept open takes as long as on a Unix socket; a new connection takes a second. */
const idleTimeoutMs = 60_000;
const maxIdleConnections = 8;
/** sshd drops connections at random while ten others are not yet authenticated (MaxStartups). */
const maxOpening = 4;
/** A connection that has answered nothing by then is taken to be open: some calls take long. */
const maxOpeningMs = 3_000;
const maxErrorBytes = 4096;

const baseOptions = {
  BatchMode: 'yes',
  // Whatever the user's own configuration says: who controls the engine controls every workspace on it.
  StrictHostKeyChecking: 'yes',
  ConnectTimeout: 10,
  // Otherwise a connection through a network that is gone hangs until TCP gives up.
  ServerAliveInterval: 15,
  ServerAliveCountMax: 3,
  LogLevel: 'ERROR',
};

/** The words that connect to the engine, as the `docker` command does it: what comes in on stdin goes to its socket. */
function commandLine({ url, sshOptions: more = [] }: EngineAddress): string[] {
  const { username, hostname, port, pathname } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, '');
  const socket = pathname.length > 1 ? ['--host', `unix://${pathname}`] : [];
  return [
    ...Object.entries(baseOptions).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    ...more,
    ...(username ? ['-l', username] : []),
    ...(port ? ['-p', port] : []),
    ...['-T', '--', host, 'docker', ...socket, 'system', 'dial-stdio'],
  ];
}

/**
 * An HTTP agent whose connections go through the system's OpenSSH, so that its configuration, keys, agents and known hosts
 * apply. Each connection that is kept open is one process of it.
 */
export function makeSshAgent(engine: EngineAddress): Agent {
  const { username, host } = new URL(engine.url);
  const destination = `${username ? `${username}@` : ''}${host}`;
  const words = commandLine(engine);
  const agent = new Agent({
    keepAlive: true,
    maxFreeSockets: maxIdleConnections,
    timeout: idleTimeoutMs,
    // So that those that are not needed become idle.
    scheduling: 'lifo',
  });
  const waiting: (() => void)[] = [];
  let opening = 0;

  function open(use: (error: Error | null, stream: Duplex) => void): void {
    opening++;
    const stream = streamOf(spawn('ssh', words, { stdio: ['pipe', 'pipe', 'pipe'] }), destination);
    const opened = once(() => {
      clearTimeout(timer);
      opening--;
      waiting.shift()?.();
    });
    const timer = setTimeout(opened, maxOpeningMs).unref();
    stream.once('first-answer', opened).once('close', opened);
    use(null, stream);
  }
  agent.createConnection = (_options, use) => {
    const begin = () => open(use!);
    if (opening < maxOpening) begin();
    else waiting.push(begin);
    return undefined;
  };
  return agent;
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    work();
  };
}

/** The two pipes of a program as the socket that Node's HTTP client expects. */
function streamOf(program: ChildProcessByStdio<Writable, Readable, Readable>, destination: string): Duplex {
  const { stdin, stdout, stderr } = program;
  let said = '';
  let timer: NodeJS.Timeout | undefined;
  let timeoutMs = 0;
  const touch = () => {
    clearTimeout(timer);
    if (timeoutMs > 0) timer = setTimeout(() => stream.emit('timeout'), timeoutMs).unref();
  };
  const stream = new Duplex({
    read: () => void stdout.resume(),
    write(chunk, _encoding, done) {
      touch();
      // If the program has ended, its exit says why.
      if (stdin.destroyed) done();
      else stdin.write(chunk, () => done());
    },
    final: (done) => void stdin.end(() => done()),
    destroy(error, done) {
      clearTimeout(timer);
      program.kill();
      done(error);
    },
  });
  const setTimeoutOf = (ms: number) => {
    timeoutMs = ms;
    Object.assign(stream, { timeout: ms });
    touch();
    return stream;
  };
  const noEffect = () => stream;
  Object.assign(stream, {
    setTimeout: setTimeoutOf,
    setNoDelay: noEffect,
    setKeepAlive: noEffect,
    ref: noEffect,
    unref: noEffect,
  });
  const fail = (message: string) => stream.destroy(Object.assign(new Error(message), { code: sshErrorCode }));

  stdin.on('error', () => {});
  stdout.once('data', () => stream.emit('first-answer'));
  stdout.on('data', (chunk: Buffer) => {
    touch();
    if (!stream.push(chunk)) stdout.pause();
  });
  stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-maxErrorBytes);
  });
  program.on('error', ({ message }) => fail(`OpenSSH (ssh) cannot be run on the server: ${message}`));
  program.on('close', (code) => {
    if (stream.destroyed) return;
    if (code === 0) stream.push(null);
    else fail(explainSshFailure(said, code, destination));
  });
  return stream;
}

const failures: [pattern: RegExp, explain: (destination: string) => string][] = [
  [
    /remote host identification has changed|host key .*has changed/i,
    (to) =>
      `the host key of ${to} is not the one in known_hosts. Either it was reinstalled, or another machine answers in its place`,
  ],
  [
    /host key verification failed|host key is known for/i,
    (to) =>
      `the host key of ${to} is not known here. Run "ssh ${to}" once as the user of the server, and compare the fingerprint`,
  ],
  [
    /permission denied.*(docker|unix|socket)|connect: permission denied/i,
    (to) => `Docker does not permit the user of ${to} to use it. Add the user to the group docker there`,
  ],
  [
    /permission denied \(|too many authentication failures|no more authentication methods/i,
    (to) =>
      `${to} refused the SSH key. Put a public key of the user of the server into its authorized_keys; keys with a passphrase need an SSH agent`,
  ],
  [/could not resolve hostname/i, (to) => `the host name of ${to} cannot be resolved`],
  [
    /docker: .*not found|docker: no such file|not found: docker/i,
    (to) => `there is no docker command on ${to}. Install Docker there, with its command line`,
  ],
  [/dial-stdio.*not a docker command/i, (to) => `the docker command on ${to} is older than 18.09`],
  [
    /raw stream connection|cannot connect to the docker daemon|docker daemon running/i,
    (to) => `Docker does not run on ${to}`,
  ],
];

/** Why the connection could not be made, in words without a full stop, as the other errors of connections. */
export function explainSshFailure(said: string, code: number | null, destination: string): string {
  const known = failures.find(([pattern]) => pattern.test(said));
  const lines = said.trim().split('\n');
  const last = lines.at(-1)!.trim().replace(/\.$/, '');
  if (!known)
    return code === 255 || code === null
      ? `there is no SSH connection to ${destination}${last && `: ${last}`}`
      : `docker system dial-stdio on ${destination} ended with code ${code}${last && `: ${last}`}`;
  return `${known[1](destination)} (${last})`;
}
