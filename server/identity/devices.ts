import { createHmac, timingSafeEqual } from 'node:crypto';
import { v7 } from 'uuid';

const idPattern = /^[0-9a-f-]{36}$/;

/**
 * Device tokens: what a browser keeps of its sign-ins. One authenticates nobody; it says that this browser has signed in as
 * that user before, so the failures of others do not slow it (server/identity/sign-in-throttle.ts).
 */
export function makeDevices(key: Buffer) {
  const sign = (text: string) => createHmac('sha256', key).update(text).digest('base64url');
  return {
    make(userId: string): string {
      const text = `${userId}.${v7()}`;
      return `${text}.${sign(text)}`;
    },
    /** The id of the device whose token for this user is among those; null: none is. */
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
