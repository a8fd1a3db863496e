import { existsSync } from 'node:fs';
import type { TerminalModes } from '../protocol/requests.ts';
import { openTerminals } from './pty.ts';

/**
 * The modes of a new terminal from node-pty, with the opcodes of RFC 4254, section 8, and stty's names. Only modes of the
 * client that differ are applied.
 */
const flags: [opcode: number, name: string, on: boolean][] = [
  [30, 'ignpar', false],
  [31, 'parmrk', false],
  [32, 'inpck', false],
  [33, 'istrip', false],
  [34, 'inlcr', false],
  [35, 'igncr', false],
  [36, 'icrnl', true],
  [38, 'ixon', true],
  [39, 'ixany', true],
  [40, 'ixoff', false],
  [50, 'isig', true],
  [51, 'icanon', true],
  [53, 'echo', true],
  [54, 'echoe', true],
  [55, 'echok', true],
  [56, 'echonl', false],
  [57, 'noflsh', false],
  [58, 'tostop', false],
  [59, 'iexten', true],
  [60, 'echoctl', true],
  [61, 'echoke', true],
  [70, 'opost', true],
  [72, 'onlcr', true],
  [73, 'ocrnl', false],
  [74, 'onocr', false],
  [75, 'onlret', false],
];
const characters: [opcode: number, name: string, value: number][] = [
  [1, 'intr', 3],
  [2, 'quit', 28],
  [3, 'erase', 127],
  [4, 'kill', 21],
  [5, 'eof', 4],
  [8, 'start', 17],
  [9, 'stop', 19],
  [10, 'susp', 26],
  [12, 'rprnt', 18],
  [13, 'werase', 23],
  [14, 'lnext', 22],
];

/** The stty arguments that apply a client's modes to a new terminal; empty if they already match. */
export function sttyArguments(modes: TerminalModes): string[] {
  const changes: string[] = [];
  for (const [opcode, name, on] of flags) {
    const wanted = modes.get(opcode);
    if (wanted !== undefined && (wanted !== 0) !== on) changes.push(on ? `-${name}` : name);
  }
  for (const [opcode, name, value] of characters) {
    const wanted = modes.get(opcode);
    if (wanted === undefined || wanted === value || wanted > 255) continue;
    changes.push(name, wanted === 255 || wanted === 0 ? 'undef' : characterName(wanted));
  }
  // node-pty sets eol and eol2 to 0xFF, which only macOS treats as undefined.
  if (changes.length > 0) changes.push('eol', 'undef', 'eol2', 'undef');
  return changes;
}

/** A character in stty's notation: `^H` for control characters, otherwise its number. */
function characterName(code: number): string {
  if (code === 127) return '^?';
  return code < 32 ? `^${String.fromCharCode(code + 64)}` : String(code);
}

const bash = ['/bin/bash', '/usr/bin/bash'].find((path) => existsSync(path));

/** Input that is not UTF-8, which Node cannot pass to a process. */
export interface RawInput {
  /** Replaces the last argument. */
  command?: Buffer;
  environment?: Record<string, Buffer>;
}

/**
 * Wraps `file` in a shell that sets up what only the new process can: SSH_TTY and the client's terminal modes, bytes that
 * are not UTF-8, and closing the terminals of other sessions (node-pty leaves them inheritable, and a daemon that held one
 * would keep it from being hung up). Returns `file` itself if nothing is needed.
 */
export function prepareCommand(
  file: string,
  args: string[],
  terminal?: { modes: TerminalModes },
  raw: RawInput = {},
): { file: string; args: string[] } {
  const steps: string[] = [];
  let shell = '/bin/sh';
  for (const [name, value] of Object.entries(raw.environment ?? {})) {
    steps.push(assignBytes(name, value), `export ${name}`);
  }
  if (terminal) {
    const changes = sttyArguments(terminal.modes);
    if (changes.length > 0) steps.push(`stty ${changes.join(' ')} 2>/dev/null`);
    steps.push('SSH_TTY=$(tty 2>/dev/null) && export SSH_TTY');
  }
  if (openTerminals.size > 0 && bash) {
    // Other shells support only one-digit descriptors.
    shell = bash;
    steps.push(`exec ${[...openTerminals].map((descriptor) => `${descriptor}>&-`).join(' ')}`);
  }
  if (steps.length === 0 && !raw.command) return { file, args };
  if (raw.command) {
    const variable = 'cde_command';
    steps.push(
      assignBytes(variable, raw.command),
      `set -- "$@" "$${variable}"`,
      `unset ${variable}`,
      'exec "$0" "$@"',
    );
    return { file: shell, args: ['-c', steps.join('; '), file, ...args.slice(0, -1)] };
  }
  steps.push('exec "$0" "$@"');
  return { file: shell, args: ['-c', steps.join('; '), file, ...args] };
}

/** Shell code that sets a variable to these bytes. The extra letter protects trailing newlines, which substitution strips. */
function assignBytes(name: string, bytes: Buffer): string {
  let format = '';
  for (const byte of bytes) {
    const isPlain = byte >= 0x20 && byte < 0x7f && !`%\\'`.includes(String.fromCharCode(byte));
    format += isPlain ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`;
  }
  return `${name}=$(printf '${format}x'); ${name}=\${${name}%x}`;
}
