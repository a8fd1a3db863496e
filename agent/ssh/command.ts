import { existsSync } from 'node:fs';
import { openTerminals } from './pty.ts';

/**
 * How a new terminal from node-pty stands, by the names of RFC 4254, section 8. A client's modes are
 * applied where they differ.
 */
const flags: Record<string, [name: string, on: boolean]> = {
  IGNPAR: ['ignpar', false],
  PARMRK: ['parmrk', false],
  INPCK: ['inpck', false],
  ISTRIP: ['istrip', false],
  INLCR: ['inlcr', false],
  IGNCR: ['igncr', false],
  ICRNL: ['icrnl', true],
  IXON: ['ixon', true],
  IXANY: ['ixany', true],
  IXOFF: ['ixoff', false],
  ISIG: ['isig', true],
  ICANON: ['icanon', true],
  ECHO: ['echo', true],
  ECHOE: ['echoe', true],
  ECHOK: ['echok', true],
  ECHONL: ['echonl', false],
  NOFLSH: ['noflsh', false],
  TOSTOP: ['tostop', false],
  IEXTEN: ['iexten', true],
  ECHOCTL: ['echoctl', true],
  ECHOKE: ['echoke', true],
  OPOST: ['opost', true],
  ONLCR: ['onlcr', true],
  OCRNL: ['ocrnl', false],
  ONOCR: ['onocr', false],
  ONLRET: ['onlret', false],
};
const characters: Record<string, [name: string, value: number]> = {
  VINTR: ['intr', 3],
  VQUIT: ['quit', 28],
  VERASE: ['erase', 127],
  VKILL: ['kill', 21],
  VEOF: ['eof', 4],
  VSTART: ['start', 17],
  VSTOP: ['stop', 19],
  VSUSP: ['susp', 26],
  VREPRINT: ['rprnt', 18],
  VWERASE: ['werase', 23],
  VLNEXT: ['lnext', 22],
};

/** The arguments that bring a new terminal to a client's modes; empty when it stands so already. */
export function sttyArguments(modes: Record<string, number | undefined>): string[] {
  const changes: string[] = [];
  for (const [mode, [name, on]] of Object.entries(flags)) {
    const wanted = modes[mode];
    if (wanted !== undefined && (wanted !== 0) !== on) changes.push(on ? `-${name}` : name);
  }
  for (const [mode, [name, value]] of Object.entries(characters)) {
    const wanted = modes[mode];
    if (wanted === undefined || wanted === value || wanted > 255) continue;
    changes.push(name, wanted === 255 || wanted === 0 ? 'undef' : characterName(wanted));
  }
  return changes;
}

/** A control character as stty reads it: `^H`; all others by their number. */
function characterName(code: number): string {
  if (code === 127) return '^?';
  return code < 32 ? `^${String.fromCharCode(code + 64)}` : String(code);
}

const bash = ['/bin/bash', '/usr/bin/bash'].find((path) => existsSync(path));

/**
 * The program to start so that `file` runs with what only the process itself can arrange: SSH_TTY and the
 * client's terminal modes, and the terminals of other sessions closed (node-pty leaves them inheritable; a
 * daemon that kept one would keep that terminal from being hung up). Without need it is `file` itself.
 */
export function prepareCommand(
  file: string,
  args: string[],
  terminal?: { modes: Record<string, number | undefined> },
): { file: string; args: string[] } {
  const steps: string[] = [];
  let shell = '/bin/sh';
  if (terminal) {
    const changes = sttyArguments(terminal.modes);
    if (changes.length > 0) steps.push(`stty ${changes.join(' ')} 2>/dev/null`);
    steps.push('SSH_TTY=$(tty 2>/dev/null) && export SSH_TTY');
  }
  if (openTerminals.size > 0 && bash) {
    // Other shells know descriptors of one digit only.
    shell = bash;
    steps.push(`exec ${[...openTerminals].map((descriptor) => `${descriptor}>&-`).join(' ')}`);
  }
  if (steps.length === 0) return { file, args };
  steps.push('exec "$0" "$@"');
  return { file: shell, args: ['-c', steps.join('; '), file, ...args] };
}
