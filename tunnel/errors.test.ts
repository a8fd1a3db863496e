import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { asTunnelError, TunnelError, tunnelErrors } from './errors.ts';
import { relayCloseCodes } from './paths/relay-protocol.ts';

describe('errors', () => {
  it('are all listed in the README, as are the close codes', async () => {
    // Tables are padded by the formatter.
    const readme = (await readFile(new URL('./README.md', import.meta.url), 'utf8')).replace(/ +/g, ' ');
    for (const code of Object.keys(tunnelErrors)) expect(readme, code).toContain(`| \`${code}\` |`);
    for (const [number, code] of Object.entries(relayCloseCodes)) {
      expect(readme, number).toContain(`| ${number} | \`${code}\` |`);
    }
  });

  it('keep what they are and name what they are not', () => {
    const error = new TunnelError('agent-lost');
    expect(asTunnelError(error, 'session-failed')).toBe(error);
    expect(asTunnelError(new Error('why'), 'session-failed')).toMatchObject({
      code: 'session-failed',
      message: 'The session failed: why',
      detail: 'why',
      hint: 'Connect again',
    });
    expect(asTunnelError('text', 'session-failed').detail).toBe('text');
  });
});
