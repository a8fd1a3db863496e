/**
 * The second secret of the browser session. Browsers send the cookie to every port of the host, so a program on another
 * port receives it; storage belongs to the dashboard's origin, which includes the port.
 */
const name = 'cde-session-key';

/** Null while nobody is signed in. */
export const sessionKey = (): string | null => localStorage.getItem(name);
export const keepSessionKey = (key: string): void => localStorage.setItem(name, key);
export const forgetSessionKey = (): void => localStorage.removeItem(name);

const devicesName = 'cde-devices';
/** For people who share a browser. */
const maxDevices = 10;

/**
 * Keys from earlier sign-ins in this browser. With one, failed attempts of others do not slow down the next sign-in.
 */
export function devices(): string[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(devicesName) ?? '[]');
    return Array.isArray(kept) ? kept.filter((each) => typeof each === 'string') : [];
  } catch {
    return [];
  }
}

/** Each begins with its user's id; only a user's newest one is kept. */
export function keepDevice(device: string): void {
  const user = device.split('.', 1)[0];
  const others = devices().filter((each) => each.split('.', 1)[0] !== user);
  localStorage.setItem(devicesName, JSON.stringify([...others, device].slice(-maxDevices)));
}
