/**
 * ssh2 ends a connection with all its channels if a packet exceeds 35,000 bytes. OpenSSH sends a command or an environment
 * variable as a single packet, so long commands exceed that. The limit is a private constant of one file, so its source is
 * patched when it is loaded: by the bundler, or by packet-limit-hook.ts when the agent runs from source.
 */

/** More than the longest command line on Linux (6 MB). */
const maxPacketBytes = 8 * 1024 * 1024;

/** The file of ssh2 with the constant. */
export const limitedFile = /\/ssh2\/lib\/protocol\/crypto\.js$/;

const constant = 'const MAX_PACKET_SIZE = 35000;';

export function withPacketLimit(source: string): string {
  if (!source.includes(constant)) throw new Error(`ssh2 has changed: no “${constant}” in its crypto.js`);
  return source.replace(constant, `const MAX_PACKET_SIZE = ${maxPacketBytes};`);
}
