/**
 * ssh2 ends a connection, with every channel on it, when a packet is longer than 35,000 bytes. OpenSSH puts a whole
 * command, or one variable of the environment, into a single packet, so a long command was enough. The constant is
 * private to one file of ssh2, whose source is therefore changed as it is loaded: by the bundler for the agent, by
 * packet-limit-hook.ts when it runs from source.
 */

/** Longer than any command line that Linux starts (6 MB); a message of the largest size is still refused as a message. */
export const maxPacketBytes = 8 * 1024 * 1024;

/** The file of ssh2 that holds the constant. */
export const limitedFile = /\/ssh2\/lib\/protocol\/crypto\.js$/;

const constant = 'const MAX_PACKET_SIZE = 35000;';

export function withPacketLimit(source: string): string {
  if (!source.includes(constant)) throw new Error(`ssh2 has changed: no “${constant}” in its crypto.js`);
  return source.replace(constant, `const MAX_PACKET_SIZE = ${maxPacketBytes};`);
}
