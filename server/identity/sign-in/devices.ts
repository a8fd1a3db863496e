import { createHmac, timingSafeEqual } from 'node:crypto';
import { v7 } from 'uuid';

const idPattern = /^[0-9a-f-]{36}$/;

/**
 * Device tokens prove that a browser has signed in as a user before, so that failed attempts from elsewhere do not slow it
 * down (server/identity/sign-in/sign-in-throttle.ts). They do not authenticate.
 */
export function makeDevices(key: Buffer) {
  const sign = (text: string) => createHmac('sha256', key).update(text).digest('base64url');
  return {
    make(userId: string): string {
      const text = `${userId}.${v7()}`;
      return `${text}.${sign(text)}`;
    },
    /** The device id of the first valid token for this user, or null. */
    find(tokens: readonly string[], userId: string): string | null {
      for (const token of tokens) {
        const [user = '', device = '', given = '', ...more] = token.split('.');
        if (user !== userId || !idPattern.test(device) || more.length > 0) continue;
        const [expected, signature] = [Buffer.from(sign(`${user}.${device}`)), Buffer.from(given)];
        if (expected.length === signature.length && timingSafeEqual(expected, signature)) return device;
      }
      return null;
    },
  };
}

export type Devices = ReturnType<typeof makeDevices>;
